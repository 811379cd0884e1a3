"""Downloads to prepare: complete ones, copies to spoil, and what must not remain of a bad one."""

import shutil
from pathlib import Path

import pytest
from helpers.archives import CATEGORIES, ENCLOSING, MAKE, listing

from patchcore_helpers.app import cli


@pytest.fixture(scope="session")
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    return {name: make(folder / ENCLOSING[name]) for name, make in MAKE.items()}


@pytest.fixture
def root(roots, tmp_path):
    """A copy of the miniature MVTec AD to spoil."""
    return Path(shutil.copytree(roots["mvtec_ad"], tmp_path / "download" / "root"))


@pytest.fixture
def visa(roots, tmp_path):
    return Path(shutil.copytree(roots["visa"], tmp_path / "download" / "root"))


@pytest.fixture
def refused(tmp_path, capfd):
    """Prepare what cannot be; returns the one line, after a look for anything left behind."""

    def call(source, dataset="mvtec_ad", data_dir=None, categories=None):
        data_dir = data_dir or tmp_path / "data"
        before = listing(tmp_path)
        words = ["prepare", dataset, "--source", source, "--data-dir", data_dir]
        words += ["--categories", categories or ",".join(CATEGORIES[dataset])]
        status = cli.main([str(word) for word in words])
        output, errors = capfd.readouterr()
        assert (status, output, errors.count("\n")) == (2, "", 1), errors
        assert errors.startswith("patchcore-course: error: ")
        assert listing(tmp_path) == before
        return errors

    return call
