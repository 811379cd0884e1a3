"""What is known of a data set before it is downloaded: its layout and its published counts."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from patchcore_helpers.data.aitex import CLEAN, DEFECTIVE, MASKS, report_anomalous_files
from patchcore_helpers.data.category import Category, Sample
from patchcore_helpers.data.folder import load_folder
from patchcore_helpers.data.images import EXTENSIONS, iter_image_files
from patchcore_helpers.data.visa import load_visa


class Location(NamedTuple):
    """Where a file belongs: its path below the data set, and its category, "" if shared by all."""

    path: str
    category: str


@dataclass(frozen=True)
class DataSet:
    """A data set as its publisher describes it.

    Attributes
    ----------
    published : dict of str to tuple of int
        The published number of images of each category, by `columns`.
    columns : tuple of str
        What is counted.
    category_files : str
        Regular expression of the paths of files below a category's folder.
    shared_files : str
        Regular expression of the paths of files beside the categories' folders.
    read : callable
        (root, category name) -> Category.
    count : callable
        Category -> tuple of int, by `columns`.
    report : callable or None
        root -> list of str: what is not as published, one line each. A data set with a report can
        only be prepared as a whole.
    """

    published: dict[str, tuple[int, ...]]
    columns: tuple[str, ...]
    category_files: str
    shared_files: str
    read: Callable[[Path, str], Category]
    count: Callable[[Category], tuple[int, ...]]
    report: Callable[[Path], list[str]] | None = None

    def locate(self, path: str) -> Location | None:
        """Where a file of the download belongs, or None if it is not part of the data set.

        Parameters
        ----------
        path : str
            Relative; the data set may be in one enclosing folder.
        """
        without_enclosing_folder = path.partition("/")[2]
        for inner in (path, without_enclosing_folder):
            category, _, rest = inner.partition("/")
            if category in self.published and re.fullmatch(self.category_files, rest):
                return Location(inner, category)
            if re.fullmatch(self.shared_files, inner):
                return Location(inner, "")
        return None


def count_mvtec(category: Category) -> tuple[int, int, int]:
    """Count the images for training, the good and the defective ones for the test."""
    n_defective = int(category.labels.sum())
    return len(category.train), len(category.test) - n_defective, n_defective


def count_visa(category: Category) -> tuple[int, int]:
    """Count the normal and the anomalous images."""
    n_train, n_good, n_defective = count_mvtec(category)
    return n_train + n_good, n_defective


def read_aitex_folder(root: Path, name: str) -> Category:
    """All images of one of the three folders of AITEX, as if it were a category."""
    return Category(name, train=[Sample(path) for path in iter_image_files(root / name)], test=[])


# Regular expressions of file names; hidden files match none.
IMAGE = rf"[^/.][^/]*(?i:{'|'.join(map(re.escape, sorted(EXTENSIONS)))})"
TEXT = r"[^/.][^/]*\.(?i:txt|md|csv)"
CREDITS = r"(?i:licen[cs]e|readme)[^/]*"

DATA_SETS = {
    "mvtec_ad": DataSet(
        published={
            "bottle": (209, 20, 63),
            "cable": (224, 58, 92),
            "capsule": (219, 23, 109),
            "carpet": (280, 28, 89),
            "grid": (264, 21, 57),
            "hazelnut": (391, 40, 70),
            "leather": (245, 32, 92),
            "metal_nut": (220, 22, 93),
            "pill": (267, 26, 141),
            "screw": (320, 41, 119),
            "tile": (230, 33, 84),
            "toothbrush": (60, 12, 30),
            "transistor": (213, 60, 40),
            "wood": (247, 19, 60),
            "zipper": (240, 32, 119),
        },
        columns=("train", "test good", "test defective"),
        category_files=rf"{TEXT}|(train/good|(test|ground_truth)/[^/.][^/]*)/{IMAGE}",
        shared_files=CREDITS,
        read=lambda root, name: load_folder(root / name),
        count=count_mvtec,
    ),
    "visa": DataSet(
        published={
            "candle": (1000, 100),
            "capsules": (602, 100),
            "cashew": (500, 100),
            "chewinggum": (503, 100),
            "fryum": (500, 100),
            "macaroni1": (1000, 100),
            "macaroni2": (1000, 100),
            "pcb1": (1004, 100),
            "pcb2": (1001, 100),
            "pcb3": (1006, 100),
            "pcb4": (1005, 100),
            "pipe_fryum": (500, 100),
        },
        columns=("normal", "anomalous"),
        category_files=rf"{TEXT}|Data/(Images|Masks)/[^/.][^/]*/{IMAGE}",
        shared_files=rf"{CREDITS}|split_csv/{TEXT}",
        read=load_visa,
        count=count_visa,
    ),
    "aitex": DataSet(  # its three folders take the place of categories
        published={CLEAN: (140,), DEFECTIVE: (105,), MASKS: ()},
        columns=("images",),
        category_files=rf"([^/.][^/]*/)?{IMAGE}",
        shared_files=CREDITS,
        read=read_aitex_folder,
        count=lambda category: (len(category.train),),
        report=report_anomalous_files,
    ),
}

# The five categories of the source experiments, and what their text says about them.
SOURCE_CATEGORIES = ("bottle", "cable", "hazelnut", "leather", "screw")
SOURCE_CLAIM = "about 1,500 training and 800 test images, 50-75 % anomalous"
