"""Files with changed bytes: refused in one line that names the file, or read as they should be."""

import io
import warnings

import numpy as np
import pytest
from helpers.command import tiny_model
from helpers.miniatures import picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from patchcore_helpers import InputError, MemoryBank, PatchCore
from patchcore_helpers.data.images import read_image


@st.composite
def changed(draw, content):
    """The content with some bytes overwritten, a part removed or doubled, and the end cut off."""
    result = bytearray(content)
    for _ in range(draw(st.integers(0, 8))):
        # Headers matter most: many of the changes fall into the first bytes.
        position = draw(st.integers(0, 63) | st.integers(0, len(result) - 1))
        result[position] = draw(st.integers(0, 255))
    start = draw(st.integers(0, len(result) - 1))
    part = bytes(result[start : start + draw(st.integers(0, 40))])
    result[start : start + len(part)] = part * draw(st.integers(0, 2))
    end = draw(st.just(len(result)) | st.integers(0, len(result)))
    return bytes(result[:end])


def encode(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


COLOR = Image.fromarray(picture("mutated", 0, 48)[0])
WIDE = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40))
IMAGES = {
    "color.png": encode(COLOR, "PNG"),
    "palette.png": encode(COLOR.quantize(20), "PNG"),
    "alpha.png": encode(COLOR.convert("RGBA"), "PNG"),
    "wide.png": encode(WIDE, "PNG"),
    "color.jpg": encode(COLOR, "JPEG", quality=90),
    "progressive.jpg": encode(COLOR, "JPEG", progressive=True),
    "cmyk.jpg": encode(COLOR.convert("CMYK"), "JPEG"),
    "plain.tif": encode(COLOR, "TIFF"),
    "lzw.tif": encode(COLOR, "TIFF", compression="tiff_lzw"),
    "deflate.tif": encode(WIDE, "TIFF", compression="tiff_deflate"),
    "color.bmp": encode(COLOR, "BMP"),
    "color.webp": encode(COLOR, "WEBP", lossless=True),
    "color.gif": encode(COLOR.quantize(20), "GIF"),
}
MANY = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_one_line(error, path):
    assert str(error).startswith(str(path)) and "\n" not in str(error)


@pytest.mark.long
@pytest.mark.parametrize("name", IMAGES)
@MANY
@given(data=st.data())
def test_images(name, data, tmp_path):
    path = tmp_path / name
    path.write_bytes(data.draw(changed(IMAGES[name])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about what it can still read
        try:
            image = read_image(path)
        except InputError as error:
            return assert_one_line(error, path)
    array = np.asarray(image)
    assert image.mode == "RGB" and array.dtype == np.uint8 and array.shape[2:] == (3,)


@pytest.fixture(scope="module")
def bank():
    vectors = np.random.default_rng(0).normal(size=(60, 8))
    return MemoryBank(coreset_ratio=0.5).fit(vectors)


@pytest.fixture(scope="module")
def model():
    images = [picture("bank", number, 64)[0] for number in range(4)]
    return tiny_model().fit(images).calibrate(images, 0.5)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["bank", "model"])
@MANY
@given(data=st.data())
def test_saved_banks(kind, data, bank, model, tmp_path):
    original = {"bank": bank, "model": model}[kind]
    path = tmp_path / "bank.safetensors"
    original.save(path)
    path.write_bytes(data.draw(changed(path.read_bytes())))
    try:
        loaded = type(original).load(path)
    except InputError as error:
        return assert_one_line(error, path)
    # A setting may have changed within its bounds; the vectors have a check sum.
    if isinstance(loaded, PatchCore):
        assert np.isfinite(loaded.threshold_)
        original, loaded = original.bank_, loaded.bank_
    assert isinstance(loaded, MemoryBank)
    np.testing.assert_array_equal(loaded.vectors_, original.vectors_)
