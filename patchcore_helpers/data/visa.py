"""VisA (Zou et al. 2022) in its original layout."""

from pathlib import Path

import pandas as pd

from patchcore_helpers.data.category import Category, Sample
from patchcore_helpers.data.credits import PREPARED
from patchcore_helpers.errors import InputError, error_line
from patchcore_helpers.files import safe_path

COLUMNS = {"object", "split", "label", "image", "mask"}
HINT = "take it from the VisA archive"


def _read_split_table(csv: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(csv, dtype=str, index_col=False).fillna("")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error_line(error)
        raise InputError(f"{csv}: cannot be read ({reason}); {HINT}") from None
    missing = COLUMNS - set(table.columns)
    if missing:
        raise InputError(f"{csv}: has no column {', '.join(sorted(missing))}; {HINT}")
    return table


def _existing_file(folder: Path, path: str, csv: Path) -> Path:
    """A file below the folder that the table names."""
    safe = safe_path(path)
    if safe is None:
        raise InputError(f"{csv}: path {path!r} leads outside {folder}; correct it")
    file = folder / safe
    if not file.is_file():
        raise InputError(f"{csv}: {file} is missing; {HINT}")
    return file


def load_visa(folder: str | Path, name: str) -> Category:
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
        If the table or one of its columns is missing, does not contain the object, leads outside
        the folder, or names a file that is missing.
    """
    folder = Path(folder)
    csv = folder / "split_csv" / "1cls.csv"
    table = _read_split_table(csv)
    rows = table[table["object"] == name]
    if rows.empty:
        objects = ", ".join(table["object"].unique())
        raise InputError(f"visa/{name}: unknown object; {csv} has {objects}")

    category = Category(f"visa/{name}", train=[], test=[], license=PREPARED["visa"])
    for row in rows.itertuples():
        image = _existing_file(folder, row.image, csv)
        match row.split, row.label:
            case "train", "normal":
                category.train.append(Sample(image))
            case "test", "normal":
                category.test.append(Sample(image))
            case "test", "anomaly":
                mask = _existing_file(folder, row.mask, csv) if row.mask else None
                category.test.append(Sample(image, 1, "anomaly", mask))
            case _:
                raise InputError(
                    f"{csv}: {row.image} is {row.split} and {row.label}; "
                    "known are train and normal, test and normal, test and anomaly"
                )
    n_train = len(category.train)
    n_test = len(category.test)
    if not n_train or not n_test:
        raise InputError(f"{csv}: {name} has {n_train} training, {n_test} test images")
    return category
