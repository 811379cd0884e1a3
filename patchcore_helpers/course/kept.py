"""Results that a notebook cannot measure itself, because their images are not ours to share.

`benchmarks/` keeps what its scripts measured; a lesson reads it here, so that its page shows the
numbers of the file and none that somebody typed.
"""

from pathlib import Path

import pandas as pd

import patchcore_helpers
from patchcore_helpers.errors import InputError

RESULTS = Path(patchcore_helpers.__file__).parents[1] / "benchmarks" / "results"


def kept_results(name: str) -> pd.DataFrame:
    """The rows that a benchmark has kept.

    Parameters
    ----------
    name : str
        The file in ``benchmarks/results/`` without its ``.csv``.

    Raises
    ------
    InputError
        If there is no such file, as in an installation without the repository.

    Examples
    --------
    >>> sorted(kept_results("aitex")["fabric"].unique())
    ['00', '01', '04']
    """
    path = RESULTS / f"{name}.csv"
    if not path.is_file():
        raise InputError(f"{path}: no such file; use the course from a clone of its repository")
    return pd.read_csv(path, dtype={"fabric": str})


def aitex_tile_aurocs() -> pd.DataFrame:
    """Tile AUROC on real strips: a row for each setting, a column for each fabric and the mean.

    Returns
    -------
    DataFrame
        Indexed by setting, the best mean first.
    """
    rows = kept_results("aitex")
    rows = rows[~rows["measure"].str.startswith("score:")]  # the same maps, scored differently
    table = rows.pivot_table(index="measure", columns="fabric", values="tile")
    table["mean"] = table.mean(axis=1)
    return table.sort_values("mean", ascending=False).rename_axis("setting").rename_axis(columns="")
