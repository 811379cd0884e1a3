"""MemoryBank: vectors in, distances out, held against scikit-learn and brute force."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics.pairwise import cosine_distances, euclidean_distances

from patchcore_helpers import InputError, MemoryBank, PatchCore, k_center_greedy
from patchcore_helpers.core.coreset import SAMPLERS
from patchcore_helpers.core.distances import nested_min_distances
from patchcore_helpers.core.index import INDEXES

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(600, 20)).astype(np.float32)
QUERIES = RNG.normal(size=(50, 20)).astype(np.float32)


@pytest.fixture(scope="module")
def bank():
    """A bank that no test may change."""
    return MemoryBank(coreset_ratio=0.1, random_state=3).fit(VECTORS)


def test_it_keeps_the_coreset_of_its_vectors(bank):
    chosen = k_center_greedy(VECTORS, 60, projection=128, random_state=3)
    np.testing.assert_array_equal(bank.coreset_.indices, chosen.indices)
    np.testing.assert_array_equal(bank.vectors_, VECTORS[chosen.indices])
    assert len(bank) == 60 and bank.n_vectors_ == 600


@pytest.mark.parametrize(
    "metric, oracle", [("l2", euclidean_distances), ("cosine", cosine_distances)]
)
@pytest.mark.parametrize("k", [1, 3, 1000])
def test_distances_are_those_of_scikit_learn(metric, oracle, k):
    bank = MemoryBank(coreset_ratio=0.1, metric=metric, n_neighbors=k).fit(VECTORS)
    expected = np.sort(oracle(QUERIES, VECTORS[bank.coreset_.indices]), axis=1)[:, :k]
    distances, rows = bank.nearest(QUERIES)
    np.testing.assert_allclose(distances, expected, rtol=1e-4, atol=1e-5)
    assert rows.shape == expected.shape
    np.testing.assert_allclose(bank.distances(QUERIES), expected.mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bank.distances(QUERIES, k=1), expected[:, 0], rtol=1e-4, atol=1e-5)


def test_nested_distances_are_those_of_smaller_banks(bank):
    nested = bank.nested_distances(QUERIES, [1, 7, 60])
    for size, distances in zip([1, 7, 60], nested, strict=True):
        expected = euclidean_distances(QUERIES, bank.vectors_[:size]).min(1)
        np.testing.assert_allclose(distances, expected, rtol=1e-4)
    np.testing.assert_array_equal(nested, nested_min_distances(QUERIES, bank.vectors_, [1, 7, 60]))


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_saved_and_loaded(index, metric, tmp_path):
    bank = MemoryBank(coreset_ratio=0.5, index=index, metric=metric, n_neighbors=2).fit(VECTORS)
    bank.save(tmp_path / "bank.safetensors")
    loaded = MemoryBank.load(tmp_path / "bank.safetensors")
    np.testing.assert_array_equal(loaded.distances(QUERIES), bank.distances(QUERIES))
    assert (len(loaded), loaded.n_vectors_) == (300, 600)
    assert {**loaded.get_params(), "progress": False} == bank.get_params()
    np.testing.assert_array_equal(loaded.coreset_.indices, bank.coreset_.indices)


def test_the_bank_of_a_saved_detector(photos, tmp_path):
    model = PatchCore("test_resnet", weights="random", image_size=64, coreset_ratio=0.1).fit(photos)
    model.save(tmp_path / "bank")
    bank = MemoryBank.load(tmp_path / "bank")
    np.testing.assert_array_equal(bank.vectors_, model.bank_.vectors_)
    MemoryBank(coreset_ratio=0.1).fit(VECTORS).save(tmp_path / "vectors alone")
    with pytest.raises(InputError, match=r"read it with MemoryBank\.load"):
        PatchCore.load(tmp_path / "vectors alone")


def test_codes_alone_cannot_answer_everything(tmp_path):
    MemoryBank(coreset_ratio=0.5, index="ivf_pq_fast").fit(VECTORS).save(tmp_path / "bank")
    loaded = MemoryBank.load(tmp_path / "bank")
    assert not hasattr(loaded, "vectors_")
    for call in (
        lambda: loaded.nested_distances(QUERIES, [5]),
        lambda: loaded.reweighting(QUERIES, np.zeros(50, int)),
    ):
        with pytest.raises(InputError, match="needs the vectors of the memory bank"):
            call()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_takes_the_same_settings(sampler):
    """The bank calls all samplers alike, whatever use they have for a projection."""
    bank = MemoryBank(sampler=sampler, coreset_ratio=0.05, projection=8, random_state=1)
    chosen = SAMPLERS[sampler](VECTORS, 30, projection=8, random_state=1, progress=False)
    np.testing.assert_array_equal(bank.fit(VECTORS).coreset_.indices, chosen.indices)


def test_progress_shows_the_coreset(capsys):
    MemoryBank(progress=True).fit(VECTORS)
    assert "pick" in capsys.readouterr().err
    MemoryBank().fit(VECTORS)
    assert capsys.readouterr().err == ""


def test_before_fit():
    bank = MemoryBank()
    assert clone(bank).get_params() == bank.get_params()
    for call in (len, lambda b: b.nearest(QUERIES), lambda b: b.save("bank")):
        with pytest.raises(NotFittedError):
            call(bank)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"coreset_ratio": 0}, "coreset_ratio=0: give a share above 0 and at most 1"),
        ({"n_neighbors": 0}, "n_neighbors=0: give a whole number from 1"),
        ({"metric": "l1"}, "metric='l1': choose one of l2, cosine"),
        ({"sampler": "all"}, "sampler='all': choose one of k_center, random"),
        ({"index": "tree"}, "index='tree': choose one of exact"),
        ({"random_state": -1}, "random_state=-1: give a whole number from 0"),
        ({"projection": 0}, "projection"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        MemoryBank(**settings).fit(VECTORS)


def test_bad_vectors(bank):
    for vectors in (np.zeros((0, 3)), np.zeros(3), np.full((4, 3), np.nan)):
        with pytest.raises(InputError, match="vectors: "):
            MemoryBank().fit(vectors)
    with pytest.raises(InputError, match="3 channels, but the memory bank has 20"):
        bank.distances(np.zeros((2, 3)))


def test_rows_are_removed():
    bank = MemoryBank(coreset_ratio=0.1).fit(VECTORS)
    before, chosen = bank.vectors_, bank.coreset_.indices
    bank.remove([3, 0, 3])
    stays = np.delete(np.arange(60), [0, 3])
    np.testing.assert_array_equal(bank.vectors_, before[stays])
    np.testing.assert_array_equal(bank.coreset_.indices, chosen[stays])
    expected = euclidean_distances(QUERIES, before[stays]).min(1)
    np.testing.assert_allclose(bank.distances(QUERIES), expected, rtol=1e-4)


@pytest.mark.parametrize("rows", [[60], [-1], range(60), [0.5]])
def test_rows_that_cannot_be_removed(rows):
    with pytest.raises(InputError, match="rows"):
        MemoryBank(coreset_ratio=0.1).fit(VECTORS).remove(rows)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_distances_without_the_nearest_group(metric):
    bank = MemoryBank(coreset_ratio=0.2, metric=metric).fit(VECTORS)
    groups = np.random.default_rng(0).integers(0, 3, len(bank))
    oracle = euclidean_distances if metric == "l2" else cosine_distances
    table = oracle(QUERIES, bank.vectors_)
    expected = [row[groups != groups[row.argmin()]].min() for row in table]
    np.testing.assert_allclose(bank.second_distances(QUERIES, groups), expected, rtol=1e-4)
    assert np.isinf(bank.second_distances(QUERIES, np.zeros(len(bank), int))).all()
