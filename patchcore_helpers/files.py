"""Files that are either whole or not there."""

import hashlib
import os
import threading
from pathlib import Path

from .errors import CourseError


def write_atomically(path, content):
    """Write a file so that no reader, and no kill, ever meets half of it.

    The content goes to a temporary file in the same folder, reaches the disk, and takes the
    final name in one step.

    Parameters
    ----------
    path : str or Path
        The folder must exist.
    content : bytes or str
        Text is written as UTF-8.

    Returns
    -------
    Path

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_atomically(folder / "a.txt", "whole").read_text()
    'whole'
    >>> [path.name for path in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    if isinstance(content, str):
        content = content.encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


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


def cache_folder(name):
    """A folder for what can be made again: below PATCHCORE_CACHE or ~/.cache/patchcore_helpers.

    Raises
    ------
    CourseError
        If it cannot be made.
    """
    root = os.environ.get("PATCHCORE_CACHE") or Path.home() / ".cache" / "patchcore_helpers"
    folder = Path(root) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CourseError(
            f"{folder}: cannot be made ({error.strerror}); set PATCHCORE_CACHE to your own"
        ) from None
    return folder
