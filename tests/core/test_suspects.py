"""The images that look least like the others, held against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from patchcore_helpers import InputError, PatchCore, load_category, suspects
from patchcore_helpers.core.suspects import oddness


def by_brute_force(patches, companions):
    """Every distance to every other image, one by one."""
    flat = patches.reshape(len(patches), -1, patches.shape[-1]).astype(float)
    expected = np.empty(flat.shape[:2])
    for i, own in enumerate(flat):
        others = [cdist(own, other).min(axis=1) for j, other in enumerate(flat) if j != i]
        ranked = np.sort(others, axis=0)
        expected[i] = ranked[min(companions, len(others)) - 1]
    return expected.reshape(patches.shape[:3])


@given(
    n_images=st.integers(2, 6),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    width=st.integers(1, 5),
    companions=st.integers(1, 7),
    offset=st.sampled_from([0.0, 100.0]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=40, deadline=None)
def test_distances_are_those_of_brute_force(n_images, grid, width, companions, offset, seed):
    patches = np.random.default_rng(seed).normal(offset, 1, (n_images, *grid, width))
    found = oddness(patches, companions=companions, references=9)  # all patches
    # A square root makes an absolute error of 1e-3 of a rounding error of 1e-6 near zero.
    np.testing.assert_allclose(found, by_brute_force(patches, companions), rtol=1e-3, atol=3e-3)


def test_twins_do_not_excuse_each_other():
    patches = np.random.default_rng(0).normal(size=(8, 2, 2, 3)).astype(np.float32)
    patches[5:7, 0, 0] = 50  # the same defect in two images
    alone = oddness(patches, companions=1)
    together = oddness(patches, companions=2)
    assert alone[5:7, 0, 0].max() < 1
    assert together[5:7, 0, 0].min() > 50


def test_an_image_is_never_its_own_companion():
    patches = np.arange(6.0).reshape(3, 1, 2, 1) * 10
    assert oddness(patches, companions=1).min() > 0


def test_the_draw_of_references_follows_the_seed():
    patches = np.random.default_rng(0).normal(size=(4, 5, 5, 3))
    first, same, other = (oddness(patches, references=2, random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    assert (first >= oddness(patches) - 1e-3).all()  # fewer references are never nearer


def test_planted_defects_come_first():
    """Real defective cells among good ones; a small version of benchmarks/suspects.py."""
    category = load_category("elpv/mono", seed=0)
    defective = [sample for sample in category.test if sample.label][::40][:3]
    images = [*category.train[:27], *defective]
    model = PatchCore(image_size=128)
    table = suspects(images, model)
    assert sorted(table["image"]) == list(range(30))
    assert table["oddness"].is_monotonic_decreasing
    found = set(table["image"].head(6)) & {27, 28, 29}
    assert len(found) >= 2  # a fifth of the images by chance
    assert not hasattr(model, "bank_")


@pytest.mark.parametrize("images", [[], [np.zeros((64, 64), np.uint8)]])
def test_one_image_has_no_others(images):
    with pytest.raises(InputError, match="at least"):
        suspects(images)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"companions": 0}, "companions"),
        ({"references": 0}, "references"),
        ({"random_state": -1}, "random_state"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        oddness(np.zeros((3, 1, 1, 2)), **settings)


def test_patches_of_the_wrong_shape():
    with pytest.raises(InputError, match="images, rows, columns, channels"):
        oddness(np.zeros((3, 2)))
