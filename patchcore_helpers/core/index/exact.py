"""Exact indexes: every query is compared with every stored vector."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from sklearn.neighbors import NearestNeighbors

from patchcore_helpers.core.index.base import Index, rank_by_true_distance


@dataclass(kw_only=True, eq=False)
class ExactIndex(Index):
    """Brute force by one matrix product per block of queries.

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

    centered: torch.Tensor = field(init=False, repr=False)
    squared_norms: torch.Tensor = field(init=False, repr=False)

    def _build(self, centered: torch.Tensor) -> None:
        self.centered = centered
        self.squared_norms = centered.square().sum(1)

    @property
    def resident_bytes(self) -> int:
        return super().resident_bytes + self.centered.nbytes + self.squared_norms.nbytes

    def _search(self, patches: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        # ||q||^2 is the same for every stored vector, so the ranking does not need it.
        ranking = torch.addmm(self.squared_norms, patches - self.mean, self.centered.T, alpha=-2)
        if k == 1:
            rows = ranking.argmin(1, keepdim=True)
        else:
            rows = ranking.topk(k, largest=False).indices
        return rank_by_true_distance(patches, rows, self.vectors[rows], k)

    def _entries_per_query(self, k: int) -> int:
        return max(self.size, k * self.width)


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
