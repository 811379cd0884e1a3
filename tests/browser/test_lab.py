import io
import sys

import nbformat
import numpy as np
import pytest
from helpers.lab_harness import (
    IDLE,
    ask,
    explorer,
    move_slider,
    open_and_run,
    picture,
    slider,
    wait_for_new_picture,
)
from PIL import Image

CELLS = [
    "import os\nimport time\nimport matplotlib.pyplot as plt\n"
    "from patchcore_helpers.course import controls",
    "calls, hold = [], False",
    """def draw(level, kind, grid, box):
    while hold and not os.path.exists("released"):
        time.sleep(0.01)
    calls.append(level)
    if level > 0.9:
        raise ValueError("too high")
    figure, axes = plt.subplots()
    axes.axhline(level, linestyle=kind)
    axes.set_ylim(0, 1)
    axes.set_frame_on(box)
    axes.grid(grid)
    return figure""",
    """from ipywidgets import Checkbox, ToggleButton

controls.explore(draw, alt="A line.", start={"level": 0.2}, labels={"level": "height"},
    level=(0.0, 1.0, 0.01), kind=["solid", "dashed"],
    grid=Checkbox(description="grid"), box=ToggleButton(description="box"))""",
]

COUNT_BARE_FRAMES = """() => {
    window.bare = 0;
    const look = () => {
        const image = document.querySelector(".widget-vbox img");
        window.bare += !(image?.complete && image.naturalWidth);
        requestAnimationFrame(look);
    };
    look();
}"""


@pytest.fixture
def tiny(page, lab):
    """A page that shows a notebook with one slider labeled `height`."""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, lab.root / "tiny.ipynb")
    open_and_run(page, lab, "tiny.ipynb")
    return page


def line_height(page):
    """Height of the line in the picture on the page, 0 to 1 from bottom to top."""
    shot = explorer(page, "height").locator("img").screenshot()
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), dtype=int)
    blue = pixels[..., 2] - pixels[..., 0] > 80
    return 1 - np.flatnonzero(blue.any(axis=1)).mean() / len(pixels)


def test_keys_move_the_picture(tiny):
    assert ask(tiny, "import sys; print(sys.executable)") == sys.executable
    before = line_height(tiny)
    assert move_slider(tiny, "height", times=3) == pytest.approx(0.23)
    assert move_slider(tiny, "height", "PageUp", times=4) > 0.4
    assert line_height(tiny) > before + 0.1
    assert tiny.locator("img").count() == 1, "the picture is on the page twice"


def test_keys_choose_an_option(tiny):
    before = picture(tiny, "kind")
    for key in ("Space", "ArrowDown", "Enter"):  # a closed list leaves its arrows to JupyterLab
        tiny.get_by_label("kind").press(key)
    wait_for_new_picture(tiny, "kind", before)
    assert tiny.get_by_label("kind").input_value() == "dashed"


def test_an_error_takes_the_place_of_the_picture(tiny):
    handle = slider(tiny, "height").get_by_role("slider")
    handle.press("End")
    alert = explorer(tiny, "height").get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text() == "ValueError: too high"
    assert explorer(tiny, "height").locator("img").count() == 0
    handle.press("Home")
    wait_for_new_picture(tiny, "height", None)
    assert alert.count() == 0
    assert explorer(tiny, "height").locator("img").is_visible()


def test_dragging_leaves_no_backlog(tiny, lab):
    """While the kernel is busy with one picture, all positions but the last are skipped."""
    ask(tiny, "hold = True; calls.clear()")
    box = slider(tiny, "height").get_by_role("slider").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tiny.evaluate(COUNT_BARE_FRAMES)
    tiny.mouse.move(x, y)
    tiny.mouse.down()
    for step in range(60):
        tiny.mouse.move(x + 3 * step, y)
    tiny.mouse.up()
    (lab.root / "released").touch()
    tiny.evaluate(IDLE)
    (lab.root / "released").unlink()
    ask(tiny, "hold = False")
    shown = float(slider(tiny, "height").locator(".widget-readout").inner_text())
    last, drawn = map(float, ask(tiny, "print(calls[-1], len(calls))").split())
    assert last == pytest.approx(shown)
    assert shown > 0.4
    assert tiny.evaluate("window.bare") == 0, "the picture flickers"
    assert drawn <= 3, "the kernel drew values that were out of date"
