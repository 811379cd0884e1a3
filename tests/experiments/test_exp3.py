"""Experiment 3: planted tables give their choices; the real path runs and leaks no padding."""

import csv
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.experiments import planted_exp3, planted_outcomes3, run_in_full
from helpers.miniatures import make_mvtec
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from patchcore_helpers.core.index import make_index
from patchcore_helpers.data.prepare import prepare
from patchcore_helpers.experiments import exp3
from patchcore_helpers.experiments.grid import Grid, table

TINY = exp3.Settings(image_size=96, bank_ratio=0.8, n_clusters=8, bits=[4, 8, 16], nprobes=[1, 4])


# Selection and judgement


def test_the_halves_share_no_image_and_have_both_classes():
    labels = np.repeat([0, 1], [41, 23])
    half = exp3.selection_half(labels, seed=3)
    assert np.bincount(labels[half]).tolist() == [20, 11]
    assert np.bincount(labels[~half]).tolist() == [21, 12]
    np.testing.assert_array_equal(half, exp3.selection_half(labels, seed=3))
    assert (half != exp3.selection_half(labels, seed=4)).any()


def test_what_is_judged_took_no_part_in_the_selection():
    """Scores of the images for judging are turned round: only what is judged changes."""
    losses = {"ivf_sq8": (0.1, 1.0, 5.0), "exact, 1/16 of the rows": (0.3, 0.5, 2.0)}
    outcomes = planted_outcomes3(losses)
    before = exp3.compare_halves(outcomes, seed=0)
    for outcome in outcomes:
        half = exp3.selection_half(np.array(outcome.scores["labels"]), seed=0)
        for name in losses:
            scores = np.array(outcome.scores[name])
            outcome.scores[name] = np.where(half, scores, -scores).tolist()
    after = exp3.compare_halves(outcomes, seed=0)
    chosen = ["category", "index", "selection", "selection_low"]
    pd.testing.assert_frame_equal(before[chosen], after[chosen])
    assert (after["judged"] < before["judged"] - 0.5).all()
    places = ["category", "place", "index"]
    pd.testing.assert_frame_equal(
        exp3.recommend_indexes(before, 0.05, 10)[places],
        exp3.recommend_indexes(after, 0.05, 10)[places],
    )


def test_differences_are_those_of_the_aurocs_on_each_half():
    outcomes = planted_outcomes3({"ivf_sq8": (0.3, 1.0, 5.0)}, ["a"])
    row = exp3.compare_halves(outcomes, seed=0).iloc[0]
    labels = np.array(outcomes[0].scores["labels"])
    half = exp3.selection_half(labels, seed=0)
    scores, exact = (np.ravel(outcomes[0].scores[name]) for name in ("ivf_sq8", "exact"))
    for keep, column in ((half, "selection"), (~half, "judged")):
        expected = roc_auc_score(labels[keep], scores[keep])
        expected -= roc_auc_score(labels[keep], exact[keep])
        assert row[column] == pytest.approx(expected, abs=1e-12)


def test_the_best_of_many_equals_looks_better_than_it_is_where_it_was_selected():
    """Forty indexes of the same quality: on the images of the selection, the best one is lucky."""
    losses = {f"exact, 1/{2 + i} of the rows": (0.2, 0.1, 1.0) for i in range(40)}
    gained = []
    for seed in range(8):
        comparison = exp3.compare_halves(planted_outcomes3(losses, ["a"], 60, seed), seed=0)
        best = exp3.select_index(comparison, "a", True, 10)
        gained.append(best["selection"] - best["judged"] - (comparison["selection"].mean()
                      - comparison["judged"].mean()))  # fmt: skip
    assert np.mean(gained) > 0.002


@pytest.mark.parametrize(
    "low, high, verdict",
    [(-0.01, 0.03, "as good"), (-0.03, 0.03, "undecided"), (-0.05, -0.03, "worse")],
)
def test_as_good_means_that_even_the_lower_end_is_within_the_margin(low, high, verdict):
    assert exp3.is_as_good(low, high, margin=0.02) == verdict


def test_few_images_are_no_proof_that_an_index_is_as_good():
    """A point estimate within a tolerance was enough once: it is not with 20 images."""
    outcomes = planted_outcomes3({"ivf_sq8": (0.0, 0.5, 5.0)}, ["a"], n=20)
    for name in ("ivf_sq8", "exact"):  # hard images: a difference of 0 with a wide interval
        rng = np.random.default_rng(len(name))
        outcomes[0].scores[name] = (
            rng.normal(size=20) + np.array(outcomes[0].scores["labels"])
        ).tolist()
    row = exp3.compare_halves(outcomes, seed=0).iloc[0]
    assert row["judged_high"] - row["judged_low"] > 0.2
    assert exp3.is_as_good(row["judged_low"], row["judged_high"], 0.02) != "as good"


def test_recommended_indexes():
    losses = {
        "ivf_sq8": (0.0, 5.0, 1.0),  # fast, but not small
        "hnsw": (0.0, 0.8, 3.0),  # small and close; slower
        "ivf_pq": (0.0, 0.3, 9.0),  # the smallest that is close
        "exact, 1/64 of the rows": (1.5, 0.1, 0.5),  # loses too much
    }
    comparison = exp3.compare_halves(planted_outcomes3(losses, ["a"]), seed=0)
    recommended = exp3.recommend_indexes(comparison, margin=0.03, smaller=10)
    assert recommended["place"].tolist() == [
        "edge (speed, if 10x smaller)",
        "server (speed)",
        "archive (bytes on disk)",
    ]
    assert recommended["index"].tolist() == ["hnsw", "ivf_sq8", "ivf_pq"]
    assert (recommended["verdict"] == "as good").all()
    none = exp3.recommend_indexes(comparison, margin=0.03, smaller=90)
    assert none["index"].tolist() == ["none", "ivf_sq8", "ivf_pq"]
    assert none["verdict"].tolist() == ["no index is eligible", "as good", "as good"]
    assert none["judged"].isna().tolist() == [True, False, False]


def test_codes_against_smaller_banks_says_who_is_better():
    losses = {"ivf_pq": (0.1, 0.5, 1.0), "exact, 1/16 of the rows": (1.0, 0.6, 1.0)}
    outcomes = planted_outcomes3(losses)
    comparison = exp3.compare_halves(outcomes, seed=0)
    against = exp3.codes_against_smaller_banks(outcomes, comparison, 10, seed=0)
    assert against["category"].tolist() == ["a", "b"]
    assert (against["verdict"] == "better").all() and (against["low"] > 0).all()
    overall = exp3.mean_of_categories(outcomes, against, seed=0)
    assert overall.estimate == pytest.approx(against["difference"].mean())
    too_small = exp3.codes_against_smaller_banks(outcomes, comparison, 50, seed=0)
    assert too_small.empty and exp3.mean_of_categories(outcomes, too_small, 0) is None


def test_fewer_rows_of_8_bits_meet_the_exact_bank_that_is_nearest_in_bytes():
    losses = {
        "ivf_sq8": (0.0, 3.0, 1.0),  # the whole bank: it has no rival
        "ivf_sq8, 1/8 of the rows": (0.1, 0.5, 1.0),
        "ivf_sq8, 1/32 of the rows": (1.0, 0.12, 1.0),
        "exact, 1/16 of the rows": (0.4, 1.1, 1.0),
        "exact, 1/32 of the rows": (0.7, 0.4, 1.0),
        "exact, 1/64 of the rows": (0.2, 0.1, 1.0),
    }
    outcomes = planted_outcomes3(losses)
    comparison = exp3.compare_halves(outcomes, seed=0)
    table = exp3.both_against_fewer_rows(outcomes, comparison).set_index("eight_bits")
    assert table["exact"].to_dict() == {
        "ivf_sq8, 1/8 of the rows": "exact, 1/32 of the rows",
        "ivf_sq8, 1/32 of the rows": "exact, 1/64 of the rows",
    }
    assert table["verdict"].tolist() == ["better", "worse"]
    for name, row in table.iterrows():
        differences = []
        for outcome in outcomes:  # on all test images, by scikit-learn
            one, other = (
                roc_auc_score(outcome.scores["labels"], outcome.scores[of][0])
                for of in (name, row["exact"])
            )
            differences.append(one - other)
        assert row["difference"] == pytest.approx(np.mean(differences))
    alone = {name: losses[name] for name in losses if "sq8, 1/32" not in name}
    outcomes = planted_outcomes3(alone)
    one_pair = exp3.both_against_fewer_rows(outcomes, exp3.compare_halves(outcomes, seed=0))
    width = one_pair["high"] - one_pair["low"]
    assert width[0] < (table["high"] - table["low"]).iloc[0]  # two intervals hold together


def test_nothing_is_compared_where_a_kind_is_missing():
    for losses in ({"ivf_sq8": (0, 1, 1)}, {"exact, 1/16 of the rows": (0, 1, 1)},
                   {"ivf_sq8, 1/8 of the rows": (0, 1, 1)}):  # fmt: skip
        outcomes = planted_outcomes3(losses)
        comparison = exp3.compare_halves(outcomes, seed=0)
        assert exp3.both_against_fewer_rows(outcomes, comparison).empty


# Tables


def test_means_leave_out_what_did_not_run_everywhere():
    rows = planted_exp3()
    first = exp3.index_rows(rows).index[0]
    assert len(exp3.mean_table(rows)) == len(exp3.mean_table(rows.drop(first))) + 1


def test_claims_show_the_range_of_ivf_pq_alone():
    columns = ["search_method", "status", "speedup", "memory_reduction", "accuracy_loss_percent"]
    rows = [
        ("ivf_pq", "ok", 3.25, 20, -0.5),
        ("ivf_pq", "ok", 0.5, 41.125, 1.25),
        ("ivf_pq", "ok", 2, 30, 0),
        ("ivf_pq", "skipped: too few rows", 1000, 1000, 1000),
        ("hnsw", "ok", 90, 0.5, -9),
    ]
    claims = exp3.claims_table(pd.DataFrame(rows, columns=columns))
    assert claims.to_numpy().tolist() == [
        ["speed-up over scikit-learn", "100 to 160 times", "0.50 to 3.25"],
        ["memory, as bytes of the file", "8 times less", "20.00 to 41.12"],
        ["accuracy loss (%)", "below 5 %", "-0.50 to 1.25"],
    ]


# The real path


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    source, data = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("data")
    names = ["bottle", "cable"]
    prepare("mvtec_ad", make_mvtec(source / "mvtec", names), data, names)
    return str(data)


@pytest.fixture(scope="module")
def settings(miniature):
    return replace(TINY, data_dir=miniature)


@pytest.fixture(scope="module")
def outcomes(settings, tmp_path_factory):
    tasks = exp3.make_tasks(settings, ["mvtec_ad/bottle"], [0])
    folder = tmp_path_factory.mktemp("out")
    with exp3.log_to(folder, "now"):
        outcomes = Grid(exp3.run_task, exp3.COLUMNS, folder, "exp3").run(tasks)
    return folder, tasks, outcomes


@pytest.mark.long
def test_a_real_run_keeps_its_promises(outcomes):
    folder, _, results = outcomes
    rows = table(results, exp3.COLUMNS)
    text = (folder / "exp3.csv").read_text()
    assert text.splitlines()[0].split(",")[:10] == exp3.COLUMNS[:10]
    assert "e+38" not in text and not re.search(r"\b34028\d", text)  # FAISS's padding
    sixteen = rows[rows["pq_bits"] == 16]
    assert len(sixteen) == 2 and sixteen["status"].str.startswith("skipped: index: ").all()
    assert sixteen[["image_auroc", "memory_mb", "search_time_ms"]].isna().all(axis=None)
    measured = rows[rows["status"] == "ok"]
    numbers = ["image_auroc", "memory_mb", "search_time_ms", "speedup"]
    assert np.isfinite(measured[numbers]).all(axis=None)
    assert rows["search_method"].tolist()[:2] == ["sklearn", "flat"]
    sklearn, flat = measured.iloc[0], measured.iloc[1]
    assert flat["recall_at_1"] == 1 and flat["difference"] == 0 and flat["memory_reduction"] == 1
    loss = 100 * (flat["image_auroc"] - measured["image_auroc"]) / flat["image_auroc"]
    np.testing.assert_allclose(measured["accuracy_loss_percent"], loss, atol=1e-9)
    smaller = flat["resident_mb"] / measured["resident_mb"]
    np.testing.assert_allclose(measured["resident_reduction"], smaller, rtol=1e-9)
    smaller = flat["memory_mb"] / measured["memory_mb"]
    np.testing.assert_allclose(measured["memory_reduction"], smaller, rtol=1e-9)
    faster = sklearn["search_time_ms"] / measured["search_time_ms"]
    np.testing.assert_allclose(measured["speedup"], faster, rtol=1e-9)


def test_bytes_are_those_of_the_serialized_index(outcomes, settings):
    rows = table(outcomes[2], exp3.COLUMNS)
    bank = exp3.load_bank(settings, "mvtec_ad/bottle", seed=0).bank
    index = make_index({"kind": "ivf_pq", "bits": 4, "m": 8, "n_clusters": 8}, 0).fit(bank)
    row = rows[(rows["search_method"] == "ivf_pq") & (rows["pq_bits"] == 4)].iloc[0]
    assert row["memory_mb"] == pytest.approx(index.nbytes / 1e6)
    assert row["resident_mb"] == pytest.approx(index.resident_bytes / 1e6)
    by_hand = len(bank) * (8 * 4 / 8 + 8) + 4 * bank.shape[1] * (8 + 16)
    assert index.nbytes == pytest.approx(by_hand, rel=0.2)  # headers weigh more in a small one


def test_the_exact_search_of_a_bank_is_kept_for_every_selection_of_images(settings):
    data = exp3.load_bank(settings, "mvtec_ad/bottle", seed=0)
    assert exp3.load_bank(settings, "mvtec_ad/bottle", seed=0) is data
    assert exp3.load_bank(settings, "mvtec_ad/bottle", seed=1) is not data
    some = data.exact.every(2)
    searched = exp3.search_exactly(data.bank, data.queries[::2], data.images.labels[::2])
    np.testing.assert_array_equal(some.queries, searched.queries)
    np.testing.assert_array_equal(some.labels, searched.labels)
    np.testing.assert_allclose(some.patch_scores, searched.patch_scores, rtol=1e-6)
    np.testing.assert_array_equal(some.nearest, searched.nearest)


@pytest.mark.long
def test_the_sliders_indexes_answer_at_every_nprobe(settings):
    data = exp3.load_bank(settings, "mvtec_ad/bottle", seed=0)
    labels = data.images.labels
    reference = exp3.search_exactly(data.bank, data.queries, labels)
    queries = data.queries.reshape(-1, data.queries.shape[-1])
    distances = cdist(queries, data.bank)
    np.testing.assert_allclose(reference.patch_scores.ravel(), distances.min(1), rtol=1e-4)
    np.testing.assert_array_equal(reference.nearest, distances.argmin(1))

    results = exp3.build_index_grid(data.bank, reference, settings, seed=0)
    floats = {fewer for stored, fewer in results if stored.startswith("float32")}
    assert floats == {1, *settings.smaller_banks[::2]}
    whole = results["float32, searched exactly", 1]
    np.testing.assert_allclose(whole.patch_scores, reference.patch_scores, rtol=1e-5)
    eighth = results["float32, searched exactly", 8].patch_scores
    expected = distances[:, : len(data.bank) // 8].min(1)
    np.testing.assert_allclose(eighth.ravel(), expected, rtol=1e-4)
    assert results["8 bits a number", 8].measures["resident_mb"] < whole.measures["resident_mb"] / 8


def test_the_excess_of_a_wrong_neighbor_is_that_of_the_true_distances(settings):
    data = exp3.load_bank(settings, "mvtec_ad/bottle", seed=0)
    reference = exp3.search_exactly(data.bank, data.queries, data.images.labels)
    index = make_index({"kind": "ivf_pq", "bits": 2, "m": 2, "n_clusters": 4}, 0).fit(data.bank)
    errors = exp3.neighbor_errors(data.bank, reference, index)
    distances = cdist(data.queries.reshape(-1, data.bank.shape[1]), data.bank)
    found = index.query(data.queries.reshape(-1, data.bank.shape[1]))[1][:, 0]
    nearest = distances.min(1)
    expected = distances[np.arange(len(found)), found] / nearest - 1
    np.testing.assert_allclose(errors["excess"], expected, atol=1e-3)
    assert (errors.loc[errors["is_right"], "excess"] < 1e-3).all()
    assert 0 < errors["is_right"].mean() < 1
    assert errors["decides"].sum() == len(data.queries)


def test_the_log_has_the_sources_form(outcomes):
    lines = (outcomes[0] / "exp3_now.log").read_text().splitlines()
    form = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - [\w.]+ - INFO - mvtec_ad/bottle, .+"
    assert lines and all(re.fullmatch(form, line) for line in lines)
    assert any("skipped" in line for line in lines)


@pytest.mark.long
def test_a_smaller_bank_is_the_first_rows_of_the_large_one(outcomes, settings):
    rows = table(outcomes[2], exp3.COLUMNS)
    scores = outcomes[2][0].scores
    data = exp3.load_bank(settings, "mvtec_ad/bottle", seed=0)
    queries = data.queries.reshape(-1, data.bank.shape[1])
    for fewer in settings.smaller_banks:
        stored = data.bank[: len(data.bank) // fewer]
        patch_scores = cdist(queries, stored).min(1).reshape(len(data.queries), -1)
        label = f"exact, 1/{fewer} of the rows"
        np.testing.assert_allclose(scores[label][0], patch_scores.max(1), rtol=1e-4)
        row = rows[(rows["search_method"] == "exact") & (rows["times_fewer_rows"] == fewer)].iloc[0]
        assert row["bank_size"] == len(stored)


@pytest.mark.long
def test_every_seed_of_an_index_is_in_the_table(outcomes, settings):
    rows = table(outcomes[2], exp3.COLUMNS)
    fast = rows[(rows["search_method"] == "ivf_pq_fast") & (rows["times_fewer_rows"] == 1)]
    first = fast[fast["nprobe"] == settings.nprobes[0]]
    assert first["index_seed"].tolist() == list(range(settings.index_seeds))
    label = exp3.index_label(first.iloc[0])
    assert len(outcomes[2][0].scores[label]) == settings.index_seeds


@pytest.mark.long
def test_twice_the_same_but_for_timings(outcomes, tmp_path):
    folder, tasks, _ = outcomes
    Grid(exp3.run_task, exp3.COLUMNS, tmp_path, "exp3").run(tasks)
    one, two = (pd.read_csv(path / "exp3.csv") for path in (folder, tmp_path))
    assert (one[exp3.TIMINGS].dropna() > 0).all(axis=None)
    pd.testing.assert_frame_equal(one.drop(columns=exp3.TIMINGS), two.drop(columns=exp3.TIMINGS))


@pytest.mark.notebooks
@pytest.mark.parametrize("through", ["runner", pytest.param("papermill", marks=pytest.mark.slow)])
def test_notebook_6_runs_in_full(miniature, tmp_path, through):
    categories = ["mvtec_ad/bottle", "mvtec_ad/cable"]
    parameters = {"categories": categories, "image_size": 96, "bank_ratio": 0.8, "n_clusters": 8}
    parameters |= {"timestamp": "then", "data_dir": miniature}
    folder = run_in_full("exp3", parameters, through, tmp_path, tmp_path / "empty")
    rows = list(csv.DictReader((folder / "exp3_results_then.csv").open()))
    assert {row["category"] for row in rows} == set(categories)
    assert {row["status"][:7] for row in rows} == {"ok", "skipped"}
    for name in ("exp3_comprehensive_analysis_then", "exp3_category_analysis_then"):
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            assert picture.width > 900 and picture.height > 250
    assert (folder / "exp3_then.log").read_text()
