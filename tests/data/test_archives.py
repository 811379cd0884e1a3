"""Archives and folders that are damaged or hostile: each is refused in one line, without traces."""

import io
import os
import tarfile
import zipfile

import pytest
from helpers.archives import member, pack, tar_with, zip_with

from patchcore_helpers.data import archives

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


@pytest.mark.long
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
    monkeypatch.setattr(archives, "MAX_MEMBERS", 20)
    for source in (pack(root, tmp_path / "any.tar"), pack(root, tmp_path / "any.zip"), root):
        assert "holds more than 20 files" in refused(source)


@pytest.mark.long
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
    monkeypatch.setattr(archives, "MAX_FILE", 1000)
    assert "unpacks to far more than photographs would" in refused(root)


@pytest.mark.long
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
