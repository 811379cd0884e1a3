"""README and results say what the committed runs say, and name only what is there."""

import contextlib
import json
import re
import shutil
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import readme
import yaml

from patchcore_helpers.course.results import MADE_BY

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_committed_runs(page):
    text = page.read_text("utf-8")
    assert readme.fill(text) == text, "stale: run `make readme`"


def test_every_measured_block_is_on_a_page():
    text = "".join(page.read_text("utf-8") for page in readme.PAGES)
    for make in readme.BLOCKS:
        assert text.count(f"<!--{make.__name__}-->") == 1


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 120


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page):
    targets = re.findall(r'\]\(([^)#:]+)\)|src="([^"]+)"', page.read_text("utf-8"))
    assert targets
    for target in (a or b for a, b in targets):
        assert (page.parent / target).exists(), target


def test_conda_and_pip_lists_are_in_step():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = {"torch": "pytorch", "huggingface-hub": "huggingface_hub"}
    wanted = {
        re.sub(r"^[\w-]+", lambda m: names.get(m[0], m[0]), need)
        for need in project["dependencies"]
    }
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = {need for need in listed if isinstance(need, str)}
    pip = next(need["pip"] for need in listed if isinstance(need, dict))
    assert conda - {"pip", "python=3.11"} == wanted
    assert set(pip) == {*extras["offline"], *extras["deploy"], "-e ."}


def test_every_pin_says_why():
    lines = (ROOT / "environment.yml").read_text().split("dependencies:")[1].splitlines()
    for line in lines:
        if re.match(r"\s+- [\w-]+[>=]", line):
            assert re.search(r"  # \w", line), line


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A copy of docs/runs that the script reads instead."""
    monkeypatch.setattr(readme, "RUNS", shutil.copytree(readme.RUNS, tmp_path / "runs"))
    return readme.RUNS


@pytest.mark.parametrize("path", sorted(readme.RUNS.iterdir()), ids=lambda path: path.name)
def test_a_source_that_is_gone_is_noticed(runs, path):
    (runs / path.name).unlink()
    texts = [page.read_text("utf-8") for page in readme.PAGES]
    with contextlib.suppress(FileNotFoundError, KeyError):
        assert [readme.fill(text) for text in texts] != texts


@pytest.mark.parametrize("name", readme.FINDINGS)
def test_a_finding_follows_the_numbers_of_its_run(name):
    """Each recorded number that the sentence shows; changed, it gives another sentence."""
    finding = readme.FINDINGS[name]
    numbers = json.loads((readme.RUNS / f"{name}.json").read_text())["results"]
    shown = set()
    for key, value in numbers.items():
        other = value + 1 if isinstance(value, int | float) else f"other {value}"
        if finding(numbers | {key: other}) != finding(numbers):
            shown.add(key)
    assert shown == SHOWN_NUMBERS.get(name, {"finding"})


SHOWN_NUMBERS = {
    "01_introduction": {
        *("stretch_auroc", "stretch_low", "stretch_high", "image_auroc"),
        *("verdict", "gap", "gap_low", "gap_high"),
        *("found", "false_alarms", "stretch_found", "stretch_false_alarms"),
    },
    "03_coreset": {"gap_mean", "gap_low", "gap_high", "gap_verdict"},
}


@pytest.mark.parametrize(
    ("table", "names", "column"),
    [
        ("04_exp1_backbone_comparison.aurocs", "backbones", "auroc"),
        ("05_exp2_adaptive_coreset.results_all_methods", "coresets", "auroc"),
        ("04_exp1_backbone_comparison.claimed_against_measured", "claims", "claimed"),
    ],
)
def test_a_table_follows_its_rows(table, names, column, runs):
    make, path = getattr(readme, names), runs / f"{table}.csv"
    committed = {name: json.loads((runs / f"{name}.json").read_text()) for name in readme.FINDINGS}
    frame = pd.read_csv(path)
    before = make(committed).splitlines()
    frame[column] += 1
    frame.to_csv(path, index=False)
    after = make(committed).splitlines()
    n_changed = sum(old != new for old, new in zip(before, after, strict=True))
    compared = {"backbones": "backbone", "coresets": "method"}
    assert n_changed == (frame[compared[names]].nunique() if names in compared else len(frame))


def test_take_brings_the_pictures_of_the_run(tmp_path, runs, monkeypatch):
    monkeypatch.setattr(readme, "PICTURES", tmp_path / "pictures")
    monkeypatch.setattr(readme.sys, "prefix", str(tmp_path))  # whose size is measured
    readme.PICTURES.mkdir()
    name, (figure, _) = next(iter(readme.SHOWN.items()))
    folder = tmp_path / "output" / name
    (folder / "figures").mkdir(parents=True)
    run = json.loads((runs / f"{name}.json").read_text())
    summary = run | {"made_by": MADE_BY, "status": "passed", "profile": "default"}
    (folder / "summary.json").write_text(json.dumps(summary))
    for picture in (b"one", b"two"):
        (folder / "figures" / f"{figure}.png").write_bytes(picture)
        readme.take(tmp_path / "output")
        assert (readme.PICTURES / f"{figure}.png").read_bytes() == picture


def test_every_part_of_the_benchmarks_page_has_a_script_and_results():
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    parts = re.findall(r"<!-- (\w+): written by (\w+)\.py -->", page)
    assert parts
    for part, script in parts:
        assert (ROOT / "benchmarks" / f"{script}.py").exists()
        assert list((ROOT / "benchmarks" / "results").glob(f"{part}*.csv")), part
        assert f"<!-- {part}: end -->" in page
