"""What a model remembers of the images behind it, as its bank file keeps it: a few bytes each.

Which images were taught, so that a row of the memory bank can be traced to its image; and which
were the calibration images, with their scores, so that a threshold can be set again when more of
them come. Pixels are not kept.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from pydantic import Field

from patchcore_helpers.core.bank_file import BankFile, Settings
from patchcore_helpers.core.calibration import Calibration
from patchcore_helpers.core.known_images import LONGEST_NAME, KnownImages

LARGEST_REGION = 10**8  # pixels; more than an image may have

Side = Annotated[int, Field(ge=1, le=9_999)]


class MemorySettings(Settings):
    """What a bank file says about images, beside the arrays of `ImageMemory`."""

    grid: tuple[Side, Side]
    false_alarm_rate: Annotated[float, Field(gt=0, lt=1)] | None
    roi_width: Annotated[int, Field(ge=1, le=99_999)] | None


@dataclass(frozen=True, eq=False)
class ImageMemory:
    """What a model remembers of its images.

    Attributes
    ----------
    taught : KnownImages
        The images in the memory bank, in the order in which they were taught.
    grid : (rows, columns)
        Patches in an image.
    calibration : Calibration or None
    roi : bool array of shape (height, width), or None
        The region of interest; a file keeps 8 pixels in a byte.
    """

    taught: KnownImages
    grid: tuple[int, int]
    calibration: Calibration | None
    roi: np.ndarray | None

    def settings(self) -> str:
        """The part that is JSON in a bank file."""
        rate = None if self.calibration is None else self.calibration.false_alarm_rate
        grid = [int(side) for side in self.grid]
        roi_width = None if self.roi is None else self.roi.shape[1]
        settings = {"grid": grid, "false_alarm_rate": rate, "roi_width": roi_width}
        return MemorySettings.of(settings).model_dump_json()

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of a bank file: names as UTF-8 text, a line each; digests; scores."""
        arrays = {"image_names": as_lines(self.taught.names), "image_digests": self.taught.digests}
        if self.calibration is not None:
            arrays["calibration_names"] = as_lines(self.calibration.images.names)
            arrays["calibration_digests"] = self.calibration.images.digests
            arrays["calibration_scores"] = self.calibration.scores
        if self.roi is not None:
            arrays["roi"] = np.packbits(self.roi, axis=1)
        return arrays

    @classmethod
    def of_file(cls, file: BankFile) -> Self | None:
        """From what `read_bank_file` has checked; None where the file remembers no images.

        Raises
        ------
        ValueError
            If its parts do not belong together.
        """
        if not file.images:
            return None
        settings = MemorySettings.model_validate_json(file.images)
        taught = known_images_of(file, "image")
        calibration = None
        if settings.false_alarm_rate is not None:
            calibration = Calibration(
                scores=file.tensors["calibration_scores"],
                images=known_images_of(file, "calibration"),
                false_alarm_rate=settings.false_alarm_rate,
            )
            if len(calibration.images) != len(calibration.scores):
                raise ValueError("calibration images have not one name and one score each")
        roi = None
        if settings.roi_width is not None:
            roi = unpacked(file.tensors["roi"], settings.roi_width)
        return cls(taught, settings.grid, calibration, roi)


def known_images_of(file: BankFile, kind: str) -> KnownImages:
    """The images of a kind, "image" or "calibration", that a file names."""
    names = names_of(file.tensors[f"{kind}_names"])
    digests = file.tensors[f"{kind}_digests"]
    if len(names) != len(digests):
        raise ValueError(f"{kind}_names and {kind}_digests are not of the same images")
    return KnownImages(names, digests)


def unpacked(packed: np.ndarray, width: int) -> np.ndarray:
    """A region of interest from a file, bool array of shape (height, width).

    Raises
    ------
    ValueError
        If it has another width, is larger than an image may be, or holds nothing.
    """
    height, n_bytes = packed.shape
    if n_bytes != -(-width // 8) or height * width > LARGEST_REGION:
        raise ValueError(f"a region of interest of {height} x {n_bytes} bytes and width {width}")
    inside = np.unpackbits(packed, axis=1, count=width).astype(bool)
    if not inside.any():
        raise ValueError("the region of interest holds nothing")
    return inside


def as_lines(names: tuple[str, ...]) -> np.ndarray:
    """Names as an array of bytes, each on a line of its own.

    >>> names_of(as_lines(("good/1.png", "", "ü")))
    ('good/1.png', '', 'ü')
    """
    text = "".join(f"{name}\n" for name in names)
    return np.frombuffer(text.encode(), np.uint8)


def names_of(lines: np.ndarray) -> tuple[str, ...]:
    """The names in such an array, each printable and not long.

    Raises
    ------
    ValueError
        For bytes that `as_lines` does not make.
    """
    text = lines.tobytes().decode()
    if not text.endswith("\n"):
        raise ValueError("names of images do not end with a line")
    names = tuple(text[:-1].split("\n"))
    for name in names:
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise ValueError(f"{json.dumps(name[:40])} is no name of an image")
    return names
