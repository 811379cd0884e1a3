"""Run a function in a process of its own that fails at a chosen point.

The processes are forked from a server that has imported the package before, so each one starts in
milliseconds and none inherits threads.
"""

import multiprocessing
import os
import resource
import sys
import warnings
from dataclasses import dataclass
from itertools import count

from patchcore_helpers.errors import InputError

KILLED = 137  # the exit status of a process that was ended at a kill point
KILL_POINTS = ("fsync", "replace", "rename")  # the calls of `os` by which files become visible
PIPE_SIZE = 65536  # bytes that a process may write without being read
TIME_LIMIT = 180  # seconds after which a process counts as hung
PRELOADED = [
    "patchcore_helpers",
    "patchcore_helpers.app.cli",
    "patchcore_helpers.app.report",
    "patchcore_helpers.data.prepare",
    "patchcore_helpers.experiments.grid",
]


@dataclass
class Ended:
    """How a process ended: its exit status, and what it wrote."""

    status: int
    out: str
    err: str


def run_apart(work, *arguments, die_before=None, largest_file=None):
    """Call a function of a module in another process.

    Parameters
    ----------
    work : callable
        Its return value, if it is an int, becomes the exit status. An `InputError` becomes a line
        on standard error and exit status 2, as in the command.
    die_before : int, optional
        End the process just before the n-th call of `KILL_POINTS`, without any cleaning up.
    largest_file : int, optional
        Bytes beyond which every write fails, as on a full disk.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    pipes = [context.Pipe(duplex=False) for _ in range(2)]  # not files: they could be too large
    writers = [writer for _, writer in pipes]
    process = context.Process(
        target=_child,
        args=(work, arguments, writers, die_before, largest_file, dict(os.environ)),
    )
    process.start()
    for writer in writers:
        writer.close()
    process.join(TIME_LIMIT)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"{work.__name__}: no end after {TIME_LIMIT} s")
    out, err = (os.read(reader.fileno(), PIPE_SIZE).decode() for reader, _ in pipes)
    return Ended(process.exitcode, out, err)


def _child(work, arguments, writers, die_before, largest_file, environment):
    os.environ.update(environment)  # the server's is that of the first test
    for stream, writer in enumerate(writers, 1):
        os.dup2(writer.fileno(), stream)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    warnings.simplefilter("always")
    if die_before is not None:
        _install_kill_point(die_before)
    if largest_file is not None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
    try:
        status = work(*arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    sys.exit(status if isinstance(status, int) else 0)


def _install_kill_point(number):
    calls = count(1)

    def dying(function):
        def call(*arguments, **options):
            if next(calls) == number:
                os._exit(KILLED)
            return function(*arguments, **options)

        return call

    for name in KILL_POINTS:
        setattr(os, name, dying(getattr(os, name)))
