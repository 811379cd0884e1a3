"""What the command's tests share: how to call it, and a folder of images as a user has it."""

import pytest
from helpers.command import HOSTILE_NAMES, write_image

from patchcore_helpers.app import cli


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Call the command in an empty folder: exit status, lines of output, lines of errors."""

    def call(*words):
        try:
            status = cli.main([str(word) for word in words])
        except SystemExit as stop:
            status = stop.code
        output, errors = capfd.readouterr()
        return status, output.splitlines(), errors.splitlines()

    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return call


@pytest.fixture(scope="session")
def user_folder(tmp_path_factory):
    """30 normal images; defects in two folders with the same, hostile file names."""
    folder = tmp_path_factory.mktemp("user") / "my <parts> #1"
    for i in range(30):
        write_image(folder / f"good/{i:03}.png", i)
    for i, name in enumerate(HOSTILE_NAMES):
        for kind in ("bad", "<i>crack & dent"):
            write_image(folder / kind / f"{name}.png", 200 + i, defective=True, size=64 + i)
    (folder / "bad/empty.jpg").touch()
    return folder
