"""Experiment 2: planted outcomes give their verdicts; the real path runs, twice the same."""

import csv
import json
import zlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers.miniatures import make_mvtec
from matplotlib.colors import to_hex
from PIL import Image
from scipy import stats
from sklearn.metrics import roc_auc_score
from test_exp1 import NOTEBOOKS, comparable, overlaps, run_in_full, style  # noqa: F401

from patchcore_helpers import load_category
from patchcore_helpers.core.coreset import k_center_greedy
from patchcore_helpers.core.metrics import auroc_interval
from patchcore_helpers.data.prepare import prepare
from patchcore_helpers.experiments import exp2
from patchcore_helpers.experiments.grid import Grid, Outcome, to_csv
from patchcore_helpers.experiments.verdict import sentence

LABELS = np.repeat([0, 1], 40)
RATIOS = [0.005, 0.01, 0.05]
FOUR = ["v1_random", "k_center", "v2_variance", "v2_literal"]
CATEGORIES = [f"mvtec_ad/{name}" for name in ("bottle", "cable", "hazelnut", "leather", "screw")]


def planted(apart, categories=CATEGORIES, seeds=5, ratios=RATIOS):
    """Outcomes as `run_task` gives them; `apart` is the distance of the classes by method."""
    outcomes = []
    for task in exp2.make_tasks(categories, range(seeds), methods=list(apart), ratios=ratios):
        rows, scores = [], {"labels": LABELS.tolist()}
        own = zlib.crc32(task["category"].encode())
        image = np.random.default_rng(own).normal(size=len(LABELS))
        for place, (method, mean) in enumerate(apart.items()):
            mean = mean[task["category"]] if isinstance(mean, dict) else mean
            for ratio in ratios:
                noise = np.random.default_rng([own, place, task["seed"], int(1e4 * ratio)])
                values = image + mean * LABELS + noise.normal(0, 0.2, len(LABELS))
                scores[f"{method} {ratio:g}"] = values.tolist()
                rows.append(
                    {
                        **{**task, "method": method, "compression_ratio": ratio},
                        **{"auroc": roc_auc_score(LABELS, values), "memory_reduction": 1 / ratio},
                        **{"n_train": 20, "n_test": 80, "n_patches": 2000, "status": "ok"},
                        **{"bank_size": round(2000 * ratio), "seconds": place + task["seed"]},
                    }
                )
            rows[-1]["rank_correlation"] = None if place == 0 else 0.1 * task["seed"]
        outcomes.append(Outcome(task, rows, scores))
    return outcomes


def unfinished(category="mvtec_ad/grid", seed=0):
    task = {"category": category, "seed": seed, "methods": FOUR, "ratios": RATIOS}
    return Outcome(task, [{**task, "status": "failed: no such folder"}], finished=False)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (3, 1, ("v2_variance is better than v1_random (+", "is better in 5 of 5 categories.")),
        (1, 3, ("v2_variance is worse than v1_random (-", "is worse in 5 of 5 categories.")),
        (1.5, 1.5, ("no difference between v2_variance and v1_random is", "in none of 5 categor")),
    ],
)
def test_verdict_and_summary_follow_from_the_scores(one, other, words):
    outcomes = [*planted({"v1_random": other, "v2_variance": one}), unfinished()]
    comparison = exp2.compare(outcomes, "v2_variance", "v1_random")
    assert comparison["kind"].tolist() == ["case"] * 15 + ["category"] * 5 + ["all"]
    assert comparison["name"].tolist()[:3] == [
        f"mvtec_ad/bottle at {text}" for text in ("0.50%", "1.00%", "5.00%")
    ]
    said = sentence(comparison, "v2_variance", "v1_random")
    assert all(word in said for word in words), said
    text = exp2.summary(outcomes)
    assert said in text and "21 comparisons" in text
    assert text.endswith("\nfailed: no such folder\n")
    table = pd.DataFrame(row for row in exp2.means(outcomes) if row["status"] == "ok")
    for group in ("category", "compression_ratio"):
        means = table.groupby([group, "method"])["auroc"].mean().round(4)
        assert all(f"{mean:g}" in text for mean in means)


def test_some_better_some_worse():
    one = dict(zip(CATEGORIES, (3, 3, 1, 1.5, 1.5), strict=True))
    other = dict(zip(CATEGORIES, (1, 1, 3, 1.5, 1.5), strict=True))
    outcomes = planted({"k_center": other, "v2_variance": one})
    comparison = exp2.compare(outcomes, "v2_variance", "k_center")
    said = sentence(comparison, "v2_variance", "k_center")
    assert "is better in 2 of 5 categories, v2_variance is worse in 1 of 5" in said
    verdicts = comparison.set_index("name")["verdict"]
    assert verdicts["mvtec_ad/bottle at 1.00%"] == verdicts["mvtec_ad/cable"] == "better"
    assert verdicts["mvtec_ad/hazelnut"] == "worse"
    assert verdicts["mvtec_ad/screw"] == "no difference shown"


def test_intervals_are_those_of_the_scores_corrected_by_hand():
    outcomes = planted({"v1_random": 1.4, "v2_variance": 1.5}, CATEGORIES[:2])
    rows = exp2.compare(outcomes, "v2_variance", "v1_random").set_index("name")
    assert len(rows) == 9
    of = {
        (method, ratio): np.array(
            [
                o.scores[f"{method} {ratio:g}"]
                for o in outcomes
                if o.task["category"] == CATEGORIES[0]
            ]
        )
        for method in ("v1_random", "v2_variance")
        for ratio in RATIOS
    }
    both = [np.array([of[m, r] for r in RATIOS]) for m in ("v2_variance", "v1_random")]
    cases = {
        f"{CATEGORIES[0]} at 5.00%": auroc_interval(LABELS, *(block[2] for block in both)),
        CATEGORIES[0]: auroc_interval(LABELS, *both),
    }
    for name, interval in cases.items():
        half = stats.t.ppf(1 - 0.05 / 9 / 2, interval.df) * interval.error
        assert rows.loc[name, "difference"] == pytest.approx(interval.estimate)
        assert rows.loc[name, "low"] == pytest.approx(interval.estimate - half)
        assert rows.loc[name, "high"] == pytest.approx(interval.estimate + half)
    mean = rows.loc[CATEGORIES[:2], "difference"].mean()
    assert rows.loc["all", "difference"] == pytest.approx(mean)


def test_means_are_one_row_for_all_seeds_the_sources_columns_first():
    outcomes = [*planted({"v1_random": 1.5, "k_center": 2}, CATEGORIES[:2], seeds=3), unfinished()]
    rows = exp2.means(outcomes)
    assert [row["status"] for row in rows] == ["ok"] * 12 + ["failed: no such folder"]
    assert rows[-1].keys() & {"auroc", "low", "high"} == set()
    by_seed = pd.DataFrame([row for o in outcomes if o.finished for row in o.rows])
    keys = ["category", "method", "compression_ratio"]
    mean = by_seed.groupby(keys)["auroc"].mean()
    for row in rows[:-1]:
        assert row["auroc"] == pytest.approx(mean[tuple(row[key] for key in keys)])
        assert 0 <= row["low"] <= row["auroc"] <= row["high"] <= 1 and row["n_seeds"] == 3
        assert row["memory_reduction"] == pytest.approx(1 / row["compression_ratio"])
    text = to_csv(exp2.means(outcomes), exp2.COLUMNS)
    assert text.startswith("category,method,compression_ratio,auroc,memory_reduction,low,high,")
    written = list(csv.DictReader(text.splitlines()))
    assert len(written) == 13 and written[-1]["auroc"] == "" and None not in written[-1]


def test_seconds_and_correlations():
    outcomes = planted({"v1_random": 1.5, "k_center": 2}, CATEGORIES[:2], seeds=3)
    assert exp2.seconds(outcomes).to_dict() == {"v1_random": 1, "k_center": 2}
    found = exp2.correlations(outcomes)
    assert found["method"].tolist() == ["k_center"] * 2
    assert np.allclose(found[["mean", "min", "max"]], [0.1, 0, 0.2])


def test_usefulness_counts_the_rows_that_decide():
    bank = np.array([[0.0, 0], [10, 0], [20, 0], [30, 0]], np.float32)
    # The worst patch of each image: next to row 1, row 3, row 3; near-hits elsewhere.
    test = np.array([[[[0, 1], [10, 5]]], [[[30, 4], [20, 1]]], [[[30, -6], [0, 2]]]], np.float32)
    counts = [0, 1, 0, 2]
    weights = np.array([0.3, 0.4, 0.1, 0.9])
    expected = stats.spearmanr(weights, counts).statistic
    assert exp2.usefulness(weights, bank, test) == pytest.approx(expected)
    assert exp2.usefulness(-weights, bank, test) == pytest.approx(-expected)
    assert exp2.usefulness(np.ones(4), bank, test) is None
    assert exp2.usefulness(weights[[1]], bank[[1]], test) is None


# Figures


def many(seed):
    rng = np.random.default_rng(seed)
    apart = {m: {c: seed and rng.uniform(0, 4) for c in CATEGORIES} for m in FOUR}
    return planted(apart)


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_legible_with_5_categories_4_methods_3_ratios(style, seed):  # noqa: F811
    outcomes = many(seed)
    figure = exp2.main_figure(outcomes)
    assert overlaps(figure) == []
    (ax,) = figure.axes
    assert "compression ratio" in ax.get_xlabel() and "image AUROC" in ax.get_ylabel()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.5%", "1.0%", "5.0%"]
    handles, names = ax.get_legend_handles_labels()
    assert names == FOUR
    assert [h.lines[0].get_color() for h in handles] == [exp2.COLORS[m] for m in FOUR]
    by_category = exp2.category_figure(outcomes)
    assert overlaps(by_category) == []
    assert len(by_category.axes) == 3
    for ax in by_category.axes:
        colors = [to_hex(bars.patches[0].get_facecolor()) for bars in ax.containers]
        assert colors == [to_hex(exp2.COLORS[m]) for m in FOUR]
        assert ax.get_xlabel() == "image AUROC"
    comparison = exp2.compare(outcomes, "v2_variance", "v1_random")
    gains = exp2.improvement_figure(comparison, outcomes, "v2_variance", "v1_random")
    assert overlaps(gains) == []
    assert gains.axes[0].get_xlabel().endswith("change of image AUROC (%)")
    plt.close("all")


def test_improvement_is_in_per_cent_and_colored_by_the_verdict(style):  # noqa: F811
    one = dict(zip(CATEGORIES, (3, 1, 1.5, 1.5, 1.5), strict=True))
    other = dict(zip(CATEGORIES, (1, 3, 1.5, 1.5, 1.5), strict=True))
    outcomes = planted({"v1_random": other, "v2_variance": one}, ratios=[0.01])
    comparison = exp2.compare(outcomes, "v2_variance", "v1_random")
    (ax,) = exp2.improvement_figure(comparison, outcomes, "v2_variance", "v1_random").axes
    base = {r["category"]: r["auroc"] for r in exp2.means(outcomes) if r["method"] == "v1_random"}
    gain = {r["category"]: r["auroc"] for r in exp2.means(outcomes) if r["method"] == "v2_variance"}
    widths = [bar.get_width() for bar in ax.patches]
    assert np.allclose(widths, [100 * (gain[c] / base[c] - 1) for c in CATEGORIES])
    colors = [to_hex(bar.get_facecolor()) for bar in ax.patches]
    gray = to_hex("0.75")
    assert colors == ["#009e73", "#d55e00", gray, gray, gray]


# The real path

TINY = {
    "methods": list(exp2.METHODS),
    "ratios": [0.1, 0.02],
    "image_size": 64,
    "max_train": 4,
    "max_test": 4,
    "use_cache": False,
}


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exp2")
    make_mvtec(folder / "original")
    prepare("mvtec_ad", folder / "original", folder / "data", ["bottle", "cable"])
    return folder / "data"


def test_twice_the_same_but_for_timings(miniature, tmp_path):
    tasks = exp2.make_tasks(["mvtec_ad/bottle"], [0, 1], **TINY, data_dir=str(miniature))
    for name in ("one", "two"):
        exp2.load_patches.cache_clear()
        outcomes = Grid(exp2.run_task, exp2.BY_SEED, tmp_path / name).run(tasks)
        assert all(o.finished for o in outcomes)
    one, two = (comparable(tmp_path / n / "results.csv", exp2.TIMINGS) for n in ("one", "two"))
    assert one == two
    header = (tmp_path / "one" / "results.csv").read_text().splitlines()[0]
    assert header.startswith("category,method,compression_ratio,auroc,memory_reduction,seed,")
    assert [(row["seed"], row["method"], row["compression_ratio"]) for row in one] == [
        (seed, method, ratio)
        for seed in "01"
        for method in exp2.METHODS
        for ratio in ("0.02", "0.1")
    ]
    for row in one:
        outcome = outcomes[int(row["seed"])]
        scores = outcome.scores[f"{row['method']} {row['compression_ratio']}"]
        auroc = roc_auc_score(outcome.scores["labels"], scores)
        assert float(row["auroc"]) == pytest.approx(auroc, rel=1e-5)
        n_patches, size = int(row["n_patches"]), int(row["bank_size"])
        assert size == max(1, round(float(row["compression_ratio"]) * n_patches))
        assert float(row["memory_reduction"]) == pytest.approx(n_patches / size, rel=1e-5)
        assert (row["n_train"], row["n_test"], row["status"]) == ("4", "8", "ok")
    means = [row for row in exp2.means(outcomes) if row["status"] == "ok"]
    assert len(means) == 2 * len(exp2.METHODS) and all(row["n_seeds"] == 2 for row in means)


def test_one_order_serves_all_ratios_as_separate_banks_would(miniature):
    task = exp2.make_tasks(["mvtec_ad/cable"], [3], **TINY, data_dir=str(miniature))[0]
    _, scores = exp2.run_task(**task)
    given = ("category", "data_dir", "image_size", "max_train", "max_test", "use_cache")
    words = {name: task[name] for name in given} | {"backbone": "efficientnet_lite0"}
    images, train, test = exp2.load_patches(**words)
    whole = load_category("mvtec_ad/cable", data_dir=miniature).limit(4, 4)
    assert images.labels.tolist() == whole.labels.tolist() == scores["labels"]
    rows, queries = (part.reshape(-1, part.shape[-1]) for part in (train, test))
    for ratio in TINY["ratios"]:
        bank = rows[k_center_greedy(rows, round(ratio * len(rows)), random_state=3).indices]
        apart = np.linalg.norm(queries[:, None].astype(float) - bank[None], axis=2).min(1)
        worst = apart.reshape(len(test), -1).max(1)
        assert np.allclose(scores[f"k_center {ratio:g}"], worst, rtol=1e-4)


@pytest.mark.notebooks
@pytest.mark.parametrize("through", ["papermill", pytest.param("runner", marks=pytest.mark.slow)])
def test_notebook_5_runs_in_full(miniature, tmp_path, through):
    given = {"categories": ["mvtec_ad/bottle", "mvtec_ad/cable"], "image_size": 112, "n_seeds": 2}
    given["data_dir"] = str(miniature)
    folder = run_in_full("exp2", given, through, tmp_path, tmp_path / "empty")
    rows = list(csv.DictReader((folder / "results_by_seed.csv").open()))
    methods = ["v1_random", "k_center", "v2_variance", "v2_literal", "v2_neighborhood"]
    assert {row["status"] for row in rows} == {"ok"}
    assert [
        (row["category"], row["seed"], row["method"], row["compression_ratio"]) for row in rows
    ] == [
        (category, seed, method, ratio)
        for category in ("mvtec_ad/bottle", "mvtec_ad/cable")
        for seed in "01"
        for method in methods
        for ratio in ("0.005", "0.01", "0.05")
    ]
    means = list(csv.DictReader((folder / "results_all_methods.csv").open()))
    assert len(means) == 30 and list(means[0])[:5] == exp2.COLUMNS[:5]
    names = ("01_main_comparison", "02_category_performance", "03_improvement_percentage")
    for name in names:
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            assert picture.width > 600 and picture.height > 200
    results = json.loads((folder / "results.json").read_text())["results"]
    assert results["verdict"].count("Over all, ") == 3 and results["comparisons"] == 9
    (text,) = folder.rglob("exp2_summary*")
    assert "Experiment 2: v2_variance against v1_random" in text.read_text()
