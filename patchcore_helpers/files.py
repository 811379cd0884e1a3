"""Files and directories that appear complete or not at all, and where files may be."""

import glob
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import psutil

from patchcore_helpers.errors import InputError, translate_os_errors

MANIFEST = ".patchcore-course"  # in a directory made by `atomic_directory`: lists its files


def temporary_sibling(path: Path) -> Path:
    """A new temporary name beside a path; the name identifies the process that owns it.

    Nothing is created. What killed processes left beside the path is cleaned up first, see
    `remove_leftovers`.

    Parameters
    ----------
    path : Path
        The file or directory that is going to be written.

    Returns
    -------
    Path
        ``.<name>.<machine>-<process id>-<random>.part`` in the same directory.
    """
    remove_leftovers(path)
    return path.with_name(f"{_temporary_prefix(path)}{os.getpid()}-{uuid.uuid4().hex[:12]}.part")


def remove_leftovers(path: Path) -> None:
    """Clean up what killed processes of this machine left beside a path.

    If one was killed while it replaced a directory, the earlier directory gets its name back.
    Temporary files of running processes, and of other machines, are left alone.
    """
    prefix = _temporary_prefix(path)
    for leftover in path.parent.glob(glob.escape(prefix) + "*"):
        pid = leftover.name.removeprefix(prefix).partition("-")[0]
        if not pid.isdigit() or psutil.pid_exists(int(pid)):
            continue
        with suppress(OSError):
            if leftover.suffix == ".old" and not path.exists():
                os.replace(leftover, path)
            elif leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def _temporary_prefix(path: Path) -> str:
    return f".{path.name}.{platform.node()[:20]}-"


def atomic_write(path: str | Path, content: bytes | bytearray | memoryview | str) -> Path:
    """Write a file so that nobody ever reads half of it, even if this process is killed.

    The content goes to a temporary file in the same directory, reaches the disk, and takes the
    final name in one step.

    Parameters
    ----------
    path : str or Path
        The directory must exist.
    content : bytes, buffer or str
        Text is written as UTF-8.

    Returns
    -------
    Path

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> atomic_write(folder / "a.txt", "complete").read_text()
    'complete'
    >>> [path.name for path in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    if isinstance(content, str):
        content = content.encode()
    temporary = temporary_sibling(path)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """A directory that appears complete or not at all; yields a temporary one to write into.

    At the end of the block the temporary directory takes the final name. An earlier directory made
    this way is replaced, unless it holds files that it was not made with.

    Parameters
    ----------
    path : str or Path

    Yields
    ------
    Path

    Raises
    ------
    InputError
        If something else has that name, or if it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with atomic_directory(Path(tempfile.mkdtemp()) / "new" / "report") as folder:
    ...     _ = (folder / "a.txt").write_text("complete")
    """
    path = Path(os.path.abspath(path))
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InputError(f"{path}: is not a folder; choose another --output")
    temporary = temporary_sibling(path)
    _refuse_foreign_files(path)
    try:
        with translate_os_errors(path, "name another"):
            temporary.mkdir(parents=True)
            yield temporary
            (temporary / MANIFEST).write_text("\n".join(files_below(temporary)), "utf-8")
            replace_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_directory(temporary: Path, path: Path) -> None:
    """Give a directory, whose name is a `temporary_sibling`, its final name.

    An earlier directory of that name steps aside and is removed. If this process is killed between
    the two steps, `remove_leftovers` brings the earlier one back.
    """
    aside = temporary.with_suffix(".old")
    try:
        if path.exists():
            os.replace(path, aside)
        os.replace(temporary, path)
    finally:
        if aside.exists() and not path.exists():
            os.replace(aside, path)
        shutil.rmtree(aside, ignore_errors=True)


def _refuse_foreign_files(path: Path) -> None:
    """Raise an `InputError` if a directory holds what `atomic_directory` has not put there."""
    foreign = set(os.listdir(path)) if path.exists() else set()
    if MANIFEST in foreign:
        manifest = (path / MANIFEST).read_text("utf-8").split("\n")
        foreign = set(files_below(path)) - {MANIFEST, *manifest}
    if foreign:
        raise InputError(
            f"{path}: holds {min(foreign)!r}, which this command has not made; "
            "move it away or choose another --output"
        )


def files_below(folder: Path) -> list[str]:
    """Paths of all files in a directory and further below, relative to it, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def ensure_outside(output: str | Path, folder: str | Path) -> None:
    """Check that an output does not lie in the user's input folder, which must not be changed.

    Raises
    ------
    InputError
        If it does.
    """
    if Path(output).resolve().is_relative_to(Path(folder).resolve()):
        raise InputError(
            f"{output}: lies in {folder}, which is left alone; choose another --output"
        )


def sha256(*parts: str | bytes) -> str:
    """Hexadecimal SHA-256 of texts or bytes, each preceded by its length.

    The lengths keep ``("ab", "c")`` and ``("a", "bc")`` apart.

    >>> sha256("ab", "c") == sha256("a", "bc")
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()


def cache_folder(name: str) -> Path:
    """A folder for files that can be made again, below PATCHCORE_CACHE or
    ~/.cache/patchcore_helpers.

    Raises
    ------
    InputError
        If it cannot be made.
    """
    root = os.environ.get("PATCHCORE_CACHE") or Path.home() / ".cache" / "patchcore_helpers"
    folder = Path(root) / name
    with translate_os_errors(folder, "set PATCHCORE_CACHE to a folder that you can write to"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def package_folder(module: str, description: str) -> Path:
    """Where a package of the extra "offline" is installed.

    Parameters
    ----------
    module : str
        The name under which the package is imported.
    description : str
        What the message calls it.

    Raises
    ------
    InputError
        If it is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        fix = "install it: pip install 'patchcore-helpers[offline]'"
        raise InputError(f"{description} is missing; {fix}")
    return Path(spec.submodule_search_locations[0])


def safe_path(name: str) -> str | None:
    """A relative path in normal form, or None if it could lead outside its folder.

    >>> safe_path("./bottle//train/")
    'bottle/train'
    >>> [safe_path(name) for name in ("../a", "/a", "C:/a", "a\\\\b")]
    [None, None, None, None]
    """
    path = PurePosixPath(name)
    leads_outside = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name)
    if leads_outside or "\\" in name or not name.isprintable():
        return None
    return str(path)
