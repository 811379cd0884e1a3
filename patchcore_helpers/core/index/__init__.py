"""Ways to search a memory bank; `make_index` makes one by name. To add one: registry.py."""

from patchcore_helpers.core.index.base import Index, IndexRefused
from patchcore_helpers.core.index.exact import ExactIndex, SklearnIndex
from patchcore_helpers.core.index.faiss_indexes import (
    FlatIndex,
    HNSWIndex,
    IVFPQFastIndex,
    IVFPQIndex,
    IVFPQRefinedIndex,
    IVFSQ8Index,
)
from patchcore_helpers.core.index.registry import EXACT, INDEXES, make_index, settings_of

__all__ = [
    "EXACT",
    "INDEXES",
    "ExactIndex",
    "FlatIndex",
    "HNSWIndex",
    "IVFPQFastIndex",
    "IVFPQIndex",
    "IVFPQRefinedIndex",
    "IVFSQ8Index",
    "Index",
    "IndexRefused",
    "SklearnIndex",
    "make_index",
    "settings_of",
]
