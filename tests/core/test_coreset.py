"""Greedy k-center against its definition, evaluated in float64 without any shortcut."""

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import roc_auc_score

from patchcore_helpers.core.aggregation import local_average
from patchcore_helpers.core.coreset import (
    SAMPLERS,
    Coreset,
    GreedySearch,
    k_center_greedy,
    k_center_greedy_reference,
    random_coreset,
    variance_weighted_k_center,
)
from patchcore_helpers.core.distances import (
    BLOCK_ROWS,
    nested_min_distances,
    single_threaded_workers,
)
from patchcore_helpers.core.index import ExactIndex
from patchcore_helpers.core.variance_weights import VARIANCES, variance_weights
from patchcore_helpers.core.vector_space import ExactSpace
from patchcore_helpers.errors import InputError


def replay(points, indices, weights=None):
    """Radius after each pick, and how far the picked row was beside the farthest one."""
    points = np.asarray(points, np.float64)
    weights = np.ones(len(points)) if weights is None else np.asarray(weights) / np.max(weights)
    nearest = np.full(len(points), np.inf)
    radii, reached = [], []
    for i in indices:
        reached.append(nearest[i] * weights[i])
        nearest = np.minimum(nearest, np.sqrt(((points - points[i]) ** 2).sum(1)))
        radii.append((nearest * weights).max())
    return np.array(radii), np.array(reached)


def assert_greedy(points, chosen, weights=None, atol=0.0):
    radii, reached = replay(points, chosen.indices, weights)
    np.testing.assert_allclose(chosen.radii, radii, rtol=1e-4, atol=atol)
    np.testing.assert_allclose(reached[1:], radii[:-1], rtol=1e-4, atol=atol)
    assert len(set(chosen.indices.tolist())) == len(chosen)
    distinct = len(np.unique(np.asarray(points), axis=0))
    if len(chosen) > distinct:  # what is left follows by row number, with radius 0
        tail = chosen.indices[distinct:]
        assert (np.diff(tail) > 0).all()
        assert (chosen.radii[distinct - 1 :] == 0).all()


def weighted_reference(points, k, first, weights):
    """The reference with weights; also the smallest relative lead of a pick over the next row.

    Copies of the picked row with the same weight are no rivals: whichever is picked, the choice is
    the same.
    """
    points = np.asarray(points, np.float64)
    weights = np.asarray(weights) / np.max(weights)
    described = np.column_stack([points, weights])
    order = [first]
    radii = []
    leads = []
    nearest = np.full(len(points), np.inf)
    for _ in range(k):
        nearest = np.minimum(nearest, np.linalg.norm(points - points[order[-1]], axis=1))
        priority = nearest * weights
        radii.append(priority.max())
        order.append(int(priority.argmax()))
        rivals = priority[(described != described[order[-1]]).any(axis=1)]
        leads.append(1 - rivals.max(initial=0.0) / max(radii[-1], 1e-300))
    return order[:k], np.array(radii), min(leads[: k - 1], default=1.0)


def greedy_search(points, k, first=0, *, centered=True, **settings):
    """`k_center_greedy` without a projection, with the inside of the search set by hand."""
    with single_threaded_workers() as for_each:
        space = ExactSpace(points, for_each)
        if not centered:
            space.offset = torch.zeros_like(space.offset)
        search = GreedySearch(space, for_each, [first], **settings)
        assert list(search.rounds(k))[-1] == k
    radii = np.sqrt(search.squared_radii) / space.scale
    return Coreset(np.array(search.centers), radii.astype(np.float32), "exact")


# A grid gives duplicates, ties and collinear points; scale and offset stretch the arithmetic.
grids = hnp.arrays(
    np.int64, st.tuples(st.integers(1, 60), st.integers(1, 5)), elements=st.integers(-3, 3)
)


@settings(deadline=None, max_examples=150)
@given(
    grid=grids,
    scale=st.sampled_from([1.0, 1e-3, 37.5, 1e25, 1e-25]),
    offset=st.sampled_from([0.0, 1.0, -1e4, 1e6]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    share=st.floats(0, 1),
    seed=st.integers(0, 3),
)
def test_definition_on_awkward_inputs(grid, scale, offset, dtype, share, seed):
    with np.errstate(over="ignore"):
        points = ((grid + offset) * scale).astype(dtype)
    if not np.isfinite(points).all():
        points = grid.astype(dtype)
    k = 1 + int(share * (len(points) - 1))
    chosen = k_center_greedy(points, k, random_state=seed)
    assert chosen.space == "exact" and chosen.indices.dtype == np.int64 and len(chosen) == k
    scaled = points.astype(np.float64) / scale  # keep the oracle's own squares finite
    assert_greedy(scaled, Coreset(chosen.indices, chosen.radii / scale, "exact"))


@pytest.mark.long
@settings(deadline=None, max_examples=100)
@given(
    points=hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 40), st.integers(1, 4)),
        elements=st.floats(-1e3, 1e3).map(lambda v: round(v, 6)),
    ),
    data=st.data(),
)
def test_weighted_choice_is_the_weighted_argmax(points, data):
    weights = data.draw(hnp.arrays(np.float64, len(points), elements=st.floats(1e-3, 1e3)))
    k = data.draw(st.integers(1, len(points)))
    chosen = k_center_greedy(points, k, weights=weights)
    assert_greedy(points, chosen, weights)
    scaled = k_center_greedy(points, k, weights=weights * 3.7)
    np.testing.assert_array_equal(scaled.indices, chosen.indices)
    np.testing.assert_array_equal(scaled.radii, chosen.radii)


def test_equal_weights_change_nothing():
    points = np.random.default_rng(0).normal(size=(500, 6))
    plain = k_center_greedy(points, 100)
    np.testing.assert_array_equal(
        k_center_greedy(points, 100, weights=np.full(500, 0.3)).indices, plain.indices
    )


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 80),
    width=st.integers(1, 6),
    offset=st.sampled_from([0.0, -30.0, 1e4]),
    dtype=st.sampled_from([np.float32, np.float64]),
    share=st.floats(0, 1),
    weighted=st.booleans(),
)
@example(seed=0, n=80, width=3, offset=1e4, dtype=np.float64, share=1.0, weighted=True)
@example(seed=1, n=80, width=3, offset=-30.0, dtype=np.float32, share=0.9, weighted=False)
def test_picks_of_the_reference(seed, n, width, offset, dtype, share, weighted):
    """A third of the rows are copies of others: the choice is compared by vectors, not by rows."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, width))
    points = (points[rng.integers(len(points), size=n)] + offset).astype(dtype)
    weights = rng.uniform(0.1, 1, n) if weighted else np.ones(n)
    first = int(rng.integers(n))
    distinct = len(np.unique(points, axis=0))
    k = 1 + int(share * (distinct - 1))
    order, radii, lead = weighted_reference(points, k, first, weights)
    assume(lead > 1e-3)  # no tie that rounding could decide
    fast = k_center_greedy(points, k, first=first, weights=weights if weighted else None)
    assert fast.indices[0] == first
    np.testing.assert_array_equal(points[fast.indices], points[order])
    np.testing.assert_allclose(fast.radii, radii, rtol=1e-4, atol=1e-6 * radii[0])
    if not weighted:
        reference = k_center_greedy_reference(points, k, first=first)
        np.testing.assert_array_equal(points[fast.indices], points[reference.indices])
        np.testing.assert_allclose(fast.radii, reference.radii, rtol=1e-4, atol=1e-6 * radii[0])
        assert reference.space == fast.space == "exact"


@pytest.mark.parametrize("largest_pool", [1, 5, 2048])
def test_same_picks_as_the_reference_for_any_pool(largest_pool):
    """More rows than a block has, so that the pool is filled from several blocks."""
    n = BLOCK_ROWS + 700
    points = np.random.default_rng(1).normal(size=(n, 16)).astype(np.float32)
    reference = k_center_greedy_reference(points, 400, first=5)
    for chosen in (
        greedy_search(points, 400, 5, largest_pool=largest_pool),
        k_center_greedy(points, 400, first=5),
    ):
        np.testing.assert_array_equal(chosen.indices, reference.indices)
        np.testing.assert_allclose(chosen.radii, reference.radii, rtol=1e-5)


def test_pools_save_passes_over_the_data():
    points = np.random.default_rng(1).normal(size=(3000, 16)).astype(np.float32)
    with single_threaded_workers() as for_each:
        search = GreedySearch(ExactSpace(points, for_each), for_each, [0])
        n_chosen = list(search.rounds(400))
    assert n_chosen == sorted(set(n_chosen)) and n_chosen[-1] == 400
    assert len(n_chosen) < 400 / 5  # the reference needs 400


@pytest.mark.parametrize("n", [1, 2, 7])
def test_constant_data_and_every_row(n):
    chosen = k_center_greedy(np.full((n, 3), 4.2, np.float32), n, random_state=1)
    assert sorted(chosen.indices.tolist()) == list(range(n))
    assert (chosen.radii == 0).all() and (np.diff(chosen.indices[1:]) > 0).all()


def test_prefixes_are_the_smaller_coresets():
    points = np.random.default_rng(2).normal(size=(2000, 200)).astype(np.float32)
    for name, sampler in SAMPLERS.items():
        large = sampler(points, 300, random_state=3)
        for k in (1, 2, 77, 299):
            np.testing.assert_array_equal(
                sampler(points, k, random_state=3).indices, large.indices[:k], err_msg=name
            )
        other = sampler(points, 300, random_state=4)
        assert not np.array_equal(other.indices, large.indices)


def two_far_clusters(dtype=np.float64):
    """Tight clusters a long way apart: every product of two rows loses what tells them apart."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, 8)) + 1e6
    points[::2] += 2e4
    return points.astype(dtype)


def test_cancellation_guard_is_needed_and_works():
    points = two_far_clusters()
    assert_greedy(points, k_center_greedy(points, 200))
    with pytest.raises(AssertionError):  # without ever leaving the matrix product
        assert_greedy(points, greedy_search(points, 200, tolerance=float("inf")))


def test_centering_is_needed_and_works():
    points = np.random.default_rng(0).normal(size=(500, 8)) + 1e6
    products_alone = {"tolerance": float("inf")}
    assert_greedy(points, greedy_search(points, 20, **products_alone))
    with pytest.raises(AssertionError):
        assert_greedy(points, greedy_search(points, 20, centered=False, **products_alone))


def test_projection_keeps_distances_and_duplicates():
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(size=(300, 600)).astype(np.float32), 2, axis=0)
    points = points[rng.permutation(600)] + np.float32(50)
    projected = k_center_greedy(points, 320, projection=128)
    assert projected.space == "projected"
    assert (projected.radii[299:] == 0).all() and (projected.radii[:299] > 0).all()
    exact, _ = replay(points, projected.indices[:100])
    assert np.all(np.abs(projected.radii[:100] / exact - 1) < 0.3)
    assert k_center_greedy(points, 5, projection=None).space == "exact"


@pytest.mark.parametrize(
    "width, projection, space",
    [(256, 128, "projected"), (255, 128, "exact"), (152, 128, "exact"), (6, 3, "projected")],
)
def test_a_projection_is_used_where_it_halves_the_vectors(width, projection, space):
    points = np.random.default_rng(0).normal(size=(60, width)).astype(np.float32)
    chosen = k_center_greedy(points, 20, projection=projection, random_state=1)
    assert chosen.space == space
    exact = k_center_greedy(points, 20, projection=None, random_state=1)
    assert (chosen.indices.tolist() == exact.indices.tolist()) == (space == "exact")


def test_array_kinds_agree(tmp_path):
    points = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    np.save(tmp_path / "points.npy", points)
    kinds = [
        torch.from_numpy(points),
        np.load(tmp_path / "points.npy", mmap_mode="r"),
        np.asfortranarray(points),
        points.astype(np.float64),
        torch.from_numpy(points).requires_grad_(),
    ]
    expected = k_center_greedy(points, 60)
    for kind in kinds:
        chosen = k_center_greedy(kind, 60)
        np.testing.assert_array_equal(chosen.indices, expected.indices)
        np.testing.assert_allclose(chosen.radii, expected.radii, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"patches": np.empty((0, 4))}, "patches"),
        ({"patches": np.zeros(4)}, "patches"),
        ({"patches": np.zeros((4, 4), int)}, "patches"),
        ({"patches": np.array([[1.0], [np.nan]])}, "NaN"),
        ({"patches": np.array([[1.0], [np.inf]])}, "infinity"),
        ({"patches": np.array([[-np.inf], [np.inf]], np.float16)}, "infinity"),
        ({"n_centers": 0}, "n_centers"),
        ({"n_centers": 11}, "n_centers"),
        ({"n_centers": 2.5}, "n_centers"),
        ({"n_centers": True}, "n_centers"),
        ({"projection": 0}, "projection"),
        ({"projection": "all"}, "projection"),
        ({"weights": np.ones(3)}, "weights"),
        ({"weights": np.zeros(10)}, "weights"),
        ({"weights": np.full(10, np.nan)}, "weights"),
        ({"random_state": -1}, "random_state"),
        ({"random_state": "x"}, "random_state"),
        ({"random_state": 2**32}, "random_state"),
        ({"first": -1}, "first=-1: give a whole number from 0 to 9"),
        ({"first": 10}, "first"),
    ],
)
def test_bad_input_is_refused_by_name(change, word):
    arguments = {"patches": np.eye(10), "n_centers": 3} | change
    with pytest.raises(InputError, match=word):
        k_center_greedy(**arguments)


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_samplers_are_called_in_the_same_way(sampler, capsys):
    points = np.random.default_rng(0).normal(size=(50, 8))
    options = {"projection": 4, "random_state": 3, "weights": np.ones(50), "progress": True}
    chosen = sampler(points, 20, **options)
    assert isinstance(chosen, Coreset) and len(chosen) == 20
    assert chosen.indices.dtype == np.int64 and len(set(chosen.indices.tolist())) == 20
    np.testing.assert_array_equal(sampler(points, 20, **options).indices, chosen.indices)
    assert capsys.readouterr().out == ""


def test_random_ignores_what_a_search_would_use():
    points = np.random.default_rng(0).normal(size=(50, 8))
    plain = random_coreset(points, 20, random_state=3)
    options = {"projection": 2, "weights": np.arange(1, 51), "progress": True}
    chosen = random_coreset(points, 20, random_state=3, **options)
    np.testing.assert_array_equal(chosen.indices, plain.indices)
    assert chosen.radii is plain.radii is None


def test_random_is_uniform_and_refuses_bad_input():
    counts = np.zeros(10)
    for seed in range(2000):
        chosen = random_coreset(np.eye(10), 3, random_state=seed)
        assert len(set(chosen.indices.tolist())) == 3 and chosen.radii is None
        counts[chosen.indices] += 1
    assert (np.abs(counts - 600) < 5 * np.sqrt(600 * 0.7)).all()
    with pytest.raises(InputError, match="n_centers"):
        random_coreset(np.eye(10), 11)


@pytest.mark.parametrize("offset", [0.0, 3e3])
def test_nested_distances_equal_separate_searches(offset):
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(5000, 20)) + offset).astype(np.float32)
    queries = (rng.normal(size=(4500, 20)) + offset).astype(np.float32)
    bank = points[k_center_greedy(points, 1500).indices]
    sizes = [1, 2, 30, 700, 1500]
    nested = nested_min_distances(queries, bank, sizes)
    assert nested.shape == (5, 4500) and nested.dtype == np.float32
    for row, size in zip(nested, sizes, strict=True):
        truth = torch.cdist(
            torch.from_numpy(queries).double(), torch.from_numpy(bank[:size]).double()
        )
        np.testing.assert_allclose(row, truth.amin(1).numpy(), rtol=1e-6)
    assert (nested_min_distances(bank, bank, [1500]) == 0).all()


@pytest.mark.parametrize("sizes", [[], [0], [3, 3], [5, 2], [11]])
def test_nested_distances_refuse_bad_sizes(sizes):
    with pytest.raises(InputError, match="sizes"):
        nested_min_distances(np.eye(10), np.eye(10), sizes)


@pytest.mark.parametrize("name", ["queries", "bank"])
def test_nested_distances_refuse_what_has_no_distance(name):
    arrays = {"queries": np.eye(10), "bank": np.eye(10)}
    arrays[name][3, 4] = np.nan
    with pytest.raises(InputError, match="NaN"):
        nested_min_distances(**arrays, sizes=[2, 8])
    with pytest.raises(InputError, match="columns"):
        nested_min_distances(np.eye(10), np.eye(9), [1])


def test_threads_are_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        k_center_greedy(np.eye(10), 5)
        with pytest.raises(InputError):
            k_center_greedy(np.full((4, 2), np.nan), 2)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_progress_goes_to_standard_error_only_when_asked(capsys):
    k_center_greedy(np.eye(10), 5)
    assert capsys.readouterr() == ("", "")
    k_center_greedy(np.eye(10), 5, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "radius" in err and "5/5" in err
    variance_weighted_k_center(np.eye(12).reshape(3, 2, 2, 12), 7, progress=True)
    assert "7/7" in capsys.readouterr().err
    k_center_greedy(np.zeros((10, 2)), 6, progress=True)  # equal rows: all but one are filled up
    assert "6/6" in capsys.readouterr().err


def test_one_pass_gives_the_auroc_of_ten_separate_fits():
    rng = np.random.default_rng(0)
    center, labels = rng.normal(size=(1, 24)) * 20, np.arange(60) % 3 == 0
    train = (center + rng.normal(size=(2000, 24))).astype(np.float32)
    test = center + rng.normal(size=(60, 50, 24)) * (1 + 0.1 * labels[:, None, None])
    test = test.astype(np.float32).reshape(-1, 24)
    sizes = [2, 5, 10, 20, 50, 100, 200, 400, 800, 2000]
    order = k_center_greedy(train, sizes[-1]).indices
    nested = nested_min_distances(test, train[order], sizes).reshape(10, 60, 50)
    aurocs = []
    for size, distances in zip(sizes, nested, strict=True):
        bank = train[k_center_greedy(train, size).indices]
        scores = ExactIndex().fit(bank).query(test)[0].reshape(60, 50)
        np.testing.assert_allclose(distances, scores, rtol=1e-6)
        aurocs.append(roc_auc_score(labels, scores.max(1)))
        assert roc_auc_score(labels, distances.max(1)) == pytest.approx(aurocs[-1], abs=1e-6)
    assert len(set(aurocs)) > 5


# Variance weighting


def weights_by_hand(patches, variance, exponent):
    """Patch by patch; the clusters alone are taken from scikit-learn."""
    images, rows, columns, channels = patches.shape
    flat = patches.reshape(-1, channels).astype(float)
    label = range(len(flat))
    if variance == "neighborhood":
        label = MiniBatchKMeans(min(64, len(flat)), n_init=1, random_state=0)
        label = label.fit(patches.reshape(-1, channels))
        centers, label = label.cluster_centers_, label.labels_
    spread = []
    for row in range(len(flat)):
        if variance == "dimensions":
            vector = flat[row].tolist()
            mean = sum(vector) / channels
            spread.append(sum((x - mean) ** 2 for x in vector) / channels)
        elif variance == "position":
            i, j = divmod(row % (rows * columns), columns)
            total = 0.0
            for c in range(channels):
                seen = [float(patches[image, i, j, c]) for image in range(images)]
                mean = sum(seen) / images
                total += sum((x - mean) ** 2 for x in seen) / images
            spread.append(total)
        else:
            members = [flat[k] for k in range(len(flat)) if label[k] == label[row]]
            center = centers[label[row]]
            spread.append(sum(((m - center) ** 2).sum() for m in members) / len(members))
    top = max(spread)
    return np.array([max(s / top, 1e-6) if top > 0 else 1.0 for s in spread]) ** exponent


stacks = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)),
    elements=st.integers(-40, 40).map(lambda v: v / 8),
)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("variance", VARIANCES)
@settings(deadline=None, max_examples=60)
@given(patches=stacks, exponent=st.sampled_from([0.0, 0.5, 1.0, 2.0]), data=st.data())
def test_variance_weighted_choice_is_the_weighted_argmax(variance, patches, exponent, data):
    rows = patches.reshape(-1, patches.shape[-1])
    weights = weights_by_hand(patches, variance, exponent)
    computed = variance_weights(patches, variance, exponent)
    np.testing.assert_allclose(computed, weights, rtol=1e-3 if variance == "neighborhood" else 1e-9)
    assert computed.shape == (len(rows),) and (computed > 0).all() and computed.max() == 1
    k = data.draw(st.integers(1, len(rows)))
    chosen = variance_weighted_k_center(patches, k, variance=variance, exponent=exponent)
    assert len(chosen) == k
    assert_greedy(rows, chosen, weights if variance != "neighborhood" else computed, atol=1e-12)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("projection", [128, 3])
def test_exponent_0_is_plain_k_center(variance, projection):
    patches = np.random.default_rng(0).normal(size=(8, 7, 6, 10)).astype(np.float32)
    options = {"projection": projection, "random_state": 3}
    plain = k_center_greedy(patches.reshape(-1, 10), 200, **options)
    chosen = variance_weighted_k_center(patches, 200, variance=variance, exponent=0, **options)
    np.testing.assert_array_equal(chosen.indices, plain.indices)
    np.testing.assert_array_equal(chosen.radii, plain.radii)
    assert chosen.space == plain.space
    weighted = variance_weighted_k_center(patches, 200, variance=variance, exponent=2, **options)
    assert weighted.indices[0] == plain.indices[0]  # the first is random for both
    assert not np.array_equal(weighted.indices, plain.indices)


def test_variance_draws_picks_to_where_images_differ():
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(50, 2, 3, 8)).astype(np.float32)
    patches[:, 1, 2] *= 3
    assert variance_weights(patches).reshape(50, 6).argmax(1).tolist() == [5] * 50
    at_position = [
        np.mean(variance_weighted_k_center(patches, 60, exponent=e).indices % 6 == 5)
        for e in (0, 1, 2)
    ]
    assert at_position == sorted(at_position) and at_position[2] > at_position[0]


@pytest.mark.parametrize("variance", ["position", "dimensions"])
def test_the_ring_that_zeros_damp_may_take_the_weight_of_its_inner_neighbors(variance):
    """The same texture everywhere, so that no place deserves more weight than another."""
    noise = torch.randn(60, 12, 10, 10, generator=torch.Generator().manual_seed(0))
    patches = local_average(noise, 3).permute(0, 2, 3, 1).numpy()
    is_ring = np.pad(np.zeros((8, 8), bool), 1, constant_values=True)

    def weights_and_share(**options):
        weights = variance_weights(patches, variance, **options).reshape(60, 10, 10)
        chosen = variance_weighted_k_center(patches, 300, variance=variance, **options)
        return weights, is_ring.ravel()[chosen.indices % 100].mean()

    damped, starved = weights_and_share()
    assert damped[:, is_ring].mean() < 0.75 * damped[:, ~is_ring].mean()
    copied, share = weights_and_share(border_ring=1)
    for row, column in np.ndindex(10, 10):  # compared with the nearest patch inside, by hand
        inside = min(max(row, 1), 8), min(max(column, 1), 8)
        np.testing.assert_array_equal(copied[:, row, column], copied[:, *inside])
    same_order = copied[:, 1:-1, 1:-1] / damped[:, 1:-1, 1:-1]
    assert np.ptp(same_order) < 1e-6 * same_order.max()
    assert share > 2 * starved
    with pytest.raises(InputError, match="border_ring=5: leaves nothing of 10 x 10 patches"):
        variance_weights(patches, variance, border_ring=5)


def test_array_kinds_agree_on_weights(tmp_path):
    patches = np.random.default_rng(0).normal(size=(6, 4, 4, 5)).astype(np.float32)
    np.save(tmp_path / "patches.npy", patches)
    kinds = [np.load(tmp_path / "patches.npy", mmap_mode="r"), torch.from_numpy(patches)]
    for variance in VARIANCES:
        expected = variance_weighted_k_center(patches, 40, variance=variance).indices
        for kind in kinds:
            chosen = variance_weighted_k_center(kind, 40, variance=variance).indices
            np.testing.assert_array_equal(chosen, expected)


GOOD_STACK = np.random.default_rng(0).normal(size=(4, 2, 2, 3))
ONE_ENTRY = np.arange(48).reshape(4, 2, 2, 3) == 17


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"patches": GOOD_STACK[0]}, "patches"),
        ({"patches": GOOD_STACK[:0]}, "patches"),
        ({"patches": np.where(ONE_ENTRY, np.nan, GOOD_STACK)}, "NaN"),
        ({"patches": np.where(ONE_ENTRY, np.inf, GOOD_STACK)}, "infinity"),
        ({"variance": "positions"}, "choose one of position, neighborhood, dimensions"),
        ({"exponent": -0.1}, "exponent"),
        ({"exponent": np.nan}, "exponent"),
        ({"exponent": np.inf}, "exponent"),
        ({"exponent": "1"}, "exponent"),
        ({"random_state": -1}, "random_state"),
        ({"border_ring": -1}, "border_ring"),
        ({"border_ring": 1}, "border_ring=1: leaves nothing of 2 x 2 patches"),
    ],
)
@pytest.mark.parametrize("variance", VARIANCES)
def test_weights_refuse_bad_input(variance, change, word):
    arguments = {"patches": GOOD_STACK, "variance": variance} | change
    with pytest.raises(InputError, match=word):
        variance_weights(**arguments)
    with pytest.raises(InputError, match=word):
        variance_weighted_k_center(n_centers=3, **arguments)
    with pytest.raises(InputError, match="n_centers"):
        variance_weighted_k_center(GOOD_STACK, 17, variance=variance)
