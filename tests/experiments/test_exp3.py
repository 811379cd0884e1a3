"""Experiment 3: planted tables give their choices; the real path runs and leaks no padding."""

import csv
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.experiments import MVTEC_FIVE, planted_exp3, run_in_full
from helpers.miniatures import make_mvtec
from PIL import Image
from scipy.spatial.distance import cdist

from patchcore_helpers.core.index import make_index
from patchcore_helpers.data.prepare import prepare
from patchcore_helpers.experiments import exp3
from patchcore_helpers.experiments.grid import Grid, table

TINY = exp3.Settings(image_size=96, bank_ratio=0.8, n_clusters=8, bits=[4, 8, 16], nprobes=[1, 4])


def test_pareto_front_is_what_nothing_beats():
    means = exp3.mean_table(planted_exp3())
    front = exp3.pareto_front(means)
    costs = means[["memory_mb", "search_time_ms", "image_auroc"]].to_numpy() * [1, 1, -1]
    for i, cost in enumerate(costs):
        beaten = any((other <= cost).all() and (other < cost).any() for other in costs)
        assert front[i] == (not beaten)
    assert 0 < front.sum() < len(front)


# Written so that the choices can be read off: lost AUROC, times smaller, milliseconds, MB.
INDEXES = {
    "A": (-0.001, 30, 5.0, 0.10),
    "B": (-0.002, 25, 4.0, 0.12),  # the fastest of the small ones that lose little
    "C": (-0.004, 40, 1.0, 0.08),  # faster and smaller, but loses too much
    "D": (0.002, 10, 2.0, 0.30),  # the fastest that loses little
    "E": (-0.003, 60, 9.0, 0.05),  # the smallest that loses little: exactly the tolerance
}


def index_table(indexes):
    rows = [
        {
            "search_method": name,
            "pq_bits": None,
            "nprobe": None,
            "difference": difference,
            "memory_reduction": smaller,
            "search_time_ms": milliseconds,
            "memory_mb": megabytes,
            "speedup": 100 / milliseconds,
            "speedup_over_flat": 20 / milliseconds,
            "recall_at_1": 0.5,
        }
        for name, (difference, smaller, milliseconds, megabytes) in indexes.items()
    ]
    return pd.DataFrame(rows)


def test_recommended_indexes():
    recommended = exp3.recommend_index(index_table(INDEXES), tolerance=0.003, smaller=20)
    assert recommended["place"].tolist() == [
        "edge (speed, if 20x smaller)",
        "server (speed)",
        "archive (bytes)",
    ]
    assert recommended["index"].tolist() == ["B", "D", "E"]
    assert recommended["memory_reduction"].tolist() == [25, 10, 60]
    assert recommended["speedup"].tolist() == pytest.approx([25, 50, 100 / 9])


def test_no_index_is_recommended_where_none_meets_the_conditions():
    without_small = {name: INDEXES[name] for name in "CD"}
    recommended = exp3.recommend_index(index_table(without_small), smaller=20)
    assert recommended["index"].tolist() == ["none", "D", "D"]
    recommended = exp3.recommend_index(index_table({"C": INDEXES["C"]}))
    assert recommended["index"].tolist() == ["none"] * 3
    assert recommended["difference"].isna().all()


def test_the_best_index_is_small_and_close_before_it_is_fast():
    rows = planted_exp3(MVTEC_FIVE[:1])
    at = exp3.index_rows(rows).index[:4]
    rows["memory_reduction"] = 5.0
    assert exp3.best_small_index(rows, MVTEC_FIVE[0]) is None
    rows.loc[at, ["memory_reduction", "difference"]] = 25.0, -0.01
    rows.loc[at, "speedup_over_flat"] = [3.0, 9.0, 5.0, 8.0]
    assert exp3.best_small_index(rows, MVTEC_FIVE[0])["speedup_over_flat"] == 9
    rows.loc[at[2], "difference"] = -0.002
    assert exp3.best_small_index(rows, MVTEC_FIVE[0])["speedup_over_flat"] == 5


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
        ["speedup", "100 to 160 times", "0.50 to 3.25"],
        ["memory", "8 times less", "20.00 to 41.12"],
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
    by_hand = len(bank) * (8 * 4 / 8 + 8) + 4 * bank.shape[1] * (8 + 16)
    assert index.nbytes == pytest.approx(by_hand, rel=0.2)  # headers weigh more in a small one


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
    names = {name for name, _ in results}
    assert {"ivf_pq, 8 x 4 bits", "ivf_pq_fast, 20 x 4 bits", "ivf_sq8", "hnsw"} <= names
    assert set(results) == {(name, nprobe) for name in names for nprobe in settings.nprobes}
    assert results["hnsw", 1] is results["hnsw", 4]
    visited = [results["ivf_sq8", nprobe].measures["recall_at_1"] for nprobe in (1, 4)]
    assert visited[0] < visited[1] <= 1


def test_the_log_has_the_sources_form(outcomes):
    lines = (outcomes[0] / "exp3_now.log").read_text().splitlines()
    form = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - [\w.]+ - INFO - mvtec_ad/bottle, .+"
    assert lines and all(re.fullmatch(form, line) for line in lines)
    assert any("skipped" in line for line in lines)


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
