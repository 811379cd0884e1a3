"""The coreset of shards against brute force, and against greedy k-center of all rows at once."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.random_projection import GaussianRandomProjection

from patchcore_helpers import InputError
from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.coreset import k_center_greedy
from patchcore_helpers.core.extractor import Extractor
from patchcore_helpers.core.sharded import composable_k_center, coverage_radius, write_shards


def distances(a, b):
    return np.linalg.norm(a[:, None].astype(float) - b[None].astype(float), axis=2)


def best_radius(points, k):
    """By trying every set of k rows."""
    apart = distances(points, points)
    sets = itertools.combinations(range(len(points)), min(k, len(points)))
    return min(apart[:, list(rows)].min(1).max() for rows in sets)


grids = hnp.arrays(
    np.int64, st.tuples(st.integers(2, 11), st.integers(1, 3)), elements=st.integers(-4, 4)
)


@pytest.mark.long
@settings(deadline=None, max_examples=150)
@given(grid=grids, data=st.data())
def test_radius_is_within_the_bounds_of_the_literature(grid, data):
    points = grid.astype(np.float32)
    cuts = data.draw(st.lists(st.integers(1, len(points) - 1), max_size=3, unique=True))
    shards = np.split(points, sorted(cuts))
    k = data.draw(st.integers(1, len(points)))
    enough = -(-k // len(shards)) if min(map(len, shards)) * len(shards) >= k else k
    m = data.draw(st.sampled_from([k, max(1, enough), k + 2]))
    if sum(min(m, len(s)) for s in shards) < k:
        m = k
    chosen = composable_k_center(shards, k, per_shard=m, random_state=data.draw(st.integers(0, 3)))
    assert len(set(chosen.indices.tolist())) == k == len(chosen)
    np.testing.assert_array_equal(points[chosen.indices], chosen.centers)
    picked = [shards[shard][row] for shard, row in zip(chosen.shards, chosen.rows, strict=True)]
    np.testing.assert_array_equal(picked, chosen.centers)
    reached = distances(points, chosen.centers).min(1).max()
    assert coverage_radius(shards, chosen.centers) == pytest.approx(reached, rel=1e-6)
    best = best_radius(points, k)
    bound = 4 * best if m >= k else 2 * best + 2 * best_radius(points, m)
    assert reached <= bound * (1 + 1e-5)
    assert reached <= (chosen.shard_radius + chosen.radii[-1]) * (1 + 1e-5)
    assert chosen.shard_radius <= 2 * best_radius(points, m) * (1 + 1e-5)
    assert chosen.radii[-1] <= 2 * best * (1 + 1e-5)


@pytest.mark.parametrize("projection", [None, 8])
def test_one_shard_is_greedy_k_center(projection):
    points = np.random.default_rng(0).normal(size=(3000, 24)).astype(np.float32)
    plain = k_center_greedy(points, 150, projection=projection, random_state=3)
    sharded = composable_k_center([points], 150, projection=projection, random_state=3)
    np.testing.assert_array_equal(sharded.indices, plain.indices)
    np.testing.assert_array_equal(sharded.rows, plain.indices)
    np.testing.assert_allclose(sharded.radii[:-1], plain.radii[:-1], rtol=1e-4)
    assert sharded.shard_radius == plain.radii[-1] and sharded.radii[-1] == 0
    assert sharded.space == plain.space == ("exact" if projection is None else "projected")


def test_second_round_is_greedy_on_the_union():
    """Replayed by hand; all shards see the same projection, or the distances would not agree."""
    rng = np.random.default_rng(1)
    shards = [rng.normal(i, 1, (n, 40)).astype(np.float32) for i, n in enumerate((500, 90, 700))]
    k, m = 60, 45
    chosen = composable_k_center(shards, k, per_shard=m, projection=16, random_state=5)
    firsts = [k_center_greedy(s, m, projection=16, random_state=5) for s in shards]
    matrix = GaussianRandomProjection(16, random_state=5).fit(np.zeros((1, 40))).components_.T
    union = np.concatenate([s[f.indices] for s, f in zip(shards, firsts, strict=True)])
    nearest, picks = np.full(len(union), np.inf), [0]
    projected = union.astype(float) @ matrix
    for radius in chosen.radii:
        apart = np.linalg.norm(projected - projected[picks[-1]], axis=1)
        nearest = np.minimum(nearest, apart)
        assert radius == pytest.approx(nearest.max(), rel=1e-4)
        picks.append(int(nearest.argmax()))
    np.testing.assert_array_equal(chosen.centers, union[picks[:k]])
    assert chosen.shard_radius == max(f.radii[-1] for f in firsts)
    stacked = np.concatenate(shards)
    np.testing.assert_array_equal(stacked[chosen.indices], chosen.centers)
    prefix = composable_k_center(shards, 20, per_shard=m, projection=16, random_state=5)
    np.testing.assert_array_equal(prefix.indices, chosen.indices[:20])


def test_memory_maps_paths_and_arrays_agree(tmp_path):
    rng = np.random.default_rng(0)
    shards = [rng.normal(size=(n, 12)).astype(np.float32) for n in (300, 200)]
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for path, shard in zip(paths, shards, strict=True):
        np.save(path, shard)
    kinds = [
        paths,
        [str(path) for path in paths],
        [np.load(path, mmap_mode="r") for path in paths],
        [torch.from_numpy(shard) for shard in shards],
    ]
    expected = composable_k_center(shards, 40, projection=6)
    np.save(tmp_path / "centers.npy", expected.centers)
    radius = coverage_radius(shards, expected.centers)
    for kind in kinds:
        chosen = composable_k_center(kind, 40, projection=6)
        for name, value in vars(expected).items():
            np.testing.assert_array_equal(vars(chosen)[name], value, err_msg=name)
        assert coverage_radius(kind, chosen.centers) == radius
        assert coverage_radius(kind, tmp_path / "centers.npy") == radius
    assert type(expected.centers) is np.ndarray


GOOD = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
NAN = np.where(np.arange(80).reshape(20, 4) == 41, np.nan, GOOD).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shards": []}, "shards: give a list"),
        ({"shards": GOOD}, "shards: give a list"),
        ({"shards": "one.npy"}, "shards: give a list"),
        ({"shards": [GOOD, NAN]}, r"shards\[1\]: patches: contain NaN or infinity"),
        ({"shards": [GOOD, GOOD[:, :3]]}, r"shards\[1\]: 3 columns, but shards\[0\]: 4"),
        ({"shards": [GOOD, GOOD[:0]]}, r"shards\[1\]: patches: need a matrix .* got \(0, 4\)"),
        ({"shards": [GOOD, GOOD.astype(int)]}, r"shards\[1\]: patches: need float16"),
        ({"shards": [GOOD, "missing.npy"]}, r"shards\[1\]: .*missing.npy'; write it with"),
        ({"n_centers": 41}, "n_centers=41: give a whole number from 1 to 40"),
        ({"n_centers": 0}, "n_centers"),
        ({"per_shard": 0}, "per_shard"),
        ({"per_shard": 2}, "per_shard=2: gives 4 candidates for n_centers=5; raise it"),
        ({"projection": 0}, "projection"),
        ({"random_state": -1}, "random_state"),
    ],
)
def test_bad_input_is_refused_by_name(change, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        composable_k_center(**{"shards": [GOOD, GOOD + 1], "n_centers": 5} | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"text", "pickle"])
def test_files_that_are_no_shards(tmp_path, content):
    path = tmp_path / "bad.npy"
    if content == "pickle":
        np.save(path, np.array([{"code": 1}], object), allow_pickle=True)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"shards\[1\]: .*; write it with write_shards") as caught:
        composable_k_center([GOOD, path], 3)
    assert "\n" not in str(caught.value)


def test_coverage_refuses_what_has_no_distance():
    with pytest.raises(InputError, match=r"shards\[1\]: queries, bank: contain NaN"):
        coverage_radius([GOOD, NAN], GOOD[:3])
    with pytest.raises(InputError, match=r"shards\[0\]: .* columns, but bank has 3"):
        coverage_radius([GOOD], GOOD[:3, :3])


@pytest.mark.long
def test_shards_hold_the_extractors_patches_and_are_written_once(photos, tmp_path, monkeypatch):
    extractor = Extractor(load_backbone("resnet18", weights="random"), 64)
    patches = extractor.extract(photos)
    paths = write_shards(extractor, photos, tmp_path / "new" / "folder", 3 * 64 + 1)
    files = [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]
    assert [len(file) for file in files] == [192, 192, 128] and files[0].dtype == np.float32
    np.testing.assert_array_equal(np.concatenate(files), patches.reshape(-1, 384))
    seen = []
    monkeypatch.setattr(Extractor, "extract", lambda *a: seen.append(a) or patches[:3])
    assert write_shards(extractor, photos, tmp_path / "new" / "folder", 3 * 64 + 1) == paths
    assert seen == []
    other = write_shards(extractor, photos[1:], tmp_path / "new" / "folder", 10**6)
    assert len(seen) == len(other) == 1 and other[0] not in paths
    assert len(write_shards(extractor, photos, tmp_path, 1)) == 8  # an image is never cut


def test_bad_input_of_write_shards(photos, tmp_path):
    extractor = Extractor(load_backbone("resnet18", weights="random"), 64)
    with pytest.raises(InputError, match="images: there are none"):
        write_shards(extractor, [], tmp_path)
    with pytest.raises(InputError, match="rows_per_shard"):
        write_shards(extractor, photos, tmp_path, 0)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot be written"):
        write_shards(extractor, photos, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
