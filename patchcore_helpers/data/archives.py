"""Read the files of a downloaded archive or folder, which may be damaged or hostile.

Members are read one after the other; the archive libraries never extract one to the disk. Links,
devices and sparse files are refused, and so are paths that lead outside, and archives that unpack
to far more than photographs would. (The filter "data" of ``tarfile`` is not enough: it accepts
links that stay inside, and does not limit the size.)
"""

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import IO, NamedTuple

from patchcore_helpers.errors import InputError, error_line
from patchcore_helpers.files import safe_path

MAX_MEMBERS = 100_000
MAX_FILE = 2**28  # bytes of one file
# An archive may unpack to MAX_RATIO times its size and MAX_EXTRA bytes: photographs hardly shrink.
MAX_RATIO = 10
MAX_EXTRA = 2**26
TOO_LARGE = "unpacks to far more than photographs would"

# What reads a compressed tar, by its first bytes.
DECOMPRESSORS: dict[bytes, Callable[[Path], BufferedIOBase]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}


@dataclass(frozen=True)
class Member:
    """One file of a source.

    Attributes
    ----------
    source : Path
        The archive or folder.
    path : str
        Relative, in plain form, without ".."; parts are separated by "/".
    size : int
        Bytes, as the source states it.
    open : callable
        Opens the file for reading; to be called before the next member is asked for.
    """

    source: Path
    path: str
    size: int
    open: Callable[[], IO[bytes]]

    def read(self) -> bytes:
        """The content of the file.

        Raises
        ------
        InputError
            If it is larger than a photograph.
        EOFError
            If its size is not the stated one.
        """
        if self.size > MAX_FILE:
            raise untrusted(self.source, TOO_LARGE)
        with self.open() as file:
            content = file.read(self.size + 1)
        if len(content) != self.size:
            raise EOFError(f"{self.path} has {len(content)} bytes, not {self.size}")
        return content


def untrusted(source: Path, reason: str) -> InputError:
    """The error for an archive or folder that could do harm."""
    return InputError(f"{source}: {reason}; do not trust it, download it from its publisher")


@contextmanager
def translate_archive_errors(source: Path) -> Iterator[None]:
    """Turn what the archive libraries raise on a damaged source, many types, into an `InputError`.

    Parameters
    ----------
    source : Path
        The archive or folder; the message names it.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{source}: cannot be read as a whole tar or zip archive, or folder "
            f"({error_line(error)}); download it again"
        ) from None


def iter_members(source: Path) -> Iterator[Member]:
    """Yield the files of an archive (tar, tar.gz, tar.bz2, tar.xz, zip) or folder.

    Parameters
    ----------
    source : Path

    Yields
    ------
    Member

    Raises
    ------
    InputError
        If the source could do harm, see above, or holds more than `MAX_MEMBERS` files. A damaged
        archive raises whatever its library does, see `translate_archive_errors`.
    """
    for count, entry in enumerate(_iter_entries(source), 1):
        path = safe_path(entry.name)
        if path is None:
            raise untrusted(source, f"path {entry.name!r} leads outside or cannot be printed")
        if count > MAX_MEMBERS:
            raise InputError(
                f"{source}: holds more than {MAX_MEMBERS} files; give the data set alone"
            )
        if entry.open is not None:
            yield Member(source, path, entry.size, entry.open)


class _Entry(NamedTuple):
    """A file or folder as the source names it; a folder cannot be opened."""

    name: str
    size: int
    open: Callable[[], IO[bytes]] | None


def _iter_entries(source: Path) -> Iterator[_Entry]:
    if source.is_dir():
        return _folder_entries(source)
    limit = MAX_RATIO * source.stat().st_size + MAX_EXTRA
    with open(source, "rb") as file:
        start = file.read(6)
    if start.startswith(b"PK"):
        return _zip_entries(source, limit)
    for magic, decompress in DECOMPRESSORS.items():
        if start.startswith(magic):
            return _tar_entries(source, limit, decompress)
    return _tar_entries(source, limit, _open_binary)


def _open_binary(path: Path) -> BufferedReader:
    return open(path, "rb")


def _folder_entries(source: Path) -> Iterator[_Entry]:
    # The folder of a single category of MVTec AD keeps its name.
    root = source.parent if (source / "train").is_dir() else source

    def fail(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(source, onerror=fail):
        folders.sort()
        for name in sorted(folders + files):
            path = Path(parent, name)
            status = path.lstat()
            is_file = stat.S_ISREG(status.st_mode)
            if not (is_file or stat.S_ISDIR(status.st_mode)):
                raise untrusted(source, f"{str(path.relative_to(source))!r} is a link or device")
            opener = partial(_open_binary, path) if is_file else None
            yield _Entry(path.relative_to(root).as_posix(), status.st_size, opener)


def _zip_entries(source: Path, limit: int) -> Iterator[_Entry]:
    """The sizes are those that the zip's directory states; `Member.read` checks them."""
    total = 0
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            is_encrypted = info.flag_bits & 1
            if is_encrypted:
                raise InputError(f"{source}: is encrypted; unpack it and give the folder")
            unix_type = stat.S_IFMT(info.external_attr >> 16)
            if unix_type not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise untrusted(source, f"{info.filename!r} is a link or device")
            total += info.file_size
            if total > limit:
                raise untrusted(source, TOO_LARGE)
            opener = None if info.is_dir() else partial(archive.open, info)
            yield _Entry(info.filename, info.file_size, opener)


class _StrictTarInfo(tarfile.TarInfo):
    """A member whose header, if damaged or cut off, is an error.

    tarfile takes such a header for the end of the archive, unless it is the first one.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_StrictTarInfo":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # zeros: the true end
            raise
        except tarfile.HeaderError:
            raise tarfile.ReadError("ends in the middle") from None


class _LimitedStream:
    """A stream that ends in an error after `limit` bytes.

    A tar is metered as it is decompressed, because its headers may be bombs as well.
    """

    def __init__(self, stream: BufferedIOBase, source: Path, limit: int) -> None:
        self.stream = stream
        self.source = source
        self.remaining = limit

    def read(self, size: int) -> bytes:
        chunk = self.stream.read(size)
        self.remaining -= len(chunk)
        if self.remaining < 0:
            raise untrusted(self.source, TOO_LARGE)
        return chunk

    def read_to_end(self) -> None:
        """Read and forget the rest: the check sum of the compression is at the end."""
        while self.read(2**20):
            pass


def _tar_entries(
    source: Path, limit: int, decompress: Callable[[Path], BufferedIOBase]
) -> Iterator[_Entry]:
    """In one pass over the archive."""
    with decompress(source) as decompressed:
        stream = _LimitedStream(decompressed, source, limit)
        with tarfile.open(  # type: ignore[call-overload]  # of a stream only `read` is called
            fileobj=stream, mode="r|", tarinfo=_StrictTarInfo
        ) as archive:
            for info in archive:
                if info.issparse() or not (info.isreg() or info.isdir()):
                    raise untrusted(source, f"{info.name!r} is a link, device or sparse file")
                opener = None if info.isdir() else partial(_extract, archive, info)
                yield _Entry(info.name, info.size, opener)
            stream.read_to_end()


def _extract(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(info)
    assert file is not None  # it would be for a folder
    return file
