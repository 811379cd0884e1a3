"""Every kind of search against brute force in float64, its arrays, and files that hold them."""

from dataclasses import replace

import faiss
import numpy as np
import pytest
import torch
from helpers.bank_files import read_parts
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from sklearn.base import clone

from patchcore_helpers import InputError, MemoryBank, PatchCore
from patchcore_helpers.core.index import INDEXES, IndexRefused, make_index
from patchcore_helpers.core.index.exact import GROUPS
from patchcore_helpers.core.index.faiss_indexes import FaissIndex, IVFPQIndex

KINDS = list(INDEXES)
EXACT = ("exact", "sklearn", "flat")
CODED = ("ivf_pq", "ivf_pq_fast", "ivf_sq8")  # distances to decoded rows
PQ = [kind for kind in KINDS if "_pq" in kind]


def small(kind, **more):
    """Settings for banks of a few rows."""
    if kind in PQ:
        more = {"m": 2, "bits": 4 if kind == "ivf_pq_fast" else 2, **more}
    return {"kind": kind, **more}


def distances_of(bank, patches):
    return torch.cdist(torch.from_numpy(patches).double(), torch.from_numpy(bank).double()).numpy()


def clustered(rows, width=16, clusters=40, seed=0, spread=0.3):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(clusters, width))
    return np.float32(centers[rng.integers(clusters, size=rows)]) + np.float32(
        rng.normal(0, spread, (rows, width))
    )


def decoded(search):
    """The rows that the codes of an IVF index stand for, by FAISS."""
    if search.kind == "ivf_pq_fast":  # has no layout that can be decoded: the slow one has
        options = {"kind": "ivf_pq", "m": search.m, "bits": 4, "n_clusters": search.n_clusters}
        search = make_index(options).restore(None, search.arrays())
    search.exhaustive.make_direct_map()
    rows = search.exhaustive.reconstruct_n(0, search.size)[:, : search.width]
    return rows + search.mean.double().numpy()


def assert_sound(search, bank, patches, k):
    """What holds for every kind; and what its distances mean."""
    distances, rows = search.query(patches, k)
    assert distances.shape == rows.shape == (len(patches), min(k, len(bank)))
    assert distances.dtype == np.float32 and rows.dtype == np.int64
    assert np.isfinite(distances).all() and (distances >= 0).all()
    assert (np.diff(distances, axis=1) >= 0).all()
    assert rows.min() >= 0 and rows.max() < len(bank)
    assert all(len(set(r)) == len(r) for r in rows.tolist())
    truth = distances_of(bank, patches)
    scale = np.abs(bank - bank.mean(0)).max() + np.abs(patches - bank.mean(0)).max() + 1e-6
    named = np.take_along_axis(truth, rows, 1)
    if search.kind in CODED:
        means = decoded(search)
        named = np.take_along_axis(distances_of(means, patches), rows, 1)
        squares = (named**2).max() + scale**2
        np.testing.assert_allclose(distances**2, named**2, rtol=1e-4, atol=1e-5 * squares)
    else:
        np.testing.assert_allclose(distances, named, rtol=1e-5, atol=1e-6 * scale)
    if search.kind in EXACT:
        best = np.sort(truth, axis=1)[:, : rows.shape[1]]
        slack = 32 * np.finfo(np.float32).eps * bank.shape[1] * scale**2
        assert (distances.astype(float) ** 2 <= best**2 * (1 + 1e-5) + slack).all()
    return distances, rows


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(data=st.data(), channels=st.integers(1, 6), k=st.integers(1, 45), nprobe=st.integers(1, 9))
def test_any_input(kind, data, channels, k, nprobe):
    numbers = st.integers(-(10**6), 10**6).map(lambda n: n / 1000) | st.integers(-2, 2).map(float)
    offset = np.float32(data.draw(st.sampled_from([0, 0, 1e4])))
    bank, patches = (
        data.draw(hnp.arrays(np.float32, (rows, channels), elements=numbers)) + offset
        for rows in (data.draw(st.integers(1, 40)), data.draw(st.integers(1, 30)))
    )
    search = make_index(small(kind))
    if "ivf" in kind:
        search.nprobe = nprobe
    needed = {"ivf_pq": 4, "ivf_pq_refined": 4, "ivf_pq_fast": 16}.get(kind, 1)
    if len(bank) < needed or (needed > 1 and channels < 2):
        with pytest.raises(IndexRefused, match="the memory bank has"):
            search.fit(bank)
    else:
        assert_sound(search.fit(bank), bank, patches, k)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bank", ["constant", "duplicates", "far away", "one outlier"])
def test_awkward_banks(kind, bank):
    rng = np.random.default_rng(0)
    bank = {
        "constant": np.full((300, 10), 7),
        "duplicates": np.repeat(rng.normal(size=(3, 10)), 100, axis=0),
        "far away": rng.normal(size=(300, 10)) + 1e4,
        "one outlier": np.vstack([rng.normal(size=(299, 10)), np.full(10, 1e4)]),
    }[bank].astype(np.float32)
    patches = np.vstack([bank[::30], bank[:9] + rng.normal(size=(9, 10)).astype(np.float32)])
    assert_sound(make_index(small(kind)).fit(bank), bank, patches, 5)
    assert_sound(make_index(small(kind)).fit(bank), bank, patches, 999)


FLOORS = {
    **dict.fromkeys(EXACT, 1),
    **{"ivf_pq": 0.8, "ivf_pq_fast": 0.5, "ivf_sq8": 0.95, "ivf_pq_refined": 0.99, "hnsw": 0.9},
}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_recall(kind):
    bank, patches = clustered(4000), clustered(1000, seed=1)
    search = make_index(kind).fit(bank)
    if "ivf" in kind:
        search.nprobe = 30
    _, rows = search.query(patches)
    recall = (rows[:, 0] == distances_of(bank, patches).argmin(1)).mean()
    assert recall >= FLOORS[kind]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "ivf" in kind])
def test_clusters_smaller_than_k(kind):
    """FAISS alone returns row -1 at a distance of 1.8e19 here."""
    bank = np.repeat(np.random.default_rng(0).normal(size=(100, 8)), 3, axis=0) * 100
    bank = np.float32(bank + np.random.default_rng(1).normal(0, 0.01, bank.shape))
    search = make_index(small(kind, n_clusters=100, nprobe=1)).fit(bank)
    alone = search.searched.search(search.pad(torch.from_numpy(bank) - search.mean), 5)[1]
    assert (alone < 0).any()
    distances, _ = assert_sound(search, bank, bank, 5)
    assert distances.max() < 5000
    assert_sound(search, bank, bank, 290)


def test_refined_search_does_not_widen_for_its_candidates(monkeypatch):
    bank = clustered(900, clusters=30, spread=0.01)
    search = make_index(small("ivf_pq_refined", n_clusters=30, nprobe=1, k_factor=900)).fit(bank)
    efforts = []

    def recorded(effort):
        efforts.append(effort)
        return faiss.SearchParametersIVF(nprobe=effort)

    monkeypatch.setattr(search, "_search_parameters", recorded)
    search.query(bank, 1)
    assert set(efforts) == {1}
    _, rows = search.query(bank, 5)
    assert rows.min() >= 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in EXACT])
def test_blocks_at_a_time_answer_as_one_after_the_other(kind, monkeypatch):
    """Some blocks have to be asked again with more effort, while others are being searched."""
    bank, patches = clustered(900, clusters=30), clustered(700, clusters=60, seed=1)
    effort = {"ef_search": 1} if kind == "hnsw" else {"n_clusters": 90, "nprobe": 1}
    search = make_index(small(kind, **effort)).fit(bank)
    own = faiss.serialize_index(search.searched).tobytes()
    threads, faiss_threads = torch.get_num_threads(), faiss.omp_get_max_threads()
    try:
        torch.set_num_threads(1)
        one_block = search.query(patches, 12)
        monkeypatch.setattr("patchcore_helpers.core.index.base.BLOCK_ENTRIES", 4096 * 50)
        torch.set_num_threads(3)
        for _ in range(3):
            blocks = search.query(patches, 12)
            np.testing.assert_array_equal(blocks[1], one_block[1])
            np.testing.assert_allclose(blocks[0], one_block[0], rtol=1e-6)
    finally:
        torch.set_num_threads(threads)
    assert faiss.serialize_index(search.searched).tobytes() == own  # nothing is set at the index
    assert faiss.omp_get_max_threads() == faiss_threads


def test_nprobe_is_asked_at_every_query():
    bank, patches = clustered(2000, spread=2), clustered(500, seed=1, spread=2)
    search = make_index({"kind": "ivf_sq8", "nprobe": 1}).fit(bank)
    near = distances_of(bank, patches).argmin(1)
    recalls = []
    for search.nprobe in (1, 4, 45, 1):
        recalls.append((search.query(patches)[1][:, 0] == near).mean())
    assert recalls[0] == recalls[3] < recalls[1] < recalls[2] and recalls[2] > 0.9
    search.nprobe = 0
    with pytest.raises(InputError, match="nprobe=0: give a whole number from 1"):
        search.query(patches)


def test_ef_search_is_a_setting_and_is_asked_at_every_query():
    bank, patches = clustered(2000, spread=2), clustered(300, seed=1, spread=2)
    index = make_index({"kind": "hnsw", "links": 4, "ef_search": 64}).fit(bank)
    near = distances_of(bank, patches).argmin(1)
    recalls = []
    for index.ef_search in (1, 400):
        recalls.append((index.query(patches)[1][:, 0] == near).mean())
    assert recalls[0] < recalls[1] - 0.1
    index.ef_search = -5
    with pytest.raises(InputError, match="ef_search=-5: give a whole number from 1"):
        index.query(patches)


def test_a_walk_in_a_broken_graph_still_finds_k():
    bank = clustered(400)
    search = make_index({"kind": "hnsw", "ef_search": 1}).fit(bank)
    lonely = faiss.vector_to_array(search.searched.hnsw.neighbors)
    faiss.copy_array_to_vector(np.full_like(lonely, -1), search.searched.hnsw.neighbors)
    distances, _ = search.query(bank[:50], 7)
    expected, _ = make_index().fit(bank).query(bank[:50], 7)
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-6)


# Product quantization


@pytest.mark.parametrize("width, m, bits", [(12, 3, 4), (13, 4, 5), (7, 7, 8)])
def test_codes_are_those_of_a_product_quantizer_by_hand(width, m, bits):
    bank = clustered(600, width) + 50
    search = make_index({"kind": "ivf_pq", "m": m, "bits": bits, "n_clusters": 20}).fit(bank)
    mean, centroids, codebooks, codes = (
        search.arrays()[name] for name in ("mean", "centroids", "codebooks", "codes")
    )
    columns = -(-width // m) * m
    rows = np.zeros((600, columns))
    rows[:, :width] = bank - mean
    cluster = np.square(rows[:, None] - centroids).sum(2).argmin(1)
    parts = (rows - centroids[cluster]).reshape(600, m, -1)
    far = np.square(parts[:, :, None] - codebooks).sum(3)  # (rows, m, 2**bits)
    words = far.argmin(2)
    packed = [sum(int(w) << (bits * i) for i, w in enumerate(row)) for row in words]
    expected = [int.from_bytes(row[1:].tobytes(), "little") for row in codes]
    assert (codes[:, 0] == cluster).all() and packed == expected
    assert codebooks.shape == (m, 2**bits, columns // m)
    approximate = centroids[cluster] + codebooks[np.arange(m), words].reshape(600, columns)
    np.testing.assert_allclose(approximate[:, :width] + mean, decoded(search), rtol=1e-5)


@pytest.mark.long
def test_sixteen_bits():
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(70_000, 2)).astype(np.float32)
    options = {"kind": "ivf_pq", "m": 1, "bits": 16, "n_clusters": 16}
    search = make_index(options).fit(bank)
    assert search.arrays()["codebooks"].shape == (1, 65_536, 2)
    assert search.arrays()["codes"].shape == (70_000, 3)
    assert search.nbytes > bank.nbytes  # its codebook alone is as large as the bank
    distances, _ = search.query(bank[::100], 3)
    assert np.isfinite(distances).all() and np.median(distances[:, 0]) < 0.01
    with pytest.raises(IndexRefused, match=r"bits=16.* 65536 rows .* memory bank has 65535 of 2"):
        make_index(options).fit(bank[:65_535])


@pytest.mark.parametrize(
    "options, rows, message",
    [
        ({"kind": "ivf_pq"}, 255, "bits=8.* need 256 rows"),
        ({"kind": "ivf_pq_fast"}, 15, "bits=4.* need 16 rows"),
        ({"kind": "ivf_sq8", "n_clusters": 51}, 50, "n_clusters=51.* needs 51 rows"),
        ({"kind": "ivf_pq", "m": 17}, 300, "m=17 .*of 17 channels, the memory bank has 300 of 16"),
    ],
)
def test_a_bank_too_small_is_refused(options, rows, message):
    with pytest.raises(IndexRefused, match=message) as caught:
        make_index(options).fit(clustered(rows))
    assert isinstance(caught.value, InputError) and "\n" not in str(caught.value)
    make_index(options).fit(clustered(rows + 1, 17))


@pytest.mark.parametrize("bits, m, width", [(1, 3, 16), (3, 5, 17), (4, 4, 16), (8, 5, 13)])
def test_codes_are_decoded_as_faiss_does_it(bits, m, width):
    bank = clustered(700, width)
    search = make_index({"kind": "ivf_pq", "m": m, "bits": bits, "n_clusters": 300}).fit(bank)
    rows = np.array([5, 699, 0, 5])
    ours = search.decode(rows)[:, :width] + search.mean.numpy()
    np.testing.assert_allclose(ours, decoded(search)[rows], atol=1e-5)


def test_bytes_in_memory_are_those_of_everything_that_is_held():
    rows, width, lists, m = 5000, 32, 50, 8
    bank = clustered(rows, width)
    vectors, mean = 4 * rows * width, 4 * width

    def held(**options):
        search = make_index(options).fit(bank)
        return search.resident_bytes, search.nbytes

    filled = rows + -rows % GROUPS  # whole groups: centered vectors, and their norms
    assert held(kind="exact")[0] == vectors + mean + 4 * filled * (width + 1)
    for kind in ("flat", "hnsw"):  # as given, and in the index
        resident, in_file = held(kind=kind)
        assert resident == in_file + vectors + mean
    centroids, codebooks = 4 * lists * width, 4 * 16 * width
    codes = rows * (1 + m // 2)  # a byte for the list, half a byte for a part
    table = 4 * lists * m * 16
    for kind in ("ivf_pq", "ivf_pq_fast"):
        resident, in_file = held(kind=kind, bits=4, m=m, n_clusters=lists)
        arrays = mean + centroids + codebooks + codes
        # FAISS computes no table in advance where it would be larger than what it saves.
        assert resident - in_file - arrays - mean in (0, table)
    refined, in_file = held(kind="ivf_pq_refined", bits=4, m=m, n_clusters=lists)
    assert refined - held(kind="ivf_pq", bits=4, m=m, n_clusters=lists)[0] == vectors


def test_the_fast_layout_does_not_keep_the_slow_one():
    """All that Python can reach from the index: one FAISS index with inverted lists."""
    search = make_index({"kind": "ivf_pq_fast", "m": 4, "n_clusters": 10}).fit(clustered(500))
    reached = [search.searched, *getattr(search.searched, "referenced_objects", [])]
    reached += [value for value in vars(search).values() if isinstance(value, faiss.Index)]
    assert {id(index) for index in reached} == {id(search.searched)}


@pytest.mark.long
def test_bytes():
    bank = clustered(5000, 32)
    sizes = {kind: make_index(kind).fit(bank).nbytes for kind in KINDS}
    flat = 5000 * 32 * 4
    assert sizes["exact"] == sizes["sklearn"] == flat
    assert flat < sizes["flat"] < flat + 100
    assert sizes["ivf_pq_refined"] == sizes["ivf_pq"] + flat
    clusters = 71 * 32 * 4
    assert 0 < sizes["ivf_pq"] - (5000 * (8 + 8) + clusters + 256 * 32 * 4) < 2000
    assert 0 < sizes["ivf_sq8"] - (5000 * (32 + 8) + clusters) < 2000
    assert sizes["hnsw"] > flat + 5000 * 64 * 4


@pytest.mark.long
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("exact", "sklearn")])
def test_the_seed_decides_whatever_the_threads(kind):
    bank = clustered(3000)

    def content(seed, threads):
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(threads)
        try:
            search = make_index(kind, seed).fit(bank)
            assert faiss.omp_get_max_threads() == threads
        finally:
            faiss.omp_set_num_threads(before)
        return faiss.serialize_index(search.searched).tobytes()

    first = content(3, 1)
    assert first == content(3, 2) == content(3, 2)
    assert kind in ("flat", "hnsw") or first != content(4, 1)
    assert content(2**32 - 1, 1)


# Settings and bad input


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input(kind):
    search = make_index(kind)
    bank = clustered(300)
    for bad in (np.zeros((0, 16)), np.zeros(5), np.full((300, 16), np.nan)):
        with pytest.raises(InputError, match="memory bank: "):
            search.fit(bad)
    search.fit(bank)
    for bad in (bank[:, :5], bank[:0], np.full((1, 16), np.inf)):
        with pytest.raises(InputError, match="patches: "):
            search.query(bad)


BAD = [
    *[(value, "choose one of exact, sklearn") for value in ("ivf", None, 5, [], {}, {"kind": []})],
    ({"kind": "exact", "m": 8}, "exact has no setting 'm'; its settings: none"),
    ({"kind": "hnsw", "nprobe": 8}, "hnsw has no setting 'nprobe'; its settings: links, ef_search"),
    ({"kind": "ivf_pq", "bits": 17}, "bits=17: give a whole number from 1 to 16"),
    ({"kind": "ivf_pq", "bits": 4.0}, r"bits=4\.0: give"),
    ({"kind": "ivf_pq", "m": None}, "m=None: give"),
    ({"kind": "ivf_pq", "n_clusters": 0}, "n_clusters=0: give"),
    ({"kind": "ivf_pq_fast", "bits": 8}, "bits=8: ivf_pq_fast has 4 only"),
    ({"kind": "ivf_pq_refined", "k_factor": 0}, "k_factor=0: give"),
    ({"kind": "hnsw", "links": 1}, "links=1: give a whole number from 2"),
]


@pytest.mark.parametrize("search, message", BAD)
def test_bad_settings(search, message, photos):
    with pytest.raises(InputError, match=message) as caught:
        make_index(search)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=message):
        make("exact").set_params(index=search).fit(photos[:2])


# In PatchCore


def make(search, **options):
    options = {"image_size": 64, "coreset_ratio": 0.5, "precision": "float32", **options}
    return PatchCore("test_resnet", weights="random", index=search, **options)


@pytest.fixture(scope="module")
def queries(photo):
    return [photo(seed, defect=seed > 101) for seed in range(100, 104)]


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_scores_by_every_kind(kind, photos, queries):
    options = {"m": 32, "nprobe": 16} if kind in PQ else {}
    model = make({"kind": kind, **options}, n_neighbors=3).fit(photos)
    reference = make("exact", n_neighbors=3).fit(photos)
    tolerance = 0.2 if kind in CODED else 1e-4
    np.testing.assert_allclose(
        model.anomaly_scores(queries), reference.anomaly_scores(queries), rtol=tolerance
    )
    assert model.anomaly_scores(queries)[:2].max() < model.anomaly_scores(queries)[2:].min()
    assert clone(model).get_params() == model.get_params()
    for each in (model, reference):
        each.set_params(image_score="reweighted")
    peaks = model.detect(queries).patch_scores.max((1, 2))
    assert (model.anomaly_scores(queries) > 0).all() and (
        model.anomaly_scores(queries) < peaks
    ).all()
    np.testing.assert_allclose(
        model.anomaly_scores(queries), reference.anomaly_scores(queries), rtol=tolerance
    )


def test_reweighting_counts_the_row_that_a_search_misses(photos, queries):
    model = make("exact", image_score="reweighted").fit(photos)

    class Misses:
        def query(self, patches, k):
            distances, rows = search.query(patches, k + (k > 1))
            return (distances, rows) if k == 1 else (distances[:, 1:], rows[:, 1:])

    expected, search, model.bank_.index_ = (
        model.anomaly_scores(queries),
        model.bank_.index_,
        Misses(),
    )
    np.testing.assert_allclose(model.anomaly_scores(queries), expected, rtol=1e-6)


# What a bank file remembers of its images, whatever the index: see tests/core/test_bank_file.py.
OF_THE_IMAGES = {"origins", "image_names", "image_digests"}
OF_THE_IMAGES |= {"calibration_names", "calibration_digests", "calibration_scores"}


@pytest.mark.long
@pytest.mark.parametrize("score", ["max", "reweighted"])
@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded(kind, score, photos, queries, tmp_path):
    search = {"kind": kind, "m": 5} if kind in PQ else kind
    model = make(search, image_score=score, n_neighbors=2, random_state=5).fit(photos)
    model.calibrate(queries[:2], 0.5).save(tmp_path / "bank")
    loaded = PatchCore.load(tmp_path / "bank")
    assert loaded.index == search and loaded.bank_.index_.nbytes == model.bank_.index_.nbytes
    np.testing.assert_array_equal(loaded.anomaly_scores(queries), model.anomaly_scores(queries))
    with safe_open(tmp_path / "bank", "pt") as file:
        names = set(file.keys())
    arrays = {"mean", "centroids", "codebooks", "codes"} if kind in PQ else set()
    alone = kind in ("ivf_pq", "ivf_pq_fast") and score == "max"
    assert names - OF_THE_IMAGES == (arrays if alone else arrays | {"vectors"})
    assert hasattr(loaded.bank_, "vectors_") != alone
    if isinstance(model.bank_.index_, FaissIndex):
        contents = [
            faiss.serialize_index(m.bank_.index_.searched).tobytes() for m in (model, loaded)
        ]
        assert kind == "hnsw" or len(contents[0]) == len(contents[1])
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").stat().st_size == (tmp_path / "bank").stat().st_size
    if alone:
        with pytest.raises(InputError, match="needs the vectors of the memory bank"):
            loaded.set_params(image_score="reweighted").anomaly_scores(queries)
        assert loaded.fit(photos).anomaly_scores(queries).shape == (4,)


def test_codes_make_a_small_file(photos, tmp_path):
    for name, search in (("codes", {"kind": "ivf_pq", "bits": 4}), ("rows", "exact")):
        make(search, coreset_ratio=1.0).fit(photos).save(tmp_path / name)
    assert (tmp_path / "codes").stat().st_size < (tmp_path / "rows").stat().st_size / 5


def test_a_bank_that_is_too_small_leaves_the_first_fit_whole(photos, queries):
    model = make("exact").fit(photos)
    before = model.anomaly_scores(queries)
    with pytest.raises(IndexRefused, match="bits=16"):
        model.set_params(index={"kind": "ivf_pq", "bits": 16}).fit(photos)
    np.testing.assert_array_equal(model.set_params(index="exact").anomaly_scores(queries), before)


@pytest.mark.long
@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "resnet18"},
        {"layers": (1,)},
        {"weights": None},
        {"image_size": 96},
        {"aggregation": "paper"},
        {"neighborhood": 5},
        {"metric": "cosine"},
        {"index": "flat"},
    ],
)
def test_what_the_bank_was_made_with_cannot_change(change, photos, queries, tmp_path):
    model = make("exact").fit(photos)
    before = model.anomaly_scores(queries)
    kept = {name: model.get_params()[name] for name in change}
    with pytest.raises(InputError, match=f"{next(iter(change))}: changed .* fit it again"):
        model.set_params(**change).anomaly_scores(queries)
    model.set_params(**kept, n_neighbors=2, sigma=1, batch_size=3).anomaly_maps(queries)
    np.testing.assert_array_equal(model.set_params(n_neighbors=1).anomaly_scores(queries), before)


# Hostile files


@pytest.fixture(scope="module")
def saved(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "bank"
    search = {"kind": "ivf_pq_refined", "m": 5, "bits": 4, "n_clusters": 20}
    make(search).fit(photos).save(path)
    return read_parts(path)


def put(array, place, value):
    array = array.copy()
    array[place] = value
    return array


HOSTILE = {
    "no codes": ("codes", lambda a: None),
    "codes of another type": ("codes", lambda a: a.view(np.int8)),
    "codes as one row": ("codes", lambda a: a.ravel()),
    "codes as a number": ("codes", lambda a: np.uint8(3).reshape(())),
    "codes too short": ("codes", lambda a: a[:, :-1]),
    "codes too long": ("codes", lambda a: np.hstack([a, a])),
    "no codes at all": ("codes", lambda a: a[:0]),
    "fewer codes": ("codes", lambda a: a[:-1]),
    "a cluster that is not there": ("codes", lambda a: put(a, (7, 0), 20)),
    "no centroids": ("centroids", lambda a: None),
    "fewer centroids": ("centroids", lambda a: a[:-1]),
    "more centroids": ("centroids", lambda a: np.vstack([a, a])),
    "narrow centroids": ("centroids", lambda a: a[:, :-1]),
    "infinite centroids": ("centroids", lambda a: put(a, (0, 0), np.inf)),
    "centroids in double precision": ("centroids", lambda a: a.astype(np.float64)),
    "codebooks with NaN": ("codebooks", lambda a: put(a, (0, 0, 0), np.nan)),
    "fewer codewords": ("codebooks", lambda a: a[:, :-1]),
    "fewer codebooks": ("codebooks", lambda a: a[:-1]),
    "codebooks in two axes": ("codebooks", lambda a: a.reshape(len(a), -1)),
    "no mean": ("mean", lambda a: None),
    "a short mean": ("mean", lambda a: a[:-1]),
    "a mean of one row": ("mean", lambda a: a[None]),
    "a mean with NaN": ("mean", lambda a: put(a, 0, np.nan)),
    "no bank": ("vectors", lambda a: None),
    "fewer rows": ("vectors", lambda a: a[:-1]),
    "a narrow bank": ("vectors", lambda a: a[:, :-1]),
    "a bank with NaN": ("vectors", lambda a: put(a, (0, 0), np.nan)),
}


def load(path, parts):
    path.write_bytes(parts.to_bytes())
    return PatchCore.load(path)


@pytest.mark.long
@pytest.mark.parametrize("change", HOSTILE)
def test_hostile_tensors(change, saved, tmp_path, monkeypatch):
    load(tmp_path / "bank", saved)
    monkeypatch.setattr(IVFPQIndex, "_empty", lambda self: pytest.fail("FAISS has seen it"))
    name, make_hostile = HOSTILE[change]
    tensors = {**saved.tensors, name: make_hostile(saved.tensors[name])}
    tensors = {name: array for name, array in tensors.items() if array is not None}
    (tmp_path / "bank").write_bytes(replace(saved, tensors=tensors).to_bytes())
    with pytest.raises(InputError, match="not a memory bank of this package"):
        MemoryBank.load(tmp_path / "bank")
    with pytest.raises(InputError, match="not a memory bank of this package") as caught:
        PatchCore.load(tmp_path / "bank")
    assert str(caught.value).startswith(str(tmp_path / "bank")) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "index",
    ["ivf", None, {"kind": "ivf_pq", "m": 10**6}, {"kind": "ivf_pq", "bits": 16}, {"m": 5}]
    + [{"kind": "ivf_pq", "m": 5, "bits": 4, "n_clusters": n} for n in (19, 21, 10**6, "20")],
)
def test_hostile_settings(index, saved, tmp_path):
    bank = {**saved.bank, "settings": {**saved.bank["settings"], "index": index}}
    with pytest.raises(InputError, match="not a memory bank of this package"):
        load(tmp_path / "bank", replace(saved, bank=bank))


def test_flipped_bits_in_the_codes(saved, tmp_path):
    load(tmp_path / "bank", saved)
    content = bytearray((tmp_path / "bank").read_bytes())
    content[-1] ^= 1
    (tmp_path / "bank").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        PatchCore.load(tmp_path / "bank")
