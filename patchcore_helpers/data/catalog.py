"""The catalog of data sets: from a name or a folder to a `Category`.

To add a data set, write a function that returns a `Category`. One that needs no downloaded files
goes into `CATALOG`; one with a layout of its own, below the data folder, into `LAYOUTS`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from patchcore_helpers.data.aitex import load_aitex
from patchcore_helpers.data.category import Category
from patchcore_helpers.data.credits import PREPARED
from patchcore_helpers.data.elpv import ELPV_NAMES, SPLITS, load_elpv, load_elpv_apart
from patchcore_helpers.data.folder import load_folder
from patchcore_helpers.data.synthetic import RENDERED
from patchcore_helpers.data.visa import load_visa
from patchcore_helpers.errors import InputError
from patchcore_helpers.validation import check_choice, check_seed

# The built-in categories, which need no downloaded files, by name. The function that loads one is
# called with the name and the seed.
CATALOG: dict[str, Callable[[str, int], Category]] = {
    "elpv/mono": load_elpv,
    "elpv/poly": load_elpv,
    **RENDERED,
}


@dataclass(frozen=True)
class Layout:
    """The layout of a data set below the data folder that is not MVTec AD's.

    Attributes
    ----------
    applies : callable
        (folder of the data set, category) -> whether the category there is in this layout. A
        folder of your own may have the name of a data set, and then it is read as any other.
    load : callable
        (folder of the data set, category, seed) -> Category.
    """

    applies: Callable[[Path, str], bool]
    load: Callable[[Path, str, int], Category]


def _is_visa(folder: Path, category: str) -> bool:
    return (folder / "split_csv").is_dir() or (folder / category / "Data").is_dir()


def _is_aitex(folder: Path, category: str) -> bool:
    """The fabrics of AITEX are no folders: each is spread over three."""
    return folder.is_dir() and not (folder / category).is_dir()


LAYOUTS = {
    "visa": Layout(_is_visa, lambda folder, category, seed: load_visa(folder, category)),
    "aitex": Layout(_is_aitex, load_aitex),
}


def category_names() -> list[str]:
    """The names of the built-in categories, which need no downloaded files."""
    return list(CATALOG)


def load_category(
    name: str | Path,
    *,
    data_dir: str | Path = "data",
    seed: int = 0,
    good: str | None = None,
    split: str = "random",
) -> Category:
    """Find a category by name or folder.

    Code that has a folder, and no name, calls `patchcore_helpers.data.folder.load_folder`.

    Parameters
    ----------
    name : str or path
        One of `category_names`, a path below `data_dir` such as "mvtec_ad/bottle",
        "visa/candle" or "aitex/04", or a folder of your own, see `load_folder`. They are looked
        up in this order; "./mvtec_ad/bottle" is never looked up below `data_dir`.
    data_dir : path
        The folder that holds ``mvtec_ad/`` and other data sets.
    seed : int, from 0
        Seed of the split, for data sets that come without one (ELPV, AITEX, folders with good and
        bad images side by side), and of rendered images. Such a random split has images of one
        group, such as one solar module, on both sides, which flatters every result: see `split`.
    good : str, optional
        The sub-folder of the normal images if `name` is a folder, or "." for those directly in it;
        ``folder::good`` as the name means the same.
    split : "random" or "stretch"
        How ELPV is split, see `load_elpv` and `load_elpv_apart`. All other data sets have one way.

    Returns
    -------
    Category

    Raises
    ------
    InputError
        If there is no such category, its files are not in the expected layout, or the seed is
        negative.

    Examples
    --------
    >>> category = load_category("elpv/mono", seed=0)
    >>> len(category.train), int((category.labels == 0).sum()), int(category.labels.sum())
    (200, 200, 313)
    """
    check_seed(seed, "seed")
    check_choice(split, "split", SPLITS)
    name = str(name)
    data_dir = Path(data_dir)
    if good is None:
        name, good = _parse_name(name)
    if not good:
        if name in ELPV_NAMES and split == "stretch":
            return load_elpv_apart(name, seed)
        if name in CATALOG:
            return CATALOG[name](name, seed)
        dataset, _, category = name.partition("/")
        layout = LAYOUTS.get(dataset)
        if layout and layout.applies(data_dir / dataset, category):
            return layout.load(data_dir / dataset, category, seed)
    if _is_below(data_dir, name):
        return _load_below(data_dir, name, good, seed)
    if good or Path(name).is_dir():
        return load_folder(name, good=good, seed=seed)
    raise _not_found(name, data_dir)


def _parse_name(name: str) -> tuple[str, str | None]:
    """The folder and the sub-folder of its normal images in ``folder::good``."""
    if "::" not in name or Path(name).exists():
        return name, None
    folder, _, good = name.rpartition("::")
    return folder, good


def _is_below(data_dir: Path, name: str) -> bool:
    """Whether the name means a folder below the data folder, and not one elsewhere."""
    is_elsewhere = Path(name).is_absolute() or name.startswith(".")
    return not is_elsewhere and (data_dir / name).is_dir()


def _load_below(data_dir: Path, name: str, good: str | None, seed: int) -> Category:
    """A folder below the data folder; that of a known data set carries its license."""
    category = load_folder(data_dir / name, name, good=good, seed=seed)
    dataset = name.partition("/")[0]
    return replace(category, license=PREPARED.get(dataset, category.license))


def _not_found(name: str, data_dir: Path) -> InputError:
    dataset = name.partition("/")[0]
    if dataset in PREPARED:
        return InputError(
            f"{name}: not found below --data-dir ({data_dir}); prepare it: patchcore-course "
            f"prepare {dataset} --source PATH --data-dir {data_dir.resolve()}"
        )
    return InputError(
        f"{name}: no such category or folder; known categories: {', '.join(category_names())}, "
        f"a name below --data-dir ({data_dir}), or a folder of images"
    )
