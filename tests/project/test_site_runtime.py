"""ONNX Runtime Web is brought in once, and only as it was looked at."""

import io
import tarfile

import make_site
import pytest
import site_runtime
from site_runtime import ARCHIVE, SCRIPT, WASM, fetch_runtime, read_runtime

from patchcore_helpers.errors import InputError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A stand-in for the package, with its hash."""
    path = tmp_path / "package" / ARCHIVE
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        for name, content in ((SCRIPT, b"script"), (WASM, b"wasm"), ("../outside", b"bad")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(site_runtime, "SHA512", site_runtime.digest_of(path))
    return path


def pretend_npm(folder, script, monkeypatch):
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


def test_two_files_are_read(package):
    assert read_runtime(package.parent) == (b"script", b"wasm")


def test_another_package_is_refused(package):
    package.write_bytes(package.read_bytes() + b"more")
    with pytest.raises(InputError, match=r"is not onnxruntime-web .*; remove it and run `make"):
        read_runtime(package.parent)


def test_a_missing_package_is_told(tmp_path):
    with pytest.raises(InputError, match="is missing; run `make site-runtime`"):
        read_runtime(tmp_path)


def test_npm_brings_it_in_once(package, tmp_path, monkeypatch):
    pretend_npm(tmp_path, f'cp "{package}" .', monkeypatch)
    path = fetch_runtime(tmp_path / "new")
    assert path.read_bytes() == package.read_bytes()
    pretend_npm(tmp_path, "exit 1", monkeypatch)
    assert fetch_runtime(tmp_path / "new") == path


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo no network >&2; exit 1", r"failed \(no network\); try again"),
        (f"echo other > {ARCHIVE}", "is not onnxruntime-web"),
    ],
)
def test_what_npm_says_is_told_and_nothing_is_left(script, reason, package, tmp_path, monkeypatch):
    pretend_npm(tmp_path, script, monkeypatch)
    with pytest.raises(InputError, match=reason):
        fetch_runtime(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_without_npm(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(site_runtime, "FOLDER", tmp_path / "new")
    assert site_runtime.main([]) == 2
    assert capsys.readouterr().err == (
        "site_runtime.py: npm: not found; install Node.js, which brings it along\n"
    )


def test_the_site_is_built_without_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(site_runtime, "FOLDER", tmp_path)
    assert make_site.runtime_or_none() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("make_site.py: without the page `In your browser`: ")
    assert line.endswith("is missing; run `make site-runtime`, which brings it in by npm")
