"""What docs/deploy.md tells a reader to do, done: its commands, its loop, its numbers."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from helpers.command import COMMAND, TINY_OPTIONS, write_image, write_products

from patchcore_helpers import PatchCore
from patchcore_helpers.core.onnx_model import ExportedModel
from patchcore_helpers.core.threshold import false_alarm_interval

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "deploy.md").read_text("utf-8")
LOOP, CALIBRATION = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]
# A sitecustomize.py: the interpreter runs it first.
NOT_ON_THE_LINE = """
import sys
for name in ("torch", "torchvision", "timm", "onnx", "patchcore_helpers"):
    sys.modules[name] = None
"""


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    """A folder in which all commands have run, on a network that takes no time."""
    folder = tmp_path_factory.mktemp("deploy")
    for number in range(30):
        write_image(folder / f"parts/good/{number:02}.png", number)
    for number in range(5):
        write_image(folder / f"parts/scratch/{number}.png", 100 + number, defective=True)
        write_image(folder / f"photos/defect_{number}.png", 200 + number, defective=True)
        write_image(folder / f"photos/good_{number}.png", 300 + number)
    for number in range(24):
        write_image(folder / f"new_normal/{number}.png", 400 + number)
        write_image(folder / f"missed_parts/{number}.png", 500 + number)
    write_products(folder / "products", ["bolt", "nut"])
    named = [words[1] for words in COMMANDS]
    assert named == ["new", "export", "teach", "teach", "new", "predict", "predict"]
    for _, name, *words in COMMANDS:
        tiny = TINY_OPTIONS if name == "new" else []
        done = subprocess.run(
            [COMMAND, name, words[0], *tiny, *words[1:]], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return folder


def test_the_bank_that_was_taught(factory):
    earlier, taught = (
        PatchCore.load(factory / name)
        for name in ("parts_report/bank.safetensors", "new_bank.safetensors")
    )
    assert len(taught.bank_) > len(earlier.bank_)
    assert len(taught.taught_) == len(earlier.taught_) + 19
    assert len(taught.calibration_.scores) == len(earlier.calibration_.scores) + 5


def run_python(code, folder, *words, only_the_line=False):
    """Run a block of the page as the script that a reader makes of it."""
    (folder / "script.py").write_text(code)
    (folder / "line").mkdir(exist_ok=True)
    (folder / "line/sitecustomize.py").write_text(NOT_ON_THE_LINE)
    environment = {"PYTHONPATH": str(folder / "line")} if only_the_line else None
    command = [sys.executable, "script.py", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.long
def test_the_loop_says_what_the_model_says_without_torch(factory):
    paths = sorted(str(path.relative_to(factory)) for path in factory.glob("photos/*.png"))
    done = run_python(LOOP, factory, *paths, only_the_line=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (factory / "inspection.jsonl").open()]
    model = PatchCore.load(factory / "parts_report/bank.safetensors")
    scores = model.anomaly_scores([factory / path for path in paths])
    assert [line["path"] for line in lines] == paths
    np.testing.assert_allclose([line["score"] for line in lines], scores, rtol=1e-3)
    expected = ["alarm" if score > model.threshold_ else "ok" for score in scores]
    assert [line["verdict"] for line in lines] == expected
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == expected
    maps = model.anomaly_maps([factory / path for path in paths])
    for line, values in zip(lines, maps, strict=True):
        column, row = np.intp(line["hottest"])  # the photographs have the size of the maps
        assert values[row, column] == pytest.approx(values.max(), rel=1e-3)


@pytest.mark.long
def test_calibrating_again_moves_the_threshold_of_the_exported_model(factory):
    done = run_python(CALIBRATION, factory)
    assert done.returncode == 0, done.stderr
    scores = PatchCore.load(factory / "parts_report/bank.safetensors").anomaly_scores(
        sorted(factory.glob("new_normal/*.png"))
    )
    new = ExportedModel.load(factory / "new_model.onnx")
    highest = scores.max()  # ceil(25 * 0.95) is 24: the last of 24
    assert new.threshold_ == pytest.approx(highest, rel=1e-3)


def test_what_the_page_says_to_install_is_what_its_code_imports():
    """The loop's packages are those of its line; the extra is what both error messages name."""
    (line,) = re.findall(r"^pip install (onnxruntime .*)$", TEXT, re.MULTILINE)
    imported = set(re.findall(r"^(?:import|from) (\w+)", LOOP, re.MULTILINE))
    needed = {name.replace("PIL", "pillow") for name in imported - set(sys.stdlib_module_names)}
    assert set(line.split()) == needed
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extra = [re.split("[<>=]", need)[0] for need in project["optional-dependencies"]["deploy"]]
    assert "pip install '.[deploy]'" in TEXT
    for module in ("onnx_file", "onnx_model"):
        code = (ROOT / "patchcore_helpers/core" / f"{module}.py").read_text("utf-8")
        assert f'install it: pip install {" ".join(extra)}"' in code


def test_the_loop_is_short_and_the_numbers_are_right():
    assert len([line for line in LOOP.splitlines() if line]) <= 25
    share = false_alarm_interval(188, 0.05, n_new=200)
    assert f"from {share.low:.1%} to {share.high:.1%}".replace("%", " %") in TEXT
