"""Tiles: every pixel is covered, and what was cut comes together again, exactly."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays, boolean_dtypes, floating_dtypes, integer_dtypes

from patchcore_helpers import InputError, load_category
from patchcore_helpers.data.synthetic import render_aitex
from patchcore_helpers.data.synthetic_fabric import fabric
from patchcore_helpers.data.tiling import (
    fabric_extent,
    manifest,
    offsets,
    read_manifest,
    tile,
    untile,
)

DTYPES = st.one_of(boolean_dtypes(), integer_dtypes(), floating_dtypes(endianness="="))
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 60), st.sampled_from([(), (1,), (3,)])).map(
    lambda s: (*s[:2], *s[2])
)


@st.composite
def cuts(draw):
    image = draw(DTYPES.flatmap(lambda dtype: SHAPES.flatmap(lambda shape: arrays(dtype, shape))))
    size = draw(st.integers(1, 64))
    return image, size, draw(st.integers(1, size))


@given(cuts())
def test_untile_is_the_exact_inverse(cut):
    image, size, stride = cut
    again = untile(tile(image, size, stride))
    assert again.dtype == image.dtype and again.shape == image.shape
    assert again.tobytes() == image.tobytes()


@given(cuts())
def test_every_pixel_is_covered_and_no_tile_reaches_out(cut):
    image, size, stride = cut
    tiles = tile(image, size, stride)
    positions, seen = tiles.positions, np.zeros(image.shape[:2], int)
    assert len(tiles) == len(positions) == len(list(tiles))
    for p in positions.itertuples():
        seen[p.y : p.y + p.height, p.x : p.x + p.width] += 1
    assert seen.min() >= 1 and positions[["x", "y"]].min().min() == 0
    assert not positions[["x", "y"]].duplicated().any()
    assert (positions.width == min(size, image.shape[1])).all()
    assert (positions.height == min(size, image.shape[0])).all()
    assert (positions.x + positions.width).max() == image.shape[1]
    assert (positions.y + positions.height).max() == image.shape[0]
    assert (np.diff(offsets(image.shape[1], size, stride)) <= stride).all()


@given(st.integers(1, 30), st.integers(1, 50), st.data())
def test_a_window_leaves_maps_that_agree_as_they_are(height, width, data):
    size = data.draw(st.integers(1, 40))
    tiles = tile(np.random.default_rng(0).normal(size=(height, width)), size, (size + 1) // 2)
    for dtype in (np.float32, np.float64, np.uint8):
        image = (100 + 40 * tiles.image).astype(dtype)
        parts = (t for t in tile(image, tiles.size, tiles.stride))
        np.testing.assert_array_equal(untile(parts, tiles.positions, window="triangle"), image)


def test_a_window_is_a_mean_weighted_by_the_distance_from_the_border():
    positions = pd.DataFrame({"x": [0, 2], "y": 0, "width": 4, "height": 1})
    parts = np.array([[[1.0, 1, 1, 1]], [[4.0, 4, 4, 4]]])
    out = untile(parts, positions, window="triangle")
    weights = np.array([0.5, 1, 1, 0.5])
    expected = (1 * weights[2:] + 4 * weights[:2]) / (weights[2:] + weights[:2])
    np.testing.assert_allclose(out[0], [1, 1, *expected, 4, 4], rtol=1e-6)
    assert out.dtype == np.float64


def test_a_window_hides_the_seam_between_maps_that_differ():
    image = np.zeros((64, 300), np.float32)
    tiles = tile(image, 64, 32)
    maps = [np.full(t.shape, i % 2, np.float32) for i, t in enumerate(tiles)]
    hard = untile(maps, tiles.positions)
    soft = untile(maps, tiles.positions, window="triangle")
    assert np.abs(np.diff(hard, axis=1)).max() == 1
    assert np.abs(np.diff(soft, axis=1)).max() < 0.1


def test_some_tiles_only():
    image = np.arange(1, 1001, dtype=np.int32).reshape(10, 100)
    tiles = tile(image, 10)
    kept = tiles.positions[tiles.positions.x.isin([20, 90])]
    parts = [t for t, x in zip(tiles, tiles.positions.x, strict=True) if x in (20, 90)]
    out = untile(parts, kept, shape=(10, 100))
    expected = np.zeros_like(image)
    expected[:, 20:30], expected[:, 90:] = image[:, 20:30], image[:, 90:]
    np.testing.assert_array_equal(out, expected)


def test_tiles_are_views_cut_one_by_one():
    strip = np.zeros((256, 65_536), np.uint8)
    tiles = tile(strip, 256, 16)
    assert all(part.base is strip for part in tiles)
    tracemalloc.start()
    total = sum(int(part[0, 0]) for part in tiles)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 0 and len(tiles) == 4081 and peak < 8e6


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.zeros((4, 4)), 0), "tile size 0: give pixels"),
        ((np.zeros((4, 4)), 2.5), "tile size 2.5: give pixels"),
        ((np.zeros((4, 4)), 4, 0), "tile stride 0: give pixels"),
        ((np.zeros((4, 4)), 4, 5), "tile stride 5: leaves pixels out; give at most the size 4"),
        ((np.zeros(4), 4), r"image of shape \(4,\)"),
        ((np.zeros((0, 4)), 4), r"image of shape \(0, 4\)"),
    ],
)
def test_what_cannot_be_cut(arguments, message):
    with pytest.raises(InputError, match=message):
        tile(*arguments)


def test_what_cannot_be_put_together():
    tiles = tile(np.zeros((4, 8)), 4)
    with pytest.raises(InputError, match="window='hann': choose None or 'triangle'"):
        untile(tiles, window="hann")
    with pytest.raises(InputError, match=r"tile 0: shape \(2, 2\), but its position is 4 x 4"):
        untile([np.zeros((2, 2))] * 2, tiles.positions)
    with pytest.raises(ValueError, match="zip"):
        untile([np.zeros((4, 4))], tiles.positions)


# Where the cloth lies


@pytest.mark.parametrize("weave", ["plain", "twill", "satin"])
@pytest.mark.parametrize("margin", [0, 60, 400])
def test_a_white_margin_is_found(weave, margin):
    image, _ = fabric(weave, 128, 1000, seed=2, margin=margin, selvage=30)
    assert fabric_extent(image) == (margin, 1000)
    assert fabric_extent(image[:, ::-1]) == (0, 1000 - margin)
    assert fabric_extent(np.repeat(image[:, :, None], 3, 2)) == (margin, 1000)


def test_white_pixels_in_cloth_are_no_margin():
    image, _ = fabric("plain", 64, 600, seed=1)
    image[:40, :90] = 255
    image[:, 300:320] = 255
    image[:, 310] = 254
    assert fabric_extent(image) == (0, 600)


@pytest.mark.parametrize("width", [100, 500, 800])
def test_a_table_beside_the_cloth_is_found(width):
    image, _ = fabric("plain", 128, 1200, seed=3)
    rng = np.random.default_rng(0)
    rows = 170 + 12 * rng.standard_normal((128, 1))
    image[:, :width] = np.clip(rows + 4 * rng.standard_normal((128, width)), 0, 254)
    image[:, width : width + 6] = 20  # its shadow
    first, last = fabric_extent(image)
    assert abs(first - width) <= 6 and last == 1200


@pytest.mark.parametrize("gap", [0, 50])
def test_a_white_line_ends_a_table_that_is_no_brighter(gap):
    image, _ = fabric("twill", 256, 2000, seed=4)
    rng = np.random.default_rng(1)
    table = image[:, 300:].mean() + 8 * rng.standard_normal((256, 290))
    image[:, :290] = np.clip(table, 0, 240)
    edge = 300 + np.rint(2 * np.sin(np.arange(256) / 20)).astype(int)  # it winds by a few pixels
    for row in range(256 - gap):  # and may be hidden in places
        image[row, edge[row] - 3 : edge[row]] = 255
    first, last = fabric_extent(image)
    assert 298 <= first <= 303 and last == 2000


def test_a_white_line_far_inside_is_a_defect():
    image, _ = fabric("plain", 256, 2000, seed=4)
    image[:, 900:903] = 255
    assert fabric_extent(image) == (0, 2000)


def test_no_cloth():
    assert fabric_extent(np.full((256, 4096), 255, np.uint8)) == (0, 0)


# Manifest


@pytest.fixture(scope="module")
def strips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strips")
    return render_aitex(folder, fabrics=("00",), clean=5, defective=3, size=(64, 640))


def test_manifest(strips, tmp_path):
    category = load_category("aitex/00", data_dir=strips)
    table = manifest(category, 64, 48)
    per_strip = len(offsets(640, 64, 48))
    assert len(table) == per_strip * 8 and table.columns[:3].tolist() == ["source", "x", "y"]
    assert table.groupby("source").split.nunique().max() == 1
    assert table.split.value_counts().to_dict() == {"train": 3 * per_strip, "test": 5 * per_strip}
    assert set(table.fabric) == {"aitex/00"} and set(table[table.split == "train"].label) == {0}
    for sample in category.train + category.test:
        own = table[table.source.str.endswith(sample.image.name)]
        parts = [int(part.any()) for part in tile(sample.mask(), 64, 48)]
        assert own.label.tolist() == parts and (max(parts) == sample.label)
        first, last = fabric_extent(np.asarray(sample.read()))
        columns = [np.arange(p.x, p.x + p.width) for p in own.itertuples()]
        shares = [((first <= c) & (c < last)).mean() for c in columns]
        np.testing.assert_allclose(own.cloth, shares)
        assert 0 in shares and 1 in shares
    table.to_csv(tmp_path / "tiles.csv", index=False)
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "tiles.csv"), table)


def test_tiles_of_a_strip_without_a_mask_have_no_label(strips, tmp_path):
    category = load_category("aitex/00", data_dir=strips)
    unknown = type(category.test[-1])(category.test[-1].image, 1, "006")
    table = manifest(type(category)("aitex/00", category.train[:1], [unknown]), 64)
    assert table[table.split == "test"].label.isna().all()
    table.to_csv(tmp_path / "tiles.csv", index=False)
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "tiles.csv"), table)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "\xff\xfe"])
def test_what_is_no_manifest(text, tmp_path):
    path = tmp_path / "tiles.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"tiles\.csv: not a manifest of tiles .*; save it again"):
        read_manifest(path)
    with pytest.raises(InputError, match=r"none\.csv: not a manifest of tiles \(No such file"):
        read_manifest(tmp_path / "none.csv")
