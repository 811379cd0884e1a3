"""AITEX Fabric Image Database (Silvestre-Blanes et al. 2019) in its original layout."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from patchcore_helpers.data.category import Category, Sample
from patchcore_helpers.data.credits import PREPARED
from patchcore_helpers.data.images import image_files, read_image, read_mask
from patchcore_helpers.errors import InputError

CLEAN, DEFECTIVE, MASKS = FOLDERS = "NODefect_images", "Defect_images", "Mask_images"
FABRICS = {
    **{"00": "2311694-2040n7u", "01": "2608691-202020u", "02": "2306894-210033u"},
    **{"03": "2311694-1930c7u", "04": "2311517-195063u", "05": "2306881-210020u"},
    "06": "2311980-185026u",
}
N_TRAIN = 12  # clean strips to fit, or three in five where there are fewer than twenty
WIDTH, HEIGHT = 4096, 256


@dataclass(frozen=True)
class Strip(Sample):
    """A strip, whose mask may lie in several files.

    Attributes
    ----------
    masks : tuple of Path
        Joined by OR; none where they are missing or empty.
    """

    masks: tuple = ()

    @property
    def has_mask(self):
        return self.label == 0 or bool(self.masks)

    def mask(self):
        """The true defect pixels, bool (height, width); none if normal, None if unknown."""
        if self.label == 0 or not self.masks:
            return super().mask()
        size = self.read().size
        return np.any([read_mask(path, size) for path in self.masks], axis=0)


def survey(folder):
    """Every strip in the original layout, by its file's name.

    Parameters
    ----------
    folder : path
        Holds ``NODefect_images/<folder>/nnnn_000_ff.png``, ``Defect_images/nnnn_ddd_ff.png`` and
        ``Mask_images/nnnn_ddd_ff_mask.png``: number, defect code, fabric.

    Returns
    -------
    strips : DataFrame
        Columns path, stem, fabric, label, masks (tuple of paths), unused (set aside by the
        publisher).
    odd : list of str
        What is not as the layout says, a line each, with what is made of it.
    """
    folder, odd, rows = Path(folder), [], []
    for name in FOLDERS:
        if not (folder / name).is_dir():
            raise InputError(
                f"{folder / name}: no such folder; AITEX has {', '.join(FOLDERS)}, keep their names"
            )
    masks = {}
    for path in image_files(folder / MASKS):
        stem = re.sub(r"_mask\d*$", "", path.stem)
        masks.setdefault(stem, []).append(path)
    folder_of = {name: fabric for fabric, name in FABRICS.items()}
    groups = [(p, 0) for p in sorted((folder / CLEAN).iterdir()) if p.is_dir()]
    groups += [(folder / CLEAN, 0), (folder / DEFECTIVE, 1), (folder / DEFECTIVE / "unused", 1)]
    for group, label in groups:
        for path in image_files(group) if group.is_dir() else []:
            where = path.relative_to(folder).as_posix()
            parts = re.fullmatch(r"\d+_(\d+)_(\d\d)", path.stem)
            if not parts:
                odd.append(f"{where}: not a name such as 0001_000_00.png; left out")
                continue
            code, fabric = parts.groups()
            if len(code) != 3 or (int(code) > 0) != label:
                odd.append(f"{where}: defect code {code}; taken as label {label}, by its folder")
            if not label and group.name in folder_of and folder_of[group.name] != fabric:
                odd.append(
                    f"{where}: in the folder of fabric {folder_of[group.name]}; "
                    f"taken as {fabric}, by its name"
                )
            unused = group.name == "unused"
            if unused:
                odd.append(f"{where}: set aside by the publisher; left out")
            rows.append((path, path.stem, fabric, label, tuple(masks.pop(path.stem, ())), unused))
        if not label and rows and group != folder / CLEAN and group.name not in folder_of:
            odd.append(f"{CLEAN}/{group.name}: unknown folder; fabric taken from the files' names")
    odd += [f"{MASKS}/{path.name}: belongs to no strip" for left in masks.values() for path in left]
    columns = ["path", "stem", "fabric", "label", "masks", "unused"]
    return pd.DataFrame(rows, columns=columns), odd


def read_strip(row):
    """A row of `survey` as a Strip, its masks checked; empty ones are dropped."""
    if not row.label:
        return Strip(row.path)
    with Image.open(row.path) as image:
        size = image.size
    masks = tuple(path for path in row.masks if read_mask(path, size).any())
    return Strip(row.path, 1, row.stem.split("_")[1], masks[0] if masks else None, masks)


def load_aitex(folder, name, seed=0):
    """One fabric, split by source strip: 12 clean strips to fit, all else to test.

    Parameters
    ----------
    folder : path
        The folder that holds the three of the original layout.
    name : str
        "aitex/00" to "aitex/08".
    seed : int
        Drives which of the clean strips are taken to fit.

    Returns
    -------
    Category
        Strips without a usable mask count for image scores only.

    Raises
    ------
    InputError
        If a folder is missing or renamed, a mask is damaged or of another size than its strip, or
        the fabric has no clean strips to fit and to test.
    """
    every, _ = survey(folder)
    strips = every[every.fabric == name.partition("/")[2]]
    used = strips[~strips.unused]
    clean = [read_strip(row) for row in used[used.label == 0].itertuples()]
    count = min(N_TRAIN, len(clean) * 3 // 5)
    if not count:
        known = every[every.label == 0].fabric.value_counts()
        enough = ", ".join(sorted(known.index[known > 1])) or "none"
        raise InputError(
            f"{name}: {len(clean)} clean strips in {Path(folder) / CLEAN}, at least 2 are needed; "
            f"fabrics that have them: {enough}"
        )
    order = np.random.default_rng(seed).permutation(len(clean))
    train, good = ([clean[i] for i in sorted(part)] for part in (order[:count], order[count:]))
    test = good + [read_strip(row) for row in used[used.label == 1].itertuples()]
    left_out = Counter({"set aside by the publisher": int(strips.unused.sum())})
    return Category(name, train, test, [], dict(+left_out), PREPARED["aitex"])


def oddities(folder):
    """What is odd about the files, a line each, with what is made of it; reads every file.

    Raises
    ------
    InputError
        If a file is damaged or a mask is not of its strip's size.
    """
    strips, odd = survey(folder)
    modes = Counter()
    for row in strips.itertuples():
        where = row.path.relative_to(folder).as_posix()
        with Image.open(row.path) as image:
            modes[image.mode] += 1
        size = read_image(row.path).size
        if size != (WIDTH, HEIGHT):
            odd.append(f"{where}: {size[0]}x{size[1]}, not {WIDTH}x{HEIGHT}; taken as it is")
        if row.label and not row.unused and not read_strip(row).has_mask:
            what = "its mask is empty" if row.masks else "has no mask"
            odd.append(f"{where}: {what}; counts for image scores only")
        if len(row.masks) > 1:
            odd.append(f"{where}: has {len(row.masks)} masks; joined by OR")
    modes.pop("L", None)
    odd += [f"{count} strips are of mode {mode}; read as gray" for mode, count in modes.items()]
    used = strips[~strips.unused]
    for fabric in sorted(set(strips.fabric)):
        good, bad = ((used[used.fabric == fabric].label == label).sum() for label in (0, 1))
        if not good or not bad or good != 20:
            odd.append(f"fabric {fabric}: {good} clean strips and {bad} with defects")
    return odd
