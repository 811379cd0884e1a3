"""Preparing a data set: whole, checked, its source untouched; and all that is refused."""

import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.miniatures import DEFECTIVE, GOOD, TRAIN, make_mvtec, make_visa
from PIL import Image

from patchcore_helpers import InputError, load_category
from patchcore_helpers.app import cli
from patchcore_helpers.data import prepare as module
from patchcore_helpers.data.credits import PREPARED
from patchcore_helpers.data.folder import load_folder
from patchcore_helpers.data.prepare import DATA_SETS, FIVE, part_folder, prepare
from patchcore_helpers.data.visa import load_visa

HERE = Path(__file__).parent
SCRIPT = HERE.parent / "data" / "prepare_data.py"
MAKE = {"mvtec_ad": make_mvtec, "visa": make_visa}
ASK = {"mvtec_ad": ["bottle", "cable"], "visa": ["candle", "pcb1"]}
ENCLOSING = {"mvtec_ad": "mvtec_anomaly_detection", "visa": "VisA_20220922"}


def listing(folder):
    """Every path below a folder, with the content of the files."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else p.is_symlink()
        for p in sorted(Path(folder).rglob("*"))
    }


def pack(root, archive, enclosing=""):
    """Archive a folder's content by the archive's ending, below an enclosing folder or none."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(root.rglob("*")):
                file.write(path, Path(enclosing, path.relative_to(root)))
    else:
        kind = {".xz": "xz", ".gz": "gz", ".tgz": "gz", ".bz2": "bz2"}.get(archive.suffix, "")
        with tarfile.open(archive, f"w:{kind}") as file:
            file.add(root, enclosing or ".")
    return archive


def tar_with(root, archive, member, content=b""):
    """A whole archive of the data set with one more member."""
    with tarfile.open(archive, "w") as file:
        file.add(root, ".")
        member.size = len(content)
        file.addfile(member, io.BytesIO(content))
    return archive


def zip_with(root, archive, info, content=b""):
    pack(root, archive)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(info, content)
    return archive


def member(name, **values):
    info = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(info, key, value)
    return info


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    return {name: make(folder / ENCLOSING[name]) for name, make in MAKE.items()}


@pytest.fixture
def root(roots, tmp_path):
    """A copy of the miniature MVTec AD to spoil."""
    return Path(shutil.copytree(roots["mvtec_ad"], tmp_path / "download" / "root"))


@pytest.fixture
def visa(roots, tmp_path):
    return Path(shutil.copytree(roots["visa"], tmp_path / "download" / "root"))


@pytest.fixture
def refused(tmp_path, capfd):
    """Prepare what cannot be; returns the one line, after a look for anything left behind."""

    def call(source, dataset="mvtec_ad", data_dir=None, categories=None):
        data_dir = data_dir or tmp_path / "data"
        before = listing(tmp_path)
        words = ["prepare", dataset, "--source", source, "--data-dir", data_dir]
        words += ["--categories", categories or ",".join(ASK[dataset])]
        status = cli.main([str(word) for word in words])
        output, errors = capfd.readouterr()
        assert (status, output, errors.count("\n")) == (2, "", 1), errors
        assert errors.startswith("patchcore-course: error: ")
        assert listing(tmp_path) == before
        return errors

    return call


def test_published_counts():
    assert set(DATA_SETS) == set(PREPARED)
    mvtec, visa = DATA_SETS["mvtec_ad"].published, DATA_SETS["visa"].published
    assert (len(mvtec), len(visa)) == (15, 12)
    assert tuple(map(sum, zip(*mvtec.values(), strict=True))) == (3629, 467, 1258)
    assert tuple(map(sum, zip(*visa.values(), strict=True))) == (9621, 1200)
    assert mvtec["screw"] == (320, 41, 119) and visa["chewinggum"] == (503, 100)
    assert set(FIVE) < set(mvtec)


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
    table, passed_over = prepare(dataset, source, data, ASK[dataset])
    assert passed_over == 0
    assert listing(data / dataset) == listing(root)
    assert [path.name for path in data.iterdir()] == [dataset]
    counts = [TRAIN, GOOD, DEFECTIVE] if dataset == "mvtec_ad" else [TRAIN + GOOD, DEFECTIVE]
    assert table[[*DATA_SETS[dataset].columns]].to_numpy().tolist() == [counts, counts]
    assert table["category"].tolist() == ASK[dataset] and table["differs"].all()


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
    prepare(dataset, roots[dataset], tmp_path, ASK[dataset])
    assert state() == before and listing(roots[dataset]) == content


def test_categories_in_place_are_left_alone(roots, tmp_path, monkeypatch):
    prepare("mvtec_ad", roots["mvtec_ad"], tmp_path, ["bottle"])
    names = {p: p.stat().st_ino for p in tmp_path.rglob("*.png")}
    written = []
    write = module.write
    monkeypatch.setattr(
        module, "write", lambda path, text: (written.append(path), write(path, text))
    )
    prepare("mvtec_ad", roots["mvtec_ad"], tmp_path, ["bottle", "cable"])
    assert {p: p.stat().st_ino for p in names} == names
    assert not any("bottle" in path.parts for path in written) and written
    (tmp_path / "empty").mkdir()
    table, _ = prepare("mvtec_ad", tmp_path / "empty", tmp_path, ["bottle", "cable"])
    assert table["train"].tolist() == [TRAIN, TRAIN]
    assert sorted(os.listdir(tmp_path)) == ["empty", "mvtec_ad"]


KILLED = """
import os, signal, sys
from patchcore_helpers import prepare
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
prepare.prepare("mvtec_ad", sys.argv[2], sys.argv[3], ["bottle", "cable"])
"""


def killed(moment, source, data):
    done = subprocess.run([sys.executable, "-c", KILLED, str(moment), source, data])
    assert done.returncode == -signal.SIGKILL


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
    with part_folder(data / ".mvtec_ad.part", source):
        (data / ".mvtec_ad.part/bottle").mkdir()
        assert cli.main(["prepare", "mvtec_ad", "--source", str(source), *words]) == 2
        assert "another prepare is at work; wait" in capfd.readouterr().err
        assert (data / ".mvtec_ad.part/bottle").is_dir()
    assert cli.main(["prepare", "mvtec_ad", "--source", str(source), *words]) == 0


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
TAR_MEMBERS = {
    "parent": (member("../out.png"), "'../out.png' leads outside"),
    "deep parent": (member("bottle/train/../../../out.png"), "leads outside"),
    "absolute": (member("/tmp/out.png"), "'/tmp/out.png' leads outside"),
    "drive": (member("C:/out.png"), "'C:/out.png' leads outside"),
    "backslash": (member("bottle\\train\\good\\1.png"), "leads outside"),
    "two lines": (member("bottle/train/good/a\nb.png"), "cannot be printed"),
    "symlink": (member("bottle/train/good/link.png", **LINK), "is a link, device or sparse file"),
    "linked folder": (member("cable/test/link", **LINK), "is a link, device or sparse file"),
    "hard link": (
        member(
            "bottle/train/good/x.png", type=tarfile.LNKTYPE, linkname="bottle/train/good/000.png"
        ),
        "is a link, device or sparse file",
    ),
    "character device": (member("bottle/zero", type=tarfile.CHRTYPE), "is a link, device"),
    "block device": (member("bottle/disk", type=tarfile.BLKTYPE), "is a link, device"),
    "fifo": (member("bottle/fifo", type=tarfile.FIFOTYPE), "is a link, device"),
    "twice": (member("bottle/train/good/000.png"), "holds 'bottle/train/good/000.png' twice"),
}


@pytest.mark.parametrize("case", TAR_MEMBERS)
def test_members_of_a_tar_that_are_refused(case, root, tmp_path, refused):
    extra, message = TAR_MEMBERS[case]
    line = refused(tar_with(root, tmp_path / "any.tar", extra))
    assert message in line and str(tmp_path / "any.tar") in line


def test_a_sparse_file_in_a_tar(root, tmp_path, refused):
    extra = member("bottle/train/good/x.png")
    extra.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "bottle/train/good/x.png",
        "GNU.sparse.realsize": "1000",
    }
    source = tar_with(root, tmp_path / "any.tar", extra, b"1\n0\n0\n".ljust(512, b"\0"))
    assert "is a link, device or sparse file" in refused(source)


def zip_info(name, mode=0):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


ZIP_MEMBERS = {
    "parent": (zip_info("../out.png"), "leads outside"),
    "absolute": (zip_info("/tmp/out.png"), "leads outside"),
    "drive": (zip_info("C:\\out.png"), "leads outside"),
    "backslash": (zip_info("..\\out.png"), "leads outside"),
    "symlink": (zip_info("bottle/link.txt", 0o120777), "is a link or device"),
    "device": (zip_info("bottle/link.txt", 0o020666), "is a link or device"),
    "twice": (zip_info("./bottle/train/good/000.png"), "holds 'bottle/train/good/000.png' twice"),
}


@pytest.mark.parametrize("case", ZIP_MEMBERS)
def test_members_of_a_zip_that_are_refused(case, root, tmp_path, refused):
    extra, message = ZIP_MEMBERS[case]
    assert message in refused(zip_with(root, tmp_path / "any.zip", extra, b"content"))


def test_links_in_a_folder(root, refused):
    for name, to in (("bottle/x.png", root / "bottle/readme.txt"), ("cable/linked", root)):
        (root / name).symlink_to(to)
        line = refused(root)
        assert f"{name!r} is a link or device" in line
        (root / name).unlink()
    os.mkfifo(root / "bottle/fifo")
    assert "'bottle/fifo' is a link or device" in refused(root)


def test_a_zip_that_is_encrypted(root, tmp_path, refused):
    source = pack(root, tmp_path / "any.zip")
    with zipfile.ZipFile(source) as file:
        info = file.getinfo("bottle/train/good/003.png")
    content = bytearray(source.read_bytes())
    content[info.header_offset + 6] |= 1
    central = content.find(b"bottle/train/good/003.png", content.find(b"PK\1\2")) - 46
    content[central + 8] |= 1
    source.write_bytes(content)
    assert "is encrypted; unpack it" in refused(source)


def test_too_many_members(root, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(module, "MAX_MEMBERS", 20)
    for source in (pack(root, tmp_path / "any.tar"), pack(root, tmp_path / "any.zip"), root):
        assert "holds more than 20 files" in refused(source)


@pytest.mark.parametrize("name", ["bottle/train/good/x.png", "junk.bin"])
@pytest.mark.parametrize("ending", ["zip", "tar.gz", "tar.xz"])
def test_bombs(ending, name, root, tmp_path, refused):
    source, zeros = tmp_path / f"any.{ending}", bytes(100_000_000)
    if ending == "zip":
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(name, zeros)
    else:
        preset = {"preset": 0} if ending == "tar.xz" else {"compresslevel": 1}
        with tarfile.open(source, f"w:{ending[4:]}", **preset) as file:
            extra = member(name, size=len(zeros))
            file.addfile(extra, io.BytesIO(zeros))
    assert source.stat().st_size < 1_000_000
    assert "unpacks to far more than photographs would" in refused(source)


def test_a_bomb_in_a_header_that_no_size_tells_of(tmp_path, refused):
    source = tmp_path / "any.tar.gz"
    with tarfile.open(source, "w:gz", compresslevel=1) as file:
        file.addfile(member("x.png", pax_headers={"comment": "x" * 100_000_000}))
    assert "unpacks to far more" in refused(source)


@pytest.mark.parametrize("stated", [16, 40_000_000])
def test_a_zip_that_states_another_size_than_it_has(stated, root, tmp_path, refused):
    source, size = pack(root, tmp_path / "any.zip"), 30_000_000
    with zipfile.ZipFile(source, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bottle/train/good/x.png", bytes(size))
    old, new = (number.to_bytes(4, "little") for number in (size, stated))
    assert source.read_bytes().count(old) == 2
    source.write_bytes(source.read_bytes().replace(old, new))
    assert "cannot be read as a whole" in refused(source)


def test_a_file_larger_than_a_photograph(root, refused, monkeypatch):
    monkeypatch.setattr(module, "MAX_FILE", 1000)
    assert "unpacks to far more than photographs would" in refused(root)


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz", "zip"])
@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.999])
def test_archives_that_end_early(ending, share, root, tmp_path, refused):
    source = pack(root, tmp_path / f"any.{ending}")
    content = source.read_bytes()
    if ending == "tar":
        content = content.rstrip(b"\0")
    source.write_bytes(content[: int(share * len(content))])
    assert "cannot be read as a whole tar or zip archive" in refused(source)


def test_a_tar_that_ends_between_two_members(root, tmp_path, refused):
    source = pack(root, tmp_path / "any.tar")
    with tarfile.open(source) as file:
        ends = [info.offset for info in file][-1]
    source.write_bytes(source.read_bytes()[:ends])
    assert "ends in the middle" in refused(source)


def test_a_tar_with_a_damaged_header(root, tmp_path, refused):
    source = pack(root, tmp_path / "any.tar")
    with tarfile.open(source) as file:
        last = [info.offset for info in file][-1]
    content = bytearray(source.read_bytes())
    content[last + 5] ^= 255
    source.write_bytes(content)
    assert "ends in the middle" in refused(source)


@pytest.mark.parametrize("ending", ["tar.gz", "tar.xz", "zip"])
def test_archives_with_a_damaged_byte(ending, root, tmp_path, refused):
    source = pack(root, tmp_path / f"any.{ending}")
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 255
    source.write_bytes(content)
    assert "cannot be read as a whole" in refused(source)


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


CSV_CHANGES = {
    "column": (",mask\n", ",truth\n", "has no column mask"),
    "unknown": ("pcb1,", "pcb9,", "visa/pcb1: unknown object; "),
    "missing image": ("Normal/0003.JPG", "Normal/9003.JPG", "Normal/9003.JPG is missing"),
    "missing mask": ("Masks/Anomaly/003", "Masks/Anomaly/903", "Anomaly/903.png is missing"),
    "parent": ("candle/Data/Images/Normal/0003", "../x", "'../x.JPG' leads outside"),
    "absolute": ("candle/Data/Images/Normal/0003", "/x", "'/x.JPG' leads outside"),
    "backslash": ("candle/Data/Images/Normal/0003", "..\\x", "leads outside"),
    "mask outside": ("candle/Data/Masks/Anomaly/003", "../x", "'../x.png' leads outside"),
    "role": ("test,anomaly,candle", "train,anomaly,candle", "is train and anomaly; known are"),
    "no test": ("pcb1,test,", "spoon,test,", "pcb1 has 12 training, 0 test images"),
}


@pytest.mark.parametrize("case", CSV_CHANGES)
def test_what_is_wrong_with_the_table_of_visa(case, visa, refused):
    old, new, message = CSV_CHANGES[case]
    csv = visa / "split_csv/1cls.csv"
    text = csv.read_text()
    assert old in text
    csv.write_text(text.replace(old, new))
    line = refused(visa, "visa")
    assert message in line and "1cls.csv" in line and ".part" not in line


def test_files_of_visa_that_the_table_does_not_name(visa, refused):
    shutil.copy(visa / "candle/Data/Images/Normal/0000.JPG", visa / "pcb1/Data/Images/Normal/x.JPG")
    assert "pcb1/Data/Images/Normal/x.JPG belongs to no image" in refused(visa, "visa")


@pytest.mark.parametrize("content", [None, "", "\xff\xfe", 'object,split\n"a'])
def test_no_table_of_visa(content, visa, refused):
    csv = visa / "split_csv/1cls.csv"
    csv.unlink()
    if content is not None:
        csv.write_bytes(content.encode("latin-1"))
    assert "1cls.csv: cannot be read (" in refused(visa, "visa")


def test_visa_is_read_in_its_own_layout(roots, tmp_path):
    prepare("visa", roots["visa"], tmp_path, ["candle", "pcb1"])
    category = load_category("visa/candle", data_dir=tmp_path)
    assert category.name == "visa/candle" and "CC BY 4.0" in category.license
    assert [s.image.name for s in category.train] == [f"{i:04}.JPG" for i in range(TRAIN)]
    assert category.labels.tolist() == [0] * GOOD + [1] * DEFECTIVE
    assert {s.kind for s in category.test[GOOD:]} == {"anomaly"}
    for sample in category.test[GOOD:]:
        image, mask = np.asarray(sample.read()).mean(axis=2), sample.mask()
        assert mask.sum() == 256 and image[mask].min() > image[~mask].mean() + 50
        assert sample.mask_path.is_relative_to(tmp_path / "visa/candle")
    assert load_visa(tmp_path / "visa", "pcb1").train[0].image.is_relative_to(tmp_path)


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


def test_masks_are_listed_once_for_each_folder(roots, monkeypatch):
    listed = []
    from patchcore_helpers.data import catalog as datasets

    image_files = datasets.image_files
    monkeypatch.setattr(
        datasets, "image_files", lambda folder: listed.append(folder) or image_files(folder)
    )
    load_folder(roots["mvtec_ad"] / "bottle")
    assert len(listed) == len(set(listed)) == 1 + 3 + 2


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
