"""A folder of images: in the MVTec AD layout, or with good and bad ones side by side."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from patchcore_helpers.data.category import Category, LabeledImage, Sample, split
from patchcore_helpers.data.images import (
    is_image_file,
    iter_files,
    iter_folders,
    iter_image_files,
)
from patchcore_helpers.errors import InputError

GROUND_TRUTH = "ground_truth"
GOOD_NAMES = ("good", "ok", "normal")
OF_ONE_PRODUCT = ("train", "test", GROUND_TRUTH)  # folders of MVTec AD's layout, never products
LOOSE_IMAGES = "."  # what `good` says of the images directly in the folder

# Reasons in `Category.left_out`.
LOOSE = "loose in the folder, outside its sub-folders"
EMPTY = "empty files"
FOREIGN = "files that are not png, jpg, jpeg, bmp, tif or tiff"

# A threshold for a false-alarm rate of 5 % takes at least 19 scores of normal images.
MIN_CALIBRATION = 19


def load_folder(
    folder: str | Path, name: str | None = None, *, good: str | None = None, seed: int = 0
) -> Category:
    """Read a folder of images, in the MVTec AD layout or with good and bad ones side by side.

    MVTec AD: ``train/good/*``, ``test/<defect>/*`` (``test/good`` for normal ones) and, optionally,
    ``ground_truth/<defect>/<name>_mask.png``. This layout is assumed if there is a folder
    ``train/good`` and `good` is not given.

    Side by side: sub-folders named good, ok or normal (in any case) hold the normal images. Every
    other sub-folder is a kind of defect, with all folders below it. Without defects, all test
    images are normal. Masks, if any, are below ``ground_truth/`` as above. The normal images are
    split by a seeded shuffle into about 60 % for training, 20 % for calibration and 20 % for the
    test; calibration takes up to a third if 20 % are less than the 19 images that a false-alarm
    rate of 5 % needs. Files that are passed over, such as images outside the sub-folders and empty
    files, are counted in `Category.left_out`.

    Images may be png, jpg, jpeg, bmp, tif or tiff in any case, and of different sizes. Hidden files
    and folders are ignored.

    Parameters
    ----------
    folder : path
    name : str, optional
        Name of the category; the name of the folder by default.
    good : str, optional
        The sub-folder of the normal images; "." for those directly in `folder`.
    seed : int, from 0
        Seed of the train/calibration/test split.

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
    name = name or folder.resolve().name
    if good or not (folder / "train" / "good").is_dir():
        return _load_side_by_side(folder, name, good, seed)
    return _load_mvtec(folder, name)


def product_folders(folder: str | Path, *, good: str | None = None) -> list[Path]:
    """The folders of several products, or none if `folder` is that of one product.

    A folder is of one product if it holds a sub-folder of normal images (good, ok or normal, or the
    one that `good` names), or ``train``, ``test`` or ``ground_truth``. Otherwise, if one of its
    sub-folders is of one product in this sense, each of its sub-folders is a product.

    Parameters
    ----------
    folder : path
    good : str, optional
        As for `load_folder`; with "." a folder is always of one product.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("bolt/good", "bolt/bad", "nut/good"):
    ...     (folder / name).mkdir(parents=True)
    >>> [path.name for path in product_folders(folder)], product_folders(folder / "bolt")
    (['bolt', 'nut'], [])
    """
    folder = Path(folder)
    if good == LOOSE_IMAGES or not folder.is_dir() or _is_of_one_product(folder, good):
        return []
    folders = list(iter_folders(folder))
    return folders if any(_is_of_one_product(path, good) for path in folders) else []


def _is_of_one_product(folder: Path, good: str | None) -> bool:
    normal = (good.lower(),) if good else GOOD_NAMES
    return any(path.name.lower() in (*normal, *OF_ONE_PRODUCT) for path in iter_folders(folder))


def _load_mvtec(folder: Path, name: str) -> Category:
    """The MVTec AD layout, which says what to train on and what to test."""
    train_folder = folder / "train" / "good"
    test_folder = folder / "test"
    train: list[LabeledImage]
    train = [Sample(path) for path in iter_image_files(train_folder, recursive=False)]
    if not train:
        raise InputError(f"{train_folder}: holds no image (png, jpg, jpeg, bmp, tif, tiff)")

    test: list[LabeledImage] = []
    for kind_folder in iter_folders(test_folder) if test_folder.is_dir() else ():
        kind = kind_folder.name
        masks = _masks_by_stem(folder / GROUND_TRUTH / kind)
        for path in iter_image_files(kind_folder, recursive=False):
            if kind == "good":
                test.append(Sample(path))
            else:
                test.append(Sample(path, 1, kind, _find_mask(masks, path)))
    if not test:
        raise InputError(
            f"{test_folder}: holds no image in a folder such as test/good or test/scratch"
        )
    return Category(name, train, test)


def _masks_by_stem(folder: Path) -> dict[str, Path]:
    """The masks in a folder by stem, and by stem in lower case if no other file has that stem."""
    files = list(iter_image_files(folder, recursive=False)) if folder.is_dir() else []
    by_lower_case = {path.stem.lower(): path for path in files}
    by_stem = {path.stem: path for path in files}
    return by_lower_case | by_stem


def _find_mask(masks: dict[str, Path], image: Path) -> Path | None:
    """The mask of an image: <name>_mask.png or <name>.png, in any case."""
    for stem in (f"{image.stem}_mask", image.stem):
        for spelling in (stem, stem.lower()):
            if spelling in masks:
                return masks[spelling]
    return None


def _load_side_by_side(folder: Path, name: str, good: str | None, seed: int) -> Category:
    """Normal and defective images in sub-folders next to each other; see `load_folder`."""
    kinds = [path.name for path in iter_folders(folder) if path.name != GROUND_TRUTH]
    normal_kinds = _choose_normal_kinds(folder, kinds, good)
    masks_by_stem = cache(_masks_by_stem)

    normal: list[LabeledImage] = []
    defective: list[LabeledImage] = []
    left_out: Counter[str] = Counter()
    for kind in (LOOSE_IMAGES, *kinds):
        for path in _files_of_kind(folder, kind):
            reason = _reason_to_leave_out(path, kind, normal_kinds)
            if reason:
                left_out[reason] += 1
            elif kind in normal_kinds:
                normal.append(Sample(path))
            else:
                masks = masks_by_stem(folder / GROUND_TRUTH / path.parent.relative_to(folder))
                defective.append(Sample(path, 1, kind, _find_mask(masks, path)))

    if len(normal) < 2 or len(normal) + len(defective) < 3:
        raise InputError(
            f"{folder}: {len(normal)} normal images in {', '.join(normal_kinds)} and "
            f"{len(defective)} defective ones are too few; give at least 3 normal ones"
        )
    n_test, n_calibration = _split_sizes(len(normal))
    test, calibration, train = split(normal, n_test, n_calibration, seed=seed)
    return Category(name, train, test + defective, calibration, dict(left_out))


def _choose_normal_kinds(folder: Path, kinds: list[str], good: str | None) -> list[str]:
    """The sub-folders that hold normal images: the one that `good` names, or those in GOOD_NAMES.

    Names are compared in lower case. "." is a kind as well, the images directly in the folder.
    """
    accepted = (str(good).lower(),) if good else GOOD_NAMES
    normal_kinds = [kind for kind in (LOOSE_IMAGES, *kinds) if kind.lower() in accepted]
    if normal_kinds:
        return normal_kinds
    missing = "sub-folder" if good else "train/good folder, and no sub-folder"
    n_loose = sum(1 for _ in iter_image_files(folder, recursive=False))
    raise InputError(
        f"{folder}: has no {missing} named {', '.join(accepted)} "
        f"(sub-folders: {', '.join(kinds) or 'none'}; loose images: {n_loose}); "
        "name the one with the normal images: --good NAME, or --good . for the loose ones"
    )


def _files_of_kind(folder: Path, kind: str) -> Iterator[Path]:
    """All files of a kind but masks: those below its sub-folder, or directly in the folder."""
    for path in iter_files(folder / kind, recursive=kind != LOOSE_IMAGES):
        if GROUND_TRUTH not in path.relative_to(folder).parts:
            yield path


def _reason_to_leave_out(path: Path, kind: str, normal_kinds: list[str]) -> str | None:
    if not is_image_file(path):
        return FOREIGN
    if kind == LOOSE_IMAGES and kind not in normal_kinds:
        return LOOSE
    if path.stat().st_size == 0:
        return EMPTY
    return None


def _split_sizes(n_normal: int) -> tuple[int, int]:
    """How many normal images are for the test and for calibration; the rest is for training."""
    fifth = round(n_normal / 5)
    n_test = max(1, fifth) if n_normal > 2 else 0
    n_calibration = max(1, min(max(fifth, MIN_CALIBRATION), n_normal // 3))
    return n_test, n_calibration
