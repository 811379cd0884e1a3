"""AITEX Fabric Image Database (Silvestre-Blanes et al. 2019) in its original layout.

A strip is a photograph of 4096 x 256 pixels. Its file name, such as 0044_019_04.png, says its
number, the code of its defect (000 for none) and its fabric.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from patchcore_helpers.data.category import Category, LabeledImage, Sample, split
from patchcore_helpers.data.credits import PREPARED
from patchcore_helpers.data.images import iter_folders, iter_image_files, read_image, read_mask
from patchcore_helpers.errors import InputError

CLEAN = "NODefect_images"
DEFECTIVE = "Defect_images"
MASKS = "Mask_images"
FOLDERS = (CLEAN, DEFECTIVE, MASKS)
UNUSED = "unused"  # below DEFECTIVE: strips that the publisher has set aside

# The folder of each fabric below CLEAN.
FABRICS = {
    "00": "2311694-2040n7u",
    "01": "2608691-202020u",
    "02": "2306894-210033u",
    "03": "2311694-1930c7u",
    "04": "2311517-195063u",
    "05": "2306881-210020u",
    "06": "2311980-185026u",
}
FABRIC_OF_FOLDER = {folder: fabric for fabric, folder in FABRICS.items()}

# What the codes of the defects mean, in the words of the publisher.
DEFECT_KINDS = {
    "002": "broken end",
    "006": "broken yarn",
    "010": "broken pick",
    "016": "weft curling",
    "019": "fuzzyball",
    "022": "cut selvage",
    "023": "crease",
    "025": "warp ball",
    "027": "knots",
    "029": "contamination",
    "030": "nep",
    "036": "weft crack",
}

N_TRAIN = 12  # clean strips to train on, or three in five if there are fewer than twenty
N_CLEAN = 20  # clean strips of each fabric, as published
WIDTH, HEIGHT = 4096, 256  # pixels of a strip, as published


@dataclass(frozen=True)
class Strip(Sample):
    """A strip, whose mask may be spread over several files.

    Attributes
    ----------
    masks : tuple of Path
        The mask files, joined by OR. Empty if they are missing, or if no pixel is marked.
    """

    masks: tuple[Path, ...] = ()

    @property
    def has_mask(self) -> bool:
        """Whether the defective pixels are known; those of a normal strip are: there are none."""
        return self.label == 0 or bool(self.masks)

    def _read_mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        return np.any([read_mask(path, size) for path in self.masks], axis=0)


class StripFile(NamedTuple):
    """What the name and the folder of a strip say about it: a row of `scan`."""

    path: Path
    stem: str
    fabric: str
    label: int
    masks: tuple[Path, ...]
    unused: bool


def scan(folder: str | Path) -> tuple[pd.DataFrame, list[str]]:
    """Find all strips in the original layout, by their file names.

    Parameters
    ----------
    folder : path
        Holds ``NODefect_images/<folder>/nnnn_000_ff.png``, ``Defect_images/nnnn_ddd_ff.png`` and
        ``Mask_images/nnnn_ddd_ff_mask.png``: number, defect code, fabric.

    Returns
    -------
    strips : DataFrame
        Columns path, stem, fabric, label, masks (tuple of paths) and unused (set aside by the
        publisher).
    remarks : list of str
        One line for each deviation from the layout, with what is made of it.

    Raises
    ------
    InputError
        If one of the three folders is missing.
    """
    folder = Path(folder)
    for name in FOLDERS:
        if not (folder / name).is_dir():
            raise InputError(
                f"{folder / name}: no such folder; AITEX has {', '.join(FOLDERS)}, keep their names"
            )
    masks = _masks_by_strip(folder / MASKS)
    strips: list[StripFile] = []
    remarks: list[str] = []
    for group, label in _strip_folders(folder):
        before = len(strips)
        for path in iter_image_files(group, recursive=False):
            strip, deviations = _read_name(path, label, masks)
            name = path.relative_to(folder).as_posix()
            remarks += [f"{name}: {deviation}" for deviation in deviations]
            if strip is not None:
                strips.append(strip)
        is_known = label or group == folder / CLEAN or group.name in FABRIC_OF_FOLDER
        if len(strips) > before and not is_known:
            remarks.append(
                f"{CLEAN}/{group.name}: unknown folder; fabric taken from the files' names"
            )
    stems = {strip.stem for strip in strips}
    for stem, paths in masks.items():
        if stem not in stems:
            remarks += [f"{MASKS}/{path.name}: belongs to no strip" for path in paths]
    return pd.DataFrame(strips, columns=StripFile._fields), remarks


def _masks_by_strip(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The mask files by the stem of their strip: 0044_019_04_mask1.png belongs to 0044_019_04."""
    masks: dict[str, tuple[Path, ...]] = {}
    for path in iter_image_files(folder, recursive=False):
        stem = re.sub(r"_mask\d*$", "", path.stem)
        masks[stem] = (*masks.get(stem, ()), path)
    return masks


def _strip_folders(folder: Path) -> Iterator[tuple[Path, int]]:
    """The folders that may hold strips, and the label of the strips in each."""
    for fabric_folder in iter_folders(folder / CLEAN):
        yield fabric_folder, 0
    yield folder / CLEAN, 0
    yield folder / DEFECTIVE, 1
    if (folder / DEFECTIVE / UNUSED).is_dir():
        yield folder / DEFECTIVE / UNUSED, 1


def _read_name(
    path: Path, label: int, masks: dict[str, tuple[Path, ...]]
) -> tuple[StripFile | None, list[str]]:
    """The strip in a file, and how its name or folder deviates from the layout."""
    name = re.fullmatch(r"\d+_(\d+)_(\d\d)", path.stem)
    if name is None:
        return None, ["not a name such as 0001_000_00.png; left out"]
    code, fabric = name.groups()
    folder = path.parent.name
    unused = folder == UNUSED

    deviations = []
    if len(code) != 3 or (int(code) > 0) != label:
        deviations.append(f"defect code {code}; taken as label {label}, by its folder")
    fabric_by_folder = fabric if label else FABRIC_OF_FOLDER.get(folder, fabric)
    if fabric_by_folder != fabric:
        deviations.append(
            f"in the folder of fabric {fabric_by_folder}; taken as {fabric}, by its name"
        )
    if unused:
        deviations.append("set aside by the publisher; left out")
    strip = StripFile(path, path.stem, fabric, label, masks.get(path.stem, ()), unused)
    return strip, deviations


def _read_strip(row: Any) -> Strip:
    """A row of `scan` as a Strip: masks are checked, and those that mark no pixel dropped."""
    if not row.label:
        return Strip(row.path)
    with Image.open(row.path) as image:
        size = image.size
    masks = tuple(path for path in row.masks if read_mask(path, size).any())
    code = row.stem.split("_")[1]
    return Strip(row.path, 1, code, masks[0] if masks else None, masks)


def load_aitex(folder: str | Path, fabric: str, seed: int = 0) -> Category:
    """Read one fabric, split by strip: 12 clean strips to train on, all others to test.

    Parameters
    ----------
    folder : path
        The folder that holds the three of the original layout.
    fabric : str
        "00" to "08".
    seed : int, from 0
        Seed of the choice of the clean strips to train on.

    Returns
    -------
    Category
        Its name is "aitex/" and the fabric. Strips without a usable mask count for image scores
        only.

    Raises
    ------
    InputError
        If a folder is missing or renamed, a mask is damaged or of another size than its strip, or
        the fabric has fewer than 2 clean strips.
    """
    name = f"aitex/{fabric}"
    all_strips, _ = scan(folder)
    strips = all_strips[all_strips.fabric == fabric]
    used = strips[~strips.unused]
    clean: list[LabeledImage]
    clean = [_read_strip(row) for row in used[used.label == 0].itertuples()]
    n_train = min(N_TRAIN, len(clean) * 3 // 5)
    if n_train == 0:
        n_clean = all_strips[all_strips.label == 0].fabric.value_counts()
        usable = ", ".join(sorted(n_clean.index[n_clean > 1])) or "none"
        raise InputError(
            f"{name}: {len(clean)} clean strips in {Path(folder) / CLEAN}, at least 2 are needed; "
            f"fabrics that have them: {usable}"
        )
    train, good = split(clean, n_train, seed=seed)
    defective = [_read_strip(row) for row in used[used.label == 1].itertuples()]
    n_unused = int(strips.unused.sum())
    left_out = {"set aside by the publisher": n_unused} if n_unused else {}
    return Category(name, train, [*good, *defective], [], left_out, PREPARED["aitex"])


def report_anomalous_files(folder: str | Path) -> list[str]:
    """Read every file, and report what is not as published.

    Parameters
    ----------
    folder : path
        As `scan` takes it.

    Returns
    -------
    list of str
        One line for each deviation, with what is made of it.

    Raises
    ------
    InputError
        If a file is damaged or a mask is not of its strip's size.
    """
    strips, remarks = scan(folder)
    modes: Counter[str] = Counter()
    for row in strips.itertuples():
        with Image.open(row.path) as image:
            modes[image.mode] += 1
        name = row.path.relative_to(folder).as_posix()
        remarks += [f"{name}: {deviation}" for deviation in _deviations(row)]
    for mode, count in modes.items():
        if mode != "L":
            remarks.append(f"{count} strips are of mode {mode}; read as gray")

    used = strips[~strips.unused]
    for fabric in sorted(set(strips.fabric)):
        labels = used.label[used.fabric == fabric]
        n_good = (labels == 0).sum()
        n_defective = (labels == 1).sum()
        if n_good != N_CLEAN or not n_defective:
            remarks.append(f"fabric {fabric}: {n_good} clean strips and {n_defective} with defects")
    return remarks


def _deviations(row: Any) -> list[str]:
    """What is unusual about a strip in size and masks; `row` is one of `scan`."""
    deviations = []
    width, height = read_image(row.path).size
    if (width, height) != (WIDTH, HEIGHT):
        deviations.append(f"{width}x{height}, not {WIDTH}x{HEIGHT}; taken as it is")
    if row.label and not row.unused and not _read_strip(row).has_mask:
        reason = "its mask is empty" if row.masks else "has no mask"
        deviations.append(f"{reason}; counts for image scores only")
    if len(row.masks) > 1:
        deviations.append(f"has {len(row.masks)} masks; joined by OR")
    return deviations
