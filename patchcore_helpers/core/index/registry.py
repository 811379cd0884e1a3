"""Indexes by name."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from patchcore_helpers.core.index.base import Index
from patchcore_helpers.core.index.exact import ExactIndex, SklearnIndex
from patchcore_helpers.core.index.faiss_indexes import (
    FlatIndex,
    HNSWIndex,
    IVFPQFastIndex,
    IVFPQIndex,
    IVFPQRefinedIndex,
    IVFSQ8Index,
)
from patchcore_helpers.errors import InputError

# A new index is a subclass of `Index` and an entry here.
INDEXES: dict[str, type[Index]] = {
    index.kind: index
    for index in (
        ExactIndex,
        SklearnIndex,
        FlatIndex,
        IVFPQIndex,
        IVFPQFastIndex,
        IVFSQ8Index,
        IVFPQRefinedIndex,
        HNSWIndex,
    )
}

EXACT = ("exact", "sklearn", "flat")  # kinds that compare every stored vector: one answer for all


def settings_of(kind: str) -> list[str]:
    """The names of an index's own settings.

    Examples
    --------
    >>> settings_of("hnsw"), settings_of("exact")
    (['links', 'ef_search'], [])
    """
    names = [field.name for field in fields(INDEXES[kind]) if field.init]
    return [name for name in names if name != "random_state"]


def make_index(index: str | Mapping[str, Any] = "exact", random_state: int = 0) -> Index:
    """An unfitted index, by name.

    Parameters
    ----------
    index : str or dict
        A kind, or ``{"kind": kind, setting: value, …}``. The kinds and their settings:

        - "exact", "sklearn", "flat": every stored vector compared, by PyTorch, scikit-learn, FAISS.
        - "ivf_pq" (n_clusters=None, nprobe=8, m=8, bits=8): see `IVFPQIndex`.
        - "ivf_pq_fast" (the same, bits=4 only): see `IVFPQFastIndex`.
        - "ivf_sq8" (n_clusters, nprobe): see `IVFSQ8Index`.
        - "ivf_pq_refined" (as "ivf_pq", k_factor=10): see `IVFPQRefinedIndex`.
        - "hnsw" (links=32, ef_search=64): see `HNSWIndex`.
    random_state : int
        Seed of the training, from 0 to 2**32 - 1.

    Returns
    -------
    Index
        With the settings as attributes; nprobe, ef_search and k_factor may change after `fit`.

    Raises
    ------
    InputError
        If there is no such kind or setting, or a value is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> vectors = np.random.default_rng(0).normal(size=(500, 20))
    >>> index = make_index({"kind": "ivf_pq_refined", "m": 4}).fit(vectors)
    >>> index.nprobe = 22
    >>> distances, rows = index.query(vectors[:3], k=2)
    >>> distances.shape, rows[:, 0].tolist()
    ((3, 2), [0, 1, 2])
    """
    settings = dict(index) if isinstance(index, Mapping) else {"kind": index}
    kind = settings.pop("kind", None)
    if not isinstance(kind, str) or kind not in INDEXES:
        raise InputError(f"index={index!r}: choose one of {', '.join(INDEXES)}")
    allowed = settings_of(kind)
    for name in settings:
        if name not in allowed:
            choices = ", ".join(allowed) or "none"
            raise InputError(f"index: {kind} has no setting {name!r}; its settings: {choices}")
    made = INDEXES[kind](random_state=random_state, **settings)
    made.check_settings()
    return made
