"""VisA (Zou et al. 2022) in its original layout."""

from pathlib import Path

import pandas as pd

from patchcore_helpers.data.category import Category, Sample
from patchcore_helpers.errors import InputError
from patchcore_helpers.files import safe_path


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
    InputError
        If the table or one of its columns is missing, does not know the object, leads outside
        the folder, or names a file that is missing.
    """
    csv = Path(folder) / "split_csv" / "1cls.csv"
    archive = "take it from the VisA archive"
    try:
        table = pd.read_csv(csv, dtype=str, index_col=False).fillna("")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{csv}: cannot be read ({reason}); {archive}") from None
    missing = {"object", "split", "label", "image", "mask"} - set(table.columns)
    if missing:
        raise InputError(f"{csv}: has no column {', '.join(sorted(missing))}; {archive}")
    rows = table[table["object"] == name]
    if rows.empty:
        known = ", ".join(table["object"].unique())
        raise InputError(f"visa/{name}: unknown object; {csv} has {known}")

    def inside(path):
        safe = safe_path(path)
        if safe is None:
            raise InputError(f"{csv}: path {path!r} leads outside {folder}; correct it")
        file = Path(folder) / safe
        if not file.is_file():
            raise InputError(f"{csv}: {file} is missing; {archive}")
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
            raise InputError(
                f"{csv}: {row.image} is {row.split} and {row.label}; "
                "known are train and normal, test and normal, test and anomaly"
            )
    if not train or not test:
        raise InputError(f"{csv}: {name} has {len(train)} training, {len(test)} test images")
    return Category(f"visa/{name}", train, test)
