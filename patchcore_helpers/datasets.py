"""Categories: one product, its normal training images, its labelled test images."""

import importlib.util
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from .errors import CourseError
from .images import EXTENSIONS, image_files, read_image, read_mask


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes
    ----------
    image : Path
        The image file; read it with `read()`.
    label : int
        0 normal, 1 defective.
    kind : str
        "good" or the name of the defect.
    mask_path : Path or None
        The mask of a defective image, where there is one.
    """

    image: Path
    label: int = 0
    kind: str = "good"
    mask_path: Path | None = None

    @property
    def name(self):
        return f"{self.kind}/{self.image.name}"

    @property
    def has_mask(self):
        """Whether the true defect pixels are known; a normal image has none, which is known."""
        return self.label == 0 or self.mask_path is not None

    def read(self):
        """The image as upright RGB (PIL)."""
        return read_image(self.image)

    def mask(self):
        """The true defect pixels, bool (height, width); none if normal, None if unknown."""
        width, height = self.read().size
        if self.label == 0:
            return np.zeros((height, width), bool)
        return None if self.mask_path is None else read_mask(self.mask_path, (width, height))


@dataclass(frozen=True)
class Category:
    """The images of one product.

    Attributes
    ----------
    name : str
    train : list of Sample
        Normal images only.
    test : list of Sample
    calibration : list of Sample
        Normal images in neither of the two, for a threshold; may be empty.
    left_out : dict of str to int
        How many images were kept out, by reason.
    licence : str
        Licence and source of the images, as they must be credited.
    """

    name: str
    train: list
    test: list
    calibration: list = field(default_factory=list)
    left_out: dict = field(default_factory=dict)
    licence: str = "see the owner of the images"

    @property
    def labels(self):
        """Labels of the test images, int array of shape (n_test,)."""
        return np.array([sample.label for sample in self.test], dtype=int)

    def limit(self, train=0, test=0, seed=0):
        """A smaller category for a quick run: a seeded choice of images, 0 meaning all.

        Parameters
        ----------
        train : int
            Training images kept.
        test : int
            Test images kept of each class, normal and defective, and calibration images kept.
        """

        def some(samples, count):
            chosen = np.random.default_rng(seed).permutation(len(samples))[: count or None]
            return [samples[i] for i in sorted(chosen)]

        by_class = [[s for s in self.test if s.label == label] for label in (0, 1)]
        test_images = [sample for samples in by_class for sample in some(samples, test)]
        parts = {"train": some(self.train, train), "calibration": some(self.calibration, test)}
        return replace(self, test=test_images, **parts)

    def with_calibration(self, share=0.2, seed=0):
        """Itself, or with a seeded share of the training images held out for calibration."""
        if self.calibration:
            return self
        order = np.random.default_rng(seed).permutation(len(self.train))
        count = max(1, round(share * len(order)))
        if count >= len(order):
            raise CourseError(
                f"{self.name}: {len(order)} training images are too few to hold some out"
            )
        parts = sorted(order[count:]), sorted(order[:count])
        train, calibration = ([self.train[i] for i in part] for part in parts)
        return replace(self, train=train, calibration=calibration)

    def counts(self):
        """How many images there are, by role and kind, as a table."""
        tested = sorted(Counter(sample.kind for sample in self.test).items())
        rows = [("train", "good", len(self.train)), *(("test", *pair) for pair in tested)]
        rows += [("calibration", "good", len(self.calibration))] if self.calibration else []
        rows += [("left out", reason, n) for reason, n in self.left_out.items()]
        return pd.DataFrame(rows, columns=["role", "kind", "images"])


ELPV_LICENCE = (
    "ELPV solar cells (Deitsch et al. 2019; Buerhop-Lutz et al. 2018), CC BY-NC-SA 4.0, "
    "from the elpv-dataset package"
)
ELPV_TRAIN = ELPV_GOOD_TEST = 200


def package_folder(module, what):
    """Where an installed package of the extra "offline" lies; `what` names it if it is missing."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        mend = "install it: pip install 'patchcore-helpers[offline]'"
        raise CourseError(f"{what} is missing; {mend}")
    return Path(spec.submodule_search_locations[0])


def elpv_table():
    """The labels of the ELPV data set: columns path, probability (of a defect) and type.

    Raises
    ------
    CourseError
        If the `elpv-dataset` package is not installed.
    """
    data = package_folder("elpv_dataset", "elpv/*: the elpv-dataset package") / "data"
    table = pd.read_csv(data / "labels.csv", sep=r"\s+", names=["path", "probability", "type"])
    table["path"] = [data / path for path in table["path"]]
    return table


def _load_elpv(name, seed):
    """Split ELPV by a seeded shuffle of the surely functional cells (probability 0).

    The first 200 train, the next 200 are the normal test images, the rest are for calibration.
    All surely defective cells (probability 1) are test images. Cells of probability 1/3 and 2/3,
    on which the experts were not sure, are kept out and counted.
    """
    table = elpv_table()
    table = table[table["type"] == name.split("/")[1]]
    functional, defective = (table.loc[table["probability"] == p, "path"] for p in (0, 1))
    functional = np.random.default_rng(seed).permutation(functional.to_numpy())
    normal, end = [Sample(path) for path in functional], ELPV_TRAIN + ELPV_GOOD_TEST
    test = normal[ELPV_TRAIN:end] + [Sample(path, 1, "defective") for path in defective]
    unsure = table["probability"].round(2).value_counts().reindex([0.33, 0.67], fill_value=0)
    names = "defect probability 1/3", "defect probability 2/3"
    left_out = dict(zip(names, unsure.tolist(), strict=True))
    return Category(name, normal[:ELPV_TRAIN], test, normal[end:], left_out, ELPV_LICENCE)


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
        raise CourseError(
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
        raise CourseError(
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
    CourseError
        If the folder is missing, no sub-folder is known to hold normal images, there are fewer
        than 3 images, or ``train/good`` or ``test`` holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CourseError(f"{folder}: no such folder")
    in_train = folder / "train" / "good"
    if good or not in_train.is_dir():
        return _load_side_by_side(folder, name or folder.resolve().name, good, seed)
    train = [Sample(path) for path in image_files(in_train)]
    if not train:
        raise CourseError(f"{in_train}: holds no image (png, jpg, jpeg, bmp, tif, tiff)")
    test = []
    for kind in sorted(p for p in (folder / "test").glob("[!.]*") if p.is_dir()):
        masks = _masks_by_stem(folder / "ground_truth" / kind.name)
        for path in image_files(kind):
            mask = None if kind.name == "good" else _find_mask(masks, path)
            test.append(Sample(path, int(kind.name != "good"), kind.name, mask))
    if not test:
        raise CourseError(
            f"{folder / 'test'}: holds no image in a folder such as test/good or test/scratch"
        )
    return Category(name or folder.resolve().name, train, test)


def safe_path(name):
    """A relative path in plain form, or None if it could lead outside its folder.

    >>> safe_path("./bottle//train/")
    'bottle/train'
    >>> [safe_path(name) for name in ("../a", "/a", "C:/a", "a\\\\b")]
    [None, None, None, None]
    """
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name)
    return None if outside or "\\" in name or not name.isprintable() else str(path)


def load_visa(folder, name):
    """Read one object of VisA in its original layout.

    ``split_csv/1cls.csv`` names the images and masks below the folder, their split and label.

    Parameters
    ----------
    folder : path
        The folder that holds ``split_csv/``.
    name : str
        One of the objects in that table, such as "candle".

    Returns
    -------
    Category

    Raises
    ------
    CourseError
        If the table or one of its columns is missing, does not know the object, leads outside
        the folder, or names a file that is missing.
    """
    csv = Path(folder) / "split_csv" / "1cls.csv"
    archive = "take it from the VisA archive"
    try:
        table = pd.read_csv(csv, dtype=str, index_col=False).fillna("")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise CourseError(f"{csv}: cannot be read ({reason}); {archive}") from None
    missing = {"object", "split", "label", "image", "mask"} - set(table.columns)
    if missing:
        raise CourseError(f"{csv}: has no column {', '.join(sorted(missing))}; {archive}")
    rows = table[table["object"] == name]
    if rows.empty:
        known = ", ".join(table["object"].unique())
        raise CourseError(f"visa/{name}: unknown object; {csv} has {known}")

    def inside(path):
        safe = safe_path(path)
        if safe is None:
            raise CourseError(f"{csv}: path {path!r} leads outside {folder}; correct it")
        file = Path(folder) / safe
        if not file.is_file():
            raise CourseError(f"{csv}: {file} is missing; {archive}")
        return file

    train, test = [], []
    for row in rows.itertuples():
        role = (row.split, row.label)
        if role == ("test", "anomaly"):
            mask = inside(row.mask) if row.mask else None
            test.append(Sample(inside(row.image), 1, "anomaly", mask))
        elif role in (("train", "normal"), ("test", "normal")):
            (train if row.split == "train" else test).append(Sample(inside(row.image)))
        else:
            raise CourseError(
                f"{csv}: {row.image} is {row.split} and {row.label}; "
                "known are train and normal, test and normal, test and anomaly"
            )
    if not train or not test:
        raise CourseError(f"{csv}: {name} has {len(train)} training, {len(test)} test images")
    return Category(f"visa/{name}", train, test)


# Data sets that `patchcore-course prepare` puts below the data folder, and their credits.
PREPARED = {
    "mvtec_ad": "MVTec AD (Bergmann et al. 2019, 2021), CC BY-NC-SA 4.0, from mvtec.com",
    "visa": "VisA (Zou et al. 2022), CC BY 4.0, from github.com/amazon-science/spot-diff",
    "aitex": "AITEX fabric images (Silvestre-Blanes et al. 2019), terms at aitex.es/afid",
}


def _loaders():
    """What loads the categories that need no files of one's own, by name."""
    from .rendering import RENDERED  # which draws on this module

    return {"elpv/mono": _load_elpv, "elpv/poly": _load_elpv, **RENDERED}


def category_names():
    """The category names that need no files of one's own."""
    return list(_loaders())


def load_category(name, *, data_dir="data", seed=0, good=None):
    """Find a category by name or folder.

    Parameters
    ----------
    name : str or path
        One of `category_names`, a path below `data_dir` such as "mvtec_ad/bottle",
        "visa/candle" or "aitex/04", or a folder of your own, see `load_folder`.
    data_dir : path
        The folder that holds ``mvtec_ad/`` and other data sets.
    seed : int
        Drives the split of data sets that come without one (ELPV, AITEX, folders with good and bad
        images side by side), and what is rendered.
    good : str, optional
        Of a folder: the sub-folder of its normal images, or "."; ``folder::good`` as the name says
        the same in one word.

    Returns
    -------
    Category

    Examples
    --------
    >>> category = load_category("elpv/mono", seed=0)
    >>> len(category.train), int((category.labels == 0).sum()), int(category.labels.sum())
    (200, 200, 313)
    """
    name = str(name)
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise CourseError(f"seed={seed!r}: give a whole number from 0")
    if good is None and "::" in name and not Path(name).exists():
        name, _, good = name.rpartition("::")
    below = Path(data_dir) / name
    is_below = below.is_dir() and not (Path(name).is_absolute() or name.startswith("."))
    if good:
        return load_folder(*((below, name) if is_below else (name,)), good=good, seed=seed)
    loader = _loaders().get(name)
    if loader:
        return loader(name, seed)
    dataset, _, below_it = name.partition("/")
    visa = Path(data_dir) / "visa"
    if dataset == "visa" and ((visa / "split_csv").is_dir() or (below / "Data").is_dir()):
        return replace(load_visa(visa, below_it), licence=PREPARED[dataset])
    if dataset == "aitex" and (Path(data_dir) / "aitex").is_dir() and not below.is_dir():
        from .aitex import load_aitex  # which draws on this module

        return load_aitex(Path(data_dir) / "aitex", name, seed)
    if is_below:
        category = load_folder(below, name, seed=seed)
        return replace(category, licence=PREPARED.get(dataset, category.licence))
    if Path(name).is_dir():
        return load_folder(name, seed=seed)
    if dataset in PREPARED:
        raise CourseError(
            f"{name}: not found below --data-dir ({data_dir}); prepare it: patchcore-course "
            f"prepare {dataset} --source PATH --data-dir {Path(data_dir).resolve()}"
        )
    raise CourseError(
        f"{name}: no such category or folder; known categories: {', '.join(category_names())}, "
        f"a name below --data-dir ({data_dir}), or a folder of images"
    )
