"""Exact indexes: every query is compared with every stored vector."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from sklearn.neighbors import NearestNeighbors

from patchcore_helpers.core.distances import products_form, single_threaded_workers
from patchcore_helpers.core.index.base import BLOCK_ENTRIES, Found, Index, rank_by_true_distance
from patchcore_helpers.core.index.bound import SubspaceBound, smallest_of_each

# A block of queries and a block of stored vectors give a table of QUERIES x STORED numbers, which
# stays in the cache of one core while it is searched.
QUERIES = 512
STORED = 2048
TABLE = 2**21  # numbers in a table of bounds, which has a column for every stored vector
MOST_CANDIDATES = 1 / 64  # of the stored vectors, for a query, on average; more do not pay
ROUNDING = 1e-5  # of a bound, relative to the squared lengths
TABLE_ON_GPU = 2**26  # numbers; what a GPU needs to be busy
GROUPS = 64  # of the columns of a table; see `smallest_entries`
PAIR_NUMBERS = 2**17  # of the vectors of some pairs: half a megabyte stays in the cache


@dataclass(kw_only=True, eq=False)
class ExactIndex(Index):
    """Every query compared with every stored vector by matrix products, on any device.

    The candidates are those with the smallest ||q - m||^2 = ||q||^2 - 2 q.m + ||m||^2. The returned
    distances are then computed from q - m directly, so that cancellation cannot spoil them. Of
    wide vectors, a shorter product rules out most stored vectors first (`SubspaceBound`).

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

    whole: "StoredVectors" = field(init=False, repr=False)
    bound: SubspaceBound | None = field(init=False, repr=False, default=None)
    short: "StoredVectors | None" = field(init=False, repr=False, default=None)

    def _build(self, centered: torch.Tensor) -> None:
        self.whole = StoredVectors.of(centered)
        self.bound = SubspaceBound.of(centered)
        self.short = StoredVectors.of(self.bound.shorten(centered)) if self.bound else None

    @property
    def resident_bytes(self) -> int:
        total = super().resident_bytes + self.whole.nbytes
        if self.bound and self.short:
            total += self.bound.axes.nbytes + self.short.nbytes
        return total

    def _search(self, patches: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self.bound and self.short:
            found = self._search_by_bound(patches, k, self.bound, self.short)
            if found:
                return found
        rows = self._nearest_rows(patches - self.mean, k)
        return rank_by_true_distance(patches, rows, self.vectors[rows], k)

    def _nearest_rows(self, centered: torch.Tensor, k: int) -> torch.Tensor:
        """The rows of the k nearest stored vectors by the matrix product, shape (n, k)."""
        found = []
        for start in range(0, len(self.whole.minus_twice), STORED):
            table = self.whole.table(centered, slice(start, start + STORED))
            values, columns = smallest_entries(table, k)
            found.append((values, columns + start))
        rows = found[0][1]
        if len(found) > 1:
            values = torch.cat([block[0] for block in found], dim=1)
            rows = torch.cat([block[1] for block in found], dim=1)
            rows = rows.gather(1, values.topk(k, largest=False).indices)
        return rows.clamp(max=self.size - 1)  # a square that overflows is as far as what was filled

    def _search_by_bound(
        self, patches: torch.Tensor, k: int, bound: SubspaceBound, short: "StoredVectors"
    ) -> Found | None:
        """Distances and rows, compared in full only where the bound allows it; see `bound`.

        None if it allows so many that the product of all is faster.
        """
        centered = patches - self.mean
        squared_lengths = centered.square().sum(1)
        table = short.table(bound.shorten(centered), slice(None))
        # What is at most as far as the k rows with the smallest bounds is a candidate.
        rows = smallest_entries(table, k)[1].clamp(max=self.size - 1)
        farthest = rank_by_true_distance(patches, rows, self.vectors[rows], k)[0][:, -1].square()
        rounding = ROUNDING * (squared_lengths + short.longest)
        queries, rows = entries_up_to(table, farthest - squared_lengths + rounding)
        if len(rows) > len(patches) * self.size * MOST_CANDIDATES:
            return None
        distances = distances_of_pairs(patches, queries, self.vectors, rows)
        nearest = smallest_of_each(distances, queries, len(patches), k)
        return distances[nearest], rows[nearest]

    def _blocks(self, queries: torch.Tensor, k: int) -> Sequence[torch.Tensor]:
        columns = len(self.whole.minus_twice) if self.bound else STORED
        if queries.device.type != "cpu":
            return queries.split(max(1, TABLE_ON_GPU // max(columns, k * self.width)))
        rows = min(QUERIES, TABLE // columns, BLOCK_ENTRIES // (k * self.width))
        return queries.split(max(1, rows))

    def _for_each(
        self,
        search: Callable[[tuple[torch.Tensor, ...]], None],
        parts: Sequence[tuple[torch.Tensor, ...]],
    ) -> None:
        on_processor = self.mean.device.type == "cpu"
        if on_processor and len(parts) > 1 and torch.get_num_threads() > 1:
            with single_threaded_workers() as for_each:
                for_each(search, parts)
        else:
            super()._for_each(search, parts)


@dataclass(frozen=True)
class StoredVectors:
    """Vectors in the form that a matrix product takes, filled up to whole groups of columns.

    Attributes
    ----------
    minus_twice : float32 tensor of shape (rows, width)
    squared_norms : float32 tensor of shape (rows,)
        Infinite in the rows that were filled in: these are farther than any other.
    longest : tensor
        The largest squared norm.
    """

    minus_twice: torch.Tensor
    squared_norms: torch.Tensor
    longest: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.minus_twice.nbytes + self.squared_norms.nbytes

    @classmethod
    def of(cls, vectors: torch.Tensor) -> "StoredVectors":
        """The stored form of vectors."""
        missing = -len(vectors) % GROUPS
        pad = torch.nn.functional.pad
        norms = vectors.square().sum(1)
        return cls(
            pad(-2 * vectors, (0, 0, 0, missing)),
            pad(norms, (0, missing), value=math.inf),
            norms.max(),
        )

    def table(self, queries: torch.Tensor, block: slice) -> torch.Tensor:
        """Squared distances to the vectors of a block, less ||q||^2, shape (n, rows of it).

        ||q||^2 is the same for every stored vector, so a ranking does not need it.
        """
        return products_form(queries, self.minus_twice[block], self.squared_norms[block])


def distances_of_pairs(
    patches: torch.Tensor, queries: torch.Tensor, vectors: torch.Tensor, rows: torch.Tensor
) -> torch.Tensor:
    """The distance of each pair of a patch and a stored vector, float32 tensor of shape (pairs,).

    >>> corners = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    >>> distances_of_pairs(corners, torch.tensor([0, 1]), corners, torch.tensor([1, 1]))
    tensor([5., 0.])
    """
    distances = torch.empty(len(queries), device=patches.device)
    at_once = max(1, PAIR_NUMBERS // patches.shape[1])
    if patches.device.type != "cpu":
        at_once = max(1, len(queries))
    parts = zip(*(tensor.split(at_once) for tensor in (queries, rows, distances)), strict=True)
    for some_queries, some_rows, found in parts:
        difference = patches[some_queries].sub_(vectors[some_rows])
        found.copy_(torch.linalg.vector_norm(difference, dim=1))
    return distances


def entries_up_to(table: torch.Tensor, limits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of every entry that is at most the limit of its row.

    Examples
    --------
    >>> entries_up_to(torch.arange(128.0)[None], torch.tensor([1.5]))
    (tensor([0, 0]), tensor([0, 1]))
    """
    grouped = table.view(len(table), -1, GROUPS)  # column c is in group c % GROUPS
    rows, groups = (grouped.amin(1) <= limits[:, None]).nonzero(as_tuple=True)
    pairs, places = (grouped[rows, :, groups] <= limits[rows, None]).nonzero(as_tuple=True)
    return rows[pairs], places * GROUPS + groups[pairs]


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

    @property
    def resident_bytes(self) -> int:
        return super().resident_bytes + self.size * self.width * 4  # scikit-learn's own copy

    def _search(self, patches: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        queries = (patches - self.mean).numpy()
        rows = torch.from_numpy(self.neighbors.kneighbors(queries, k, return_distance=False))
        return rank_by_true_distance(patches, rows, self.vectors[rows], k)
