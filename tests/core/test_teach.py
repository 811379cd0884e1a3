"""A bank that is taught goes on with the greedy order: against the algorithm of books."""

import numpy as np
import pytest

from patchcore_helpers import InputError, MemoryBank, PatchCore, k_center_greedy, load_category


def continued(vectors, begun, n_centers):
    """Greedy k-center from these rows on, by brute force in float64."""
    centers = list(begun)
    while len(centers) < n_centers:
        distances = np.linalg.norm(vectors[:, None] - vectors[centers][None], axis=2).min(1)
        centers.append(int(distances.argmax()))
    return centers


def test_a_search_goes_on_from_the_rows_that_it_is_given():
    vectors = np.random.default_rng(0).normal(size=(300, 5))
    begun = [7, 100, 3, 250]
    chosen = k_center_greedy(vectors, 60, projection=None, first=begun)
    assert chosen.indices.tolist() == continued(vectors, begun, 60)
    assert np.isinf(chosen.radii[:3]).all() and np.isfinite(chosen.radii[3:]).all()


@pytest.mark.parametrize("begun", [[], [1, 1], [0, 1, 2], [300]])
def test_rows_to_begin_with_that_cannot_be(begun):
    with pytest.raises(InputError, match="first"):
        k_center_greedy(np.random.default_rng(0).normal(size=(300, 5)), 2, first=begun)


def test_a_bank_is_extended_by_greedy_picks_of_the_new_vectors():
    rng = np.random.default_rng(1)
    old, new = rng.normal(size=(200, 6)), rng.normal(size=(100, 6)) + 1
    bank = MemoryBank(coreset_ratio=0.1).fit(old)
    before = bank.vectors_
    bank.extend(new)
    everything = np.concatenate([before, new.astype(np.float32)]).astype(np.float64)
    expected = continued(everything, range(20), 30)
    np.testing.assert_array_equal(bank.vectors_, everything[expected].astype(np.float32))
    np.testing.assert_array_equal(bank.coreset_.indices[20:], np.array(expected[20:]) - 20 + 200)
    assert bank.n_vectors_ == 300


def test_a_bank_without_an_order_is_not_extended():
    vectors = np.random.default_rng(0).normal(size=(50, 4))
    with pytest.raises(InputError, match="sampler='random'"):
        MemoryBank(coreset_ratio=0.1, sampler="random").fit(vectors).extend(vectors)
    with pytest.raises(InputError, match="3 channels, and the bank has 4"):
        MemoryBank(coreset_ratio=0.1).fit(vectors).extend(vectors[:, :3])


def test_rows_that_were_taught_know_their_images():
    images = load_category("elpv/mono").train[:6]
    model = PatchCore("test_resnet", weights="random", image_size=64, coreset_ratio=0.1)
    model.fit(images[:3]).calibrate(images[3:], 0.5)
    n_before = len(model.bank_)
    model.teach(images[3:])
    origins = model.origin(np.arange(len(model.bank_)))
    assert (origins[:n_before, 0] < 3).all() and (origins[n_before:, 0] >= 3).all()
    patches = model.extractor_.extract(images)
    np.testing.assert_allclose(model.bank_.vectors_, patches[tuple(origins.T)], atol=1e-5)
    assert not hasattr(model, "threshold_")
