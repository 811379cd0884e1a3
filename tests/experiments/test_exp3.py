"""Experiment 3: planted tables give their choices; the real path runs and leaks no padding."""

import csv
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers.miniatures import make_mvtec
from PIL import Image
from test_exp1 import NOTEBOOKS, overlaps, run_in_full, style  # noqa: F401

from patchcore_helpers.core.index import make_index
from patchcore_helpers.data.prepare import prepare
from patchcore_helpers.experiments import exp2, exp3
from patchcore_helpers.experiments.grid import Grid, table

CATEGORIES = [f"mvtec_ad/{name}" for name in ("bottle", "cable", "hazelnut", "leather", "screw")]
TINY = {"image_size": 96, "bank_ratio": 0.8, "n_clusters": 8, "bits": [4, 8, 16], "nprobes": [1, 4]}


def planted(categories=CATEGORIES, seed=0, bits=(4, 8, 16), nprobes=(1, 4, 8, 16)):
    """A table such as `run_task` gives, with made-up numbers; 16 bits did not run."""
    random, rows = np.random.default_rng(seed), []
    for category in categories:
        exact = {"category": category, "bank_size": 5000, "status": "ok", "image_auroc": 0.9}
        rows.append(exact | {"search_method": "sklearn", "memory_mb": 3.0, "speedup": 1.0})
        for settings, probes in exp3.sweep(bits, nprobes, 100, 8):
            for nprobe in probes:
                row = exact | {"search_method": settings["kind"], "nprobe": nprobe}
                row |= {"pq_bits": settings.get("bits"), "m": settings.get("m")}
                if settings["kind"] == "ivf_pq_fast":
                    row["pq_bits"] = 4
                row["n_clusters"] = settings.get("n_clusters")
                if row["pq_bits"] == 16:
                    rows.append({**row, "image_auroc": None, "status": "skipped: too few rows"})
                    continue
                smaller, faster = random.uniform(1, 40), random.uniform(0.5, 30)
                lost = random.uniform(-0.02, 0.01)
                row |= {"memory_mb": 3 / smaller, "memory_reduction": smaller, "difference": lost}
                row |= {"speedup": 3 * faster, "speedup_over_flat": faster, "low": lost - 0.01}
                row |= {"search_time_ms": 60 / faster, "recall_at_1": random.uniform(0.2, 1)}
                row |= {"image_auroc": 0.9 + lost, "accuracy_loss_percent": -100 * lost / 0.9}
                rows.append(row | {"high": lost + 0.01, "build_seconds": 0.1})
    return pd.DataFrame(rows).reindex(columns=exp3.COLUMNS)


def test_pareto_front_is_what_nothing_beats():
    front = exp3.pareto(means := exp3.averaged(planted()))
    points = means[["memory_mb", "search_time_ms", "image_auroc"]].to_numpy() * [1, 1, -1]
    for i, point in enumerate(points):
        beaten = any((other <= point).all() and (other < point).any() for other in points)
        assert front[i] == (not beaten)
    assert 0 < front.sum() < len(front)


@pytest.mark.parametrize("seed", range(4))
def test_choices_follow_from_the_table(seed):
    means = exp3.averaged(planted(seed=seed))
    chosen = exp3.choose(means, tolerance=0.005).set_index("place")
    fit = means[means["difference"] >= -0.005]
    for place, some, column in (
        ("edge (speed, if 20x smaller)", fit[fit["memory_reduction"] >= 20], "search_time_ms"),
        ("server (speed)", fit, "search_time_ms"),
        ("archive (bytes)", fit, "memory_mb"),
    ):
        expected = "none"
        if len(some):
            expected = exp3.label(some.sort_values(column).iloc[0])
        assert chosen.loc[place, "index"] == expected


def test_no_choice_where_every_index_loses_too_much():
    rows = planted()
    rows["difference"] = -0.05
    assert set(exp3.choose(exp3.averaged(rows))["index"]) == {"none"}


def test_the_best_index_is_small_and_close_before_it_is_fast():
    rows = planted(CATEGORIES[:1])
    at = exp3.indexes(rows).index[:4]
    rows["memory_reduction"] = 5.0
    assert exp3.find_best(rows, CATEGORIES[0]) is None
    rows.loc[at, ["memory_reduction", "difference"]] = 25.0, -0.01
    rows.loc[at, "speedup_over_flat"] = [3.0, 9.0, 5.0, 8.0]
    assert exp3.find_best(rows, CATEGORIES[0])["speedup_over_flat"] == 9
    rows.loc[at[2], "difference"] = -0.002
    assert exp3.find_best(rows, CATEGORIES[0])["speedup_over_flat"] == 5


def test_means_leave_out_what_did_not_run_everywhere():
    rows = planted()
    place = exp3.indexes(rows).index[0]
    assert len(exp3.averaged(rows)) == len(exp3.averaged(rows.drop(place))) + 1


def test_claims_show_the_measured_range():
    rows = planted()
    ran = rows[(rows["search_method"] == "ivf_pq") & (rows["status"] == "ok")]
    measured = exp3.claims_table(rows).set_index("")["measured"]
    assert measured["speedup"] == f"{ran['speedup'].min():.2f} to {ran['speedup'].max():.2f}"


@pytest.mark.parametrize("count", [1, 3, 5, 6])
def test_figures_are_legible(style, count):  # noqa: F811
    names = [*CATEGORIES, "mvtec_ad/grid"][:count]
    rows = planted(names)
    eight, panels = exp3.comprehensive_figure(rows), exp3.category_figure(rows)
    assert not overlaps(eight) and not overlaps(panels)
    assert sum(ax.get_xlabel() != "" or ax.get_title() != "" for ax in eight.axes[:8]) == 7
    assert eight.axes[7].texts[0].get_text() == exp3.summary(rows)
    titles = [ax.get_title() for ax in panels.axes if ax.get_title()]
    assert titles == names
    for figure in (
        exp3.pareto_figure(exp3.averaged(rows)),
        exp3.recall_figure(exp3.averaged(rows)),
    ):
        assert not overlaps(figure)
    plt.close("all")


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    source, data = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("data")
    prepare(
        "mvtec_ad", make_mvtec(source / "mvtec", ["bottle", "cable"]), data, ["bottle", "cable"]
    )
    return data


@pytest.fixture(scope="module")
def outcomes(miniature, tmp_path_factory):
    tasks = exp3.make_tasks(["mvtec_ad/bottle"], [0], **TINY, data_dir=str(miniature))
    folder = tmp_path_factory.mktemp("out")
    with exp3.log_to(folder, "now"):
        found = Grid(exp3.run_task, exp3.COLUMNS, folder, "exp3").run(tasks)
    return folder, tasks, found


def test_a_real_run_keeps_its_promises(outcomes):
    folder, _, found = outcomes
    rows = table(found, exp3.COLUMNS)
    text = (folder / "exp3.csv").read_text()
    assert text.splitlines()[0].split(",")[:10] == exp3.COLUMNS[:10]
    assert "e+38" not in text and not re.search(r"\b34028\d", text)  # FAISS's padding
    sixteen = rows[rows["pq_bits"] == 16]
    assert len(sixteen) == 2 and sixteen["status"].str.startswith("skipped: search: ").all()
    assert sixteen[["image_auroc", "memory_mb", "search_time_ms"]].isna().all(axis=None)
    ran = rows[rows["status"] == "ok"]
    assert np.isfinite(ran[["image_auroc", "memory_mb", "search_time_ms", "speedup"]]).all(
        axis=None
    )
    flat = ran[ran["search_method"] == "flat"].iloc[0]
    assert flat["recall_at_1"] == 1 and flat["difference"] == 0 and flat["memory_reduction"] == 1
    loss = 100 * (flat["image_auroc"] - ran["image_auroc"]) / flat["image_auroc"]
    np.testing.assert_allclose(ran["accuracy_loss_percent"], loss, atol=1e-9)
    smaller = flat["memory_mb"] / ran["memory_mb"]
    np.testing.assert_allclose(ran["memory_reduction"], smaller, rtol=1e-9)


def test_bytes_are_those_of_the_serialized_index(outcomes):
    _, tasks, found = outcomes
    rows = table(found, exp3.COLUMNS)
    size, ratio, data = (tasks[0][name] for name in ("image_size", "bank_ratio", "data_dir"))
    _, _, bank = exp3.load_bank(
        "mvtec_ad/bottle", data, "efficientnet_lite0", size, ratio, 0, 0, True, 0
    )
    index = make_index({"kind": "ivf_pq", "bits": 4, "m": 8, "n_clusters": 8}, 0).fit(bank)
    row = rows[(rows["search_method"] == "ivf_pq") & (rows["pq_bits"] == 4)].iloc[0]
    assert row["memory_mb"] == pytest.approx(index.nbytes / 1e6)
    by_hand = len(bank) * (8 * 4 / 8 + 8) + 4 * bank.shape[1] * (8 + 16)
    assert index.nbytes == pytest.approx(by_hand, rel=0.2)  # headers weigh more in a small one


def test_the_log_has_the_sources_form(outcomes):
    lines = (outcomes[0] / "exp3_now.log").read_text().splitlines()
    form = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - [\w.]+ - INFO - mvtec_ad/bottle, .+"
    assert lines and all(re.fullmatch(form, line) for line in lines)
    assert any("skipped" in line for line in lines)


def test_twice_the_same_but_for_timings(outcomes, tmp_path):
    folder, tasks, _ = outcomes
    exp3.load_bank.cache_clear()
    exp2.load_patches.cache_clear()
    Grid(exp3.run_task, exp3.COLUMNS, tmp_path, "exp3").run(tasks)
    one, two = (pd.read_csv(path / "exp3.csv") for path in (folder, tmp_path))
    assert (one[exp3.TIMINGS].dropna() > 0).all(axis=None)
    pd.testing.assert_frame_equal(one.drop(columns=exp3.TIMINGS), two.drop(columns=exp3.TIMINGS))


@pytest.mark.notebooks
@pytest.mark.parametrize("through", ["runner", pytest.param("papermill", marks=pytest.mark.slow)])
def test_notebook_6_runs_in_full(miniature, tmp_path, through):
    given = {"categories": ["mvtec_ad/bottle", "mvtec_ad/cable"], "image_size": 96}
    given |= {"bank_ratio": 0.8, "n_clusters": 8, "timestamp": "then", "data_dir": str(miniature)}
    folder = run_in_full("exp3", given, through, tmp_path, tmp_path / "empty")
    rows = list(csv.DictReader((folder / "exp3_results_then.csv").open()))
    assert {row["category"] for row in rows} == {"mvtec_ad/bottle", "mvtec_ad/cable"}
    assert {row["status"][:7] for row in rows} == {"ok", "skipped"}
    for name in ("exp3_comprehensive_analysis_then", "exp3_category_analysis_then"):
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            assert picture.width > 900 and picture.height > 250
    assert (folder / "exp3_then.log").read_text()
