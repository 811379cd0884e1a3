"""Preparing a data set: complete, checked, its source untouched."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.archives import CATEGORIES, ENCLOSING, MAKE, listing, pack
from helpers.miniatures import DEFECTIVE, GOOD, TRAIN
from PIL import Image

from patchcore_helpers import InputError, load_category
from patchcore_helpers.app import cli
from patchcore_helpers.data import prepare as prepare_module
from patchcore_helpers.data.prepare import prepare, staging_folder
from patchcore_helpers.data.published import DATA_SETS

SCRIPT = Path(__file__).parents[2] / "data" / "prepare_data.py"


@pytest.mark.long
@pytest.mark.parametrize("dataset", MAKE)
@pytest.mark.parametrize("ending", ["tar.xz", "tar", "tar.gz", "tgz", "tar.bz2", "zip", ""])
@pytest.mark.parametrize("enclosed", [True, False])
def test_every_source_gives_the_same_files(dataset, ending, enclosed, roots, tmp_path):
    root = roots[dataset]
    enclosing = ENCLOSING[dataset] if enclosed else ""
    if ending:
        source = pack(root, tmp_path / f"any.{ending}", enclosing)
    else:
        source = shutil.copytree(root, tmp_path / "any" / enclosing) and tmp_path / "any"
    data = tmp_path / "data"
    table, passed_over = prepare(dataset, source, data, CATEGORIES[dataset])
    assert passed_over == 0
    assert listing(data / dataset) == listing(root)
    assert [path.name for path in data.iterdir()] == [dataset]
    counts = [TRAIN, GOOD, DEFECTIVE] if dataset == "mvtec_ad" else [TRAIN + GOOD, DEFECTIVE]
    assert table[[*DATA_SETS[dataset].columns]].to_numpy().tolist() == [counts, counts]
    assert table["category"].tolist() == CATEGORIES[dataset] and table["differs"].all()


def test_the_command_prints_what_was_found(roots, tmp_path, capfd):
    words = ["--data-dir", str(tmp_path), "--categories", "cable,bottle"]
    source = pack(roots["mvtec_ad"], tmp_path / "any.tar")
    assert cli.main(["prepare", "mvtec_ad", "--source", str(source), *words]) == 0
    output, errors = capfd.readouterr()
    assert errors == ""
    lines = [line.split() for line in output.splitlines()]
    assert lines[1] == ["cable", "12", "6", "6", "224/58/92", "differs"]
    assert lines[2] == ["bottle", "12", "6", "6", "209/20/63", "differs"]
    assert "CC BY-NC-SA 4.0" in output and "passed over" not in output
    assert "2 of the five categories of the source experiments" in output
    assert "24 training and 24 test images, 50% anomalous; their text says about 1,500" in output


def test_counts_that_agree_are_not_said_to_differ(roots, tmp_path, monkeypatch):
    monkeypatch.setitem(DATA_SETS["mvtec_ad"].published, "cable", (TRAIN, GOOD, DEFECTIVE))
    table, _ = prepare("mvtec_ad", roots["mvtec_ad"], tmp_path, ["bottle", "cable"])
    assert table["differs"].tolist() == [True, False]


def test_what_does_not_belong_is_counted_and_not_written(root, roots, tmp_path, capfd):
    for name in (
        "notes.pdf",
        "more/bottle.png",
        "bottle/.hidden.png",
        "readme.txt",
        "spoon/readme.txt",
        "bottle/test/good/._000.png",
        "bottle/test/good/Thumbs.db",
        "bottle/validation/good/000.png",
        "spoon/train/good/000.png",
        "__MACOSX/bottle/._train",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"junk")
    source = pack(root, tmp_path / "any.zip")
    words = ["--data-dir", str(tmp_path / "data"), "--categories", "bottle"]
    assert cli.main(["prepare", "mvtec_ad", "--source", str(source), *words]) == 0
    assert "9 files passed over" in capfd.readouterr().out
    assert sorted(os.listdir(tmp_path / "data/mvtec_ad")) == ["bottle", "readme.txt"]
    assert listing(tmp_path / "data/mvtec_ad/bottle") == listing(roots["mvtec_ad"] / "bottle")


@pytest.mark.parametrize("own", [True, False])
def test_one_category_alone(own, roots, tmp_path):
    bottle = roots["mvtec_ad"] / "bottle"
    source = bottle if own else pack(bottle, tmp_path / "bottle.tar.xz", "bottle")
    prepare("mvtec_ad", source, tmp_path / "data", ["bottle"])
    assert listing(tmp_path / "data/mvtec_ad/bottle") == listing(bottle)
    prepare("mvtec_ad", roots["mvtec_ad"], tmp_path / "data", ["bottle", "cable"])
    assert listing(tmp_path / "data/mvtec_ad") == listing(roots["mvtec_ad"])


@pytest.mark.parametrize("dataset", MAKE)
def test_a_folder_stays_as_it_is(dataset, roots, tmp_path):
    def state():
        return {
            p: (p.stat().st_mtime_ns, p.stat().st_ino, p.stat().st_nlink)
            for p in [roots[dataset], *roots[dataset].rglob("*")]
        }

    before, content = state(), listing(roots[dataset])
    prepare(dataset, roots[dataset], tmp_path, CATEGORIES[dataset])
    assert state() == before and listing(roots[dataset]) == content


def test_categories_in_place_are_left_alone(roots, tmp_path, monkeypatch):
    prepare("mvtec_ad", roots["mvtec_ad"], tmp_path, ["bottle"])
    names = {p: p.stat().st_ino for p in tmp_path.rglob("*.png")}
    written = []
    write_file = prepare_module.write_file

    def recording(path, content):
        written.append(path)
        write_file(path, content)

    monkeypatch.setattr(prepare_module, "write_file", recording)
    prepare("mvtec_ad", roots["mvtec_ad"], tmp_path, ["bottle", "cable"])
    assert {p: p.stat().st_ino for p in names} == names
    assert not any("bottle" in path.parts for path in written) and written
    (tmp_path / "empty").mkdir()
    table, _ = prepare("mvtec_ad", tmp_path / "empty", tmp_path, ["bottle", "cable"])
    assert table["train"].tolist() == [TRAIN, TRAIN]
    assert sorted(os.listdir(tmp_path)) == ["empty", "mvtec_ad"]


KILLED = """
import os, signal, sys
from patchcore_helpers.data.prepare import prepare
replace, calls = os.replace, []
def killing(source, to):
    calls.append(to)
    if len(calls) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, to)
os.replace = killing
rename = os.rename
def renaming(source, to):
    rename(source, to)
    if sys.argv[1] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
os.rename = renaming
prepare("mvtec_ad", sys.argv[2], sys.argv[3], ["bottle", "cable"])
"""


def killed(moment, source, data):
    done = subprocess.run([sys.executable, "-c", KILLED, str(moment), source, data])
    assert done.returncode == -signal.SIGKILL


@pytest.mark.long
@pytest.mark.parametrize("ending", ["tar.xz", "zip"])
def test_after_a_kill_the_next_call_goes_on(ending, roots, tmp_path):
    source = pack(roots["mvtec_ad"], tmp_path / f"any.{ending}")
    data = tmp_path / "data"
    killed(20, source, data)
    assert os.listdir(data) == [".mvtec_ad.part"]
    left = {p.name: p.stat() for p in data.rglob("*") if p.is_file()}
    assert sum(name.endswith(".png.part") for name in left) == 1
    whole = {(s.st_ino, s.st_mtime_ns) for name, s in left.items() if name.endswith(".png")}
    assert 10 < len(whole) < 20
    prepare("mvtec_ad", source, data, ["bottle", "cable"])
    assert listing(data / "mvtec_ad") == listing(roots["mvtec_ad"])
    now = {(p.stat().st_ino, p.stat().st_mtime_ns) for p in data.rglob("*.png")}
    assert whole < now
    assert os.listdir(data) == ["mvtec_ad"]


def test_after_a_kill_between_two_categories(roots, tmp_path):
    source = pack(roots["mvtec_ad"], tmp_path / "any.tar")
    killed(0, source, tmp_path / "data")
    assert sorted(os.listdir(tmp_path / "data/mvtec_ad")) == ["bottle"]
    prepare("mvtec_ad", source, tmp_path / "data", ["bottle", "cable"])
    assert listing(tmp_path / "data/mvtec_ad") == listing(roots["mvtec_ad"])
    assert os.listdir(tmp_path / "data") == ["mvtec_ad"]


@pytest.mark.long
def test_what_another_source_or_choice_has_left_is_not_taken_over(root, roots, tmp_path):
    for path in root.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:-1] + b"!")  # of the same size, still readable
    data = tmp_path / "data"
    killed(30, pack(root, tmp_path / "one.tar"), data)
    source = pack(roots["mvtec_ad"], tmp_path / "two.tar")
    prepare("mvtec_ad", source, data, ["bottle", "cable"])
    assert listing(data / "mvtec_ad") == listing(roots["mvtec_ad"])
    shutil.rmtree(data)
    killed(45, source, data)
    assert list(data.rglob("cable"))
    prepare("mvtec_ad", source, data, ["bottle"])
    assert listing(data / "mvtec_ad/bottle") == listing(roots["mvtec_ad"] / "bottle")
    assert os.listdir(data) == ["mvtec_ad"] and os.listdir(data / "mvtec_ad") == ["bottle"]


def test_a_file_of_the_wrong_size_is_written_again(roots, tmp_path):
    source, data = pack(roots["mvtec_ad"], tmp_path / "any.tar"), tmp_path / "data"
    killed(20, source, data)
    next(iter(data.rglob("*.png"))).write_bytes(b"short")
    prepare("mvtec_ad", source, data, ["bottle", "cable"])
    assert listing(data / "mvtec_ad") == listing(roots["mvtec_ad"])


def test_two_at_once(roots, tmp_path, capfd):
    data, source = tmp_path / "data", roots["mvtec_ad"]
    words = ["--data-dir", str(data), "--categories", "bottle"]
    with staging_folder(data / ".mvtec_ad.part", source):
        (data / ".mvtec_ad.part/bottle").mkdir()
        assert cli.main(["prepare", "mvtec_ad", "--source", str(source), *words]) == 2
        assert "another prepare is at work; wait" in capfd.readouterr().err
        assert (data / ".mvtec_ad.part/bottle").is_dir()
    assert cli.main(["prepare", "mvtec_ad", "--source", str(source), *words]) == 0


def test_sources_that_are_none(tmp_path, refused):
    assert "nowhere: no such archive or folder" in refused(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no archive")
    assert "cannot be read as a whole tar or zip archive" in refused(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    assert "empty: has no bottle, cable; to prepare" in refused(tmp_path / "empty")


def test_missing_categories_are_named(roots, tmp_path, capfd):
    words = ["--source", str(roots["mvtec_ad"]), "--data-dir", str(tmp_path / "data")]
    assert cli.main(["prepare", "mvtec_ad", *words]) == 2
    line = capfd.readouterr().err
    assert "has no capsule, carpet, grid," in line
    assert "add --categories bottle,cable\n" in line
    assert os.listdir(tmp_path) == []


def test_categories_that_are_unknown(root, refused):
    line = refused(root, categories="bottle,botle")
    assert "--categories: 'botle' is not in mvtec_ad; known are bottle, cable" in line
    with pytest.raises(InputError, match="none is not in mvtec_ad"):
        prepare("mvtec_ad", root, categories=[])
    with pytest.raises(InputError, match="dataset='coins': choose one of mvtec_ad, visa"):
        prepare("coins", root)


def test_a_source_that_is_the_target(root, tmp_path, refused):
    data = tmp_path / "data"
    prepare("mvtec_ad", root, data, ["bottle"])
    for source in (data / "mvtec_ad", data / "mvtec_ad/bottle", data, tmp_path):
        assert "overlaps" in refused(source)


def test_data_folders_that_cannot_be_written(root, tmp_path, refused):
    (tmp_path / "file").touch()
    for data in (tmp_path / "file", tmp_path / "file/below", tmp_path / "none/below"):
        assert f"{data}: cannot be written" in refused(root, data_dir=data)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mvtec_ad").touch()
    assert "mvtec_ad: cannot be written" in refused(root)
    (tmp_path / "data/mvtec_ad").unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "data/.mvtec_ad.part").symlink_to(tmp_path / "other")
    assert "data: cannot be written" in refused(root)


@pytest.mark.long
def test_no_room_on_the_disk(root, tmp_path):
    before = listing(tmp_path)
    words = ["--source", root, "--data-dir", tmp_path / "data", "--categories", "bottle,cable"]
    done = subprocess.run(
        [sys.executable, "-m", "patchcore_helpers.app.cli", "prepare", "mvtec_ad", *words],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)),
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert ".png: cannot be written (File too large); make room" in done.stderr
    assert listing(tmp_path) == before


def test_images_that_cannot_be_used_are_named(root, refused):
    good = root / "bottle/train/good"
    content = (good / "003.png").read_bytes()
    for i in (3, 5, 7, 8):
        (good / f"{i:03}.png").write_bytes(content[: len(content) // 2])
    line = refused(root)
    assert "4 files are damaged or unmatched: bottle/train/good/003.png cannot be read; " in line
    assert "007.png cannot be read; and 1 more" in line and "008" not in line


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda mask: mask.unlink(), "bottle/test/square/002.png has no mask"),
        (lambda mask: mask.write_bytes(b""), "square/002_mask.png cannot be read"),
        (
            lambda mask: Image.fromarray(np.zeros((64, 32), np.uint8)).save(mask),
            "square/002_mask.png does not have its image's size",
        ),
        (
            lambda mask: shutil.copy(mask, mask.with_name("009_mask.png")),
            "square/009_mask.png belongs to no image",
        ),
        (
            lambda mask: shutil.copytree(mask.parent, mask.parents[1] / "dent"),
            "3 files are damaged or unmatched: bottle/ground_truth/dent/000_mask.png belongs to no",
        ),
    ],
)
def test_masks_that_do_not_fit_are_named(spoil, message, root, refused):
    spoil(root / "bottle/ground_truth/square/002_mask.png")
    assert message in refused(root)


def test_a_category_without_its_parts(root, refused):
    shutil.rmtree(root / "cable/train")
    line = refused(root)
    assert f"{root}/cable: has no train/good folder" in line and ".part" not in line


def test_categories_that_are_not_there_yet(roots, tmp_path):
    for name in ("mvtec_ad/bottle", "visa/candle"):
        dataset = name.split("/")[0]
        with pytest.raises(InputError, match=f"patchcore-course prepare {dataset} --source PATH"):
            load_category(name, data_dir=tmp_path)
    prepare("visa", roots["visa"], tmp_path, ["candle"])
    with pytest.raises(InputError, match=r"visa/candel: unknown object; .* has candle, pcb1"):
        load_category("visa/candel", data_dir=tmp_path)
    (tmp_path / "visa/split_csv/1cls.csv").unlink()
    with pytest.raises(InputError, match=r"1cls.csv: cannot be read \(No such file"):
        load_category("visa/candle", data_dir=tmp_path)


def test_prepared_mvtec_is_read_with_its_credit(roots, tmp_path):
    prepare("mvtec_ad", roots["mvtec_ad"], tmp_path, ["bottle"])
    category = load_category("mvtec_ad/bottle", data_dir=tmp_path)
    assert "CC BY-NC-SA 4.0" in category.license and len(category.test) == GOOD + DEFECTIVE
    assert all(s.mask().sum() == 256 for s in category.test if s.label)


@pytest.mark.long
def test_the_script_beside_the_data(roots, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    script = shutil.copy(SCRIPT, tmp_path / "data")
    sources = {"--mvtec-path": tmp_path / "m.tar", "--visa-path": tmp_path / "v.zip"}
    for option, dataset in (("--mvtec-path", "mvtec_ad"), ("--visa-path", "visa")):
        folder = MAKE[dataset](tmp_path / dataset, list(DATA_SETS[dataset].published), size=8)
        pack(folder, sources[option])

    def run(*words):
        return subprocess.run(
            [sys.executable, script, *words], capture_output=True, text=True, cwd=tmp_path
        )

    done = run()
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--visa-path" in done.stderr
    words = [word for pair in sources.items() for word in pair]
    done = run(*words)
    assert (done.returncode, done.stderr) == (0, "")
    for dataset in MAKE:
        assert listing(tmp_path / "data" / dataset) == listing(tmp_path / dataset)
    assert done.stdout.count("differs") == 15 + 12 + 2
    assert "5 of the five categories" in done.stdout
    done = run("--visa-path", "v.zip", "--data-dir", "elsewhere")
    assert done.returncode == 0 and len(
        load_category("visa/fryum", data_dir=tmp_path / "elsewhere").train
    )
    done = run("--mvtec-path", "nowhere", "--visa-path", "v.zip", "--data-dir", "third")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize("words", ["", "mvtec_ad", "coins --source x", "mvtec_ad --source"])
def test_words_that_are_not_enough(words, capfd):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["prepare", *words.split()])
    output, errors = capfd.readouterr()
    assert output == "" and errors.count("\n") == 1 and "--help" in errors
