"""An interactive figure follows its controls, and no error behind a control is lost."""

import base64
import gc
import io

import ipywidgets
import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from helpers.notebooks import run, write_notebook
from matplotlib.figure import Figure
from PIL import Image

from patchcore_helpers.course.controls import explore
from patchcore_helpers.errors import InputError

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context({"figure.constrained_layout.use": True, "axes.spines.top": False}):
        yield
    plt.close("all")


def draw_line(level, kind="solid"):
    figure, axes = plt.subplots(figsize=(2, 1.5))
    axes.axhline(level, linestyle=kind)
    axes.set_ylim(0, 1)
    return figure


def explore_line(**options):
    return explore(draw_line, alt="A line.", level=(0.0, 1.0, 0.1), **options)


def read_picture(demo):
    return np.asarray(Image.open(io.BytesIO(demo.picture)).convert("L"), dtype=int)


def line_height(demo):
    """Row of the horizontal line: the darkest one inside the axes."""
    pixels = read_picture(demo)
    return pixels[:, pixels.shape[1] // 2 :].sum(axis=1)[5:-30].argmin()


def test_the_picture_follows_the_control():
    demo = explore_line(start={"level": 0.3})
    low, first = line_height(demo), demo.picture
    demo.controls["level"].value = 0.7
    assert line_height(demo) < low
    demo.controls["level"].value = 0.3
    assert demo.picture == first


def test_the_drawing_function_gets_every_control():
    seen = []

    def draw(**values):
        seen.append(values)
        return draw_line(0.5)

    own = ipywidgets.Checkbox(True)
    demo = explore(
        draw, alt="", count=(2, 9), share=(0, 1, 0.25), layer=[("a", 3), ("b", 7)], own=own
    )
    assert seen == [{"count": 6, "share": 0.5, "layer": 3, "own": True}]
    assert type(seen[0]["count"]) is int
    demo.controls["layer"].value = 7
    demo.controls["own"].value = False
    assert seen[-1] == {"count": 6, "share": 0.5, "layer": 7, "own": False}
    assert demo.controls["share"].readout_format == ".2f"


def test_labels_and_starts():
    demo = explore_line(labels={"level": "height"}, start={"kind": "dashed"}, kind=["a", "dashed"])
    assert demo.controls["level"].description == "height"
    assert demo.controls["kind"].description == "kind"
    assert demo.controls["kind"].value == "dashed"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"level": (1.0, 0.0)}, "level"),
        ({"level": 0.5}, "level"),
        ({"level": []}, "level"),
        ({"level": (0.0, 1.0), "start": {"levle": 0.5}}, "levle"),
        ({"level": (0.0, 1.0), "start": {"level": 2.0}}, "2.0"),
        ({"level": (0.0, 1.0), "labels": {"levle": "height"}}, "levle"),
    ],
)
def test_a_mistyped_control_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        explore(draw_line, alt="", **options)


def test_a_drawing_function_without_return_is_refused():
    with pytest.raises(InputError, match="return figure"):
        explore(lambda level: None, alt="", level=(0, 1))


def test_a_failing_draw_is_raised_and_shown_until_it_draws_again():
    def draw(level):
        if level > 0.9:
            raise ValueError("<b>too high")
        return draw_line(level)

    demo = explore(draw, alt="A <line>.", level=(0.0, 1.0, 0.1))
    shown = demo.box.children[-1]
    with pytest.raises(ValueError, match="too high"):
        demo.controls["level"].value = 1.0
    assert "ValueError: &lt;b&gt;too high" in shown.value and "<img" not in shown.value
    demo.controls["level"].value = 0.2
    assert "ValueError" not in shown.value and '<img alt="A &lt;line&gt;."' in shown.value
    with pytest.raises(ValueError):
        explore(draw, alt="", level=(0.95, 1.0))


def test_readers_without_a_kernel_get_the_picture_and_its_description():
    demo = explore_line()
    data, metadata = demo._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == demo.picture
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == demo.box.model_id
    assert data["text/plain"] == metadata["image/png"]["alt"] == "A line."
    assert '<img alt="A line."' in data["text/html"]


def test_there_is_one_picture_and_no_output_widget():
    demo = explore_line(kind=["solid", "dashed"])
    kinds = [type(child).__name__ for child in demo.box.children]
    assert kinds == ["FloatSlider", "Dropdown", "HTML"]


def draw_bare(level):
    figure = plt.figure(figsize=(1, 1), layout="none")
    figure.add_axes((0, 0, 1, 1)).set_axis_off()
    return figure


def figures_in_memory():
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) is Figure]


@pytest.mark.long
def test_many_pictures_leave_no_figure_behind():
    plt.close("all")  # whatever other tests of this process left open
    of_other_tests = figures_in_memory()
    kept = plt.figure()
    demo = explore(draw_bare, alt="", level=(0, 200), start={"level": 0})
    for level in range(1, 201):
        demo.controls["level"].value = level
    assert plt.get_fignums() == [kept.number]
    ours = [figure for figure in figures_in_memory() if figure not in of_other_tests]
    assert len(ours) <= 2, "figures are held in memory"


@pytest.mark.long
def test_pictures_cause_no_full_garbage_collection():
    """With torch loaded, a full collection takes longer than several pictures."""
    demo = explore(draw_line, alt="", level=(0, 100), start={"level": 0})
    demo.controls["level"].value = 1
    gc.collect()
    before = gc.get_count()[2], gc.get_stats()[2]["collections"]
    for level in range(2, 62):
        demo.controls["level"].value = level
    assert gc.isenabled()
    assert (gc.get_count()[2], gc.get_stats()[2]["collections"]) == before


def test_figures_that_a_draw_forgets_are_closed():
    kept = plt.figure()

    def draw(level):
        plt.figure()
        if level == 1:
            raise ValueError
        return draw_bare(level)

    demo = explore(draw, alt="", level=(0, 1), start={"level": 0})
    with pytest.raises(ValueError):
        demo.controls["level"].value = 1
    assert plt.get_fignums() == [kept.number]


def test_axes_stay_where_the_first_picture_has_them():
    """Even where other labels would need more room: the picture must not jump under a slider."""
    positions = []

    def draw(digits):
        figure, axes = plt.subplots(figsize=(3, 2))
        axes.set_ylabel("\n".join(["label"] * digits))
        positions.append(axes)
        return figure

    demo = explore(draw, alt="", digits=(1, 6), start={"digits": 1})
    demo.controls["digits"].value = 6
    first, second = (axes.get_position().bounds for axes in positions)
    assert first == second


def draw_panels(threshold, labels, scores, images):
    """A figure such as lessons show: scores, a heat map over an image, its part above a level."""
    figure, (histogram, overlay, mask) = plt.subplots(1, 3)
    histogram.hist([scores[labels == 0], scores[labels == 1]], bins=40, histtype="stepfilled")
    histogram.axvline(threshold)
    overlay.imshow(images[0])
    overlay.imshow(images[1][..., 0], alpha=0.5)
    mask.imshow(images[0])
    mask.imshow(images[1][..., 0] > 255 * threshold, alpha=0.5)
    for axes in (overlay, mask):
        axes.set_axis_off()
    return figure


@pytest.mark.slow
def test_a_picture_is_quick():
    """Measured, so only on request; benchmarks/sliders.py measures the course's own figures."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    scores = random.beta(2 + 4 * labels, 6 - 4 * labels)
    images = random.integers(0, 255, (400, 256, 256, 3), dtype=np.uint8)
    demo = explore(
        lambda threshold: draw_panels(threshold, labels, scores, images),
        alt="",
        threshold=(0.0, 1.0, 0.001),
    )

    def measure(count):
        timings = []
        for _ in range(count):
            slider = demo.controls["threshold"]
            slider.value = (slider.value + 0.001) % 1.0
            timings.append(demo.timings)
        return np.array(timings)

    first = measure(500)
    timings = measure(200)
    compute, picture = np.quantile([timings[:, 0], timings.sum(axis=1)], 0.95, axis=1)
    slower = np.median(timings.sum(axis=1)) / np.median(first.sum(axis=1))
    assert compute <= 0.05
    assert picture <= 0.25
    assert slower < 1.5


CELLS = [
    ("parameters", "level: float = 0.5  # where the line is"),
    "import matplotlib.pyplot as plt\nfrom patchcore_helpers.course.controls import explore",
    """
def draw(level):
    if level > 0.9:
        raise ValueError("too high")
    figure, axes = plt.subplots()
    axes.axhline(level)
    return figure
""",
    # The page has the positions at which it can be drawn.
    'page = {"level": [0.1, 0.3]}\n'
    'demo = explore(draw, alt="A line.", level=(0.0, 1.0, 0.1), page=page)\ndemo',
    """
for value in (0.1, level, 0.3):
    demo.controls["level"].value = value
""",
]


@pytest.mark.notebooks
def test_a_page_without_a_kernel_shows_the_picture(tmp_path):
    path = write_notebook(tmp_path / "lesson.ipynb", CELLS)
    assert run(path, "--output", tmp_path / "out") == 0
    executed = nbformat.read(tmp_path / "out" / "lesson" / "lesson.ipynb", as_version=4)
    (result,) = executed.cells[-2].outputs
    assert result.data["image/png"]
    page = (tmp_path / "out" / "lesson" / "lesson.html").read_text()
    assert '<img alt="A line. level: 0.5' in page
    assert "html-manager" not in page, "the page loads widgets from elsewhere"


@pytest.mark.notebooks
def test_an_error_behind_a_slider_fails_the_run(tmp_path, capsys):
    path = write_notebook(tmp_path / "lesson.ipynb", CELLS)
    assert run(path, "--output", tmp_path / "out", "-p", "level", "1.0") == 1
    assert "ValueError: too high" in capsys.readouterr().err


@pytest.mark.notebooks
@pytest.mark.slow
def test_widget_notebooks_never_hang(tmp_path):
    paths = [write_notebook(tmp_path / f"lesson_{number:03}.ipynb", CELLS) for number in range(100)]
    assert run(*paths, "--output", tmp_path / "out", "--timeout", 120) == 0
