"""The site's page "In your browser": how long it takes, how long it blocks, how large it is.

    python -m benchmarks.in_browser [--judge 20]

Needs Chromium and what `make site-runtime` brings in. The page is opened from a disk. Each picture
to judge is dropped alone: its time ends when its heat map is drawn.
"""

import argparse
import gzip
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from playwright.sync_api import sync_playwright

from benchmarks import report
from patchcore_helpers import load_category

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "docs" / "web"), str(ROOT / "tests")]

from helpers.lab_harness import CHROMIUM_FLAGS, find_chromium  # noqa: E402
from in_browser import page_body, write_parts  # noqa: E402
from site_runtime import read_runtime  # noqa: E402

READY = "document.querySelector('#bench').dataset.state === 'ready'"
DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
# A timer that should fire every few milliseconds: its largest gap is the longest block.
WATCH = """() => {
    self.longestBlock = 0;
    let last = performance.now();
    setInterval(() => {
        const now = performance.now();
        self.longestBlock = Math.max(self.longestBlock, now - last - 5);
        last = now;
    }, 5);
}"""


def write_page(folder):
    """The page in a folder; returns its bytes, and those of it compressed one by one."""
    write_parts(folder / "parts", read_runtime())
    html = f"<!doctype html><meta charset=utf-8><body>{page_body('parts')}"
    (folder / "index.html").write_text(html, "utf-8")
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return sum(map(len, contents)), sum(len(gzip.compress(content)) for content in contents)


def timed(page, act):
    """Seconds until the page is ready again, and what has changed is drawn."""
    began = time.perf_counter()
    act()
    page.wait_for_function(READY)
    page.evaluate(DRAWN)
    return time.perf_counter() - began


def measure(page, learn, judge):
    """Seconds of each step, and the longest block in milliseconds."""
    files = page.locator("#bench-good-files")
    page.evaluate(WATCH)
    rows = {"load the network, read 20 pictures": timed(page, lambda: files.set_input_files(learn))}
    page.locator("#bench-held-out").fill("0")
    rows["learn 20 pictures"] = timed(page, page.locator("#bench-learn").click)
    field = page.locator("#bench-judge-files")
    each = [timed(page, lambda one=one: field.set_input_files([one])) for one in judge]
    rows["from drop to heat map, median"] = float(np.median(each))
    rows["from drop to heat map, longest"] = max(each)
    slider = page.locator("#bench-ratio")
    rows[f"a step of the ratio, {len(judge)} pictures"] = timed(page, lambda: slider.press("Home"))
    return rows, page.evaluate("self.longestBlock")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--judge", type=int, default=20, help="pictures to judge")
    args = parser.parse_args()
    category = load_category("elpv/mono")
    learn = [str(sample.image) for sample in category.train[:20]]
    judge = [str(sample.image) for sample in category.test[: args.judge]]
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        size, compressed = write_page(Path(scratch))
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        page = browser.new_page()
        page.set_default_timeout(300_000)
        page.goto((Path(scratch) / "index.html").as_uri())
        rows, block = measure(page, learn, judge)
        version = browser.version
        browser.close()
    frame = pd.DataFrame({"step": rows.keys(), "seconds": np.round(list(rows.values()), 2)})
    frame.to_csv(report.HERE / "results" / "in_browser.csv", index=False)
    text = f"""## In the browser

`python -m benchmarks.in_browser`, {time.strftime("%Y-%m-%d")}; {report.processor()},
Chromium {version}, opened from a disk, so with one thread. Solar cells of 300 pixels; the memory
bank keeps 2,048 of 20,480 patches, for all positions of the slider. The page never blocked for
longer than {block:.0f} ms. It has {size / 1e6:.1f} MB, {compressed / 1e6:.1f} MB compressed.

{report.of_frame(frame)}

"""
    print(text)
    report.write_part("in_browser", text)


if __name__ == "__main__":
    main()
