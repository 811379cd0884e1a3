"""Read photographs and masks from disk, whatever mode they were saved in."""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from patchcore_helpers.errors import InputError

EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
# What is decoded, whatever the file is called: not EPS, which would start another program.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")


def _upright(image, in_place=False):
    """Turned as its EXIF data say; without transparency, over which Pillow would warn."""
    turned = ImageOps.exif_transpose(image, in_place=in_place) or image
    turned.info.pop("transparency", None)
    return turned


def _load(path):
    """The upright first frame of an image file; every failure names the file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS or math.inf  # above it Pillow itself only warns
            if image.width * image.height > limit:
                reason = f"{image.width} x {image.height} pixels, limit {limit}"
                raise Image.DecompressionBombError(reason)
            image.load()
            return _upright(image, in_place=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image file") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too large to open safely ({error}); cut it into tiles") from None
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: cannot be read as an image ({reason}); replace or remove the file"
        ) from None


def _to_8_bit(image, path):
    """Bring 16-bit and 32-bit integer images to 8 bits by their full 16-bit range."""
    if image.mode == "F":
        raise InputError(
            f"{path}: floating-point pixels have no fixed range; save it as 8 or 16 bit"
        )
    image = image if image.mode == "I" else image.convert("I")
    low, high = image.getextrema()
    if low < 0 or high > 65535:
        raise InputError(f"{path}: pixel values beyond 16 bits; save it as 8 or 16 bit")
    return image.point(lambda value: value * (1 / 257) + 0.5 / 257).convert("L")  # value // 257


def read_image(source):
    """Read one image as upright 8-bit RGB.

    Parameters
    ----------
    source : path, PIL image, or uint8 array of shape (height, width) or (height, width, 3)
        Gray, LA, palette, RGBA, CMYK, 1-bit and 16-bit files are all read; alpha is dropped, 16
        bits are divided by 257, an EXIF rotation is applied, and of several frames the first is
        taken. A file may have 89 million pixels, Pillow's ``MAX_IMAGE_PIXELS``.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    InputError
        For a file that is missing, damaged, too large or of floating-point pixels; the line names
        it.

    Examples
    --------
    >>> read_image(np.zeros((4, 6), np.uint8)).size
    (6, 4)
    """
    if isinstance(source, np.ndarray):
        gray, color = source.ndim == 2, source.ndim == 3 and source.shape[2] == 3
        if source.dtype != np.uint8 or not (gray or color) or source.size == 0:
            raise InputError(
                f"image array of dtype {source.dtype} and shape {source.shape}: "
                "give uint8 of shape (height, width) or (height, width, 3)"
            )
        return Image.fromarray(source).convert("RGB")
    if isinstance(source, (str, Path)):
        name, source = source, _load(source)
    else:
        name, source = "image", _upright(source)
    if source.mode.startswith(("I", "F")):
        source = _to_8_bit(source, name)
    return source if source.mode == "RGB" else source.convert("RGB")


def read_mask(path, image_size=None):
    """Read a mask: a pixel is a defect where any color channel (not alpha) is above 0.

    Parameters
    ----------
    path : path
    image_size : (width, height) or None
        Size of the image that the mask belongs to; a mask of another size is refused.

    Returns
    -------
    ndarray of bool, shape (height, width)
    """
    mask = _load(path)
    if image_size is not None and mask.size != tuple(image_size):
        raise InputError(
            f"{path}: mask is {mask.width}x{mask.height} but its image is "
            f"{image_size[0]}x{image_size[1]}; masks must have their image's size"
        )
    if mask.mode.startswith(("I", "F")):
        return np.asarray(mask) > 0
    return np.asarray(mask.convert("RGB")).any(axis=2)


def resize_mask(mask, size):
    """Resize a bool mask (height, width) to `size` = (height, width) by nearest neighbor."""
    image = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.NEAREST)) > 0


def image_files(folder):
    """Image files directly in `folder`, sorted by name; hidden files are passed over."""
    files = (p for p in Path(folder).iterdir() if p.suffix.lower() in EXTENSIONS)
    return sorted(p for p in files if p.is_file() and not p.name.startswith("."))
