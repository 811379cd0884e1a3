"""ELPV: photographs of solar cells (Deitsch et al. 2019), from an installed package."""

import pandas as pd

from patchcore_helpers.data.category import Category, LabeledImage, Sample, split
from patchcore_helpers.data.credits import ELPV_LICENSE
from patchcore_helpers.files import package_folder

N_TRAIN = 200
N_GOOD_TEST = 200


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
    """Split ELPV by a seeded shuffle of the cells that surely work (probability 0).

    The first 200 are training images, the next 200 normal test images, the rest calibration images.
    All surely defective cells (probability 1) are test images. Cells of probability 1/3 and 2/3,
    about which the experts were not sure, are left out and counted.

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
    table = elpv_table()
    table = table[table["type"] == name.split("/")[1]]
    normal: list[LabeledImage]
    normal = [Sample(path) for path in table["path"][table["probability"] == 0]]
    train, good, calibration = split(normal, N_TRAIN, N_GOOD_TEST, seed=seed, in_order=False)
    defective = [Sample(path, 1, "defective") for path in table["path"][table["probability"] == 1]]

    probability = table["probability"].round(2)
    left_out = {
        "defect probability 1/3": int((probability == 0.33).sum()),
        "defect probability 2/3": int((probability == 0.67).sum()),
    }
    return Category(name, train, [*good, *defective], calibration, left_out, ELPV_LICENSE)
