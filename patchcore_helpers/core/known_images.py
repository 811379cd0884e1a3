"""Images that a model remembers without their pixels: a name to show, a digest to know them by."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from patchcore_helpers.core.feature_cache import fingerprint
from patchcore_helpers.errors import one_line
from patchcore_helpers.files import sha256

LONGEST_NAME = 200  # characters of an image's name that are remembered: the last ones
DIGEST_DIGITS = 16  # hexadecimal: 8 bytes


@dataclass(frozen=True, eq=False)
class KnownImages:
    """Names and digests of images, in an order that matters to whoever keeps them.

    Attributes
    ----------
    names : tuple of str
        Their paths, from the folder on that all of them lie in; "" for an image in no file.
    digests : uint64 array of shape (n,)
        Of their contents, so that an image is known again under any name.
    """

    names: tuple[str, ...]
    digests: np.ndarray

    @classmethod
    def of(cls, items: Sequence[Any]) -> Self:
        """From samples, paths, PIL images or uint8 arrays; files are read for their digests."""
        return cls(image_names(items), np.array([digest(item) for item in items], np.uint64))

    def __len__(self) -> int:
        return len(self.names)

    def joined(self, others: "KnownImages") -> "KnownImages":
        """These images, and then the others."""
        return KnownImages(
            self.names + others.names, np.concatenate([self.digests, others.digests])
        )

    def select(self, positions: np.ndarray) -> "KnownImages":
        """Some of them, in this order."""
        names = tuple(self.names[position] for position in positions)
        return KnownImages(names, self.digests[positions])


def digest(item: Any) -> int:
    """A number of 64 bits that stands for an image's content: of its file, or of its pixels.

    Two images have the same one with a chance of 2**-64, unless somebody has made them for it.
    """
    return int(sha256(fingerprint(item))[:DIGEST_DIGITS], 16)


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
