"""Compiled networks on disk, so that a process need not convert and compile one again."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from patchcore_helpers.core.engines.base import warn_once
from patchcore_helpers.errors import InputError
from patchcore_helpers.files import atomic_write, cache_folder

SUFFIX = ".compiled"
DIGEST_BYTES = 32
LARGEST_TOTAL = 2 * 2**30  # bytes; a ResNet50 takes 100 MB for each input size


class CompiledStore:
    """Files below the cache folder: a SHA-256, then the bytes that it is of.

    Nothing here is needed: a file that is missing is None, and so is one that is damaged, with an
    `EngineWarning`; one that cannot be written is not kept. When all files together exceed 2 GiB,
    those not used for longest are removed.
    """

    def __init__(self) -> None:
        self.folder: Path | None
        try:
            self.folder = cache_folder("compiled")
        except InputError:
            self.folder = None

    def read(self, key: str) -> bytes | None:
        """What was kept under a key; None if there is nothing, or it is damaged."""
        if self.folder is None:
            return None
        path = self.folder / f"{key}{SUFFIX}"
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest = content[:DIGEST_BYTES]
        blob = content[DIGEST_BYTES:]
        if hashlib.sha256(blob).digest() != digest:
            self.warn_of_damage(key)
            return None
        with suppress(OSError):
            os.utime(path)  # used just now
        return blob

    def warn_of_damage(self, key: str) -> None:
        """Say, once, that what was kept under a key is of no use."""
        warn_once(f"{self.folder}: {key}{SUFFIX} is damaged; the network is compiled again")

    def write(self, key: str, blob: bytes) -> None:
        """Keep bytes under a key if there is room."""
        if self.folder is None:
            return
        with suppress(OSError):
            atomic_write(self.folder / f"{key}{SUFFIX}", hashlib.sha256(blob).digest() + blob)
            self._remove_oldest()

    def files(self) -> list[Path]:
        """The store's files."""
        return sorted(self.folder.glob(f"*{SUFFIX}")) if self.folder else []

    def clear(self) -> int:
        """Remove the store's files; returns how many there were."""
        files = self.files()
        for path in files:
            path.unlink(missing_ok=True)
        return len(files)

    def _remove_oldest(self) -> None:
        newest_first = sorted(self.files(), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in newest_first:
            total += path.stat().st_size
            if total > LARGEST_TOTAL:
                path.unlink(missing_ok=True)
