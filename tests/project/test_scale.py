"""The commands of docs/scale.md name notebooks and parameters that exist; its Python runs."""

import argparse
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.miniatures import make_mvtec

from benchmarks import scale
from patchcore_helpers.app.cli import build_parser
from patchcore_helpers.course import runner
from patchcore_helpers.course.notebook import read_notebook
from patchcore_helpers.course.parameters import declared_parameters

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "scale.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.M | re.S)


def commands(program):
    """The words of all commands of a program, loop variables replaced."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    found = [line[line.index(program) :] for line in lines if f".venv/bin/{program}" in line]
    assert found
    for line in found:
        line = line.replace("$category", "bottle").replace("NAME", "bottle").rstrip("& ")
        yield shlex.split(line)[1:]


def test_every_command_of_the_runner_is_understood():
    numbers = set()
    for words in commands("patchcore-course"):
        args = build_parser().parse_args(words)
        args.scheduler = None  # see below
        jobs = runner.plan(args)
        assert not any(job.failures for job in jobs)
        numbers |= {job.stem[:2] for job in jobs}
        given = {name for name, _ in args.parameter}
        assert all(given & job.parameters.keys() for job in jobs if given)
    assert numbers == {f"0{n}" for n in range(1, 8)}


def test_notebooks_that_are_sent_to_a_cluster_have_the_parameter():
    for words in commands("patchcore-course"):
        if "--scheduler" in words:
            args = build_parser().parse_args(words)
            assert all(job.parameters["scheduler"] == args.scheduler for job in runner.plan(args))


def test_papermill_is_given_parameters_that_the_notebook_declares():
    for words in commands("papermill"):
        parser = argparse.ArgumentParser()
        parser.add_argument("notebook", type=Path)
        parser.add_argument("output")
        parser.add_argument("-p", nargs=2, action="append")
        args = parser.parse_args(words)
        declared, problems = declared_parameters(read_notebook(ROOT / args.notebook))
        assert not problems and {name for name, _ in args.p} <= declared.keys()


def test_dask_has_these_options():
    pytest.importorskip("distributed")
    from distributed.cli import dask_scheduler, dask_worker

    tools = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
    for tool, *words in commands("dask"):
        known = {option for each in tools[tool].params for option in each.opts}
        assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.long
def test_python_runs_on_a_miniature(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_mvtec(tmp_path / "data" / "mvtec_ad", ["bottle"])
    (code,) = blocks("python")
    code = code.replace("200_000", "5_000").replace("n_jobs=2", "n_jobs=1")
    exec(code, names := {})
    assert capsys.readouterr().out.startswith("(100, 152) ")
    assert [len(np.load(path, mmap_mode="r")) for path in names["shards"]] == [4096] * 3
    assert names["chosen"].shards.max() == 2


def test_plan_is_that_of_the_committed_results():
    frame = pd.read_csv(ROOT / "benchmarks" / "results" / "scale.csv")
    assert scale.plan_text(frame) in TEXT, "stale: run `python -m benchmarks.scale --parts`"


def test_plan_follows_from_the_unit_costs():
    """A worker of 1 ns and a client of 2 ns per distance, checked by hand."""
    row = {"part": "big", "n": 10**7, "shards": 20, "k": 10**4, "m": 10**4, "passes": 30}
    row |= {"first": 50, "second": 4, "peak_mb": 500}
    text = scale.plan_text(pd.DataFrame([row]))
    assert "1.00 ns of a worker" in text and "2.00 ns per distance of the second" in text
    whole, few = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[-2:]
    ]
    # 5e7 x 5e4 ns / 2 = 1250 s and 5e6 x 5e4 x 2 ns = 500 s
    assert whole[:5] == ["50,000", "29", "14", "10", "8"]
    assert whole[5:8] == ["25.6", "3.8", "2.56"]
    assert few[:5] == ["5,000", "3", "1", "1", "1"] and few[8] == "500"
