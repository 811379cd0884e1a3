"""ELPV: photographs of solar cells (Deitsch et al. 2019), from an installed package.

The files are in the order of the solar modules that the cells were cut from, and a module has a
look of its own: its maker's cells, one camera, one exposure, often one kind of damage. Cells of one
module among both the training and the test images make every result look better than it would be on
the next module. labels.csv does not name the modules, so *stretches* of consecutive files stand in
for them: `load_elpv_folds` keeps whole stretches for the test.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from patchcore_helpers.data.category import Category, LabeledImage, Sample, split
from patchcore_helpers.data.credits import ELPV_LICENSE
from patchcore_helpers.errors import InputError
from patchcore_helpers.files import package_folder
from patchcore_helpers.validation import check_seed

ELPV_NAMES = ("elpv/mono", "elpv/poly")
SPLITS = ("stretch", "random")  # whether whole stretches are kept for the test
N_TRAIN = 200
N_GOOD_TEST = 200
N_CALIBRATION = 100  # of a fold
N_STRETCHES = 10  # of the splits into one category


@dataclass(frozen=True)
class CellSample(Sample):
    """One solar cell: a `Sample` that knows its place among the files.

    Attributes
    ----------
    number : int
        The number in the name of its file, from 1 to 2624.
    group : int
        The stretch of consecutive files to which it belongs, from 0; a stand-in for its module.
    """

    number: int = 0
    group: int = 0


def elpv_table() -> pd.DataFrame:
    """Read the labels of the ELPV data set.

    Returns
    -------
    DataFrame
        One row for each cell, with the columns path, probability (that the cell is defective, by
        the experts: 0, 1/3, 2/3 or 1) and type ("mono" or "poly").

    Raises
    ------
    InputError
        If the `elpv-dataset` package is not installed.
    """
    data = package_folder("elpv_dataset", "elpv/*: the elpv-dataset package") / "data"
    table = pd.read_csv(data / "labels.csv", sep=r"\s+", names=["path", "probability", "type"])
    table["path"] = [data / path for path in table["path"]]
    return table


def load_elpv(name: str, seed: int) -> Category:
    """Split ELPV by a seeded shuffle of the cells that work beyond doubt (probability 0).

    The first 200 are training images, the next 200 normal test images, the rest calibration images.
    All cells that are defective beyond doubt (probability 1) are test images. Cells of probability
    1/3 and 2/3, about which the experts were not sure, are left out and counted.

    Cells of one module are on both sides of this split: see `load_elpv_folds`. The samples are
    `CellSample`; their groups are ten stretches of consecutive files.

    Parameters
    ----------
    name : str
        "elpv/mono" or "elpv/poly".
    seed : int, from 0
        Seed of the train/test split.

    Returns
    -------
    Category

    Raises
    ------
    InputError
        If the `elpv-dataset` package is not installed.
    """
    table = _table_of(name)
    cells = _usable_cells(table, N_STRETCHES)
    normal: list[LabeledImage] = [cell for cell in cells if cell.label == 0]
    train, good, calibration = split(normal, N_TRAIN, N_GOOD_TEST, seed=seed, in_order=False)
    defective = [cell for cell in cells if cell.label == 1]
    test = [*good, *defective]
    return Category(name, train, test, calibration, _count_unsure(table), ELPV_LICENSE)


def load_elpv_apart(name: str, seed: int) -> Category:
    """Split ELPV once, so that no stretch of files is both in the bank and in the test.

    All usable cells of the type, in the order of their files, are cut into ten stretches of equal
    length. All cells of every other one, from the second on, are the test. Of the normal cells of
    the first, the third and so on, in a seeded shuffle, 200 are training images, the rest
    calibration images. Where `load_elpv_folds` takes a bank for every fold, this takes one.

    Parameters
    ----------
    name : str
        "elpv/mono" or "elpv/poly".
    seed : int, from 0
        Seed of the choice of the training images; the stretches do not depend on it.

    Returns
    -------
    Category
        The samples are `CellSample`; their groups are the ten stretches. ``left_out`` counts the
        cells of probability 1/3 and 2/3, and the defective cells of the bank's stretches.

    Raises
    ------
    InputError
        If `name` is not a type of ELPV; if the `elpv-dataset` package is not installed.

    Examples
    --------
    >>> apart = load_elpv_apart("elpv/mono", seed=0)
    >>> {cell.group for cell in apart.train}, {cell.group for cell in apart.test}
    ({0, 2, 4, 6, 8}, {1, 3, 5, 7, 9})
    """
    table = _table_of(name)
    learned, tested = _cells_apart(table)
    test: list[LabeledImage] = [*tested]
    normal: list[LabeledImage] = [cell for cell in learned if cell.label == 0]
    train, calibration = split(normal, N_TRAIN, seed=seed, in_order=False)
    left_out = {
        **_count_unsure(table),
        "defective, of the bank's stretches": len(learned) - len(normal),
    }
    return Category(name, train, test, calibration, left_out, ELPV_LICENSE)


def load_bank_defects(name: str) -> list[CellSample]:
    """The defective cells of the stretches from which `load_elpv_apart` takes its bank.

    That split uses them neither in the bank nor in the test: they show what happens if defects get
    in among the training images. Defective cells of the test's stretches would be strange to the
    bank even where they are intact.

    Parameters
    ----------
    name : str
        "elpv/mono" or "elpv/poly".

    Returns
    -------
    list of CellSample
        In the order of their files.

    Raises
    ------
    InputError
        If `name` is not a type of ELPV; if the `elpv-dataset` package is not installed.

    Examples
    --------
    >>> defects = load_bank_defects("elpv/mono")
    >>> len(defects), {cell.group for cell in defects}
    (184, {0, 2, 4, 6, 8})
    """
    learned, _ = _cells_apart(_table_of(name))
    return [cell for cell in learned if cell.label == 1]


def _cells_apart(table: pd.DataFrame) -> tuple[list[CellSample], list[CellSample]]:
    """The usable cells of every other stretch, from the first on, for the bank; and the others."""
    cells = _usable_cells(table, N_STRETCHES)
    learned = [cell for cell in cells if cell.group % 2 == 0]
    return learned, [cell for cell in cells if cell.group % 2 == 1]


def nearest_in_files(
    cells: Sequence[CellSample], candidates: Sequence[CellSample]
) -> list[CellSample]:
    """For each of some cells, the candidate with the nearest file number, taken once.

    Files are in the order of the modules, so a near file is likely a cell of the same module.

    Parameters
    ----------
    cells : sequence of CellSample
        They choose in this order.
    candidates : sequence of CellSample
        At least as many. Of two that are equally near, the first is taken.

    Returns
    -------
    list of CellSample
        As many as `cells`.

    Raises
    ------
    InputError
        If there are fewer candidates than cells.
    """
    if len(candidates) < len(cells):
        raise InputError(
            f"candidates: {len(candidates)} for {len(cells)} cells; give at least as many"
        )
    free = list(candidates)
    taken = []
    for cell in cells:
        distances = [abs(candidate.number - cell.number) for candidate in free]
        taken.append(free.pop(int(np.argmin(distances))))
    return taken


def _table_of(name: str) -> pd.DataFrame:
    """The rows of `elpv_table` of one type of cells."""
    if name not in ELPV_NAMES:
        raise InputError(f"{name}: has no stretches of files; choose {' or '.join(ELPV_NAMES)}")
    table = elpv_table()
    return table[table["type"] == name.split("/")[1]]


def load_elpv_folds(name: str, n_folds: int = 5, seed: int = 0) -> list[Category]:
    """Split ELPV by stretches of consecutive files, each of which is the test of one fold.

    Stretches stand in for solar modules, which labels.csv does not name: a fold asks how well a
    detector does on modules that it has not seen. All usable cells of the type (functional or
    defective beyond doubt), in the order of their files, are cut into `n_folds` stretches of equal
    length. Fold i is tested on all cells of stretch i. Of the normal cells of the other stretches,
    in a seeded shuffle, 200 are its training images and the next 100 its calibration images: these
    two are exchangeable with each other, and neither is with the test images. That is the point.

    Parameters
    ----------
    name : str
        "elpv/mono" or "elpv/poly".
    n_folds : int, from 2
    seed : int, from 0
        Seed of the choice of training and calibration images; the stretches do not depend on it.

    Returns
    -------
    list of Category
        Their test images together are all usable cells, each once. Samples are `CellSample`; the
        group of a sample is the number of its stretch. ``left_out`` counts the cells of probability
        1/3 and 2/3, and the cells of other stretches that the fold does not use.

    Raises
    ------
    InputError
        If `name` is not a type of ELPV, if a stretch has no normal or no defective cell, or if too
        few normal cells are left for training; if the `elpv-dataset` package is not installed.

    Examples
    --------
    >>> folds = load_elpv_folds("elpv/mono", n_folds=5, seed=0)
    >>> [int(fold.labels.sum()) for fold in folds]
    [165, 61, 52, 26, 9]
    >>> sorted({cell.group for cell in folds[3].train})
    [0, 1, 2, 4]
    """
    if not isinstance(n_folds, (int, np.integer)) or n_folds < 2:
        raise InputError(f"n_folds={n_folds!r}: give a whole number from 2")
    check_seed(seed, "seed")
    table = _table_of(name)
    cells = _usable_cells(table, n_folds)
    unsure = _count_unsure(table)
    return [_fold(name, cells, stretch, unsure, seed) for stretch in range(n_folds)]


def _fold(
    name: str, cells: list[CellSample], stretch: int, unsure: dict[str, int], seed: int
) -> Category:
    """The category that is tested on one stretch and trained on the others."""
    test: list[LabeledImage] = [cell for cell in cells if cell.group == stretch]
    n_defective = sum(cell.label for cell in test)
    if n_defective in (0, len(test)):
        absent = "defective" if n_defective == 0 else "normal"
        raise InputError(f"{name}: stretch {stretch} has no {absent} cells; choose fewer folds")

    elsewhere = [cell for cell in cells if cell.group != stretch]
    normal: list[LabeledImage] = [cell for cell in elsewhere if cell.label == 0]
    needed = N_TRAIN + N_CALIBRATION
    if len(normal) < needed:
        raise InputError(
            f"{name}: {len(normal)} normal cells outside stretch {stretch}, {needed} are needed; "
            "choose more folds"
        )
    train, calibration, unused = split(normal, N_TRAIN, N_CALIBRATION, seed=seed, in_order=False)
    left_out = {
        **unsure,
        "defective, of other stretches": len(elsewhere) - len(normal),
        "normal, of other stretches, not drawn": len(unused),
    }
    return Category(name, train, test, calibration, left_out, ELPV_LICENSE)


def _usable_cells(table: pd.DataFrame, n_stretches: int) -> list[CellSample]:
    """The cells of probability 0 or 1 in the order of their files, cut into equal stretches."""
    usable = table[table["probability"].isin([0, 1])]
    cells = []
    for group, places in enumerate(np.array_split(np.arange(len(usable)), n_stretches)):
        stretch = usable.iloc[places]
        for path, probability in zip(stretch["path"], stretch["probability"], strict=True):
            label, kind = (1, "defective") if probability == 1 else (0, "good")
            number = int(path.stem.removeprefix("cell"))
            cells.append(CellSample(path, label, kind, number=number, group=group))
    return cells


def _count_unsure(table: pd.DataFrame) -> dict[str, int]:
    """How many cells are left out because the experts were not sure."""
    probability = table["probability"].round(2)
    return {
        "defect probability 1/3": int((probability == 0.33).sum()),
        "defect probability 2/3": int((probability == 0.67).sum()),
    }
