"""What an interactive figure leaves for a page is what JupyterLab shows, and no more than fits."""

import base64
import io
import math

import ipywidgets
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from patchcore_helpers.core import costs
from patchcore_helpers.course import page_states
from patchcore_helpers.course.controls import explore
from patchcore_helpers.course.figures.decisions import threshold_view
from patchcore_helpers.course.figures.panels import draw_box
from patchcore_helpers.course.page_controls import controls_html
from patchcore_helpers.course.page_math import mathml
from patchcore_helpers.course.page_states import Positions, fewer, positions_for_page, states
from patchcore_helpers.course.page_views import AlarmView, BoxView, heat_states
from patchcore_helpers.errors import InputError

matplotlib.use("Agg")


CLOSE = 1.5  # gray levels of 256 that WebP changes a picture by, on average


@pytest.fixture(autouse=True)
def for_pages(monkeypatch):
    monkeypatch.setenv(page_states.FOR_PAGES, "1")
    yield
    plt.close("all")


def draw_line(level, kind="solid"):
    figure, axes = plt.subplots(figsize=(3, 2))
    axes.axhspan(0, level, color="tab:blue" if kind == "solid" else "tab:orange")
    axes.set(ylim=(0, 1), title=f"height {level:.1f}")
    return figure


def line(**options):
    spec = {"level": (0.0, 1.0, 0.1), "kind": ["solid", "dashed"]}
    return explore(draw_line, alt="A line.", **spec, **options)


def left_behind(demo):
    return demo._repr_mimebundle_()[0][page_states.STATES]


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=int)


def picture_of(left, index):
    return pixels(base64.b64decode(left["pictures"][left["frames"][index]].partition(",")[2]))


def test_every_state_is_the_picture_that_jupyterlab_shows():
    demo = line()
    left = left_behind(demo)
    everything = positions_for_page(demo.controls, {})
    for index, (values, _) in enumerate(states(everything)):
        for name, value in values.items():
            demo.controls[name].value = value
        difference = np.abs(pixels(demo.picture) - picture_of(left, index))
        assert difference.mean() < CLOSE
        assert f"height {values['level']:.1f}" in left["words"][index]
        assert f"kind: {values['kind']}" in left["words"][index]
    assert index + 1 == len(left["frames"]) == 22


def test_pictures_of_other_states_differ():
    left = left_behind(line())
    # Neighbors on the slider, and the two kinds at one level.
    for one, other in [(10, 12), (20, 18), (10, 11)]:
        assert np.abs(picture_of(left, one) - picture_of(left, other)).mean() > 2 * CLOSE


def test_jupyterlab_gets_nothing_of_it(monkeypatch):
    drawn = []

    def draw(level):
        drawn.append(level)
        return draw_line(level)

    monkeypatch.delenv(page_states.FOR_PAGES)
    demo = explore(draw, alt="A line.", level=(0.0, 1.0, 0.1))
    assert page_states.STATES not in demo._repr_mimebundle_()[0]
    assert drawn == [0.5]


def test_the_control_is_where_it_was_after_all_states_were_drawn():
    demo = line(start={"level": 0.3})
    before = demo.picture
    left_behind(demo)
    assert demo.controls["level"].value == 0.3
    assert demo.picture == before


@given(st.lists(st.tuples(st.integers(1, 500), st.booleans()), min_size=1, max_size=4))
def test_a_page_has_few_states_and_at_least_two_positions(controls):
    sizes, are_sliders = zip(*controls, strict=True)
    counts = fewer(sizes, are_sliders, page_states.MAX_STATES)
    least = [min(size, 2) for size in sizes]
    assert all(low <= count <= size for low, count, size in zip(least, counts, sizes, strict=True))
    assert math.prod(counts) <= max(page_states.MAX_STATES, math.prod(least))
    if math.prod(sizes) <= page_states.MAX_STATES:
        assert counts == list(sizes)


@given(st.integers(2, 300), st.data())
def test_thinned_positions_keep_their_order_and_the_start(size, data):
    start = data.draw(st.integers(0, size - 1))
    count = data.draw(st.integers(2, 40))
    numbers = list(range(size))
    thinned = Positions("n", "n", True, numbers, list(map(str, numbers)), start, size).thinned(
        count
    )
    assert thinned.values == sorted(thinned.values)
    assert thinned.values[thinned.start] == start
    assert thinned.texts == list(map(str, thinned.values))
    assert len(thinned.values) <= max(count, 2) or size <= count


def test_the_page_may_be_told_which_positions_it_has():
    left = left_behind(line(page={"level": [0.0, 1.0]}, start={"level": 0.3}))
    level, kind = left["controls"]
    assert level["texts"] == ["0.0", "0.3", "1.0"]
    assert level["start"] == 1
    assert kind["texts"] == ["solid", "dashed"]
    assert left["is_thinned"]


@pytest.mark.parametrize("page", [{"levle": [0.1]}, {"level": [0.15]}])
def test_a_position_that_does_not_exist_is_refused(page):
    with pytest.raises(InputError, match="explore: page"):
        left_behind(line(page=page))


def test_all_kinds_of_controls_have_positions():
    box = Positions.of("box", ipywidgets.Checkbox(True, description="grid"))
    assert (box.label, box.texts, box.start) == ("grid", ["off", "on"], 1)
    pairs = Positions.of("layer", ipywidgets.Dropdown(options=[("a", 3), ("b", 7)], value=7))
    assert (pairs.values, pairs.texts, pairs.start) == ([3, 7], ["a", "b"], 1)
    with pytest.raises(InputError, match="a page cannot show a Text"):
        Positions.of("words", ipywidgets.Text())


def test_large_pictures_are_made_to_fit():
    rng = np.random.default_rng(0)

    def draw(number):
        figure = plt.figure(figsize=(8, 6))
        figure.figimage(rng.random((600, 800)))
        return figure

    # Noise is the worst case: nothing makes it small.
    with pytest.raises(InputError, match="give the page fewer positions"):
        left_behind(explore(draw, alt="Noise.", number=(1, 8)))
    left = left_behind(explore(draw, alt="Noise.", number=(1, 3)))
    assert sum(map(len, left["pictures"])) < page_states.MAX_BYTES
    many = left_behind(explore(draw_line, alt="Lines.", level=(0.0, 1.0, 0.01)))
    assert sum(map(len, many["pictures"])) < page_states.MAX_BYTES


# --- figures that the page computes ---


LABELS = np.repeat([0, 1], [30, 50])
SCORES = np.random.default_rng(0).normal(20 + 4 * LABELS, 3).astype(np.float32)


def alarm_demo():
    def draw(threshold, defective_in_1000, cost_of_miss):
        return threshold_view(LABELS, SCORES, threshold, defective_in_1000 / 1000, cost_of_miss)

    view = AlarmView(LABELS, SCORES)
    spec = {"threshold": (15.0, 30.0, 0.5), "defective_in_1000": (1, 700), "cost_of_miss": (10, 90)}
    return explore(draw, alt="Alarms.", page=view, **spec)


def test_a_page_that_computes_has_every_position_and_every_score():
    left = left_behind(alarm_demo())
    assert [len(control["texts"]) for control in left["controls"]] == [31, 700, 81]
    assert not left["is_thinned"]
    rebuilt = np.array(left["good"]), np.array(left["defective"])
    for level in left["values"]["threshold"]:
        expected = costs.alarm_rates(LABELS, SCORES, level)
        assert tuple(np.mean(part > level) for part in rebuilt) == pytest.approx(expected)


IMAGE = np.linspace(0, 1, 40 * 120).reshape(40, 120)
TILES = np.array([(left, 4, left + 30, 36) for left in (-25, 5, 45, 85)], dtype=float)


def draw_tiles(boxes):
    figure, axes = plt.subplots(figsize=(6, 2))
    axes.imshow(IMAGE, cmap="gray")
    for box in boxes:
        draw_box(axes, box, "red", 1)
    return figure


def test_boxes_of_a_page_are_where_the_figure_has_them():
    levels = np.array([0.1, 0.5, 0.3, 0.9])  # the first tile is not drawn

    def draw(strip, threshold):
        return draw_tiles(TILES[levels > threshold])

    view = BoxView(lambda strip: draw_tiles([]), lambda strip: (TILES, levels))
    spec = {"strip": ["a", "b"], "threshold": (0.0, 1.0, 0.1)}
    demo = explore(draw, alt="Tiles.", page=view, start={"threshold": 0.4}, **spec)
    left = left_behind(demo)
    height, width, _ = pixels(demo.picture).shape
    red = pixels(demo.picture)[..., 0] - pixels(demo.picture)[..., 1] > 60
    columns = np.flatnonzero(red.sum(0) > 0.3 * red.sum(0).max())
    expected = [
        edge * width
        for x, _, w, _, level in left["layers"][0]
        if level > 0.4
        for edge in (x, x + w)
    ]
    for edge in expected:
        assert np.abs(columns - edge).min() <= 1.5
    assert all(np.abs(np.array(expected) - column).min() <= 2.5 for column in columns)
    rows = np.flatnonzero(red.sum(1) > 0.3 * red.sum(1).max())
    _, y, _, h, _ = left["layers"][0][1]
    assert [rows.min(), rows.max()] == pytest.approx([y * height, (y + h) * height], abs=2)


def test_maps_of_the_front_page_are_rounded_to_256_levels():
    rng = np.random.default_rng(0)
    maps = rng.uniform(5, 50, (2, 8, 8))
    png = io.BytesIO()
    Image.new("RGB", (16, 16)).save(png, "PNG")
    left = heat_states("", [png.getvalue()] * 2, ["a", "b"], ["", ""], maps, maps.max((1, 2)), 20.0)
    low, high = left["scale"]
    for text, expected in zip(left["maps"], maps, strict=True):
        eight_bits = np.frombuffer(base64.b64decode(text), np.uint8).reshape(8, 8)
        assert np.abs(low + eight_bits / 255 * (high - low) - expected).max() <= (high - low) / 509
    slider = left["controls"][1]
    assert left["levels"][slider["start"]] == 20.0


# --- their HTML ---


def test_the_first_state_is_there_without_scripts():
    demo = line(start={"level": 0.3, "kind": "dashed"})
    page = BeautifulSoup(controls_html(left_behind(demo), 7), "html.parser")
    assert "level: 0.3, kind: dashed. height 0.3" in page.img["alt"]
    shown = pixels(base64.b64decode(page.img["src"].partition(",")[2]))
    assert np.abs(shown - pixels(demo.picture)).mean() < CLOSE
    assert page.select_one(".explorer-controls").has_attr("hidden")
    for label in page.find_all("label"):
        assert page.find(id=label["for"]).name in ("input", "select")


def test_no_text_leaves_the_html():
    nasty = '</script><b>"&'
    demo = explore(lambda kind: draw_line(0.5), alt=nasty, kind=[nasty, "b"])
    page = BeautifulSoup(controls_html(left_behind(demo), 0), "html.parser")
    assert page.b is None
    assert page.option.get_text() == nasty
    assert page.img["alt"].startswith(nasty)


def test_formulas_are_mathml():
    page = BeautifulSoup(mathml(r"d(p) = \min_{m \in M} \lVert p - m \rVert", True), "html.parser")
    assert page.math["display"] == "block"
    assert page.munder.mo.get_text() == "min"
    assert "\\" not in page.get_text()
    assert mathml("a < b_") == "<code>a &lt; b_</code>"
