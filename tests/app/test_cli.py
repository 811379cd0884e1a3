"""The command: one object on the last line, and one line about whatever is wrong."""

import json
import os
import shutil
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest
from helpers.command import COMMAND, TINY_OPTIONS, tiny_model
from PIL import Image
from sklearn.metrics import roc_auc_score

from patchcore_helpers import InputError, PatchCore, load_category
from patchcore_helpers.app.cli import COMMANDS
from patchcore_helpers.app.commands.evaluate import detector_for
from patchcore_helpers.core.backbones import REGISTRY
from patchcore_helpers.core.recipes import RECIPES
from patchcore_helpers.core.strips import STRIP_SETTINGS, StripPatchCore
from patchcore_helpers.data.category import Category
from patchcore_helpers.data.elpv import load_elpv_folds

KEYS = [
    *("category", "backbone", "image_size", "coreset_ratio", "n_train", "n_test"),
    *("n_patches", "bank_size", "image_auroc", "pixel_auroc", "au_pro"),
    *("fit_seconds", "score_seconds", "peak_rss_mb"),
]


@pytest.fixture
def refused(run):
    """Call the command with bad input; returns its one line."""

    def call(*words):
        status, output, errors = run(*words)
        assert (status, output, len(errors)) == (2, [], 1), errors
        assert errors[0].startswith("patchcore-course") and ": error: " in errors[0]
        assert os.listdir() == []
        return errors[0]

    return call


@pytest.fixture
def folder(tmp_path, make_category):
    return make_category(tmp_path / "bolt")


@pytest.mark.long
def test_the_command_itself_prints_one_object_on_the_last_line(folder, tmp_path):
    words = ["bolt", "--data-dir", tmp_path, *TINY_OPTIONS, "--json", "--seed", "3"]
    done = subprocess.run(
        [COMMAND, "evaluate", *words],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "1 defective images have no mask and leave the pixel metrics\n" in done.stderr
    assert done.stdout.count("\n") == 1 and done.stdout.endswith("}\n")
    results = json.loads(done.stdout)
    assert list(results) == KEYS
    model = tiny_model(random_state=3)
    category = load_category(folder)
    maps = model.fit(category.train).detect(category.test)
    good, bad = maps.scores[:3], maps.scores[3:]
    assert results["image_auroc"] == pytest.approx((bad[:, None] > good).mean())
    assert results["bank_size"] == len(model.bank_)


@pytest.mark.long
def test_hub_weights_with_no_network(folder, tmp_path):
    done = subprocess.run(
        [COMMAND, "evaluate", folder, "--backbone", "resnet18", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "fetch-weights resnet18" in done.stderr and "--weights" in done.stderr


def test_hub_weights_when_nobody_answers(folder, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("urllib.request.getproxies", dict)
    assert "fetch-weights resnet18" in refused("evaluate", folder, "--backbone", "resnet18")


def test_json_and_text_say_the_same(folder, run):
    status, output, errors = run("evaluate", folder, *TINY_OPTIONS, "--json")
    assert (status, len(output), len(errors)) == (0, 1, 1)
    results = json.loads(output[0])
    assert results["image_size"] == 64 and results["category"] == "bolt"
    status, output, _ = run("evaluate", folder, *TINY_OPTIONS, "--image-size", "64x64")
    assert status == 0
    assert [line.split()[0] for line in output] == KEYS
    said = dict(line.split(maxsplit=1) for line in output)
    assert said["image_size"] == "(64, 64)"
    assert float(said["pixel_auroc"]) == pytest.approx(results["pixel_auroc"], abs=1e-4)
    assert os.listdir() == []


def test_elpv_counts_what_is_left_out(run, monkeypatch):
    small = load_category("elpv/mono", seed=4).limit(train=2, test=2)
    asked = []
    monkeypatch.setattr(
        "patchcore_helpers.data.catalog.load_category",
        lambda name, **options: asked.append((name, options)) or small,
    )
    status, output, errors = run("evaluate", "elpv/mono", *TINY_OPTIONS, "--json", "--seed", "4")
    assert asked == [("elpv/mono", {"data_dir": "data", "seed": 4, "good": None})]
    left_out = [f"{n} images left out: {reason}" for reason, n in small.left_out.items()]
    assert status == 0 and errors == left_out and len(left_out) == 2
    results = json.loads(output[-1])
    assert results["pixel_auroc"] is None and results["au_pro"] is None


def test_stretches_are_folds(run, monkeypatch):
    folds = [fold.limit(train=2, test=3) for fold in load_elpv_folds("elpv/mono", seed=4)]
    asked = []
    monkeypatch.setattr(
        "patchcore_helpers.data.elpv.load_elpv_folds",
        lambda name, **options: asked.append((name, options)) or folds,
    )
    words = ["evaluate", "elpv/mono", *TINY_OPTIONS, "--split", "stretch", "--seed", "4"]
    status, output, errors = run(*words, "--json")
    results = json.loads(output[-1])
    assert (status, len(output), len(errors)) == (0, 1, 1) and list(results) == KEYS
    assert asked == [("elpv/mono", {"seed": 4})]
    aurocs = []
    for fold in folds:
        scores = tiny_model(random_state=4).fit(fold.train).anomaly_scores(fold.test)
        aurocs.append(roc_auc_score(fold.labels, scores))
    assert results["image_auroc"] == pytest.approx(np.mean(aurocs)) and len(set(aurocs)) > 1
    assert (results["n_train"], results["n_test"]) == (2, 30)
    assert results["pixel_auroc"] is None and results["au_pro"] is None
    assert "mean over 5 stretches of files, which stand in for modules" in errors[0]


def test_stretches_of_what_has_none_are_refused(refused):
    line = refused("evaluate", "fabric/plain", *TINY_OPTIONS, "--split", "stretch")
    assert "fabric/plain: has no stretches of files; choose elpv/mono or elpv/poly" in line


def test_vanished_regions_are_told(folder, run):
    mask = np.zeros((64, 64), np.uint8)
    mask[2, 1] = mask[20:36, 24:40] = 255
    Image.fromarray(mask).save(folder / "ground_truth/spot/000_mask.png")
    errors = run("evaluate", folder, *TINY_OPTIONS, "--image-size", "32")[2]
    assert errors[1].startswith("1 of 3 defective regions vanish where masks are shrunk")
    assert len(run("evaluate", folder, *TINY_OPTIONS)[2]) == 1  # nothing is shrunk


def test_options_reach_the_model(monkeypatch, run):
    models = []

    def fake(category, model):
        models.append(model)
        return dict.fromkeys(KEYS), None

    monkeypatch.setattr("patchcore_helpers.core.evaluation.evaluate", fake)
    options = {
        "backbone": "test_vit",
        "layers": "1,2",
        "weights": "w",
        "image_size": "128x512",
        "aggregation": "paper",
        "coreset_ratio": "0.5",
        "sampler": "random",
        "n_neighbors": "3",
        "image_score": "mean",
        "metric": "cosine",
        "precision": "float32",
        "seed": "7",
    }
    words = [word for k, v in options.items() for word in (f"--{k.replace('_', '-')}", v)]
    assert run("evaluate", "elpv/mono", *words)[0] == 0
    given = models[0].get_params()
    seen = {name: given.get(name, given["random_state"]) for name in options}
    typed = {"layers": (1, 2), "image_size": (128, 512), "coreset_ratio": 0.5, "n_neighbors": 3}
    assert seen == {**options, **typed, "seed": 7}
    run("evaluate", "elpv/mono")
    changed = {"cache", "random_state", "progress"}
    default = PatchCore().get_params()
    assert {k: v for k, v in models[1].get_params().items() if k not in changed} == {
        k: v for k, v in default.items() if k not in changed
    }


def test_evaluate_by_a_recipe(run, refused, folder):
    words = ("evaluate", folder, *TINY_OPTIONS, "--json")
    plain = json.loads(run(*words)[1][0])
    status, output, _ = run(*words, "--recipe", "five_soft_banks")
    results = json.loads(output[-1])
    assert status == 0 and list(results) == KEYS
    assert results["bank_size"] == 5 * plain["bank_size"]
    line = refused(*words, "--recipe", "six_banks")
    assert "recipe='six_banks'" in line and "five_banks" in line


def test_a_recipe_is_not_for_strips():
    with pytest.raises(InputError, match="--recipe five_banks: not for strips of fabric"):
        detector_for(Category("aitex/04", [], []), {}, cache=False, recipe="five_banks")


def test_the_detector_suits_the_category():
    parameters = {"backbone": "test_resnet", "n_neighbors": 2, "random_state": 5}
    strips = detector_for(Category("aitex/04", [], []), parameters, cache=True)
    assert isinstance(strips, StripPatchCore)
    assert strips.model.get_params() == PatchCore(**STRIP_SETTINGS | parameters).get_params()
    squares = detector_for(Category("aitex_copy", [], []), parameters, cache=False)
    assert squares.get_params() == PatchCore(cache=False, **parameters).get_params()


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_at_once(name):
    """Help, and a mistyped option, need not wait for torch."""
    code = f"""if True:
        import sys
        from patchcore_helpers.app.cli import main
        try:
            main([{name!r}, "--help"])
        except SystemExit as stop:
            assert stop.code == 0
        assert not {{"torch", "sklearn", "matplotlib"}} & sys.modules.keys()
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: patchcore-course {name} ")


def test_list(run):
    status, output, errors = run("list")
    text = "\n".join(output)
    assert (status, errors) == (0, [])
    assert all(f"  {name} " in text for name in (*REGISTRY, *RECIPES))
    assert "elpv/mono" in text and "elpv/poly" in text


@pytest.mark.parametrize(
    "remove, message",
    [
        (".", "no such category or folder"),
        ("train/good", "has no train/good folder"),
        ("train/good/*", "train/good: holds no image"),
        ("test", "test: holds no image"),
        ("*", "has no train/good folder"),
    ],
)
def test_missing_parts_of_a_category(remove, message, folder, refused):
    for path in [folder] if remove == "." else list(folder.glob(remove)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    line = refused("evaluate", folder, *TINY_OPTIONS)
    assert message in line and str(folder) in line


@pytest.mark.parametrize(
    "name", ["train/good/003.png", "test/good/001.png", "test/spot/000.png", "test/spot/002.png"]
)
def test_a_truncated_image_is_named(name, folder, refused):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    assert f"{folder / name}: cannot be read as an image" in refused(
        "evaluate", folder, *TINY_OPTIONS
    )


def test_masks_that_do_not_fit_are_named(folder, refused):
    mask = folder / "ground_truth/spot/001_mask.png"
    Image.fromarray(np.zeros((64, 32), np.uint8)).save(mask)
    line = refused("evaluate", folder, *TINY_OPTIONS)
    assert f"{mask}: mask is 32x64 but its image is 64x64" in line
    mask.write_bytes(b"")
    assert f"{mask}: cannot be read" in refused("evaluate", folder, *TINY_OPTIONS)


BAD = {
    "--coreset-ratio 0": "coreset_ratio=0.0: give a share above 0 and at most 1",
    "--coreset-ratio 2": "coreset_ratio=2.0: give a share",
    "--coreset-ratio nan": "coreset_ratio=nan: give a share",
    "--coreset-ratio much": "--coreset-ratio: invalid float value: 'much'",
    "--backbone resnet5": "backbone 'resnet5': unknown (did you mean",
    "--weights none.pth": "none.pth: no such weights file",
    "--layers 2,9": "layers of backbone 'test_resnet': give different numbers from 0 to 4",
    "--layers a": "--layers: invalid layer_list value: 'a'",
    "--image-size 0": "image_size=0: give pixels per side",
    "--image-size -8": "image_size=-8: give pixels per side",
    "--image-size 1x2x3": "image_size=(1, 2, 3): give pixels per side",
    "--image-size big": "--image-size: invalid image_size value: 'big'",
    "--seed -1": "seed=-1: give a whole number from 0",
    "--seed 4294967296": "seed=4294967296: give a whole number from 0",
    "--seed 0.5": "--seed: invalid int value: '0.5'",
    "--n-neighbors 0": "n_neighbors=0: give a whole number from 1",
    "--sampler greedy": "sampler='greedy': choose one of k_center, random",
    "--metric l1": "metric='l1': choose one of l2, cosine",
    "--image-score median": "image_score='median': choose one of max, mean",
    "--aggregation sum": "aggregation='sum': choose one of concat, paper",
    "--precision half": "precision='half': choose one of auto, float32, bfloat16",
    "--color red": "unrecognized arguments: --color red",
    "--backbone": "--backbone: expected one argument",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_settings(words, folder, refused):
    line = refused("evaluate", folder, *TINY_OPTIONS, *words.split())
    assert BAD[words] in line
    if "resnet5" in words:
        assert all(name in line for name in REGISTRY)


@pytest.mark.parametrize("words", ["", "evalute x", "evaluate", "evaluate a b", "--nonsense"])
def test_words_that_are_no_command(words, refused):
    assert "--help" in refused(*words.split())


def test_unwritable_folders(folder, refused, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    line = refused("run", "--output", tmp_path / "file" / "below")
    assert str(tmp_path / "file") in line
    monkeypatch.setenv("PATCHCORE_CACHE", str(tmp_path / "file" / "cache"))
    line = refused("evaluate", folder, *TINY_OPTIONS)
    assert str(tmp_path / "file" / "cache") in line and "PATCHCORE_CACHE" in line


def test_ctrl_c_is_not_an_error_message(run, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("patchcore_helpers.data.catalog.load_category", stop)
    assert run("evaluate", "elpv/mono") == (130, [], ["patchcore-course: stopped"])


def test_any_name_is_printed_on_one_line(refused, run, tmp_path, folder):
    line = refused("evaluate", "no\nwhere\x1b[31m")
    assert r"no\nwhere\x1b[31m: no such category" in line
    folder.rename(odd := folder.with_name(os.fsdecode(b"latin-\xe9 \n")))
    status, output, _ = run("evaluate", odd, *TINY_OPTIONS)
    assert status == 0 and output[0] == "category       latin-\\udce9 "


@pytest.mark.long
def test_a_full_disk_is_one_line(run, monkeypatch):
    for name, shown in (("/a\nb", "/a\\nb"), (None, "the output")):
        monkeypatch.setattr(
            "patchcore_helpers.data.catalog.category_names",
            lambda name=name: (_ for _ in ()).throw(OSError(28, "No space left on device", name)),
        )
        status, _, (line,) = run("list")
        assert status == 2
        assert line.endswith(f": error: {shown}: No space left on device; choose another place")
    with open("/dev/full", "w") as full:
        done = subprocess.run([COMMAND, "list"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr


def test_tuned_settings_are_in_the_object_and_are_those_that_were_measured(folder, run):
    words = ("evaluate", folder, *TINY_OPTIONS, "--json")
    status, output, errors = run(*words, "--tune")
    results = json.loads(output[-1])
    assert status == 0 and list(results) == [*KEYS, "settings", "tune_seconds"]
    settings = results["settings"]
    assert list(settings) == ["backbone", "layers", "image_size", "image_score"]
    assert (settings["backbone"], settings["image_size"]) == ("test_resnet", 64)  # as typed
    tried = [line for line in errors if line.startswith("planted defects: AUROC")]
    assert len(tried) == 3  # ways to score; all else was typed
    shown = [line for line in tried if float(line.split()[7].rstrip(")")) > 0] or tried[:1]
    chosen = max(shown, key=lambda line: float(line.split()[3]))
    assert settings["image_score"] == (chosen.split('"')[1] if '"' in chosen else "max")
    plain = json.loads(run(*words, "--image-score", settings["image_score"])[1][-1])
    assert plain["image_auroc"] == results["image_auroc"]


def test_tuning_never_looks_at_test_images(folder, run, monkeypatch):
    trained = {str(path) for path in (folder / "train").rglob("*.png")}
    read = []
    monkeypatch.setattr(
        "patchcore_helpers.data.category.read_image",
        lambda path: read.append(str(path)) or Image.open(path).convert("RGB"),
    )

    def stop(category, model):
        raise InputError("chosen")

    monkeypatch.setattr("patchcore_helpers.core.evaluation.evaluate", stop)
    assert run("evaluate", folder, *TINY_OPTIONS, "--tune", "--no-cache")[0] == 2
    assert read and set(read) <= trained


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--tune", "--recipe", "five_banks"], "--tune: cannot be combined with --recipe"),
        (["--tune", "--split", "stretch"], "--tune: cannot be combined with --split stretch"),
        (["--tune-minutes", "3"], "--tune-minutes: has no effect without --tune"),
        (["--tune", "--tune-minutes", "-3"], "tune_minutes"),
    ],
)
def test_bad_words_for_tuning(folder, refused, words, line):
    assert line in refused("evaluate", folder, *TINY_OPTIONS, *words)


def test_too_few_images_to_tune(tmp_path, make_category, refused):
    folder = make_category(tmp_path / "nut", train=5)
    assert "5 normal images: " in refused("evaluate", folder, *TINY_OPTIONS, "--tune")
