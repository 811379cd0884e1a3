"""Experiment 1: planted outcomes give their verdicts; the real path runs, twice the same."""

import csv
import json
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
from helpers.experiments import comparable, planted_exp1, run_in_full
from helpers.hub import fill_hub
from helpers.miniatures import make_mvtec, make_visa
from PIL import Image
from scipy import special, stats

from patchcore_helpers import InputError, PatchCore, load_category
from patchcore_helpers.core.backbones import REGISTRY, load_backbone
from patchcore_helpers.core.intervals import grouped_auroc_interval
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.traps import image_traits
from patchcore_helpers.data.prepare import prepare
from patchcore_helpers.experiments import exp1
from patchcore_helpers.experiments.grid import Grid, Outcome, table
from patchcore_helpers.experiments.statistics import summarize

MVTEC = ["mvtec_ad/bottle", "mvtec_ad/cable", "mvtec_ad/screw"]
VISA = ["visa/candle", "visa/pcb1"]


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (3, 1, ("A is better than B (+", "A is better in 5 of 5 categories.")),
        (1, 3, ("A is worse than B (-", "A is worse in 5 of 5 categories.")),
        (1.5, 1.5, ("no difference between A and B is shown", "in none of 5 categories")),
    ],
)
def test_verdict_follows_from_the_scores(a, b, words):
    outcomes = planted_exp1({"A": a, "B": b, "C": None}, MVTEC + VISA)
    comparison = exp1.compare(outcomes, "mean", "A", "B")
    assert comparison["name"].tolist() == [*MVTEC, *VISA, "all"]
    text = summarize(comparison, "A", "B")
    assert all(word in text for word in words), text
    back = exp1.compare(outcomes, "mean", "B", "A")
    assert np.allclose(back["low"], -comparison["high"])
    sign_turned = exp1.compare(outcomes, "max", "A", "B")
    assert np.allclose(sign_turned["difference"], -comparison["difference"])


def test_only_what_both_ran_is_compared():
    outcomes = planted_exp1({"A": 3, "B": dict.fromkeys(MVTEC, 2)}, MVTEC + VISA)
    outcomes = [o for o in outcomes if (o.task["backbone"], o.task["seed"]) != ("B", 2)]
    comparison = exp1.compare(outcomes, "mean", "A", "B")
    assert comparison["name"].tolist() == [*MVTEC, "all"]


def test_tasks_are_plain_and_hold_all_settings():
    settings = exp1.Settings(image_size=64, n_neighbors=3, data_dir="here")
    tasks = exp1.make_tasks(settings, ["b1", "b2"], ["elpv/mono", "visa/pcb1"], range(2))
    keys = [(task["category"], task["backbone"], task["seed"]) for task in tasks]
    assert keys == list(product(["elpv/mono", "visa/pcb1"], ["b1", "b2"], [0, 1]))
    assert [task["dataset"] for task in tasks] == ["elpv"] * 4 + ["visa"] * 4
    assert json.loads(json.dumps(tasks)) == tasks
    assert all(exp1.Settings.of(task["settings"]) == settings for task in tasks)


def by_pairs(labels, scores):
    """AUROC by counting pairs, and DeLong's variance pair by pair, as in their equations 3 to 5."""
    good = [s for s, label in zip(scores, labels, strict=True) if label == 0]
    bad = [s for s, label in zip(scores, labels, strict=True) if label == 1]
    wins = np.array([[1.0 * (b > g) + 0.5 * (b == g) for g in good] for b in bad])
    parts = [wins.mean(1).var(ddof=1) / len(bad), wins.mean(0).var(ddof=1) / len(good)]
    return wins.mean(), parts, [len(bad) - 1, len(good) - 1]


def test_aurocs_and_their_intervals_by_pairs_of_images():
    labels = [0] * 6 + [1] * 5
    scores = {"A": [1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9], "B": [1, 5, 6, 2, 8, 3, 4, 7, 9, 1, 6]}
    outcomes = [
        Outcome(
            {"backbone": name, "category": "elpv/mono", "seed": 0},
            [{"status": "ok"}],
            {"labels": labels, "mean": values},
        )
        for name, values in scores.items()
    ]
    outcomes.append(Outcome({"backbone": "C", "category": "elpv/mono"}, [], finished=False))
    aurocs = exp1.auroc_table(outcomes, "mean").set_index("backbone")
    assert aurocs.index.tolist() == ["A", "B"]
    for name, values in scores.items():
        auroc, variances, df = by_pairs(labels, values)
        welch = sum(variances) ** 2 / sum(v**2 / d for v, d in zip(variances, df, strict=True))
        half = stats.t.ppf(0.975, welch) * sum(variances) ** 0.5
        row = aurocs.loc[name]
        assert row["auroc"] == pytest.approx(auroc)
        on_logit = half / (auroc * (1 - auroc))
        ends = special.expit(special.logit(auroc) + np.array([-on_logit, on_logit]))
        assert row[["low", "high"]].tolist() == pytest.approx(ends.tolist())
    # Of 30 pairs, 27 and 18 are in order; each has two ties.
    assert aurocs["auroc"].tolist() == pytest.approx([28 / 30, 19 / 30])
    assert aurocs["band"].tolist() == ["excellent (poor to excellent)", "poor (poor to excellent)"]


def in_folds(outcomes, seed=0):
    """The same outcomes, their images in three folds with a scale of their own."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.arange(80) % 3)
    scale, shift = rng.uniform(1, 9, 3)[groups], 100 * groups
    for outcome in outcomes:
        if not outcome.finished:
            continue
        for kind in exp1.SCORES:
            outcome.scores[kind] = (np.array(outcome.scores[kind]) * scale + shift).tolist()
        outcome.scores["groups"] = groups.tolist()
    return groups


def test_scores_of_different_folds_are_not_compared():
    outcomes = planted_exp1({"A": 1.5, "B": 1}, MVTEC)
    groups = in_folds(outcomes)
    labels, of_a, of_b = (
        np.array([outcomes[i].scores[name] for i in range(k, k + 3)])
        for name, k in (("labels", 0), ("max", 0), ("max", 3))
    )
    one = exp1.auroc_table(outcomes, "max")["auroc"].iloc[0]
    same_fold = groups[labels[0] == 1][:, None] == groups[labels[0] == 0]
    by_hand = [
        (scores[labels[0] == 1][:, None] > scores[labels[0] == 0])[same_fold].mean()
        for scores in of_a
    ]
    assert one == pytest.approx(np.mean(by_hand))
    table = exp1.compare(outcomes, "max", "A", "B").set_index("name")
    for name, number in (("difference", 0), ("error", 3)):
        expected = grouped_auroc_interval(labels[0], of_a, groups, of_b, weights="pairs")[number]
        assert table.loc[MVTEC[0], name] == pytest.approx(expected)
    assert table.loc["all", "difference"] == pytest.approx(table.loc[MVTEC, "difference"].mean())
    some = exp1.compare(outcomes, "max", "A", "B", MVTEC[:1])
    assert some["name"].tolist() == [MVTEC[0], "all"]
    turned = exp1.compare(outcomes, "max", "A", "A", other_kind="mean")
    backwards = exp1.compare(outcomes, "mean", "A", "A", other_kind="max")
    assert turned["difference"].tolist() == pytest.approx((-backwards["difference"]).tolist())
    with pytest.raises(InputError, match="A and none share no finished category"):
        exp1.compare(outcomes, "max", "A", "none")


def test_mean_ranks_are_taken_within_folds_and_of_all_members():
    outcomes = planted_exp1({"A": 1.5, "B": 1, "C": dict.fromkeys(MVTEC[:1], 1)}, MVTEC)
    groups = in_folds(outcomes)
    arm = exp1.average_ranks(outcomes, ["A", "C"], "A + C")
    assert [(o.task["category"], o.task["seed"]) for o in arm] == [(MVTEC[0], s) for s in range(3)]
    for outcome in arm:
        assert outcome.task["backbone"] == "A + C"
        members = [
            o.scores
            for o in outcomes
            if o.finished
            and o.task["backbone"] in "AC"
            and (o.task["category"], o.task["seed"]) == (MVTEC[0], outcome.task["seed"])
        ]
        for kind in exp1.SCORES:
            ranks = [pd.Series(m[kind]).groupby(groups).rank(pct=True) for m in members]
            expected = (ranks[0] + ranks[1]) / 2
            assert outcome.scores[kind] == pytest.approx(expected.tolist())
    labels, ranks = exp1.ranks_of(outcomes, "max", MVTEC[0], ["A", "B"])
    assert labels.tolist() == outcomes[0].scores["labels"] and set(ranks) == {"A", "B"}
    assert all(r.min() > 0 and r.max() == 1 for r in ranks.values())
    with pytest.raises(InputError, match="C, mvtec_ad/cable: did not finish"):
        exp1.ranks_of(outcomes, "max", "mvtec_ad/cable", ["A", "C"])


def test_the_sources_words_for_aurocs():
    expected = {1: "excellent", 0.9: "excellent", 0.8999: "good", 0.8: "good", 0.7999: "fair"}
    expected |= {0.7: "fair", 0.6999: "poor", 0.5: "poor", 0: "poor"}
    assert {auroc: exp1.auroc_label(auroc) for auroc in expected} == expected


def test_gap_is_the_difference_of_two_independent_means():
    separation = {"A": 1.2, "B": dict.fromkeys(MVTEC, 2), "C": None}
    aurocs = exp1.auroc_table(planted_exp1(separation, MVTEC + VISA), "mean")
    means = exp1.domain_means(aurocs, MVTEC, VISA)
    assert means.index.tolist() == ["A", "B"]
    assert means.loc["B", "cross_domain"] is None and means.loc["B", "gap"] is None
    first, second, gap = means.loc["A"]
    of_a = aurocs[aurocs["backbone"] == "A"].set_index("category")
    for mean, names in ((first, MVTEC), (second, VISA)):
        assert mean.estimate == pytest.approx(of_a.loc[names, "auroc"].mean())
        error = np.sqrt(sum(i.error**2 for i in of_a.loc[names, "interval"])) / len(names)
        assert mean.error == pytest.approx(error)
    assert gap.estimate == pytest.approx(first.estimate - second.estimate)
    assert gap.error == pytest.approx(np.hypot(first.error, second.error))
    welch = gap.error**4 / (first.error**4 / first.df + second.error**4 / second.df)
    assert gap.df == pytest.approx(welch)
    half = stats.t.ppf(0.975, welch) * gap.error
    assert (gap.low, gap.high) == pytest.approx((gap.estimate - half, gap.estimate + half))


def claims(separation, categories, backbones):
    aurocs = exp1.auroc_table(planted_exp1(separation, categories), "mean")
    return exp1.claims_table(aurocs, backbones).set_index(["backbone", "data set"])


def test_claims_beside_what_was_measured():
    separation = {"resnet50": 1.5, "efficientnet_lite0": 2}
    rows = claims(separation, MVTEC + VISA, list(separation))
    assert rows["claimed"].tolist() == [0.9691, 0.8990, 0.0701, 0.9392, 0.8390, 0.1002]
    aurocs = exp1.auroc_table(planted_exp1(separation, MVTEC + VISA), "mean")
    aurocs = aurocs[aurocs["backbone"] == "resnet50"].set_index("category")["auroc"]
    measured = rows.loc["resnet50"]["measured"]
    assert measured["MVTec AD"] == pytest.approx(aurocs[MVTEC].mean())
    assert measured["VisA"] == pytest.approx(aurocs[VISA].mean())
    assert measured["gap"] == pytest.approx(measured["MVTec AD"] - measured["VisA"])
    reasons = rows["can they be compared?"]
    assert reasons["resnet50"].tolist()[:2] == ["mean of 3 categories", "mean of 2 categories"]
    assert rows.loc["dinov2_vitb14", "measured"].isna().all()
    assert set(reasons["dinov2_vitb14"][:2]) == {"this backbone was not part of the run"}


def test_claims_that_cannot_be_compared_say_why():
    separation = {"resnet50": None, "dinov2_vitb14": 1.5}
    rows = claims(separation, ["elpv/mono", *VISA], list(separation))
    reasons = rows["can they be compared?"]
    assert rows.loc["resnet50", "measured"].isna().all()
    assert all("did not run here" in reason for reason in reasons["resnet50"][:2])
    assert rows.loc["dinov2_vitb14"]["measured"].isna().tolist() == [True, False, True]
    assert reasons["dinov2_vitb14", "MVTec AD"] == "MVTec AD was not part of this run"


# The real path

TINY = exp1.Settings(image_size=64, max_train=4, max_test=4, use_cache=False)


def tiny(folder):
    return exp1.Settings(**{**vars(TINY), "data_dir": str(folder)})


def test_a_backbone_without_weights_never_gets_a_number(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    make_mvtec(tmp_path / "mvtec_ad", ["bottle"])
    backbones = ["resnet50", "no_such_network"]
    tasks = exp1.make_tasks(tiny(tmp_path), backbones, ["mvtec_ad/bottle"], [0])
    outcomes = Grid(exp1.run_task, exp1.COLUMNS, tmp_path / "out").run(tasks)
    first, second = (o.rows for o in outcomes)
    assert [row["status"] for row in first] == [
        "skipped: the weights are not here; run: patchcore-course fetch-weights resnet50"
    ]
    assert second[0]["status"].startswith("failed: backbone 'no_such_network': unknown")
    for row in csv.DictReader((tmp_path / "out" / "results.csv").open()):
        filled = {name for name, value in row.items() if value}
        assert filled == {"backbone", "dataset", "category", "seed", "status"}
    assert exp1.auroc_table(outcomes, "mean").empty


@pytest.mark.long
def test_twice_the_same_but_for_timings(tmp_path):
    make_mvtec(tmp_path / "mvtec_ad", ["bottle"])
    backbones = ["efficientnet_lite0"]
    tasks = exp1.make_tasks(tiny(tmp_path), backbones, ["mvtec_ad/bottle"], [0, 1])
    for name in ("one", "two"):
        outcomes = Grid(exp1.run_task, exp1.COLUMNS, tmp_path / name).run(tasks)
        assert all(o.finished for o in outcomes)
    one, two = (comparable(tmp_path / n / "results.csv", exp1.TIMINGS) for n in ("one", "two"))
    assert one == two
    header = (tmp_path / "one" / "results.csv").read_text().splitlines()[0]
    assert header == ",".join(exp1.COLUMNS)
    assert header.startswith("backbone,dataset,category,auroc,memory_mb,inference_time_ms,")
    assert [(row["seed"], row["image_score"]) for row in one] == [
        (seed, kind) for seed in "01" for kind in ("mean", "max")
    ]
    images = load_category("mvtec_ad/bottle", data_dir=tmp_path).limit(4, 4)
    for row, outcome in zip(one[::2], outcomes, strict=True):
        assert row["n_train"] == str(len(images.train)) == "4"
        assert row["n_test"] == str(len(images.test)) == "8"
        assert row["status"] == "ok" and row["dataset"] == "mvtec_ad"
        assert outcome.scores["labels"] == images.labels.tolist()
        auroc = image_auroc(outcome.scores["labels"], outcome.scores["mean"])
        assert float(row["auroc"]) == pytest.approx(auroc, rel=1e-5)
        assert 0 <= float(row["pixel_auroc"]) <= 1 and 0 <= float(row["au_pro"]) <= 1
    again = Grid(exp1.run_task, exp1.COLUMNS, tmp_path / "one").run(tasks)
    text = (tmp_path / "one" / "results.csv").read_text()
    assert comparable(tmp_path / "one" / "results.csv", exp1.TIMINGS) == one
    assert table(again, exp1.COLUMNS).shape == (4, len(exp1.COLUMNS)) and text.count("\n") == 5


def test_scores_are_those_of_patchcore(tmp_path):
    make_mvtec(tmp_path / "mvtec_ad", ["bottle"])
    settings = replace(tiny(tmp_path), coreset_ratio=0.2, n_neighbors=2)
    (task,) = exp1.make_tasks(settings, ["efficientnet_lite0"], ["mvtec_ad/bottle"], [3])
    rows, scores = exp1.run_task(**task)
    images = exp1.load_splits(settings, "mvtec_ad/bottle", 3)["own"][0]
    model = PatchCore(
        "efficientnet_lite0", image_size=64, coreset_ratio=0.2, n_neighbors=2, random_state=3
    )
    model.fit(images.train)
    expected = model.anomaly_scores(images.test)
    np.testing.assert_allclose(scores["max"], expected, rtol=2e-3)  # in half precision
    assert scores["groups"] == [] and {row["split"] for row in rows} == {"own"}
    assert rows[0]["bank_size"] == len(model.bank_)


@pytest.mark.long
def test_cells_are_tested_by_stretches_and_at_random():
    settings = replace(TINY, n_folds=3, max_test=3)
    rows, scores = exp1.run_task(settings, "efficientnet_lite0", "elpv", "elpv/mono", 1)
    splits = exp1.load_splits(settings, "elpv/mono", 1)
    assert list(splits) == ["stretch", "random"]
    assert [(row["split"], row["image_score"]) for row in rows] == [
        (split, kind) for split in splits for kind in exp1.SCORES
    ]
    assert scores["groups"] == np.repeat([0, 1, 2], 6).tolist()
    assert scores["labels"] == [0, 0, 0, 1, 1, 1] * 3
    # The images of a stretch are scored by a bank of the other stretches, and by no other.
    number = 2
    fold = splits["stretch"][number]
    assert number not in {cell.group for cell in fold.train}
    model = PatchCore("efficientnet_lite0", image_size=64, coreset_ratio=0.05, n_neighbors=5)
    expected = model.set_params(random_state=1).fit(fold.train).anomaly_scores(fold.test)
    np.testing.assert_allclose(scores["max"][12:], expected, rtol=2e-3)
    outcome = Outcome({"backbone": "A", "category": "elpv/mono", "seed": 1}, rows, scores)
    (at_random,) = exp1.of_split([outcome], "random")
    assert [row["split"] for row in at_random.rows] == ["random", "random"]
    assert at_random.scores["groups"] == [] and len(at_random.scores["max"]) == 6
    assert at_random.scores["max"] == scores["random max"]
    assert exp1.of_split([outcome], "none") == []
    only = exp1.load_splits(replace(settings, split="random"), "elpv/mono", 1)
    assert list(only) == ["random"]
    with pytest.raises(InputError, match="split='half'"):
        replace(settings, split="half")


def test_seeds_choose_training_images_and_leave_the_test_alone():
    settings = replace(TINY, n_folds=3, max_test=3)
    splits = [exp1.load_splits(settings, "elpv/mono", seed) for seed in (0, 1)]
    for one, other in zip(*(s["stretch"] + s["random"] for s in splits), strict=True):
        numbers = [[[c.number for c in part] for part in (f.train, f.test)] for f in (one, other)]
        assert numbers[0][0] != numbers[1][0] and numbers[0][1] == numbers[1][1]
    samples = exp1.split_images(splits[0])
    assert [c.source for c in samples[:6]] == [c.source for c in splits[0]["stretch"][0].test]
    used = {c.source for f in splits[0]["stretch"] + splits[0]["random"] for c in f.train + f.test}
    assert len(samples) == len(used) and {c.source for c in samples} == used


def test_the_darkest_point_is_that_of_the_trap_audit():
    images = load_category("elpv/poly").limit(1, 25).test
    quick = np.array([exp1.darkest_point(sample) for sample in images])
    assert np.corrcoef(quick, image_traits(images)["darkest point"])[0, 1] > 0.99
    task = {"backbone": "A", "category": "elpv/poly", "seed": 0}
    task["settings"] = vars(replace(TINY, n_folds=2, max_test=2))
    splits = exp1.load_splits(exp1.Settings.of(task["settings"]), "elpv/poly")
    labels = [0, 0, 1, 1] * 2
    outcome = Outcome(task, [], {"labels": labels, "groups": [0] * 4 + [1] * 4, "max": labels})
    (arm,) = exp1.darkest_points([outcome])
    expected = [-exp1.darkest_point(c) for fold in splits["stretch"] for c in fold.test]
    assert arm.scores["max"] == arm.scores["mean"] == expected
    assert arm.scores["labels"] == labels and arm.task["backbone"] == exp1.DARKEST
    (cell,) = splits["random"]
    of_random = [-exp1.darkest_point(c) for c in cell.test]
    assert exp1.of_split([arm], "random")[0].scores["max"] == of_random


def test_two_backbones_are_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    reasons = exp1.ready(["efficientnet_lite0", "resnet50", "efficientnet_lite2"])
    assert reasons["efficientnet_lite0"] == reasons["efficientnet_lite2"] == ""
    assert "fetch-weights resnet50" in reasons["resnet50"]
    with pytest.raises(InputError, match="fewer than two have their weights here"):
        exp1.ready(["efficientnet_lite0", "resnet50"])


# End to end: from the original layouts to the figure


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Miniature data sets, taken through `prepare`, and a hub cache with random weights."""
    folder = tmp_path_factory.mktemp("exp1")
    make_mvtec(folder / "mvtec")
    make_visa(folder / "visa")
    prepare("mvtec_ad", folder / "mvtec", folder / "data", ["bottle", "cable"])
    prepare("visa", folder / "visa", folder / "data", ["candle", "pcb1"])
    for name in ("resnet50", "dinov2_vits14"):
        state = load_backbone(name, weights="random").network.state_dict()
        content = safetensors.torch.save({key: v.contiguous() for key, v in state.items()})
        fill_hub(folder / "hub_home", f"timm/{REGISTRY[name].timm_name}", content)
    return folder


def check_results(folder, backbones):
    rows = list(csv.DictReader((folder / "results_all_backbones.csv").open()))
    assert {row["status"] for row in rows} == {"ok"}
    categories = ["mvtec_ad/bottle", "mvtec_ad/cable", "visa/candle", "visa/pcb1"]
    keys = ("category", "backbone", "seed", "image_score")
    expected = list(product(categories, backbones, "01", ("mean", "max")))
    assert [tuple(row[key] for key in keys) for row in rows] == expected
    assert all(row[key] for row in rows for key in exp1.COLUMNS)
    sources = {row["backbone"]: row["weights"] for row in rows}
    assert sources["resnet50"].startswith("hub "), sources
    assert {(row["n_train"], row["n_test"]) for row in rows} == {("12", "12")}
    with Image.open(folder / "figures" / "exp1_backbone_comparison.png") as picture:
        assert picture.width > 900 and picture.height > 600
    results = json.loads((folder / "results.json").read_text())["results"]
    assert results["n_ok"] == len(rows) and results["comparable"] == 3
    assert results["verdict"].startswith("Over all, ")
    claimed = pd.read_csv(folder / "claimed_against_measured.csv")
    mvtec, visa, gap = claimed[claimed["backbone"] == "resnet50"]["measured"]
    assert gap == pytest.approx(mvtec - visa)


@pytest.mark.notebooks
@pytest.mark.parametrize(
    ("through", "second"),
    [
        ("runner", "dinov2_vits14"),
        pytest.param("papermill", "efficientnet_lite0", marks=pytest.mark.slow),
    ],
)
def test_notebook_4_runs_in_full(prepared, tmp_path, through, second):
    backbones = ["resnet50", second]
    parameters = {
        "backbones": backbones,
        "in_domain": ["mvtec_ad/bottle", "mvtec_ad/cable"],
        "cross_domain": ["visa/candle", "visa/pcb1"],
        "image_size": 112,
        "n_seeds": 2,
        "data_dir": str(prepared / "data"),
    }
    folder = run_in_full("exp1", parameters, through, tmp_path, prepared / "hub_home")
    check_results(folder, backbones)
