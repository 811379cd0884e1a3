"""The catalog of data sets: from a name or a folder to a `Category`."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from patchcore_helpers.data.aitex import load_aitex
from patchcore_helpers.data.credits import PREPARED
from patchcore_helpers.data.elpv import load_elpv
from patchcore_helpers.data.folder import load_folder
from patchcore_helpers.data.synthetic import RENDERED
from patchcore_helpers.data.visa import load_visa
from patchcore_helpers.errors import InputError

# What loads the categories that need no downloaded files; called with the name and the seed.
CATALOG = {"elpv/mono": load_elpv, "elpv/poly": load_elpv, **RENDERED}


def category_names():
    """The category names that need no files of one's own."""
    return list(CATALOG)


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
        raise InputError(f"seed={seed!r}: give a whole number from 0")
    if good is None and "::" in name and not Path(name).exists():
        name, _, good = name.rpartition("::")
    below = Path(data_dir) / name
    is_below = below.is_dir() and not (Path(name).is_absolute() or name.startswith("."))
    if good:
        return load_folder(*((below, name) if is_below else (name,)), good=good, seed=seed)
    loader = CATALOG.get(name)
    if loader:
        return loader(name, seed)
    dataset, _, below_it = name.partition("/")
    visa = Path(data_dir) / "visa"
    if dataset == "visa" and ((visa / "split_csv").is_dir() or (below / "Data").is_dir()):
        return replace(load_visa(visa, below_it), license=PREPARED[dataset])
    if dataset == "aitex" and (Path(data_dir) / "aitex").is_dir() and not below.is_dir():
        return load_aitex(Path(data_dir) / "aitex", name, seed)
    if is_below:
        category = load_folder(below, name, seed=seed)
        return replace(category, license=PREPARED.get(dataset, category.license))
    if Path(name).is_dir():
        return load_folder(name, seed=seed)
    if dataset in PREPARED:
        raise InputError(
            f"{name}: not found below --data-dir ({data_dir}); prepare it: patchcore-course "
            f"prepare {dataset} --source PATH --data-dir {Path(data_dir).resolve()}"
        )
    raise InputError(
        f"{name}: no such category or folder; known categories: {', '.join(category_names())}, "
        f"a name below --data-dir ({data_dir}), or a folder of images"
    )
