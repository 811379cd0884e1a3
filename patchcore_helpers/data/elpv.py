"""ELPV: photographs of solar cells (Deitsch et al. 2019), from an installed package."""

import numpy as np
import pandas as pd

from patchcore_helpers.data.category import Category, Sample
from patchcore_helpers.data.credits import ELPV_LICENSE
from patchcore_helpers.files import package_folder

ELPV_TRAIN = ELPV_GOOD_TEST = 200


def elpv_table():
    """The labels of the ELPV data set: columns path, probability (of a defect) and type.

    Raises
    ------
    InputError
        If the `elpv-dataset` package is not installed.
    """
    data = package_folder("elpv_dataset", "elpv/*: the elpv-dataset package") / "data"
    table = pd.read_csv(data / "labels.csv", sep=r"\s+", names=["path", "probability", "type"])
    table["path"] = [data / path for path in table["path"]]
    return table


def load_elpv(name, seed):
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
    return Category(name, normal[:ELPV_TRAIN], test, normal[end:], left_out, ELPV_LICENSE)
