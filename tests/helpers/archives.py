"""Archives of miniature data sets, complete or with something in them that should not be."""

import io
import tarfile
import zipfile
from pathlib import Path

from helpers.miniatures import make_mvtec, make_visa

MAKE = {"mvtec_ad": make_mvtec, "visa": make_visa}
CATEGORIES = {"mvtec_ad": ["bottle", "cable"], "visa": ["candle", "pcb1"]}
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
