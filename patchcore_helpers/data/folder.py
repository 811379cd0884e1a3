"""A folder of images: in the MVTec AD layout, or with good and bad ones side by side."""

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np

from patchcore_helpers.data.category import Category, Sample
from patchcore_helpers.data.images import EXTENSIONS, image_files
from patchcore_helpers.errors import InputError


def _masks_by_stem(folder):
    """The masks in a folder by stem, and by stem in lower case where no other file has that."""
    files = image_files(folder) if folder.is_dir() else []
    return {p.stem.lower(): p for p in files} | {p.stem: p for p in files}


def _find_mask(masks, image):
    """The mask of an image in the MVTec AD layout: <name>_mask.png, or <name>.png, any case."""
    wanted = (s for stem in (f"{image.stem}_mask", image.stem) for s in (stem, stem.lower()))
    return next((masks[stem] for stem in wanted if stem in masks), None)


GOOD_NAMES = ("good", "ok", "normal")
LOOSE, EMPTY = "loose in the folder, outside its sub-folders", "empty files"
FOREIGN = "files that are not png, jpg, jpeg, bmp, tif or tiff"


def _is_seen(path, folder):
    """Whether a file or folder below `folder` is neither hidden nor a mask."""
    parts = path.relative_to(folder).parts
    return not any(part.startswith(".") or part == "ground_truth" for part in parts)


def _load_side_by_side(folder, name, good, seed):
    """Normal and defective images in sub-folders next to each other; see `load_folder`."""
    kinds = sorted(p.name for p in folder.iterdir() if p.is_dir() and _is_seen(p, folder))
    wanted = (str(good).lower(),) if good else GOOD_NAMES
    normal_kinds = [kind for kind in (".", *kinds) if kind.lower() in wanted]
    if not normal_kinds:
        raise InputError(
            f"{folder}: has no {'' if good else 'train/good folder, and no '}sub-folder named "
            f"{', '.join(wanted)} (sub-folders: {', '.join(kinds) or 'none'}; loose images: "
            f"{len(image_files(folder))}); name the one with the normal images: --good NAME, "
            "or --good . for the loose ones"
        )
    normal, defective, left_out, masks_in = [], [], Counter(), cache(_masks_by_stem)
    for kind in (".", *kinds):
        below = folder.iterdir() if kind == "." else (folder / kind).rglob("*")
        for path in sorted(p for p in below if p.is_file() and _is_seen(p, folder)):
            if path.suffix.lower() not in EXTENSIONS:
                left_out[FOREIGN] += 1
            elif kind == "." and kind not in normal_kinds:
                left_out[LOOSE] += 1
            elif path.stat().st_size == 0:
                left_out[EMPTY] += 1
            elif kind in normal_kinds:
                normal.append(Sample(path))
            else:
                masks = masks_in(folder / "ground_truth" / path.parent.relative_to(folder))
                defective.append(Sample(path, 1, kind, _find_mask(masks, path)))
    n = len(normal)
    if n < 2 or n + len(defective) < 3:
        raise InputError(
            f"{folder}: {n} normal images in {', '.join(normal_kinds)} and {len(defective)} "
            "defective ones are too few; give at least 3 normal ones"
        )
    # 19 scores are what a threshold for 5 % false alarms takes.
    calibration = max(1, min(max(round(n / 5), 19), n // 3))
    test = max(1, round(n / 5)) if n > 2 else 0
    order = np.random.default_rng(seed).permutation(n)
    parts = np.split(order, [test, test + calibration])
    for_test, for_calibration, for_train = ([normal[i] for i in sorted(part)] for part in parts)
    return Category(name, for_train, for_test + defective, for_calibration, dict(left_out))


def load_folder(folder, name=None, *, good=None, seed=0):
    """Read a folder of images, in the MVTec AD layout or with good and bad ones side by side.

    MVTec AD: ``train/good/*``, ``test/<defect>/*`` (``test/good`` for normal ones) and, optionally,
    ``ground_truth/<defect>/<name>_mask.png``. It is taken where there is a folder ``train/good``
    and `good` is not given.

    Side by side: sub-folders named good, ok or normal (in any case) hold the normal images, every
    other sub-folder is a kind of defect; folders below them belong to them. Without defects, all
    test images are normal. Masks, if any, are below ``ground_truth/`` as above. The normal images
    are split by a seeded shuffle into about 60 % for training, 20 % for calibration and 20 % for
    the test; up to a third goes to calibration where it has less than the 19 images that a
    false-alarm rate of 5 % takes. What is passed over, such as images outside the sub-folders and
    empty files, is counted in `Category.left_out`.

    Images may be png, jpg, jpeg, bmp, tif or tiff in any case, and of different sizes. Hidden
    files and folders do not count.

    Parameters
    ----------
    folder : path
    name : str, optional
        The category's name; the folder's own by default.
    good : str, optional
        The sub-folder of the normal images; "." for those that lie directly in `folder`.
    seed : int
        Of the split.

    Returns
    -------
    Category

    Raises
    ------
    InputError
        If the folder is missing, no sub-folder is known to hold normal images, there are fewer
        than 3 images, or ``train/good`` or ``test`` holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    in_train = folder / "train" / "good"
    if good or not in_train.is_dir():
        return _load_side_by_side(folder, name or folder.resolve().name, good, seed)
    train = [Sample(path) for path in image_files(in_train)]
    if not train:
        raise InputError(f"{in_train}: holds no image (png, jpg, jpeg, bmp, tif, tiff)")
    test = []
    for kind in sorted(p for p in (folder / "test").glob("[!.]*") if p.is_dir()):
        masks = _masks_by_stem(folder / "ground_truth" / kind.name)
        for path in image_files(kind):
            mask = None if kind.name == "good" else _find_mask(masks, path)
            test.append(Sample(path, int(kind.name != "good"), kind.name, mask))
    if not test:
        raise InputError(
            f"{folder / 'test'}: holds no image in a folder such as test/good or test/scratch"
        )
    return Category(name or folder.resolve().name, train, test)
