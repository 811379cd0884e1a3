"""What counts as an image: a file, pixels, or anything that can be read as one."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from patchcore_helpers.data.images import Readable, read_image
from patchcore_helpers.errors import InputError, one_line

LONGEST_NAME = 200  # characters of an image's name that are remembered: the last ones


def read_item(item: Any) -> Image.Image:
    """The upright RGB image of an item.

    Parameters
    ----------
    item : path, PIL image, uint8 array, or an object whose method ``read()`` returns a PIL image

    Raises
    ------
    InputError
        For what is none of these, or a file that cannot be read.

    Examples
    --------
    >>> read_item(np.zeros((4, 6), np.uint8)).size
    (6, 4)
    """
    if isinstance(item, Readable):
        image = item.read()
        if not isinstance(image, Image.Image):
            raise InputError(f"{item!r}: its read() does not return a PIL image; give a path")
        return image if image.mode == "RGB" else read_image(image)
    if not isinstance(item, str | Path | Image.Image | np.ndarray):
        raise InputError(f"{item!r}: not an image; give a path, a PIL image or a uint8 array")
    return read_image(item)


def image_names(items: Sequence[Any]) -> tuple[str, ...]:
    """What images are called: their paths, from the folder on that all of them lie in.

    Nothing above that folder is in a name, which may travel with a memory bank.

    Parameters
    ----------
    items : sequence of samples, paths, PIL images or uint8 arrays

    Returns
    -------
    tuple of str
        At most `LONGEST_NAME` printable characters each; "" for an image that is in no file.

    Examples
    --------
    >>> image_names(["/my/parts/good/a/1.png", "/my/parts/good/b/1.png"])
    ('good/a/1.png', 'good/b/1.png')
    """
    sources = [item if isinstance(item, str | Path) else _source_of(item) for item in items]
    paths = [os.path.abspath(source) if source else "" for source in sources]
    folders = [os.path.dirname(path) for path in paths if path]
    above = os.path.dirname(_common_folder(folders))
    return tuple(_name_below(above, path) if path else "" for path in paths)


def _source_of(item: Any) -> str:
    """The path that an item says it comes from; empty if it says none."""
    source = getattr(item, "source", "")
    return source if isinstance(source, str) else ""


def _common_folder(folders: list[str]) -> str:
    try:
        return os.path.commonpath(folders)
    except ValueError:  # no folder at all, or folders of different drives
        return ""


def _name_below(folder: str, path: str) -> str:
    below = os.path.relpath(path, folder) if folder else os.path.basename(path)
    return one_line(Path(below).as_posix())[-LONGEST_NAME:]
