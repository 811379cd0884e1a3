"""The README says what the committed runs say, and names only what is there."""

import re
from pathlib import Path

import readme

ROOT = Path(__file__).resolve().parents[1]


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
