"""Exact indexes: every query is compared with every stored vector."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from sklearn.neighbors import NearestNeighbors

from patchcore_helpers.core.distances import products_form, single_threaded_workers
from patchcore_helpers.core.index.base import BLOCK_ENTRIES, Found, Index, rank_by_true_distance

# A block of queries and a block of stored vectors give a table of QUERIES x STORED numbers, which
# stays in the cache of one core while it is searched.
QUERIES = 512
STORED = 2048
TABLE_ON_GPU = 2**26  # numbers; what a GPU needs to be busy
GROUPS = 64  # of the columns of a table; see `smallest_entries`


@dataclass(kw_only=True, eq=False)
class ExactIndex(Index):
    """Brute force by matrix products, on any device.

    The candidates are those with the smallest ||q - m||^2 = ||q||^2 - 2 q.m + ||m||^2. The returned
    distances are then computed from q - m directly, so that cancellation cannot spoil them.

    Examples
    --------
    >>> import numpy as np
    >>> index = ExactIndex().fit(np.array([[0.0, 0.0], [3.0, 4.0]], np.float32))
    >>> distances, rows = index.query(np.array([[3.0, 3.0]]))
    >>> distances, rows
    (array([[1.]], dtype=float32), array([[1]]))
    """

    kind: ClassVar[str] = "exact"
    on_any_device: ClassVar[bool] = True

    minus_twice: torch.Tensor = field(init=False, repr=False)
    squared_norms: torch.Tensor = field(init=False, repr=False)

    def _build(self, centered: torch.Tensor) -> None:
        # Filled up to whole groups with rows that are infinitely far from everything.
        missing = -len(centered) % GROUPS
        pad = torch.nn.functional.pad
        self.minus_twice = pad(-2 * centered, (0, 0, 0, missing))
        self.squared_norms = pad(centered.square().sum(1), (0, missing), value=math.inf)

    def _search(self, patches: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self._nearest_rows(patches, k)
        return rank_by_true_distance(patches, rows, self.vectors[rows], k)

    def _nearest_rows(self, patches: torch.Tensor, k: int) -> torch.Tensor:
        """The rows of the k nearest stored vectors by the matrix product, shape (n, k)."""
        centered = patches - self.mean
        found = []
        for start in range(0, len(self.minus_twice), STORED):
            block = slice(start, start + STORED)
            # ||q||^2 is the same for every stored vector, so the ranking does not need it.
            table = products_form(centered, self.minus_twice[block], self.squared_norms[block])
            values, columns = smallest_entries(table, k)
            found.append((values, columns + start))
        rows = found[0][1]
        if len(found) > 1:
            values = torch.cat([block[0] for block in found], dim=1)
            rows = torch.cat([block[1] for block in found], dim=1)
            rows = rows.gather(1, values.topk(k, largest=False).indices)
        return rows.clamp(max=self.size - 1)  # a square that overflows is as far as what was filled

    def _blocks(self, queries: torch.Tensor, k: int) -> Sequence[torch.Tensor]:
        if queries.device.type != "cpu":
            return queries.split(max(1, TABLE_ON_GPU // self._entries_per_query(k)))
        return queries.split(max(1, min(QUERIES, BLOCK_ENTRIES // self._entries_per_query(k))))

    def _for_each(
        self, search: Callable[[torch.Tensor], Found], blocks: Sequence[torch.Tensor]
    ) -> list[Found]:
        on_processor = blocks[0].device.type == "cpu"
        if on_processor and len(blocks) > 1 and torch.get_num_threads() > 1:
            with single_threaded_workers() as for_each:
                return for_each(search, blocks)
        return super()._for_each(search, blocks)

    def _entries_per_query(self, k: int) -> int:
        return max(STORED, k * self.width)


def smallest_entries(table: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k smallest entries of every row, or all of them, and their columns.

    Looking for the place of a minimum takes several times as long as looking for its value. So the
    columns are dealt out to groups, the smallest value of each group is found, and only the k
    groups with the smallest of these values are searched: the k smallest entries are in them.

    Parameters
    ----------
    table : float tensor of shape (n, columns); `columns` is a multiple of `GROUPS`
    k : int

    Returns
    -------
    values : float tensor of shape (n, min(k, columns)), ascending
    columns : int64 tensor of the same shape

    Examples
    --------
    >>> table = torch.arange(128.0).flip(0)[None]
    >>> smallest_entries(table, 3)
    (tensor([[0., 1., 2.]]), tensor([[127, 126, 125]]))
    """
    n_rows, n_columns = table.shape
    if k >= GROUPS or n_columns == GROUPS:
        return table.topk(min(k, n_columns), largest=False)
    grouped = table.view(n_rows, -1, GROUPS)  # column c is in group c % GROUPS
    depth = grouped.shape[1]
    groups = grouped.amin(1).topk(k, largest=False).indices
    members = grouped.gather(2, groups[:, None].expand(-1, depth, -1)).flatten(1)
    values, places = members.topk(min(k, members.shape[1]), largest=False)
    columns = places // k * GROUPS + groups.gather(1, places % k)
    return values, columns


@dataclass(kw_only=True, eq=False)
class SklearnIndex(Index):
    """Brute force as scikit-learn does it: an independent baseline."""

    kind: ClassVar[str] = "sklearn"

    neighbors: NearestNeighbors = field(init=False, repr=False)

    def _build(self, centered: torch.Tensor) -> None:
        self.neighbors = NearestNeighbors(algorithm="brute").fit(centered.numpy())

    def _search(self, patches: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        queries = (patches - self.mean).numpy()
        rows = torch.from_numpy(self.neighbors.kneighbors(queries, k, return_distance=False))
        return rank_by_true_distance(patches, rows, self.vectors[rows], k)
