"""Small notebooks for tests: writing them and running them."""

import argparse

import nbformat

from patchcore_helpers.course import runner

PARAMETERS = ("parameters", "n: int = 1  # a number")


def make_notebook(cells):
    """A notebook from the sources of its code cells, or pairs of a tag and a source."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "P"}
    for cell in cells:
        tag, source = cell if isinstance(cell, tuple) else (None, cell)
        notebook.cells.append(nbformat.v4.new_code_cell(source.strip()))
        notebook.cells[-1].metadata["tags"] = [tag] if tag else []
    return notebook


def write_notebook(path, cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(make_notebook(cells), path)
    return path


def parse(*words):
    """The arguments of `patchcore-course run`."""
    parser = argparse.ArgumentParser()
    runner.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def run(*words):
    """Run notebooks as `patchcore-course run` does; returns the exit status."""
    return runner.command(parse(*words))


# A cell that does not end, and a process of it that has left the kernel's session and parent.
ENDLESS = """
import os, signal, subprocess
if not os.path.exists("go"):
    kernel, orphan = os.open("kernel", os.O_WRONLY), os.open("orphan", os.O_WRONLY)
    os.write(orphan, b"started")
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    command = ["sh", "-c", "tail -f /dev/null &"]
    subprocess.run(command, start_new_session=True, pass_fds=[orphan], **quiet)
    os.close(orphan)
    os.write(kernel, b"started")
    signal.pause()
"""
