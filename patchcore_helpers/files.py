"""Files that are either whole or not there."""

import glob
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import psutil

from patchcore_helpers.errors import InputError, translate_os_errors


def temporary_sibling(path):
    """A new temporary name beside a path, by which it can be told whose it is.

    What killed processes of this machine left there is put right: an earlier folder that was just
    then giving way takes its name again, all else is removed.
    """
    own = f".{path.name}.{platform.node()[:20]}-"
    for left in path.parent.glob(glob.escape(own) + "*"):
        pid = left.name[len(own) :].partition("-")[0]
        with suppress(OSError):
            if pid.isdigit() and not psutil.pid_exists(int(pid)):
                if left.suffix == ".old" and not path.exists():
                    os.replace(left, path)
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    return path.with_name(f"{own}{os.getpid()}-{uuid.uuid4().hex[:12]}.part")


def atomic_write(path, content):
    """Write a file so that no reader, and no kill, ever meets half of it.

    The content goes to a temporary file in the same folder, reaches the disk, and takes the
    final name in one step.

    Parameters
    ----------
    path : str or Path
        The folder must exist.
    content : bytes, buffer or str
        Text is written as UTF-8.

    Returns
    -------
    Path

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> atomic_write(folder / "a.txt", "whole").read_text()
    'whole'
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


MANIFEST = ".patchcore-course"


@contextmanager
def atomic_directory(path):
    """A folder that appears whole or not at all; yields a temporary one beside it to write into.

    At the end that one takes the name. An earlier folder made this way gives way to it, unless
    files are there that it was not made with.

    Parameters
    ----------
    path : path

    Raises
    ------
    InputError
        If there is something else of that name, or it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with atomic_directory(Path(tempfile.mkdtemp()) / "made" / "here") as folder:
    ...     _ = (folder / "a.txt").write_text("whole")
    """
    path = Path(os.path.abspath(path))
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InputError(f"{path}: is not a folder; choose another --output")
    temporary = temporary_sibling(path)
    aside = temporary.with_suffix(".old")
    foreign = set(os.listdir(path)) if path.exists() else set()
    if MANIFEST in foreign:
        known = (path / MANIFEST).read_text("utf-8").split("\n")
        foreign = {*_files_below(path)} - {MANIFEST, *known}
    if foreign:
        raise InputError(
            f"{path}: holds {min(foreign)!r}, which this command has not made; "
            "move it away or choose another --output"
        )
    try:
        with translate_os_errors(path, "name another"):
            temporary.mkdir(parents=True)
            yield temporary
            (temporary / MANIFEST).write_text("\n".join(_files_below(temporary)), "utf-8")
            if path.exists():
                os.replace(path, aside)
            os.replace(temporary, path)
    finally:
        if aside.exists() and not path.exists():
            os.replace(aside, path)
        for left in (temporary, aside):
            shutil.rmtree(left, ignore_errors=True)


def _files_below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def ensure_outside(output, folder):
    """A `InputError` if `output` lies in `folder`, which is the user's and stays as it is."""
    if Path(output).resolve().is_relative_to(Path(folder).resolve()):
        raise InputError(f"{output}: lies in {folder}, which is left alone; give another --output")


def sha256(*parts):
    """Hexadecimal SHA-256 of texts or bytes, each preceded by its length.

    The lengths keep ``("ab", "c")`` and ``("a", "bc")`` apart.

    >>> sha256("ab", "c") == sha256("a", "bc")
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(part)}:".encode() + part)
    return digest.hexdigest()


def package_hash():
    """A hash of this package's files: what other code has made is not taken for this one's."""
    files = sorted(Path(__file__).parent.rglob("*.*"))
    return sha256(*(path.read_bytes() for path in files if path.suffix in (".py", ".yaml")))


def cache_folder(name):
    """A folder for what can be made again: below PATCHCORE_CACHE or ~/.cache/patchcore_helpers.

    Raises
    ------
    InputError
        If it cannot be made.
    """
    root = os.environ.get("PATCHCORE_CACHE") or Path.home() / ".cache" / "patchcore_helpers"
    folder = Path(root) / name
    with translate_os_errors(folder, "set PATCHCORE_CACHE to a folder of your own"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def package_folder(module, what):
    """Where an installed package of the extra "offline" lies; `what` names it if it is missing."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        mend = "install it: pip install 'patchcore-helpers[offline]'"
        raise InputError(f"{what} is missing; {mend}")
    return Path(spec.submodule_search_locations[0])


def safe_path(name):
    """A relative path in plain form, or None if it could lead outside its folder.

    >>> safe_path("./bottle//train/")
    'bottle/train'
    >>> [safe_path(name) for name in ("../a", "/a", "C:/a", "a\\\\b")]
    [None, None, None, None]
    """
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name)
    return None if outside or "\\" in name or not name.isprintable() else str(path)
