"""Take the README's picture of a slider: notebook 3 in JupyterLab, run, and its slider moved.

    PYTHONPATH=tests python docs/screenshot.py

It drives JupyterLab as the tests do, and writes docs/pictures/slider.png; it needs Chromium and the
package playwright.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from patchcore_helpers.errors import InputError
from patchcore_helpers.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "pictures" / "slider.png"
NOTEBOOK = "03_coreset.ipynb"
HEADING = "Try it: watch the picks"
SLIDER = "picks"


def take():
    """Return the picture, as the bytes of a PNG file."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise InputError("playwright is not installed: run make setup-dev") from None
    from helpers.lab_harness import (
        CHROMIUM_FLAGS,
        Lab,
        explorer,
        find_chromium,
        move_slider,
        open_and_run,
        shut_down,
    )

    path = find_chromium()
    if path is None:
        raise InputError("Chromium not found: install it, e.g. apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 880, "height": 1400}, device_scale_factor=1.5)
        lab = Lab(Path(folder))
        try:
            open_and_run(page, lab, NOTEBOOK)
            page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
            move_slider(page, SLIDER)
            title = page.get_by_role("heading", name=HEADING)
            first = page.locator(".jp-Cell").filter(has=title)
            first.evaluate("cell => cell.scrollIntoView()")
            top, last = first.bounding_box(), explorer(page, SLIDER).bounding_box()
            clip = top | {"height": last["y"] + last["height"] - top["y"] + 8}
            shot = page.screenshot(clip=clip)
            shut_down(page)
        finally:
            lab.close()
            browser.close()
    small = io.BytesIO()
    Image.open(io.BytesIO(shot)).convert("RGB").save(small, "PNG", optimize=True)
    return small.getvalue()


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    try:
        atomic_write(PICTURE, take())
    except InputError as error:
        print(f"docs/screenshot.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
