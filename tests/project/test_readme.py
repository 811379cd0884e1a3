"""The README says what the committed runs say, and names only what is there."""

import contextlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import readme

from patchcore_helpers.course.results import MADE_BY

ROOT = Path(__file__).resolve().parents[2]


def test_tables_are_those_of_the_committed_runs():
    text = (ROOT / "README.md").read_text("utf-8")
    assert readme.fill(text) == text, "stale: run `make readme`"


def test_links_and_pictures_exist():
    text = (ROOT / "README.md").read_text("utf-8")
    targets = re.findall(r'\]\(([^)#:]+)\)|src="([^"]+)"', text)
    assert targets
    for target in (a or b for a, b in targets):
        assert (ROOT / target).exists(), target


def test_conda_and_pip_lists_are_in_step():
    import tomllib

    import yaml

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
    assert set(pip) == {*extras["offline"], "-e ."}


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
    text = (ROOT / "README.md").read_text("utf-8")
    with contextlib.suppress(FileNotFoundError, KeyError):
        assert readme.fill(text) != text


def changed(path):
    """Every number, or row, of a source taken away or changed, one at a time."""
    if path.suffix == ".json":
        run = json.loads(path.read_text())
        for place in (run, run["results"]):
            for key, value in list(place.items()):
                del place[key]
                yield key, json.dumps(run)
                place[key] = value
    else:
        head, *rows = path.read_text().splitlines()
        for row in rows:
            yield row, "\n".join([head, *(other for other in rows if other != row)])


def test_a_number_that_is_gone_is_noticed(runs):
    text, noticed = (ROOT / "README.md").read_text("utf-8"), set()
    for path in sorted(runs.iterdir()):
        source = path.read_text()
        for what, without in changed(path):
            path.write_text(without)
            try:
                stale = readme.fill(text) != text
            except KeyError:
                stale = True
            if stale:
                noticed.add((path.stem, what))
        path.write_text(source)
    shown = {(name, "seconds") for name in readme.SHOWN}
    shown |= {(name, "peak_rss_mb") for name in readme.SHOWN}
    shown |= {("01_introduction", key) for key in ("image_auroc", "ae_auroc", "gap", "verdict")}
    shown |= {("06_exp3_faiss_compression", f"best_{k}") for k in ("smaller", "speed", "index")}
    shown |= {("07_aitex_tiling", key) for key in ("image_auroc", "tile_auroc", "seam_naive")}
    shown |= {("setup", "venv_gb")}
    assert shown <= noticed
    for name, tables in readme.TABLES.items():
        for table in tables:
            rows = (runs / f"{name}.{table}.csv").read_text().splitlines()[1:]
            if table == "results_all_methods":
                rows = [row for row in rows if f",{readme.RATIO}," in row]
            assert {(f"{name}.{table}", row) for row in rows} <= noticed


def test_take_brings_the_pictures_of_the_run(tmp_path, runs, monkeypatch):
    monkeypatch.setattr(readme, "PICTURES", tmp_path / "pictures")
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


def test_make_readme_runs_what_has_changed_first():
    """The runner keeps a run only while notebook and package are the same (test_runner.py)."""
    lines = subprocess.run(
        ["make", "-n", "readme"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    words = ("patchcore-course run", "verify.py --summaries output --fix", "readme.py --take")
    steps = [next(i for i, line in enumerate(lines) if word in line) for word in words]
    assert steps == sorted(steps)


def test_benchmarks_stand_in_their_page():
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    parts = re.findall(r"<!-- (\w+): written by (\w+)\.py -->", page)
    assert parts
    for part, script in parts:
        assert (ROOT / "benchmarks" / f"{script}.py").exists()
        assert list((ROOT / "benchmarks" / "results").glob(f"{part}*.csv")), part
        assert f"<!-- {part}: end -->" in page
