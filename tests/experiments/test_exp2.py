"""Experiment 2: planted outcomes give their verdicts; the real path runs, twice the same."""

import csv
import json
import re
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
from helpers.experiments import LABELS, MVTEC_FIVE, comparable, planted_exp2, run_in_full
from helpers.miniatures import make_mvtec
from PIL import Image
from scipy import stats
from sklearn.metrics import roc_auc_score

from patchcore_helpers import load_category
from patchcore_helpers.core.coreset import k_center_greedy
from patchcore_helpers.core.intervals import auroc_interval
from patchcore_helpers.data.prepare import prepare
from patchcore_helpers.errors import InputError
from patchcore_helpers.experiments import exp2
from patchcore_helpers.experiments.common import load_patches
from patchcore_helpers.experiments.grid import Grid, Outcome, to_csv
from patchcore_helpers.experiments.statistics import summarize

RATIOS = [0.005, 0.01, 0.05]
TWO = MVTEC_FIVE[:2]


def unfinished(category="mvtec_ad/grid", seed=0):
    (task,) = exp2.make_tasks(exp2.Settings(), [category], [seed])
    return Outcome(task, [{**task, "status": "failed: no such folder"}], finished=False)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (3, 1, ("variance-weighted is better than random (+", "is better in 5 of 5 categories.")),
        (1, 3, ("variance-weighted is worse than random (-", "is worse in 5 of 5 categories.")),
        (1.5, 1.5, ("no difference between variance-weighted and random", "in none of 5 categor")),
    ],
)
def test_verdict_and_summary_follow_from_the_scores(one, other, words):
    outcomes = [*planted_exp2({"v1_random": other, "v2_variance": one}), unfinished()]
    comparison = exp2.compare(outcomes, "v2_variance", "v1_random")
    assert comparison["kind"].tolist() == ["case"] * 15 + ["category"] * 5 + ["all"]
    assert comparison["name"].tolist()[:3] == [
        f"mvtec_ad/bottle at {ratio}" for ratio in ("0.50%", "1.00%", "5.00%")
    ]
    pair = ("v2_variance", "v1_random")
    page = exp2.compare_all(outcomes, [pair], pair, with_cases=[pair])
    verdict = summarize(exp2.of_pair(page, *pair), "variance-weighted", "random")
    assert all(word in verdict for word in words), verdict
    text = exp2.summary(outcomes, page)
    assert verdict in text and "27 comparisons" in text  # 21, and 6 without the ring
    assert text.endswith("\nfailed: no such folder\n")
    numbers = np.array([float(number) for number in re.findall(r"\d\.\d+", text)])
    by_seed = exp2.rows_by_seed(outcomes)
    for group in ("category", "compression_ratio"):
        for mean in by_seed.groupby([group, "method"])["auroc"].mean():
            assert np.abs(numbers - mean).min() < 6e-5


def test_better_in_two_categories_and_worse_in_one():
    one = dict(zip(MVTEC_FIVE, (3, 3, 1, 1.5, 1.5), strict=True))
    other = dict(zip(MVTEC_FIVE, (1, 1, 3, 1.5, 1.5), strict=True))
    outcomes = planted_exp2({"k_center": other, "v2_variance": one})
    comparison = exp2.compare(outcomes, "v2_variance", "k_center")
    verdict = summarize(comparison, "v2_variance", "k_center")
    assert "is better in 2 of 5 categories, v2_variance is worse in 1 of 5" in verdict
    verdicts = comparison.set_index("name")["verdict"]
    assert verdicts["mvtec_ad/bottle at 1.00%"] == verdicts["mvtec_ad/cable"] == "better"
    assert verdicts["mvtec_ad/hazelnut"] == "worse"
    assert verdicts["mvtec_ad/screw"] == "no difference shown"


def test_intervals_are_those_of_the_scores_corrected_by_hand():
    outcomes = planted_exp2({"v1_random": 1.4, "v2_variance": 1.5}, TWO)
    rows = exp2.compare(outcomes, "v2_variance", "v1_random").set_index("name")
    assert len(rows) == 9
    of_first = [o.scores for o in outcomes if o.task["category"] == TWO[0]]
    scores, other = (
        np.array([[by_seed[f"{method} {ratio:g}"] for by_seed in of_first] for ratio in RATIOS])
        for method in ("v2_variance", "v1_random")
    )
    intervals = {
        f"{TWO[0]} at 5.00%": auroc_interval(LABELS, scores[2], other[2]),
        TWO[0]: auroc_interval(LABELS, scores, other),
    }
    # Holm among the eight rows below the mean: 5 % / 8 for the smallest p-value, then 5 % / 7 ...
    p_values = rows["p_value"].drop("all").sort_values()
    n_shown = next(i for i, p in enumerate([*p_values, 1]) if i == 8 or p > 0.05 / (8 - i))
    for name, interval in intervals.items():
        n_left = 8 - min(list(p_values.index).index(name), n_shown, 7)
        half = stats.t.ppf(1 - 0.05 / n_left / 2, interval.df) * interval.error
        assert rows.loc[name, "difference"] == pytest.approx(interval.estimate)
        assert rows.loc[name, "low"] == pytest.approx(interval.estimate - half)
        assert rows.loc[name, "high"] == pytest.approx(interval.estimate + half)
    mean = rows.loc[TWO, "difference"].mean()
    assert rows.loc["all", "difference"] == pytest.approx(mean)


def test_results_are_one_row_for_all_seeds_the_sources_columns_first():
    outcomes = [*planted_exp2({"v1_random": 1.5, "k_center": 2}, TWO, seeds=3), unfinished()]
    rows = exp2.results_table(outcomes)
    assert rows["status"].tolist() == ["ok"] * 12 + ["failed: no such folder"]
    assert rows.iloc[-1][["auroc", "low", "high"]].isna().all()
    by_seed = pd.DataFrame([row for o in outcomes if o.finished for row in o.rows])
    keys = ["category", "method", "compression_ratio"]
    mean = by_seed.groupby(keys)["auroc"].mean()
    for row in rows[:-1].to_dict("records"):
        assert row["auroc"] == pytest.approx(mean[tuple(row[key] for key in keys)])
        assert 0 <= row["low"] <= row["auroc"] <= row["high"] <= 1 and row["n_seeds"] == 3
        assert row["memory_reduction"] == pytest.approx(1 / row["compression_ratio"])
    header = to_csv([], rows.columns)
    assert header.startswith("category,method,compression_ratio,auroc,memory_reduction,low,high,")


def test_seconds_and_usefulness():
    outcomes = planted_exp2({"v1_random": 1.5, "k_center": 2}, TWO, seeds=3)
    assert exp2.selection_seconds(outcomes).to_dict() == {"v1_random": 1, "k_center": 2}
    useful = exp2.usefulness_table(outcomes)
    assert useful["method"].tolist() == ["k_center"] * 2
    assert np.allclose(useful["rank_correlation"], 0.1)


def test_all_comparisons_of_a_page_are_counted_and_the_ring_has_scores_of_its_own():
    outcomes = planted_exp2({"v1_random": 1.5, "k_center": 2, "v2_variance": 1.5}, TWO)
    pairs = [("k_center", "v1_random"), ("v2_variance", "k_center")]
    page = exp2.compare_all(outcomes, pairs, pairs[0], with_cases=[pairs[1]])
    assert len(page) == 4 * 3 + 6
    primary = page[(page["one"] == "k_center") & (page["kind"] == "all")]
    assert primary["scored"].tolist() == list(exp2.SCORED)
    assert (page["confidence"] == 0.95).to_numpy().nonzero()[0][0] == primary.index[0]
    whole, inside = (exp2.of_pair(page, *pairs[0], scored) for scored in exp2.SCORED)
    assert np.allclose(whole["difference"], -inside["difference"])  # planted with the sign turned


def test_only_images_of_one_fold_are_compared():
    """Oracle: the mean of scikit-learn's AUROCs of the folds."""
    (outcome,) = planted_exp2({"v1_random": 1, "k_center": 2}, TWO[:1], seeds=1)
    folds = np.arange(len(LABELS)) % 4
    outcome.scores["groups"] = folds.tolist()
    for name in outcome.scores:
        if name not in ("labels", "groups"):  # folds on scales of their own
            outcome.scores[name] = (np.array(outcome.scores[name]) + 100 * folds).tolist()
    table = exp2.compare([outcome], "k_center", "v1_random")
    by_method = {
        method: np.mean(
            [
                roc_auc_score(LABELS[folds == fold], np.array(scores)[folds == fold])
                for name, scores in outcome.scores.items()
                if name in [f"{method} {ratio:g}" for ratio in RATIOS]
                for fold in range(4)
            ]
        )
        for method in ("k_center", "v1_random")
    }
    expected = by_method["k_center"] - by_method["v1_random"]
    assert table["difference"].iloc[-1] == pytest.approx(expected)
    means = exp2.mean_table([outcome])
    of_random = means[means["method"] == "v1_random"]["auroc"].mean()
    assert of_random == pytest.approx(by_method["v1_random"])


def test_usefulness_counts_the_rows_that_decide():
    bank = np.array([[0.0, 0], [10, 0], [20, 0], [30, 0]], np.float32)
    # The worst patch of each image: next to row 1, row 3, row 3; near-hits elsewhere.
    test = np.array([[[[0, 1], [10, 5]]], [[[30, 4], [20, 1]]], [[[30, -6], [0, 2]]]], np.float32)
    counts = [0, 1, 0, 2]
    labels = np.array([0, 1, 1])  # row 3 decides two defective images, row 1 a normal one
    weights = np.array([0.3, 0.05, 0.1, 0.9])  # row 1 weighs least, but is not asked
    found = exp2.usefulness(weights, bank, test, labels)
    assert found["rank_correlation"] == pytest.approx(stats.spearmanr(weights, counts).statistic)
    best = max(stats.spearmanr(order, counts).statistic for order in permutations(weights))
    assert found["rank_correlation_limit"] == pytest.approx(best) and best < 1
    assert found["weight_auroc"] == 1  # .9 of row 3 against .3 and .1 of those that decide nothing
    turned = exp2.usefulness(-weights, bank, test, labels)
    assert turned["rank_correlation"] == pytest.approx(-found["rank_correlation"])
    assert turned["weight_auroc"] == 0
    assert set(exp2.usefulness(np.ones(4), bank, test, labels).values()) == {None}
    assert set(exp2.usefulness(weights[[1]], bank[[1]], test, labels).values()) == {None}


def test_the_ring_is_the_outermost_patches():
    assert exp2.ring_of((4, 5)).astype(int).tolist() == [
        [1, 1, 1, 1, 1],
        [1, 0, 0, 0, 1],
        [1, 0, 0, 0, 1],
        [1, 1, 1, 1, 1],
    ]
    maps = np.zeros((3, 4, 5))
    maps[0, 0, 2] = maps[1, 1, 2] = maps[2, 2, 4] = 1
    assert exp2.hottest_in_ring(maps) == pytest.approx(2 / 3)
    assert exp2.inside(np.ones((1, 2, 2))).shape == (1, 2, 2)  # nothing would be left


def test_solar_cells_are_tested_on_stretches_of_their_own():
    settings = exp2.Settings(max_train=6, max_test=10)
    folds = exp2.load_folds(settings, "elpv/mono")
    assert [len(fold.train) for fold in folds] == [6] * 5
    assert [np.bincount(fold.labels).tolist() for fold in folds] == [[2, 2]] * 5
    for number, fold in enumerate(folds):
        assert {cell.group for cell in fold.test} == {number}
        assert number not in {cell.group for cell in fold.train}
    (one,) = exp2.load_folds(replace(settings, split="random"), "elpv/mono")
    assert np.bincount(one.labels).tolist() == [10, 10]
    for wrong in ({"split": "module"}, {"methods": ["v3"]}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            exp2.Settings(**wrong)


# The real path

TINY = exp2.Settings(
    methods=list(exp2.METHODS),
    ratios=[0.1, 0.02],
    image_size=64,
    max_train=4,
    max_test=4,
    use_cache=False,
)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exp2")
    make_mvtec(folder / "original")
    prepare("mvtec_ad", folder / "original", folder / "data", ["bottle", "cable"])
    return str(folder / "data")


@pytest.mark.long
def test_twice_the_same_but_for_timings(miniature, tmp_path):
    tasks = exp2.make_tasks(replace(TINY, data_dir=miniature), ["mvtec_ad/bottle"], [0, 1])
    for name in ("one", "two"):
        outcomes = Grid(exp2.run_task, exp2.COLUMNS_BY_SEED, tmp_path / name).run(tasks)
        assert all(o.finished for o in outcomes)
    one, two = (comparable(tmp_path / n / "results.csv", exp2.TIMINGS) for n in ("one", "two"))
    assert one == two
    header = (tmp_path / "one" / "results.csv").read_text().splitlines()[0]
    assert header.startswith("category,method,compression_ratio,auroc,memory_reduction,seed,")
    keys = ("seed", "method", "compression_ratio")
    expected = list(product("01", exp2.METHODS, ("0.02", "0.1")))
    assert [tuple(row[key] for key in keys) for row in one] == expected
    for row in one:
        outcome = outcomes[int(row["seed"])]
        scores = outcome.scores[f"{row['method']} {row['compression_ratio']}"]
        auroc = roc_auc_score(outcome.scores["labels"], scores)
        assert float(row["auroc"]) == pytest.approx(auroc, rel=1e-5)
        n_patches, size = int(row["n_patches"]), int(row["bank_size"])
        assert size == max(1, round(float(row["compression_ratio"]) * n_patches))
        assert float(row["memory_reduction"]) == pytest.approx(n_patches / size, rel=1e-5)
        assert (row["n_train"], row["n_test"], row["status"]) == ("4", "8", "ok")
    results = exp2.results_table(outcomes)
    assert len(results) == 2 * len(exp2.METHODS) and set(results["n_seeds"]) == {2}


@pytest.mark.long
def test_one_order_serves_all_ratios_as_separate_banks_would(miniature):
    settings = replace(TINY, data_dir=miniature)
    _, scores = exp2.run_task(settings, "mvtec_ad/cable", seed=3)
    patches = load_patches(settings, "efficientnet_lite0", "mvtec_ad/cable")
    images = load_category("mvtec_ad/cable", data_dir=miniature).limit(4, 4)
    assert patches.images.labels.tolist() == images.labels.tolist() == scores["labels"]
    rows, queries = (part.reshape(-1, part.shape[-1]) for part in (patches.train, patches.test))
    for ratio in TINY.ratios:
        bank = rows[k_center_greedy(rows, round(ratio * len(rows)), random_state=3).indices]
        distances = np.linalg.norm(queries[:, None].astype(float) - bank[None], axis=2).min(1)
        worst = distances.reshape(len(patches.test), -1).max(1)
        assert np.allclose(scores[f"k_center {ratio:g}"], worst, rtol=1e-4)


def test_picks_by_exponent_begin_with_plain_k_center(miniature):
    settings = replace(TINY, data_dir=miniature)
    patches = load_patches(settings, "efficientnet_lite0", "mvtec_ad/bottle")
    sizes = [2, 9]
    picks = exp2.picks_by_exponent(patches, [0.0, 2.0], sizes, seed=1)
    rows = patches.train.reshape(-1, patches.train.shape[-1])
    plain = k_center_greedy(rows, 9, random_state=1).indices
    assert picks[0.0].rows.tolist() == plain.tolist() != picks[2.0].rows.tolist()
    queries = patches.test.reshape(-1, patches.test.shape[-1])
    for size, auroc in zip(sizes, picks[0.0].aurocs, strict=True):
        distances = np.linalg.norm(queries[:, None] - rows[plain[:size]], axis=2).min(1)
        scores = distances.reshape(len(patches.test), -1).max(1)
        assert auroc == pytest.approx(roc_auc_score(patches.images.labels, scores))


@pytest.mark.notebooks
@pytest.mark.parametrize("through", ["papermill", pytest.param("runner", marks=pytest.mark.slow)])
def test_notebook_5_runs_in_full(miniature, tmp_path, through):
    categories = ["mvtec_ad/bottle", "mvtec_ad/cable"]
    parameters = {"categories": categories, "image_size": 112, "n_seeds": 2, "data_dir": miniature}
    folder = run_in_full("exp2", parameters, through, tmp_path, tmp_path / "empty")
    rows = list(csv.DictReader((folder / "results_by_seed.csv").open()))
    methods = ["v1_random", "k_center", "v2_variance", "v2_literal", "v2_neighborhood"]
    assert {row["status"] for row in rows} == {"ok"}
    keys = ("category", "seed", "method", "compression_ratio")
    expected = list(product(categories, "01", methods, ("0.005", "0.01", "0.05")))
    assert [tuple(row[key] for key in keys) for row in rows] == expected
    means = list(csv.DictReader((folder / "results_all_methods.csv").open()))
    assert len(means) == 30 and list(means[0])[:5] == exp2.SOURCE_COLUMNS
    names = ("01_main_comparison", "02_category_performance", "03_improvement_percentage")
    for name in names:
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            assert picture.width > 600 and picture.height > 200
    results = json.loads((folder / "results.json").read_text())["results"]
    # Five pairs, each with and without the ring; the ratios of one pair.
    assert results["verdict"].count("Over all, ") == 5 and results["comparisons"] == 10 * 3 + 6
    (text,) = folder.rglob("exp2_summary*")
    assert "Experiment 2: v2_variance (variance-weighted) against v1_random" in text.read_text()
