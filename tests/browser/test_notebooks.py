"""Every notebook in JupyterLab: it runs, its controls take keys, and all of it can be seen."""

import io
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from helpers.lab_harness import (
    CONTROLS,
    NOTEBOOKS,
    PICTURES,
    ask,
    change_theme,
    make_quick,
    move_by_keys,
    open_and_run,
    shut_down,
)
from PIL import Image

COUNT = """
from ipywidgets.widgets import widget
print(sum("disabled" in each.trait_names() for each in widget._instances.values()))
"""
# Messages of the kernel: of a cell, of a widget's callback, of a library.
TROUBLE = "[data-mime-type*='error'], [data-mime-type*='stderr'], .jp-OutputArea [role=alert]"
# Text in what the course shows, with the ratio of its contrast (WCAG 2.1) where it is below 4.5.
FAINT = """() => {
    const read = color => (color.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    const over = ([r, g, b, a = 1], under) => [r, g, b].map((v, i) => a * v + (1 - a) * under[i]);
    const behind = node => {
        if (!node) return [255, 255, 255];
        const color = read(getComputedStyle(node).backgroundColor);
        return (color[3] ?? 1) === 1 ? color : over(color, behind(node.parentElement));
    };
    const light = rgb => {
        const [r, g, b] = rgb.map(v => v / 255).map(
            v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const found = [];
    const looked = document.querySelectorAll(
        ".jp-OutputArea :is(label, p, b, td, th, pre, select, li, strong, .widget-readout)");
    for (const node of looked) {
        const words = node.tagName === "SELECT" ? node.value : node.textContent.trim();
        if (!words) continue;
        const back = behind(node), text = over(read(getComputedStyle(node).color), back);
        const [low, high] = [light(back), light(text)].sort((a, b) => a - b);
        if (high / low < 4.5) found.push(`${(high / low).toFixed(2)}: ${words.slice(0, 40)}`);
    }
    if (!looked.length) found.push("no text was found");
    return found;
}"""
SEE_THROUGH = """() => [...document.querySelectorAll(".jp-OutputArea img")].filter(image => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
    return data.some((value, i) => i % 4 === 3 && value < 255);
}).map(image => image.alt)"""


@pytest.fixture(scope="module", params=sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def opened(request, lab, chromium):
    """A notebook that has run with its fast parameters: its page, name and outputs."""
    name = f"{request.param}.ipynb"
    make_quick(lab, name)
    page = chromium.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(60_000)
    try:
        yield SimpleNamespace(page=page, name=request.param, ran=open_and_run(page, lab, name))
        shut_down(page)
    finally:
        page.close()


def move_everything(page, name, seconds=60):
    """Move every control of the page once; returns the kinds of those whose value changed."""
    controls = page.locator(CONTROLS)
    assert controls.count() == int(ask(page, COUNT)), "the page shows not what the kernel has"
    moved = []
    for number, control in enumerate(controls.all()):
        kind, has_moved = move_by_keys(control, seconds)
        moved += [kind] * has_moved
        box = control.locator("xpath=ancestor::*[contains(@class, 'widget-vbox')][1]")
        box.screenshot(path=f"{PICTURES}/{name}-{number}-{kind}.png")
    assert page.locator(TROUBLE).count() == 0, page.locator(TROUBLE).all_inner_texts()
    return moved


def look(control):
    """The pixels of a control, and of what lies 4 pixels around it."""
    control.scroll_into_view_if_needed()
    box = control.bounding_box()
    clip = {"x": box["x"] - 4, "y": box["y"] - 4}
    clip |= {"width": box["width"] + 8, "height": box["height"] + 8}
    return np.asarray(Image.open(io.BytesIO(control.page.screenshot(clip=clip))), dtype=int)


def tab_through(page):
    """Walk with the Tab key from the first cell with controls past the last control.

    Returns, for each control of the page, how many pixels look different while it has the focus;
    None for a control that was not reached.
    """
    page.evaluate("document.activeElement.blur()")
    controls = page.locator(CONTROLS).all()
    calm, changed = [look(control) for control in controls], [None] * len(controls)
    for cell in page.locator(".jp-CodeCell").filter(has=page.locator(CONTROLS)).all():
        cell.focus()
        for _ in range(3 * cell.locator(CONTROLS).count() + 10):
            page.keyboard.press("Tab")
            for number, control in enumerate(controls):
                if control.evaluate("c => c === document.activeElement"):
                    differs = np.abs(look(control) - calm[number]).max(2) > 60
                    changed[number] = int(differs.sum())
    return changed


def no_alternative_text(page):
    """Count the figures of the page, and those without alternative text."""
    texts = [image.get_attribute("alt") for image in page.locator(".jp-OutputArea img").all()]
    return len(texts), sum(not (text or "").strip() for text in texts)


def test_every_control_moves_its_picture(opened):
    moved = move_everything(opened.page, opened.name)
    source = "".join("".join(cell["source"]) for cell in opened.ran["cells"])
    assert "explore(" not in source or moved
    assert len(moved) == opened.page.locator(CONTROLS).count(), "a control has only one value"


def test_tab_reaches_every_control_and_shows_where_it_is(opened):
    assert all(pixels and pixels > 20 for pixels in tab_through(opened.page))


def test_every_figure_has_alternative_text(opened):
    count, without = no_alternative_text(opened.page)
    assert count >= 3 and without == 0


def test_nothing_is_unreadable_in_either_theme(opened):
    assert opened.page.evaluate(SEE_THROUGH) == []
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        change_theme(opened.page, theme)
        assert opened.page.evaluate(FAINT) == [], theme
        opened.page.screenshot(path=f"{PICTURES}/{opened.name}-{theme[11:].lower()}.png")


BAD = [
    "import matplotlib.pyplot as plt\nfrom IPython.display import HTML\n"
    "from patchcore_helpers.course import controls",
    """def draw(level):
    if level > 5:
        raise ValueError("too high")
    figure, axes = plt.subplots(facecolor="none")
    axes.axhline(level)
    return figure""",
    'controls.explore(draw, alt=" ", level=(0, 10))',
    """HTML('<p style="color: #777; background: #888">gray on gray</p>')""",
]


def write(lab, name, cells):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, lab.root / name)


def test_the_checks_see_what_is_wrong(lab, page):
    """A notebook that does everything wrong: each check says so."""
    write(lab, "bad.ipynb", BAD)
    open_and_run(page, lab, "bad.ipynb")
    assert no_alternative_text(page) == (1, 1)
    assert page.evaluate(SEE_THROUGH) == [" "]
    assert any("gray on gray" in words for words in page.evaluate(FAINT))
    assert tab_through(page)[0] > 20
    page.locator(CONTROLS).evaluate("control => { control.tabIndex = -1; }")
    assert tab_through(page) == [None]
    with pytest.raises(AssertionError, match="ValueError: too high"):
        move_everything(page, "bad")
    ask(page, "import ipywidgets; kept = ipywidgets.Text()")
    with pytest.raises(AssertionError, match="the page shows not what the kernel has"):
        move_everything(page, "bad")
    shut_down(page)


@pytest.mark.parametrize(
    "cells, message",
    [
        (["1 / 0"], "cell 0: ZeroDivisionError"),
        (["import ipywidgets", "ipywidgets.VBox([ipywidgets.Text()])"], "no keys known"),
        (
            ["import ipywidgets", "out = ipywidgets.Output()\nwith out: 1 / 0\nout"],
            "ZeroDivisionError",
        ),
        ([BAD[0], 'controls.explore(lambda n: plt.figure(), alt="", n=(0, 9))'], "did not change"),
    ],
)
def test_an_error_anywhere_is_seen(lab, page, cells, message):
    write(lab, "bad.ipynb", cells)
    with pytest.raises(AssertionError, match=message):
        open_and_run(page, lab, "bad.ipynb")
        move_everything(page, "bad", seconds=1)
    shut_down(page)
