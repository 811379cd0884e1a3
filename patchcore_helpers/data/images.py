"""Image files: where they are in a folder, and how any of them becomes 8-bit RGB or a mask."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from patchcore_helpers.errors import InputError, error_line

EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
# The decoders that may run, whatever a file's extension says. EPS is not among them: Pillow would
# start Ghostscript for it.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")


@runtime_checkable
class Readable(Protocol):
    """Anything that can be read as an image.

    Detectors take a Readable wherever they take a path or an array. It may also have a method
    ``fingerprint() -> str`` that identifies its pixels without reading them; the feature cache
    asks for that one first.
    """

    def read(self) -> Image.Image:
        """The image, upright RGB."""


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file, or a folder between it and `folder`, has a name that begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def iter_files(folder: str | Path, *, recursive: bool = True) -> Iterator[Path]:
    """Yield the files in a folder that are not hidden, sorted by path.

    This is the only walk over a data folder, so that every reader has the same idea of a hidden
    file: neither the file nor a folder between it and `folder` may begin with a dot.

    Parameters
    ----------
    folder : path
    recursive : bool
        Whether to descend into sub-folders.
    """
    folder = Path(folder)
    paths = folder.rglob("*") if recursive else folder.iterdir()
    for path in sorted(paths):
        if path.is_file() and not is_hidden(path, folder):
            yield path


def iter_folders(folder: str | Path) -> Iterator[Path]:
    """Yield the sub-folders directly in a folder that are not hidden, sorted by name."""
    for path in sorted(Path(folder).iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            yield path


def is_image_file(path: Path) -> bool:
    """Whether the extension, in upper or lower case, is one of `EXTENSIONS`."""
    return path.suffix.lower() in EXTENSIONS


def iter_image_files(folder: str | Path, *, recursive: bool = True) -> Iterator[Path]:
    """Yield the image files in a folder that are not hidden, sorted by path; see `iter_files`.

    Parameters
    ----------
    folder : path
    recursive : bool
        Whether to descend into sub-folders.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt"):
    ...     (folder / name).touch()
    >>> [path.name for path in iter_image_files(folder)]
    ['a.jpg', 'b.PNG']
    """
    return filter(is_image_file, iter_files(folder, recursive=recursive))


def _load(path: str | os.PathLike[str]) -> Image.Image:
    """The upright first frame of an image file; every error message names the file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            # Pillow itself only warns up to twice this limit.
            limit = Image.MAX_IMAGE_PIXELS or math.inf
            if image.width * image.height > limit:
                reason = f"{image.width} x {image.height} pixels, limit {limit}"
                raise Image.DecompressionBombError(reason)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _without_transparency(image)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image file") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too large to open safely ({error}); cut it into tiles") from None
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        raise InputError(
            f"{path}: cannot be read as an image ({error_line(error)}); replace or remove the file"
        ) from None


def _without_transparency(image: Image.Image) -> Image.Image:
    """Drop a transparent color, in place: Pillow would warn about it on conversion."""
    image.info.pop("transparency", None)
    return image


def _has_wide_pixels(image: Image.Image) -> bool:
    """Whether a pixel is a 16-bit or 32-bit integer, or a floating-point number."""
    return image.mode.startswith(("I", "F"))


def _to_8_bit(image: Image.Image, source: object) -> Image.Image:
    """Divide 16-bit values by 257, which maps 65535 to 255."""
    if image.mode == "F":
        raise InputError(
            f"{source}: floating-point pixels have no fixed range; save it as 8 or 16 bit"
        )
    if image.mode != "I":
        image = image.convert("I")
    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise InputError(f"{source}: pixel values beyond 16 bits; save it as 8 or 16 bit")
    # Pillow evaluates only scale * value + offset; with the half, this is value // 257.
    return image.point(lambda value: value * (1 / 257) + 0.5 / 257).convert("L")


def _from_array(pixels: NDArray[np.uint8]) -> Image.Image:
    is_gray = pixels.ndim == 2
    is_color = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (is_gray or is_color) or pixels.size == 0:
        raise InputError(
            f"image array of dtype {pixels.dtype} and shape {pixels.shape}: "
            "give uint8 of shape (height, width) or (height, width, 3)"
        )
    return Image.fromarray(pixels)


def read_image(source: str | os.PathLike[str] | Image.Image | NDArray[np.uint8]) -> Image.Image:
    """Read one image as upright 8-bit RGB.

    Parameters
    ----------
    source : path, PIL image, or uint8 array of shape (height, width) or (height, width, 3)
        Gray, LA, palette, RGBA, CMYK, 1-bit and 16-bit files are all read. Alpha is dropped, 16-bit
        values are divided by 257, an EXIF rotation is applied, and the first of several frames is
        taken. A file may have 89 million pixels, Pillow's ``MAX_IMAGE_PIXELS``.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    InputError
        If the file is missing, damaged, too large or has floating-point pixels; the message names
        the file.

    Examples
    --------
    >>> read_image(np.zeros((4, 6), np.uint8)).size
    (6, 4)
    """
    if isinstance(source, np.ndarray):
        return _from_array(source).convert("RGB")
    if isinstance(source, Image.Image):
        image = _without_transparency(ImageOps.exif_transpose(source))
        name: object = "image"
    else:
        image = _load(source)
        name = source
    if _has_wide_pixels(image):
        image = _to_8_bit(image, name)
    return image if image.mode == "RGB" else image.convert("RGB")


def read_mask(
    path: str | os.PathLike[str], image_size: tuple[int, int] | None = None
) -> NDArray[np.bool_]:
    """Read a mask: a pixel is a defect if any color channel (not alpha) is above 0.

    Parameters
    ----------
    path : path
    image_size : (width, height), optional
        The size of the image that the mask belongs to; a mask of another size is refused.

    Returns
    -------
    ndarray of bool, shape (height, width)

    Raises
    ------
    InputError
        If the file cannot be read, or its size is not `image_size`.
    """
    mask = _load(path)
    if image_size is not None and mask.size != tuple(image_size):
        raise InputError(
            f"{path}: mask is {mask.width}x{mask.height} but its image is "
            f"{image_size[0]}x{image_size[1]}; masks must have their image's size"
        )
    return _is_above_0(mask)


def read_region(path: str | os.PathLike[str]) -> NDArray[np.bool_]:
    """Read a drawn region: black outside, another color inside.

    Parameters
    ----------
    path : path

    Returns
    -------
    ndarray of bool, shape (height, width)
        Whether any color channel (not alpha) is above 0.

    Raises
    ------
    InputError
        If the file cannot be read, or has more than two colors: it is a photograph, say, or a mask
        whose edges JPEG has blurred.
    """
    image = _load(path)
    values = image if _has_wide_pixels(image) else image.convert("RGB")
    if len(np.unique(np.asarray(values).reshape(image.width * image.height, -1), axis=0)) > 2:
        raise InputError(
            f"{path}: has more than two colors; draw the region in white on black, and save it as "
            "png"
        )
    return _is_above_0(image)


def _is_above_0(mask: Image.Image) -> NDArray[np.bool_]:
    """Whether any color channel of a pixel is above 0."""
    if _has_wide_pixels(mask):
        return np.asarray(mask) > 0
    pixels = np.asarray(mask.convert("RGB"))
    return np.any(pixels > 0, axis=2)


def resize_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask by nearest neighbor.

    Parameters
    ----------
    mask : ndarray of bool, shape (height, width)
    size : (height, width)

    Returns
    -------
    ndarray of bool, shape `size`
    """
    return resize_labels(mask, size) > 0


def resize_labels(labels: NDArray[Any], size: tuple[int, int]) -> NDArray[np.int32]:
    """Resize an image of whole numbers, such as the numbers of regions, by nearest neighbor.

    Parameters
    ----------
    labels : ndarray of bool or int, shape (height, width)
        Below 2**31.
    size : (height, width)

    Returns
    -------
    ndarray of int32, shape `size`

    Examples
    --------
    >>> resize_labels(np.array([[1, 2, 3, 4, 5, 6]]), (1, 2))
    array([[2, 5]], dtype=int32)
    """
    height, width = size
    image = Image.fromarray(labels.astype(np.int32))
    return np.asarray(image.resize((width, height), Image.Resampling.NEAREST))
