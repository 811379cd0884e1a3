"""A folder that is watched: every image that arrives gets exactly one verdict.

The log of verdicts is the only memory: an image that has a line in it has been judged. A line is
appended by one write, and only a whole line counts. What a killed process left of a line is cut off
when the log is opened again, and its image is judged again. So it does not matter when, or how
often, the process is killed. A lock keeps a second process from writing the same log.

A file is known by its name: whoever writes another image under a name that has been judged gets no
second verdict. Hidden files are left alone, so a camera may write ``.7.png`` and rename it.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from patchcore_helpers.app.console import print_message
from patchcore_helpers.app.verdicts import Model, Unreadable, Verdict, judge
from patchcore_helpers.data.images import iter_image_files
from patchcore_helpers.errors import InputError, one_line, translate_os_errors

UNREADABLE = "unreadable"
LOOK_EVERY = 0.25  # seconds
SETTLED = 1.0  # seconds without a change, after which a file is taken to be complete
PATIENCE = 10.0  # seconds without a change, after which a file that cannot be read is damaged
AT_ONCE = 256  # images between two looks at the folder
LINE_BEGIN = b'{"path": '


class VerdictLog:
    """A file with one JSON object a line, one line an image.

    Use it in a `with` block, which holds the lock.

    Parameters
    ----------
    path : path
        Of a log, or of a file that is to be made.

    Attributes
    ----------
    paths : set of str
        The images that have a verdict.

    Raises
    ------
    InputError
        If the file is no such log, cannot be written, or another process is writing it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with translate_os_errors(path, "choose another --log"):
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._lock()
            self.paths = self._read()
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{self.path}: another process writes it; stop that one, or choose another --log"
            ) from None

    def _read(self) -> set[str]:
        """The images in the log; the beginning of a last line is cut off, once all else is good."""
        *lines, rest = self.path.read_bytes().split(b"\n")
        paths = {self._path_in(line, number) for number, line in enumerate(lines, 1)}
        if rest:
            if rest[: len(LINE_BEGIN)] != LINE_BEGIN[: len(rest)]:
                raise self._refusal(len(lines) + 1)
            os.ftruncate(self._descriptor, sum(len(line) + 1 for line in lines))
        return paths

    def _path_in(self, line: bytes, number: int) -> str:
        try:
            path = json.loads(line)["path"]
        except (ValueError, LookupError, TypeError):
            path = None
        if not isinstance(path, str):
            raise self._refusal(number)
        return path

    def _refusal(self, number: int) -> InputError:
        return InputError(
            f"{self.path}: line {number} is not a verdict; move the file away, "
            "or choose another --log"
        )

    def add(self, record: Mapping[str, Any]) -> str:
        """Append a record, which begins with its path; returns its line, without the line break."""
        line = json.dumps(record)
        content = f"{line}\n".encode()
        with translate_os_errors(self.path, "make room, and start again"):
            while content:  # a full disk takes a part of a line; the next start cuts it off
                content = content[os.write(self._descriptor, content) :]
        self.paths.add(record["path"])
        return line

    def flush(self) -> None:
        """Return when all lines are on the disk."""
        os.fsync(self._descriptor)


@dataclass
class Seen:
    """A file at the last looks: its size and time, and since when these are the same."""

    state: tuple[int, int]
    since: float


class Arrivals:
    """The images of a folder that wait for a verdict.

    Parameters
    ----------
    folder : Path
    judged : set of str
        Paths that are left alone; it may grow.
    """

    def __init__(self, folder: Path, judged: set[str]) -> None:
        self.folder = folder
        self.judged = judged
        self.waiting: dict[Path, Seen] = {}

    def complete(self, now: float) -> list[Path]:
        """The files that have not changed for a while, `AT_ONCE` at most.

        Parameters
        ----------
        now : float, seconds
            Of a clock that never goes back.
        """
        seen_before, self.waiting = self.waiting, {}
        for path in self._files():
            state = file_state(path)
            if str(path) in self.judged or state is None:
                continue
            seen = seen_before.get(path)
            is_same = seen is not None and seen.state == state
            self.waiting[path] = seen if seen is not None and is_same else Seen(state, now)
        settled = [path for path, seen in self.waiting.items() if now - seen.since >= SETTLED]
        return settled[:AT_ONCE]

    def _files(self) -> list[Path]:
        try:
            return list(iter_image_files(self.folder))
        except OSError:  # a folder went away during the walk; there is another look soon
            return list(self.waiting)

    def has_changed(self, path: Path) -> bool:
        """Whether a file is another one than at the last look; one that is gone is not."""
        state = file_state(path)
        return state is not None and state != self.waiting[path].state

    def may_get_better(self, path: Path, now: float) -> bool:
        """Whether a file that cannot be read has changed not long ago."""
        return now - self.waiting[path].since < PATIENCE


def file_state(path: Path) -> tuple[int, int] | None:
    """Size in bytes and time of the last change in nanoseconds; None for a file that is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def follow(
    model: Model,
    folder: str | Path,
    log: VerdictLog,
    *,
    idle: float | None = None,
    provenance: Mapping[str, Any],
) -> Iterator[tuple[Verdict | Unreadable, str]]:
    """Judge the images of a folder and those that arrive; each gets a line in the log.

    Parameters
    ----------
    model : PatchCore or ExportedModel
    folder : path
    log : VerdictLog
    idle : float, seconds, optional
        End when nothing has arrived for so long. By default, go on for ever.
    provenance : mapping
        What every line says besides, such as the model's hash.

    Yields
    ------
    (Verdict or Unreadable, str)
        When its line, the str, is in the log.
    """
    arrivals = Arrivals(Path(folder).resolve(), log.paths)
    last_arrival = time.monotonic()
    while True:
        paths = arrivals.complete(time.monotonic())
        for verdict in judge(model, paths):
            if _is_settled(verdict, arrivals):
                record = {**record_of(verdict), **provenance, "time": utc_now()}
                yield verdict, log.add(record)
        if paths:
            log.flush()
        now = time.monotonic()
        if arrivals.waiting:
            last_arrival = now
        elif idle is not None and now - last_arrival >= idle:
            return
        time.sleep(LOOK_EVERY)


def _is_settled(verdict: Verdict | Unreadable, arrivals: Arrivals) -> bool:
    """Whether a verdict is final: the file has not changed meanwhile, nor is it being written."""
    if arrivals.has_changed(verdict.path):
        return False
    if isinstance(verdict, Verdict):
        return True
    if file_state(verdict.path) is None:
        print_message(f"{one_line(verdict.path)}: gone before it was judged")
        return False
    return not arrivals.may_get_better(verdict.path, time.monotonic())


def record_of(verdict: Verdict | Unreadable) -> dict[str, Any]:
    """What the log says of an image; an unreadable one has a verdict of its own, and the reason."""
    if isinstance(verdict, Verdict):
        return verdict.as_object()
    nothing = {"score": None, "verdict": UNREADABLE, "regions": None}
    return {"path": str(verdict.path), **nothing, "error": one_line(verdict.error)}


def utc_now() -> str:
    """The time, such as 2026-01-31T12:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
