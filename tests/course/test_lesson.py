"""What a notebook leaves behind."""

import base64
import json
import re
import subprocess
import sys

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

from patchcore_helpers.course import lesson as module
from patchcore_helpers.course.lesson import Lesson
from patchcore_helpers.errors import InputError
from patchcore_helpers.files import atomic_write
from patchcore_helpers.process import peak_rss_mb


@pytest.fixture
def shown(monkeypatch):
    """What was displayed, as (object, keyword arguments)."""
    calls = []
    monkeypatch.setattr(module, "display", lambda item, **words: calls.append((item, words)))
    return calls


def draw():
    figure, axes = plt.subplots(figsize=(2, 2))
    axes.plot([0, 1])
    return figure


def test_a_figure_is_saved_shown_and_closed(tmp_path, shown):
    alt = 'a line <from "0" to 1>'
    Lesson("01_it", tmp_path / "out").figure(draw(), "line", alt=alt)
    assert not plt.get_fignums()
    saved = (tmp_path / "out" / "figures" / "line.png").read_bytes()
    (bundle, words) = shown[0]
    assert base64.b64decode(bundle["image/png"]) == saved and saved[:4] == b"\x89PNG"

    # As a reader of the exported page meets it.
    output = nbformat.v4.new_output("display_data", bundle, metadata=words["metadata"])
    cell = nbformat.v4.new_code_cell("1", outputs=[output])
    page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    (image,) = BeautifulSoup(page, "html.parser").find_all("img")
    assert image["alt"] == alt
    assert base64.b64decode(image["src"].partition(",")[2]) == saved


def test_a_figure_that_gives_an_answer_away_is_folded(shown):
    Lesson("01_it").figure(draw(), "answer", alt="What it is.", folded="Done? Look")
    ((bundle, _),) = shown
    fold = BeautifulSoup(bundle["text/html"], "html.parser").details
    assert fold.summary.get_text() == "Done? Look"
    assert fold.img["alt"] == "What it is."


def test_a_table_is_saved_and_shown(tmp_path, shown):
    table = pd.DataFrame({"auroc": [0.5]}, index=pd.Index(["elpv/mono"], name="category"))
    lesson = Lesson("01_it", tmp_path)
    lesson.table(table, "named")
    lesson.table(table.reset_index(drop=True), "plain")
    assert (tmp_path / "named.csv").read_text() == "category,auroc\nelpv/mono,0.5\n"
    assert (tmp_path / "plain.csv").read_text() == "auroc\n0.5\n"
    assert shown[0][0] is table


def test_readers_see_headings_in_words_and_the_file_keeps_its_columns(tmp_path, shown):
    table = pd.DataFrame({"auroc": [0.5123]})
    in_words = table.round(1).rename(columns={"auroc": "image AUROC"})
    Lesson("01_it", tmp_path).table(table, "named", shown=in_words)
    assert (tmp_path / "named.csv").read_text() == "auroc\n0.5123\n"
    assert len(shown) == 1 and shown[0][0] is in_words


def test_results(tmp_path):
    lesson = Lesson("01_it", tmp_path)
    lesson.record(auroc=np.float32(0.5), n=np.int64(3), ok=np.True_, none=None, text="a")
    lesson.record(n=4)
    assert not (tmp_path / "results.json").exists()
    lesson.finish()
    summary = json.loads((tmp_path / "results.json").read_text())
    assert summary["results"] == {"auroc": 0.5, "n": 4, "ok": True, "none": None, "text": "a"}
    assert summary["notebook"] == "01_it" and 0 <= summary["seconds"] < 60


@pytest.mark.parametrize("value", [float("nan"), np.float64("inf"), [1], np.zeros(2), {1: 2}])
def test_only_single_finite_values_are_recorded(value):
    with pytest.raises(InputError, match=r"lesson.record\(x="):
        Lesson("01_it").record(x=value)


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch, shown):
    monkeypatch.chdir(tmp_path)
    lesson = Lesson("01_it", "")
    lesson.figure(draw(), "line", alt="a line")
    lesson.table(pd.DataFrame({"a": [1]}), "table")
    lesson.finish()
    assert len(shown) == 2 and not list(tmp_path.iterdir())


def test_bad_names_and_folders(tmp_path, shown):
    lesson = Lesson("01_it", tmp_path)
    for name in ("../line", "Line", ""):
        with pytest.raises(InputError, match="lower-case letters"):
            lesson.figure(draw(), name, alt="a line")
    with pytest.raises(InputError, match="no alternative text; describe it in alt="):
        lesson.figure(draw(), "line", alt=" ")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        InputError, match=r"output_dir: .*results.json: cannot be written .*; give a folder"
    ):
        Lesson("01_it", tmp_path / "file").finish()
    assert not shown


@pytest.mark.long
def test_peak_memory():
    """A peak is remembered, and not inherited from the larger program that started this one."""
    code = """
import psutil
from patchcore_helpers.process import peak_rss_mb
before = psutil.Process().memory_info().rss / 1e6, peak_rss_mb()
x = b"x" * 200_000_000
del x
print(*before, peak_rss_mb())
"""
    block = np.ones(50_000_000)  # 400 MB
    words = [sys.executable, "-c", code]
    out = subprocess.run(words, capture_output=True, check=True, text=True).stdout
    now, peak, later = map(float, out.split())
    assert peak == pytest.approx(now, rel=0.2)
    assert later - now == pytest.approx(200, abs=20)
    assert block.nbytes / 1e6 < peak_rss_mb()
    assert peak_rss_mb(2**22 + 1) == 0.0  # no such process


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = atomic_write(tmp_path / "a", "old")

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_prose_is_filled_with_the_numbers_of_this_run(shown):
    lesson = Lesson("01_it")
    lesson.record(image_auroc=0.95678, verdict="better")
    lesson.say(
        """
        - AUROC {image_auroc:.2f}, {n:,} images:
          {verdict}.
        """,
        n=1200,
    )
    assert shown[0][0].data == "- AUROC 0.96, 1,200 images:\n  better."


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("{auroc:.2f}", {}, "{auroc} was neither recorded nor given"),
        ("{auroc:.2f}", {"auroc": None}, "unsupported format"),
        ("{auroc:q}", {"auroc": 1.0}, "Unknown format code"),
        ("{auroc", {"auroc": 1.0}, "expected '}'"),
    ],
)
def test_prose_that_cannot_be_filled(text, values, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Lesson("01_it").say(text, **values)


def test_an_answer_is_folded(shown):
    lesson = Lesson("01_it")
    lesson.answer("It is **{number}**.", number=3)
    cell = nbformat.v4.new_code_cell(
        "1", outputs=[nbformat.v4.new_output("display_data", {"text/markdown": shown[0][0].data})]
    )
    page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    fold = BeautifulSoup(page, "html.parser").find("details")
    assert fold.summary.get_text() == "Compare with what came out"
    assert fold.find("strong").get_text() == "3"
