"""Exact search against all distances in float64."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from patchcore_helpers import InputError
from patchcore_helpers.core.index import ExactIndex, exact
from patchcore_helpers.core.index.bound import SubspaceBound


def assert_nearest(bank, patches, k):
    """Distances are those of the rows named, ascending, and no row is nearer.

    Which rows are candidates is decided in float32 on centered data, so a row may win that is
    farther by no more than the rounding of the squares.
    """
    distances, rows = ExactIndex().fit(bank).query(patches, k)
    truth = torch.cdist(torch.from_numpy(patches).double(), torch.from_numpy(bank).double()).numpy()
    assert distances.shape == rows.shape == (len(patches), min(k, len(bank)))
    assert distances.dtype == np.float32 and rows.dtype == np.int64
    assert all(len(set(r)) == len(r) for r in rows.tolist())
    assert (np.diff(distances, axis=1) >= 0).all()
    scale = np.abs(bank - bank.mean(0)).max() + np.abs(patches - bank.mean(0)).max()
    np.testing.assert_allclose(
        distances, np.take_along_axis(truth, rows, 1), rtol=1e-5, atol=1e-6 * scale
    )
    best = np.sort(truth, axis=1)[:, : rows.shape[1]]
    slack = 16 * np.finfo(np.float32).eps * bank.shape[1] * scale**2
    assert (distances.astype(float) ** 2 <= best**2 * (1 + 1e-5) + slack).all()
    return distances, rows


@pytest.mark.parametrize("k", [1, 2, 9, 50])
def test_against_cdist(k):
    rng = np.random.default_rng(0)
    bank, patches = (rng.normal(size=(n, 40)).astype(np.float32) for n in (50, 300))
    distances, rows = assert_nearest(bank, patches, k)
    truth = torch.cdist(torch.from_numpy(patches).double(), torch.from_numpy(bank).double())
    expected = truth.topk(k, largest=False)
    np.testing.assert_array_equal(rows, expected.indices)
    np.testing.assert_allclose(distances, expected.values, rtol=1e-5)


def test_a_larger_k_is_cut_to_the_bank():
    bank = np.eye(3, dtype=np.float32)
    distances, rows = assert_nearest(bank, bank, 9)
    assert rows.shape == (3, 3) and rows[:, 0].tolist() == [0, 1, 2]
    np.testing.assert_allclose(distances, [[0, 2**0.5, 2**0.5]] * 3, rtol=1e-6)


def test_a_common_offset_costs_nothing():
    rng = np.random.default_rng(1)
    bank, patches = (rng.normal(size=(n, 20)) for n in (200, 300))
    near, _ = ExactIndex().fit(bank).query(patches, 3)
    bank, patches = (np.float32(a + 1e4) for a in (bank, patches))  # float32 keeps steps of 0.001
    far, _ = assert_nearest(bank, patches, 3)
    np.testing.assert_allclose(far, near, atol=0.01)
    own, rows = ExactIndex().fit(bank).query(bank)
    assert not own.any() and rows[:, 0].tolist() == list(range(200))


def test_duplicates():
    bank = np.repeat(np.float32([[0, 0], [3, 4]]), 5, axis=0)
    distances, rows = assert_nearest(bank, np.float32([[0, 0], [3, 4]]), 6)
    np.testing.assert_allclose(distances, [[0] * 5 + [5]] * 2, atol=1e-6)
    assert set(rows[0, :5]) == set(range(5)) and set(rows[1, :5]) == set(range(5, 10))


def test_indices_belong_to_their_distances_where_candidates_come_in_another_order():
    rng = np.random.default_rng(3)
    bank = rng.normal(0, 0.02, (40, 4)).astype(np.float32)
    bank[20:] += 3000  # the squares of the centered rows have steps of 0.5: order is lost in them
    patches = bank[:20] + np.float32(0.01)
    distances, rows = ExactIndex().fit(bank).query(patches, 20)
    truth = np.linalg.norm(patches[:, None].astype(float) - bank[rows], axis=2)
    np.testing.assert_allclose(distances, truth, rtol=1e-4, atol=1e-6)
    assert (np.diff(distances, axis=1) >= 0).all()


@settings(deadline=None, max_examples=150)
@given(data=st.data(), channels=st.integers(1, 5), k=st.integers(1, 12))
def test_any_input(data, channels, k):
    numbers = st.integers(-(10**6), 10**6).map(lambda n: n / 1000) | st.integers(-2, 2).map(float)
    bank, patches = (
        data.draw(
            hnp.arrays(np.float32, (data.draw(st.integers(1, 10)), channels), elements=numbers)
        )
        for _ in range(2)
    )
    assert_nearest(bank, patches, k)


@pytest.mark.parametrize("k", [1, 3])
def test_blocks_give_what_one_pass_gives(k, monkeypatch):
    rng = np.random.default_rng(2)
    bank, patches = (rng.normal(size=(n, 8)).astype(np.float32) for n in (300, 101))
    whole = ExactIndex().fit(bank).query(patches, k)
    monkeypatch.setattr(exact, "QUERIES", 7)
    monkeypatch.setattr(exact, "STORED", exact.GROUPS)
    blocks = ExactIndex().fit(bank).query(patches, k)
    np.testing.assert_allclose(blocks[0], whole[0], rtol=1e-6)
    np.testing.assert_array_equal(blocks[1], whole[1])


@pytest.mark.parametrize("rows, k", [(50_000, 1), (500, 500)])
def test_memory_stays_flat(rows, k, monkeypatch):
    """No block of distances, and no block of differences, grows with the bank, k or channels."""
    largest, before = [0], torch.Tensor.split

    def split(self, size, *args, **more):
        largest[0] = max(largest[0], size)
        return before(self, size, *args, **more)

    monkeypatch.setattr(torch.Tensor, "split", split)
    bank = np.zeros((rows, 64), np.float32)
    ExactIndex().fit(bank).query(np.zeros((2000, 64), np.float32), k)
    assert largest[0] * max(exact.STORED, k * 64) <= 2**24


@pytest.mark.parametrize("columns", [64, 128, 640])
@pytest.mark.parametrize("k", [1, 2, 5, 63, 64, 100])
def test_smallest_entries_against_topk(columns, k):
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(50, columns)))
    table[:, ::7] = table[:, 1:2]  # equal values
    values, places = exact.smallest_entries(table, k)
    expected = table.topk(min(k, columns), largest=False).values
    torch.testing.assert_close(values, expected, rtol=0, atol=0)
    torch.testing.assert_close(table.gather(1, places), values, rtol=0, atol=0)
    assert all(len(set(row)) == len(row) for row in places.tolist())


def near_a_subspace(n, width=300, dimensions=20, noise=0.2, seed=0):
    """Vectors that lie near a subspace that depends on the width alone."""
    axes = np.random.default_rng(7).normal(size=(dimensions, width))
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, dimensions)) @ axes + noise * rng.normal(size=(n, width))
    return (vectors + 5).astype(np.float32)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_a_bound_spares_most_comparisons_and_changes_nothing(k, monkeypatch):
    compared = []
    original = exact.entries_up_to

    def count(*arguments):
        rows, columns = original(*arguments)
        compared.append(len(columns))
        return rows, columns

    monkeypatch.setattr(exact, "entries_up_to", count)
    bank, patches = near_a_subspace(1500), near_a_subspace(700, seed=1)
    patches[:20] = bank[100:120]  # at no distance
    patches[20:40] += 3 * np.random.default_rng(3).normal(size=(20, 300)).astype(np.float32)
    assert_nearest(bank, patches, k)
    assert k * len(patches) <= sum(compared) < 0.1 * len(patches) * len(bank)


def test_where_the_bound_does_not_help_all_are_compared(monkeypatch):
    bank = near_a_subspace(1500)
    anywhere = 100 * np.random.default_rng(3).normal(size=(60, 300)).astype(np.float32)
    index = ExactIndex().fit(bank)
    assert index.bound and index.bound.axes.shape == (300, 20)
    with monkeypatch.context() as patch:
        patch.setattr(exact, "MOST_CANDIDATES", 2 / len(bank))
        patch.delattr(exact, "smallest_of_each")  # the candidates are not looked at
        assert_nearest(bank, anywhere, 3)
    assert_nearest(bank, anywhere, 3)
    assert_nearest(np.repeat(bank, 2, axis=0), bank[:50], 2)  # each twice
    assert ExactIndex().fit(anywhere.repeat(20, axis=0)).bound  # 60 vectors span 60 dimensions
    for shape in ((1500, 300), (500, 300), (1500, 40)):
        random = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        assert ExactIndex().fit(random).bound is None


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_pairs_are_compared_some_at_a_time(at_once, monkeypatch):
    monkeypatch.setattr(exact, "PAIR_NUMBERS", 5 * at_once)
    rng = np.random.default_rng(0)
    patches, vectors = (torch.from_numpy(rng.normal(size=(n, 5))).float() for n in (30, 20))
    queries, rows = (torch.from_numpy(rng.integers(0, n, size=100)) for n in (30, 20))
    before = patches.clone()
    found = exact.distances_of_pairs(patches, queries, vectors, rows)
    torch.testing.assert_close(found, torch.cdist(patches, vectors)[queries, rows])
    torch.testing.assert_close(patches, before, rtol=0, atol=0)


def test_the_bound_is_below_the_distance_and_exact_within_the_subspace():
    lengths = np.random.default_rng(5).uniform(0, 30, size=(1500, 1))
    rests = lengths * np.random.default_rng(6).normal(size=(1500, 300)) / 300**0.5
    vectors = torch.from_numpy(near_a_subspace(1500, noise=0) - 5 + rests.astype(np.float32))
    subspace = SubspaceBound.of(vectors)
    short = subspace.shorten(vectors)
    bounds = torch.cdist(short[:200].double(), short.double())
    distances = torch.cdist(vectors[:200].double(), vectors.double())
    assert (bounds <= distances + 1e-3).all()
    inside = torch.from_numpy(near_a_subspace(200, noise=0) - 5) @ subspace.axes @ subspace.axes.T
    short = subspace.shorten(inside)
    expected = torch.cdist(inside, inside)
    torch.testing.assert_close(torch.cdist(short, short), expected, atol=0.1, rtol=0.01)


def test_equal_vectors_can_be_bounded():
    assert_nearest(np.ones((1100, 300), np.float32), near_a_subspace(5), 2)


def test_the_bank_is_kept_as_it_was_given():
    bank = np.arange(6, dtype=np.float64).reshape(3, 2)
    search = ExactIndex().fit(bank)
    assert search.query(np.array([[2, 3.5]]))[0] == pytest.approx(0.5)
    np.testing.assert_array_equal(bank, np.arange(6).reshape(3, 2))


@pytest.mark.parametrize("bank", [np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(3), [[np.nan, 1]]])
def test_bad_banks(bank):
    with pytest.raises(InputError, match="memory bank: "):
        ExactIndex().fit(bank)


@pytest.mark.parametrize(
    "patches, message",
    [
        (np.zeros((2, 4)), "patches: 4 channels, but the memory bank has 3"),
        (np.zeros((0, 3)), "give at least one row"),
        (np.full((2, 3), np.inf), "NaN or infinite"),
    ],
)
def test_bad_patches(patches, message):
    with pytest.raises(InputError, match=message):
        ExactIndex().fit(np.zeros((2, 3))).query(patches)


@pytest.mark.long
def test_memory_does_not_grow_with_the_number_of_queries():
    """Small results kept between large blocks once pinned the memory of all blocks."""
    code = """
import numpy as np
from patchcore_helpers.core.index import make_index
from patchcore_helpers.process import peak_rss_mb
random = np.random.default_rng(0)
index = make_index("exact").fit(random.normal(size=(10_000, 152)).astype(np.float32))
queries = random.normal(size=(50_000, 152)).astype(np.float32)
index.query(queries[:1000])
before = peak_rss_mb()
index.query(queries)
print(peak_rss_mb() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 250
