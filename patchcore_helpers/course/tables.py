"""Tables as a reader wants them: an estimate and its interval in one cell."""

from collections.abc import Mapping

import pandas as pd


def with_intervals(
    table: pd.DataFrame, names: Mapping[str, tuple[str, ...]], decimals: int = 3
) -> pd.DataFrame:
    """Numbers in words: under each name the estimate and, in parentheses, its interval.

    Parameters
    ----------
    table : DataFrame
    names : mapping of name to columns
        Either (estimate, low, high), or (value,) alone. What `table` lacks is left out.
    decimals : int

    Returns
    -------
    DataFrame of str, with the index of `table`

    Examples
    --------
    >>> table = pd.DataFrame({"auroc": [0.94], "low": [0.9], "high": [0.97], "pixel": [0.99]})
    >>> shown = with_intervals(
    ...     table, {"AUROC (95 %)": ("auroc", "low", "high"), "pixels": ("pixel",)}, decimals=2
    ... )
    >>> shown.to_dict("list")
    {'AUROC (95 %)': ['0.94 (0.90 to 0.97)'], 'pixels': ['0.99']}
    """
    shown = {}
    for name, columns in names.items():
        if not set(columns) <= set(table.columns):
            continue
        numbers = [table[column].map(f"{{:.{decimals}f}}".format) for column in columns]
        shown[name] = numbers[0]
        if len(columns) > 1:
            _, low, high = numbers
            shown[name] = numbers[0] + " (" + low + " to " + high + ")"
    return pd.DataFrame(shown, index=table.index)
