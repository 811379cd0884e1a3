"""Bad arguments of every command: exit status 2, one line that says why, and nothing written."""

import os
import shutil

import numpy as np
import pytest
from helpers.command import TINY_OPTIONS, tiny_model, write_products
from helpers.miniatures import make_mvtec
from PIL import Image

from patchcore_helpers import load_category
from patchcore_helpers.app import cli
from patchcore_helpers.core.products import ProductBank

MODEL_OPTIONS = {
    "--backbone": ["none", "../x", "", "a b"],
    "--layers": ["9,10", "x", "", "-1,2", "2,2"],
    "--weights": ["nowhere.pth", "IMAGE", "/"],
    "--image-size": ["0", "-5", "x", "64x", "10000", "64x64x64", "9" * 30],
    "--aggregation": ["sum", ""],
    "--coreset-ratio": ["0", "-1", "1.1", "nan", "inf", "x", "1e400"],
    "--sampler": ["greedy"],
    "--n-neighbors": ["0", "-1", "1.5"],
    "--image-score": ["median"],
    "--metric": ["l1"],
    "--precision": ["int8"],
    "--seed": ["-1", "x", "1.5", "9" * 40],
    "--roi": ["nowhere", "/", "IMAGE", "BANK", "BLACK", "SMALL", "DOT", "MASK --tune"],
    "--good": ["nothing"],
}
# Words in capitals stand for paths of the fixture.
COMMANDS = {
    "evaluate CATEGORY": MODEL_OPTIONS,
    "new CATEGORY --output out": MODEL_OPTIONS
    | {"--false-alarm-rate": ["0", "1", "-1", "nan"], "--pictures": ["-1", "x"]},
    "evaluate CATEGORY --roi MASK": {"--recipe": ["five_banks"]},
    "export REGION --output": {"": ["x"]},
    "evaluate": {"": ["nowhere", "mvtec_ad/none", "elpv/none", "/", "EMPTY"]},
    "predict": {"": ["nowhere IMAGE", "IMAGE IMAGE", "CATEGORY IMAGE", "/dev/null IMAGE"]},
    "predict nowhere.onnx": {"": ["IMAGE", "IMAGE --weights x", "IMAGE --device cpu"]},
    "predict BANK": {
        "": ["", "EMPTY", "IMAGE --weights nowhere", "CATEGORY --output CATEGORY/x", "- IMAGE"],
    },
    "predict BANK IMAGE": {
        "--threshold": ["nan", "inf", "x", "1 --normal CATEGORY"],
        "--false-alarm-rate": ["0.1", "0 --normal CATEGORY", "2 --normal CATEGORY"],
        "--normal": ["nowhere", "IMAGE", "EMPTY"],
        "--log": ["x"],
        "--idle": ["1"],
    },
    "predict BANK --follow": {
        "": [
            "EMPTY",
            "nowhere --log x",
            "IMAGE --log x",
            "EMPTY EMPTY --log x",
            "EMPTY --log IMAGE",
            "EMPTY --log EMPTY",
            "EMPTY --log EMPTY/x",
            "EMPTY --log nowhere/x",
            "EMPTY --log x --idle -1",
            "EMPTY --log x --output y",
        ],
    },
    "export": {
        "": ["BANK", "nowhere --output x", "IMAGE --output x", "COMPRESSED --output x"],
    },
    "export BANK --output x": {
        "--images": ["nowhere", "EMPTY", "BANK"],
        "--product": ["x"],
        "--weights": ["nowhere"],
        "--engine": ["none"],
        "--device": ["none"],
    },
    "export BANK --images IMAGE": {"--output": ["nowhere/x", "EMPTY"]},
    "teach": {"": ["BANK", "nowhere --normal CATEGORY", "IMAGE --normal CATEGORY"]},
    "teach CALIBRATED": {
        "": ["--remove", "--calibration CATEGORY", "--missed CATEGORY --output x"],
        "--normal": ["nowhere", "IMAGE", "EMPTY"],
        "--missed": ["nowhere", "IMAGE", "EMPTY", "CATEGORY --false-alarm-rate 0.1"],
    },
    "teach CALIBRATED --normal CATEGORY": {
        "--output": ["EMPTY", "nowhere/x"],
        "--calibration": ["nowhere", "EMPTY"],
        "--false-alarm-rate": ["0", "1", "x", "0.01"],
        "--seed": ["-1", "x"],
        "--weights": ["nowhere"],
        "--engine": ["none"],
    },
    "teach BANK --normal": {"": ["CATEGORY"]},
    "teach COMPRESSED --normal": {"": ["CATEGORY"]},
    "new": {
        "": [
            *("nowhere", "IMAGE", "EMPTY", "PRODUCTS_WITHOUT_GOOD --output out"),
            *("PRODUCTS_BY_CASE --output out", "PRODUCTS --tune", "PRODUCTS --pictures -1"),
            "PRODUCTS --false-alarm-rate 1",
        ],
        "--output": ["CATEGORY/report CATEGORY", "PRODUCTS/report PRODUCTS"],
    },
    "predict BANK IMAGE --product": {"": ["x"]},
    "predict SEVERAL IMAGE": {
        "--product": ["none", "Bolt", ""],
        "--threshold": ["1"],
        "--normal": ["CATEGORY"],
    },
    "export SEVERAL --output x": {"": ["--images IMAGE"], "--product": ["none"]},
    "teach SEVERAL --normal CATEGORY": {"": ["--seed 1"], "--product": ["none"]},
    "teach CALIBRATED --normal CATEGORY --product": {"": ["x"]},
    "run 5 --output out": {
        "-j": ["0", "-1", "x", "nan"],
        "--timeout": ["0", "-1", "inf"],
        "-p": ["x 1", "n_seeds many", "output_dir y"],
        "-f": ["nowhere", "IMAGE", "/"],
        "--scheduler": ["x", "tcp://127.0.0.1:9"],
        "--profile": ["quick"],
    },
    "run": {"": ["99", "none.ipynb", "IMAGE", "/"]},
    "prepare": {"": ["none --source x", "visa"]},
    "prepare mvtec_ad": {"--source": ["nowhere", "IMAGE", "EMPTY", "/dev/null"]},
    "prepare mvtec_ad --source DATA": {"--categories": ["none", "bottle,,"]},
    "fetch-weights": {"": ["", "none"]},
    "cache": {"": ["", "shrink"]},
    "": {"": ["", "none", "--none", "list all"]},
}
OF_WORDS = ("-p", "--output", "--threshold", "--false-alarm-rate", "--missed", "--roi")
ROWS = [
    (command, option, value)
    for command, options in COMMANDS.items()
    for option, values in options.items()
    for value in values
]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """What the words of the table stand for."""
    folder = tmp_path_factory.mktemp("arguments")
    data = make_mvtec(folder / "data", ("bottle",))
    category = load_category(data / "bottle")
    tiny_model().fit(category.train).save(folder / "bank.safetensors")
    calibrated = tiny_model().fit(category.train)
    calibrated.calibrate(category.train, 0.1).save(folder / "calibrated.safetensors")
    masks = {name: np.zeros((64, 64), np.uint8) for name in ("black", "dot", "mask", "small")}
    masks["dot"][9, 9] = 255
    masks["mask"][8:56, 8:56] = 255
    masks["small"] = np.full((32, 64), 255, np.uint8)
    for name, pixels in masks.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    region = tiny_model(roi=str(folder / "mask.png")).fit(category.train)
    region.save(folder / "region.safetensors")
    ivf_pq = {"kind": "ivf_pq", "m": 4, "bits": 4, "n_clusters": 1}
    compressed = tiny_model(coreset_ratio=1.0, index=ivf_pq).fit(category.train)
    compressed.save(folder / "compressed.safetensors")
    (folder / "empty").mkdir()
    several = write_products(folder / "several", ["bolt", "nut"], n_good=6)
    models = {
        name: tiny_model().fit([several / f"{name}/good/000.png"]) for name in ("bolt", "nut")
    }
    ProductBank(models).save(folder / "several.safetensors")
    without_good = write_products(folder / "without_good", ["bolt"])
    shutil.copytree(without_good / "bolt/bad", without_good / "nut/bad")
    by_case = write_products(folder / "by_case", ["Bolt", "bolt"])
    return {
        # Longer words stand before their own beginnings.
        "PRODUCTS_WITHOUT_GOOD": str(without_good),
        "PRODUCTS_BY_CASE": str(by_case),
        "PRODUCTS": str(several),
        "SEVERAL": str(folder / "several.safetensors"),
        "CATEGORY": str(data / "bottle"),
        "BANK": str(folder / "bank.safetensors"),
        **{name.upper(): str(folder / f"{name}.png") for name in masks},
        "REGION": str(folder / "region.safetensors"),
        "CALIBRATED": str(folder / "calibrated.safetensors"),
        "COMPRESSED": str(folder / "compressed.safetensors"),
        "IMAGE": str(category.test[0].image),
        "EMPTY": str(folder / "empty"),
        "DATA": str(data),
    }


@pytest.mark.long
@pytest.mark.parametrize(("command", "option", "value"), ROWS)
def test_bad_arguments(command, option, value, paths, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = command.split()
    if option:
        # An empty or odd value is one word; of several words, the value is the first ones.
        words += [option, *(value.split() if option in OF_WORDS else [value])]
    else:
        words += value.split() or ([""] if command == "fetch-weights" else [])
    if words[:2] in (["evaluate", "CATEGORY"], ["new", "CATEGORY"]):
        words[2:2] = TINY_OPTIONS
    for place, path in paths.items():
        words = [word.replace(place, path) for word in words]
    try:
        status = cli.main(words)
    except SystemExit as stop:
        status = stop.code
    out, err = capfd.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("patchcore-course") and "error: " in err
    assert os.listdir() == []
