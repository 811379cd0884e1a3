"""`patchcore-course doctor`: it sees what is wrong, says what helps, and changes nothing."""

import builtins
import json
import os
from pathlib import Path

import psutil
import pytest
import torch

from patchcore_helpers.app import doctor
from patchcore_helpers.core.backbones import REGISTRY
from patchcore_helpers.core.engines import base


@pytest.mark.long
def test_the_command_looks_at_everything(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATCHCORE_CACHE", str(tmp_path / "cache"))
    status, output, errors = run("doctor", "--json")
    assert (status, errors) == (0, [])
    findings = {found["what"]: found for found in json.loads(output[-1])["findings"]}
    assert {"memory", "disk", "processor", "threads", "engine", "speed", "cache"} <= set(findings)
    assert str(tmp_path / "cache") in findings["cache"]["value"]
    assert findings["engine"]["value"].startswith("openvino")
    assert float(findings["speed"]["value"].split()[0]) > 0
    assert f"{os.cpu_count()} cores" in findings["processor"]["value"]
    assert torch.__version__.split("+")[0] in findings["packages"]["value"]


@pytest.mark.long
def test_a_line_of_advice_follows_what_is_not_good(run, monkeypatch):
    slow = doctor.Finding("memory", "1.0 GB free", doctor.SHORT, "close other programs")
    monkeypatch.setattr(doctor, "examine", lambda: [slow, doctor.Finding("disk", "9 GB")])
    status, output, _ = run("doctor")
    assert status == 0
    assert output == [
        "short   memory: 1.0 GB free",
        "        -> close other programs",
        "good    disk: 9 GB",
        "2 things looked at, 1 of them worth a look",
    ]


@pytest.mark.long
def test_without_openvino_the_engine_is_slow_and_says_why(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith(("openvino", "patchcore_helpers.core.engines.openvino_engine")):
            raise ImportError("No module named 'openvino'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr(base, "_warned", set())
    engine, speed = doctor.engine_and_speed()
    assert engine.verdict == doctor.SLOW and "pip install openvino" in engine.advice
    assert "images a second" in speed.value


def test_a_cache_that_cannot_be_made_is_said(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("in the way")
    monkeypatch.setenv("PATCHCORE_CACHE", str(file))
    (finding,) = doctor.disk_and_cache()
    assert finding.verdict == doctor.MISSING and "PATCHCORE_CACHE" in finding.value


def test_the_size_of_the_cache_is_that_of_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("PATCHCORE_CACHE", str(tmp_path))
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "one").write_bytes(b"x" * 7_000_000)
    kept, _ = doctor.disk_and_cache()
    assert kept.value.startswith("7 MB")


@pytest.mark.parametrize(
    ("finding", "verdict"),
    [
        (doctor.memory(2 * 10**9), doctor.SHORT),
        (doctor.memory(8 * 10**9), doctor.GOOD),
        (doctor.disk(10**9, Path()), doctor.SHORT),
        (doctor.disk(10**11, Path()), doctor.GOOD),
        (doctor.load(2.5, 2), doctor.SLOW),
        (doctor.load(0.2, 2), doctor.GOOD),
        (doctor.threads(1, 2), doctor.SLOW),
        (doctor.threads(2, 2), doctor.GOOD),
        (doctor.processor("DEFAULT"), doctor.SLOW),
        (doctor.processor("AVX512"), doctor.GOOD),
        (doctor.packages(["no-such-package"]), doctor.MISSING),
        (doctor.packages(["torch"]), doctor.GOOD),
    ],
)
def test_verdicts(finding, verdict):
    assert finding.verdict == verdict
    assert bool(finding.advice) == (verdict != doctor.GOOD)


def test_cores_are_no_more_than_the_process_may_use():
    assert 1 <= doctor.usable_cores() <= psutil.cpu_count()


def test_weights_that_are_not_here_are_named_and_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(
        doctor,
        "_source_of",
        lambda name: "" if name in ("resnet18", "efficientnet_lite0") else "here",
    )
    found = {finding.what: finding for finding in doctor.packaged_weights()}
    assert set(found) == {f"weights of {name}" for name, s in REGISTRY.items() if s.package}
    missing = found["weights of efficientnet_lite0"]
    assert missing.verdict == doctor.MISSING and "[offline]" in missing.advice
    hub = doctor.hub_weights()
    assert "(resnet18)" in hub.advice and "resnet50" in hub.value
