"""Reading images and masks: what is saved in any mode comes back as the pixels that were meant."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from patchcore_helpers.data.images import (
    iter_files,
    iter_folders,
    iter_image_files,
    read_image,
    read_mask,
    resize_mask,
)
from patchcore_helpers.errors import InputError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
ALPHA = RNG.integers(0, 256, (5, 7), dtype=np.uint8)


def threefold(gray):
    return np.repeat(np.asarray(gray, np.uint8)[:, :, None], 3, axis=2)


def palette(transparency=False):
    image = Image.fromarray(GRAY % 4)
    image.putpalette([10, 20, 30, 0, 0, 0, 255, 0, 1, 7, 7, 7])
    if transparency:
        image.info["transparency"] = bytes([0, 128, 0, 255])
    return image


COLORS = np.array([[10, 20, 30], [0, 0, 0], [255, 0, 1], [7, 7, 7]], np.uint8)
MODES = {
    "1": (Image.fromarray(GRAY > 99), threefold((GRAY > 99) * 255)),
    "L": (Image.fromarray(GRAY), threefold(GRAY)),
    "LA": (Image.merge("LA", [Image.fromarray(a) for a in (GRAY, ALPHA)]), threefold(GRAY)),
    "P": (palette(), COLORS[GRAY % 4]),
    "P with transparency": (palette(transparency=True), COLORS[GRAY % 4]),
    "RGB": (Image.fromarray(RGB), RGB),
    "RGBA": (Image.fromarray(np.dstack([RGB, ALPHA])), RGB),
    "I;16": (Image.fromarray(WIDE), threefold(WIDE // 257)),
}


def png16(path, array):
    """Write a 16-bit PNG, (height, width, channels), which Pillow itself cannot."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[array.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, kind, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


@pytest.mark.parametrize("mode", MODES)
def test_png_of_every_mode(mode, tmp_path):
    image, expected = MODES[mode]
    image.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.mode == mode.split()[0]
        np.testing.assert_array_equal(read_image(opened), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_of_any_channels(channels, tmp_path):
    values = RNG.integers(0, 65536, (5, 7, channels))
    pixels = np.asarray(read_image(png16(tmp_path / "a.png", values))).astype(int)
    color = values[:, :, : 3 if channels > 2 else 1] / 257
    assert np.abs(pixels - color).max() <= 1


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4"])
def test_wide_tiff(dtype, tmp_path):
    Image.fromarray(WIDE.astype(dtype)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), threefold(WIDE // 257))


def test_cmyk(tmp_path):
    ink = np.dstack([255 - RGB, np.zeros_like(GRAY)])
    ink[0, 0] = [0, 0, 0, 255]
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.tif")
    expected = RGB.copy()
    expected[0, 0] = 0
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize("values", [np.float32([[0.5, 1]]), [[70000, 1]], [[-1, 1]]])
def test_pixels_of_unknown_range_are_refused(values, tmp_path):
    values = np.asarray(values) if isinstance(values, np.ndarray) else np.int32(values)
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: .*save it as 8 or 16 bit"):
        read_image(tmp_path / "a.tif")


UPRIGHT = {  # how a reader must turn the stored rows to see the picture upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = UPRIGHT[orientation](RGB)
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)
    with Image.open(tmp_path / "a.png") as opened:
        np.testing.assert_array_equal(read_image(opened), expected)
    Image.fromarray(GRAY * (GRAY > 99)).save(tmp_path / "mask.png", exif=exif)
    np.testing.assert_array_equal(
        read_mask(tmp_path / "mask.png", expected.shape[1::-1]), UPRIGHT[orientation](GRAY > 99)
    )
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == expected.shape[1::-1]


NAMES = ["a.bmp", "b.JPG", "c.jpeg", "d.Jpeg", "e.jpg", "f.PNG", "g.tif", "h.TIFF", "i.BMP"]


def test_every_extension_in_any_case(tmp_path, photo):
    for name in reversed(NAMES):
        Image.fromarray(photo()).save(tmp_path / name, quality=95)
    for name in ("._a.png", ".hidden.png", "notes.txt", "Thumbs.db", "png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    files = list(iter_image_files(tmp_path))
    assert [path.name for path in files] == NAMES
    for path in files:
        error = np.asarray(read_image(path)).astype(int) - photo()
        assert np.abs(error).mean() < (3 if "j" in path.suffix.lower() else 1e-9)


def test_one_walk_over_the_files_of_a_folder(tmp_path):
    for name in (
        "b/c/1.png",
        "b/0.PNG",
        "a.jpg",
        "b/notes.txt",
        ".git/2.png",
        "b/.c/3.png",
        ".4.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(paths):
        return [path.relative_to(tmp_path).as_posix() for path in paths]

    assert names(iter_image_files(tmp_path)) == ["a.jpg", "b/0.PNG", "b/c/1.png"]
    assert names(iter_image_files(tmp_path, recursive=False)) == ["a.jpg"]
    assert names(iter_files(tmp_path)) == ["a.jpg", "b/0.PNG", "b/c/1.png", "b/notes.txt"]
    assert names(iter_folders(tmp_path)) == ["b"]
    hidden = tmp_path / ".git"  # what the folder itself is called does not matter
    assert names(iter_image_files(hidden)) == [".git/2.png"]


def test_first_of_several_frames(tmp_path):
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), RGB)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.TIFF"])
@pytest.mark.parametrize("share", [0, 0.02, 0.6])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_truncated_file_is_named(name, share, read, tmp_path, photo):
    path = tmp_path / name
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="cannot be read as an image") as caught:
        read(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Image size")
def test_what_is_not_an_image(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_text("<html>not found</html>")
    for path in (tmp_path / "a.png", tmp_path):
        with pytest.raises(InputError, match="cannot be read as an image"):
            read_image(path)
    with pytest.raises(InputError, match=r"b\.png: no such image file"):
        read_image(str(tmp_path / "b.png"))
    Image.fromarray(RGB).save(tmp_path / "c.png")
    for limit in (10, 30):  # Pillow would refuse 35 pixels, or warn only
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(InputError, match=r"c\.png: too large"):
            read_image(tmp_path / "c.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(tmp_path / "c.png").size == (7, 5)


def test_no_file_starts_another_program(tmp_path, monkeypatch):
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    Image.fromarray(RGB).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: cannot be read as an image"):
        read_image(tmp_path / "a.png")
    assert not (tmp_path / "started").exists()
    with pytest.raises(OSError), Image.open(tmp_path / "a.png") as image:
        image.load()
    assert (tmp_path / "started").exists()


@pytest.mark.parametrize(
    "array", [WIDE, GRAY > 9, np.float32(GRAY), np.dstack([RGB, ALPHA]), RGB[:, :0], RGB[None]]
)
def test_arrays_other_than_8_bit_gray_or_color_are_refused(array):
    with pytest.raises(InputError, match="give uint8 of shape"):
        read_image(array)


def test_arrays():
    np.testing.assert_array_equal(read_image(RGB[::-1]), RGB[::-1])
    np.testing.assert_array_equal(read_image(GRAY), threefold(GRAY))


@pytest.mark.parametrize("channel", range(3))
@pytest.mark.parametrize("alpha", [None, 0, 255])
def test_mask_is_any_color_channel_but_not_alpha(channel, alpha, tmp_path):
    truth = np.zeros((5, 7), bool)
    truth[1, 2:4] = True
    values = np.zeros((5, 7, 3 if alpha is None else 4), np.uint8)
    values[truth, channel] = 1
    if alpha is not None:
        values[:, :, 3] = alpha
    Image.fromarray(values).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), truth)


@pytest.mark.parametrize("mode", MODES)
def test_mask_of_every_mode(mode, tmp_path):
    image, colors = MODES[mode]
    image.save(tmp_path / "m.png")
    truth = WIDE > 0 if mode == "I;16" else colors.any(axis=2)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), truth)


def test_faintest_16_bit_mask(tmp_path):
    values = np.zeros((5, 7), np.uint16)
    values[2, 3] = 1
    Image.fromarray(values).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), values > 0)


def test_mask_of_another_size(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", (7, 5)).shape == (5, 7)
    for size in ((5, 7), (7, 6), (14, 10)):
        text = rf"m\.png: mask is 7x5 but its image is {size[0]}x{size[1]}"
        with pytest.raises(InputError, match=text):
            read_mask(tmp_path / "m.png", size)


def nearest(old, new):
    """The old pixel under the center of every new one, and whether it lies between two."""
    pixel, rest = np.divmod((2 * np.arange(new) + 1) * old, 2 * new)
    return pixel, rest == 0


@settings(deadline=None, max_examples=100)
@given(
    old=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    new=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    line=st.integers(0, 59),
)
def test_masks_are_resized_to_the_pixel_whose_center_is_nearest(old, new, line):
    mask = np.zeros(old, bool)
    mask[line % old[0]] = True
    mask[:, line % old[1]] = True
    resized = resize_mask(mask, new)
    assert resized.dtype == bool and resized.shape == new
    (rows, row_tie), (columns, column_tie) = map(nearest, old, new)
    kept = np.ix_(~row_tie, ~column_tie)
    np.testing.assert_array_equal(resized[kept], mask[np.ix_(rows, columns)][kept])
