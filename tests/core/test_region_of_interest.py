"""A region of interest: what lies outside changes nothing, and what lies inside is PatchCore."""

import numpy as np
import pytest
from helpers.bank_files import read_parts
from helpers.command import tiny_model
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from patchcore_helpers import InputError, PatchCore, StripPatchCore
from patchcore_helpers.core.batch_scores import MutualPatchCore
from patchcore_helpers.core.evaluation import pixel_metrics
from patchcore_helpers.core.excuses import excuses
from patchcore_helpers.core.image_memory import unpacked
from patchcore_helpers.core.learning_curve import learning_curve
from patchcore_helpers.core.region_of_interest import RegionOfInterest
from patchcore_helpers.core.scorers import ComposedPatchCore

SIZE = 64


def disc(radius=24):
    """A round part in the middle of an image of 64 x 64 pixels."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    return y**2 + x**2 < radius**2


@pytest.fixture(scope="module")
def model(photos):
    return tiny_model(roi=disc()).fit(photos).calibrate(photos, 0.5)


@pytest.mark.parametrize("image_score", ["max", "mean", "top1_percent", "reweighted"])
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
def test_what_lies_outside_changes_nothing(model, photo, image_score, seed, share):
    rng = np.random.default_rng(seed)
    image = photo(seed % 50, defect=bool(seed % 2))
    changed = image.copy()
    outside = ~disc() & (rng.random((SIZE, SIZE)) < share)
    changed[outside] = rng.integers(0, 256, (outside.sum(), 3))
    model.set_params(image_score=image_score)
    first, second = model.detect([image]), model.detect([changed])
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.patch_scores, second.patch_scores)
    np.testing.assert_array_equal(model.to_maps(first), model.to_maps(second))


@given(seed=st.integers(0, 2**32 - 1))
def test_what_lies_inside_counts(model, photo, seed):
    """The other way round: the test above could not fail if nothing mattered."""
    image = photo(seed % 50)
    changed = image.copy()
    changed[28:36, 28:36] = 255
    model.set_params(image_score="max")
    before, after = model.anomaly_scores([image, changed])
    assert after > before


def test_what_lies_outside_never_enters_the_bank(photos):
    noisy = []
    for number, image in enumerate(photos):
        changed = image.copy()
        noise = np.random.default_rng(number).integers(0, 256, image.shape, dtype=np.uint8)
        changed[~disc()] = noise[~disc()]
        noisy.append(changed)
    first, second = (tiny_model(roi=disc()).fit(images) for images in (photos, noisy))
    np.testing.assert_array_equal(first.bank_.vectors_, second.bank_.vectors_)


def share_inside(mask, grid):
    """The share of every cell that is inside, pixel by pixel."""
    rows = np.arange(mask.shape[0]) * grid[0] // mask.shape[0]
    columns = np.arange(mask.shape[1]) * grid[1] // mask.shape[1]
    shares = np.zeros(grid)
    for row in range(grid[0]):
        for column in range(grid[1]):
            shares[row, column] = mask[rows == row][:, columns == column].mean()
    return shares


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 8), columns=st.integers(1, 8))
def test_a_patch_is_inside_if_half_of_its_cell_is(seed, rows, columns):
    rng = np.random.default_rng(seed)
    mask = rng.random((rows * 6, columns * 4)) < rng.uniform(0.3, 0.9)
    shares = share_inside(mask, (rows, columns))
    region = RegionOfInterest(mask)
    if (shares >= 0.5).any():
        np.testing.assert_array_equal(region.cells((rows, columns)), shares >= 0.5)
    else:
        with pytest.raises(InputError, match="no patch is inside"):
            region.cells((rows, columns))


def painted(images):
    """Images as the network sees them."""
    region = RegionOfInterest(disc())
    return [np.asarray(region.painted(Image.fromarray(image), "image")) for image in images]


@given(seed=st.integers(0, 10**6), height=st.integers(1, 20), width=st.integers(1, 20))
def test_pixels_outside_take_the_nearest_color_inside(seed, height, width):
    """The color of every pixel says where it was."""
    inside = np.random.default_rng(seed).random((height, width)) < 0.2
    inside[seed % height, seed % width] = True
    rows, columns = np.mgrid[:height, :width]
    places = np.dstack([rows, columns, 0 * rows]).astype(np.uint8)
    result = np.asarray(RegionOfInterest(inside).painted(Image.fromarray(places), "image"))
    came_from = result[:, :, :2].reshape(-1, 2).astype(int)
    assert inside[tuple(came_from.T)].all()
    went_to = np.stack([rows.ravel(), columns.ravel()], 1)
    distances = np.linalg.norm(came_from - went_to, axis=1)
    np.testing.assert_allclose(distances, cdist(went_to, np.argwhere(inside)).min(1))


def test_scores_are_those_of_the_patches_inside(photos, photo, model):
    model.set_params(image_score="max")
    images = [photo(70), photo(71, defect=True)]
    plain = tiny_model(coreset_ratio=1.0).fit(photos).extractor_
    inside = share_inside(disc(), model.grid_) >= 0.5
    assert 0 < inside.sum() < inside.size
    normal = plain.extract(painted(photos))[:, inside]
    assert model.bank_.n_vectors_ == len(photos) * inside.sum()
    exact = tiny_model(roi=disc(), coreset_ratio=1.0).fit(photos)
    for image, result in zip(images, map(exact.detect, [[i] for i in images]), strict=True):
        patches = plain.extract(painted([image]))[0][inside]
        known = normal.reshape(-1, normal.shape[-1])
        nearest = np.linalg.norm(patches[:, None] - known[None], axis=2).min(1)
        np.testing.assert_allclose(result.patch_scores[0][inside], nearest, rtol=1e-3, atol=1e-3)
        assert (result.patch_scores[0][~inside] == 0).all()
        assert result.scores[0] == pytest.approx(nearest.max(), rel=1e-3)
        mean = exact.set_params(image_score="mean").anomaly_scores([image])[0]
        exact.set_params(image_score="max")
        assert mean == pytest.approx(nearest.mean(), rel=1e-3)
        assert (exact.to_maps(result)[0][~disc()] == 0).all()


def test_rows_know_their_places(photos, model):
    origins = model.origin(np.arange(len(model.bank_)))
    patches = model.extractor_.extract(photos)
    np.testing.assert_allclose(patches[tuple(origins.T)], model.bank_.vectors_, atol=1e-5)
    rows = model.nearest_rows(photos[:1])[0]
    inside = model.inspected_patches()
    assert (rows[~inside] == -1).all() and (rows[inside] >= 0).all()


def test_excuses_lie_inside(model, photo):
    (found,) = excuses(model, [photo(71, defect=True)])
    assert found and all(model.inspected_patches()[excuse.place] for excuse in found)


def test_the_region_is_in_the_file(model, photo, tmp_path):
    model.set_params(image_score="max")
    model.save(tmp_path / "bank")
    packed = read_parts(tmp_path / "bank").tensors["roi"]
    assert packed.shape == (64, 8) and packed.dtype == np.uint8
    loaded = PatchCore.load(tmp_path / "bank")
    np.testing.assert_array_equal(loaded.roi, disc())
    images = [photo(70), photo(71, defect=True)]
    np.testing.assert_array_equal(loaded.anomaly_scores(images), model.anomaly_scores(images))
    rows = np.arange(len(model.bank_))
    np.testing.assert_array_equal(loaded.origin(rows), model.origin(rows))


def test_a_region_of_another_shape_than_square(photo, tmp_path):
    """The mask has the size of the images, not that of what the network sees."""
    mask = np.zeros((50, 90), bool)
    mask[10:40, 5:85] = True
    images = [photo(seed, size=(50, 90)) for seed in range(6)]
    model = tiny_model(roi=mask).fit(images)
    model.save(tmp_path / "bank")
    loaded = PatchCore.load(tmp_path / "bank")
    np.testing.assert_array_equal(loaded.roi, mask)
    changed = images[0].copy()
    changed[~mask] = 255
    np.testing.assert_array_equal(*loaded.patch_scores([images[0], changed]))


def write(array, path, **options):
    Image.fromarray(array).save(path, **options)
    return path


def test_masks_in_files(tmp_path, photos):
    white = disc().astype(np.uint8) * 255
    red = np.dstack([white, 0 * white, 0 * white])
    for number, array in enumerate([white, red, disc(), white.astype(np.uint16) * 100]):
        path = write(array, tmp_path / f"{number}.png")
        np.testing.assert_array_equal(RegionOfInterest.of(path).inside, disc())
    assert RegionOfInterest.of(str(path)).digest == RegionOfInterest.of(disc()).digest
    assert RegionOfInterest.of(None) is None


def bad_masks(folder, photo):
    (folder / "text.png").write_text("no image")
    gray = write(disc().astype(np.uint8) * 255, folder / "blurred.jpg", quality=60)
    return {
        "no such image file": folder / "nowhere.png",
        "cannot be read as an image": folder / "text.png",
        "more than two colors": gray,
        "more than two colors.": write(photo(0), folder / "photo.png"),
        "holds no region": write(np.zeros((64, 64), np.uint8), folder / "black.png"),
        "holds no region.": np.zeros((64, 64), bool),
        "give a mask file": np.ones((64, 64)),
        "give a mask file.": np.ones((64, 64, 3), bool),
        "give a mask file..": 3,
        "64x64 pixels, and the mask of the region of interest 32x64": np.ones((64, 32), bool),
        "no patch is inside": np.arange(64 * 64).reshape(64, 64) == 9,
    }


def test_masks_that_cannot_be(tmp_path, photo, photos):
    for message, roi in bad_masks(tmp_path, photo).items():
        with pytest.raises(InputError) as caught:
            tiny_model(roi=roi).fit(photos)
        assert message.rstrip(".") in str(caught.value) and "\n" not in str(caught.value)
        if not isinstance(roi, np.ndarray | int):
            assert str(caught.value).startswith(str(roi))


def test_a_region_that_changes_needs_another_fit(photos):
    model = tiny_model(roi=disc()).fit(photos)
    larger = disc()
    larger[0, 0] = True  # NumPy writes both masks as the same text
    with pytest.raises(InputError, match="roi: changed since"):
        model.set_params(roi=larger).anomaly_scores(photos)


def test_detectors_without_a_region_refuse_one(photos, tmp_path):
    model = tiny_model(roi=disc())
    for detector in (ComposedPatchCore(model), MutualPatchCore(model), StripPatchCore(model)):
        with pytest.raises(InputError, match="cannot have a region of interest"):
            detector.fit(photos)
    with pytest.raises(InputError, match="roi: an exported graph has no region"):
        clone(model).fit(photos).export(tmp_path / "model.onnx", photos)
    assert not list(tmp_path.iterdir())


def test_features_in_the_cache_belong_to_the_region(photos, tmp_path):
    plain = tiny_model(cache=tmp_path).fit(photos)
    cached = [tiny_model(cache=tmp_path, roi=disc()).fit(photos) for _ in range(2)]
    fresh = tiny_model(roi=disc()).fit(photos)
    for model in cached:
        np.testing.assert_array_equal(model.bank_.vectors_, fresh.bank_.vectors_)
    assert plain.bank_.vectors_.shape != fresh.bank_.vectors_.shape


def test_the_learning_curve_looks_inside(photos, photo):
    """The last bank of the curve is of all images: its scores are the detector's."""
    model = tiny_model(roi=disc(), image_score="mean", coreset_ratio=1.0)
    normal = [photo(seed) for seed in range(20, 24)]
    curve = learning_curve(model, photos, normal, draws=1)
    scores = model.fit(photos).anomaly_scores(normal)
    assert curve["normal_score"].iloc[-1] == pytest.approx(np.median(scores), rel=1e-4)


@pytest.mark.parametrize(
    ("shape", "width"), [((64, 8), 65), ((64, 8), 56), ((10**4, 10**4), 80_000), ((64, 1), 0)]
)
def test_packed_regions_that_cannot_be(shape, width):
    with pytest.raises(ValueError, match="a region of interest of"):
        unpacked(np.broadcast_to(np.uint8(255), shape), width)


@given(seed=st.integers(0, 10**6), height=st.integers(1, 9), width=st.integers(1, 20))
def test_a_region_is_packed_and_unpacked(seed, height, width):
    inside = np.random.default_rng(seed).random((height, width)) < 0.5
    inside[0, -1] = True
    np.testing.assert_array_equal(unpacked(np.packbits(inside, axis=1), width), inside)


def test_pixel_metrics_are_taken_inside():
    rng = np.random.default_rng(0)
    maps = rng.random((4, SIZE, SIZE))
    masks = [np.zeros((SIZE, SIZE), bool) for _ in maps]
    masks[0][30:36, 30:36] = masks[1][0:4, 0:4] = True
    metrics = pixel_metrics(masks, maps, disc())
    truth = np.concatenate([mask[disc()] for mask in masks])
    scores = np.concatenate([values[disc()] for values in maps])
    assert metrics["pixel_auroc"] == pytest.approx(roc_auc_score(truth, scores))
    normal = np.sort(scores[~truth])[::-1]
    shares = [(normal > score).mean() for score in scores[truth]]
    assert metrics["au_pro"] == pytest.approx(
        np.clip(1 - np.array(shares) / 0.3, 0, 1).mean(), abs=1e-3
    )
    outside_alone = [masks[1], *masks[2:]]
    assert pixel_metrics(outside_alone, maps[1:], disc()) == {"pixel_auroc": None, "au_pro": None}
