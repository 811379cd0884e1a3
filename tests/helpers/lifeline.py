"""Waiting for what another process does, without a clock."""

import os
import select


class Lifeline:
    """A named pipe that processes hold open: tells when the first has it, and when all have ended.

    Nothing is timed: the operating system says when the last process that holds the pipe is gone.
    The limit only ends a test that would otherwise wait forever.

    Parameters
    ----------
    path : Path
        A process opens it with ``os.open(path, os.O_WRONLY)`` and writes a word when it starts.
    """

    LIMIT = 120

    def __init__(self, path):
        os.mkfifo(path)
        self.path = path
        self._pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def wait_for_start(self):
        """The word of the first process, as soon as it is written."""
        word = self._read()
        assert word, "the process ended before it said anything"
        return word

    def wait_for_end(self):
        """Returns when no process holds the pipe any more."""
        assert self._read() == ""

    def _read(self):
        assert select.select([self._pipe], [], [], self.LIMIT)[0], "waited in vain"
        return os.read(self._pipe, 100).decode()
