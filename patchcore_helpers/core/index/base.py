"""What every index does: find the nearest stored vectors of a query vector, exactly or nearly."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import torch

from patchcore_helpers.core.validation import as_patch_tensor, check_integer, check_seed
from patchcore_helpers.errors import InputError

BLOCK_ENTRIES = 2**22  # numbers per block (16 MB, near the caches): memory stays flat for any bank
FAISS_TABLE_ENTRIES = 4096  # numbers that FAISS keeps per query, such as its look-up tables
LARGEST_COUNT = 2**31 - 1

Found = tuple[torch.Tensor, torch.Tensor]  # distances and rows


class IndexRefused(InputError):
    """The memory bank has too few rows or channels for the settings of an index."""


@dataclass(kw_only=True, eq=False)
class Index(ABC):
    """The stored vectors of a memory bank, and a way to search them.

    A subclass has its settings as fields, says their ranges in `ranges`, and implements `_build`
    and `_search`. Vectors are searched centered on their mean, because a common offset adds nothing
    to a distance but loses precision; the distances returned are L2, computed from direct
    differences wherever the vectors themselves are stored.

    Attributes
    ----------
    random_state : int
        Seed of whatever is trained, from 0 to 2**32 - 1. The same seed gives the same index,
        however many threads there are.
    kind : str
        The name by which `make_index` knows the class.
    ranges : dict of str to (int, int)
        Smallest and largest value of each setting.
    on_any_device : bool
        Whether the search runs where the stored vectors are, on a GPU too; otherwise they are moved
        to the processor.
    stores_vectors : bool
        Whether the float32 vectors are needed for a query (or only codes that stand for them).
    size, width : int
        Rows and channels of the memory bank; set by `fit`.
    mean : float32 tensor of shape (width,)
        Mean of the stored vectors; set by `fit`.
    vectors : float32 tensor of shape (size, width)
        The stored vectors; of shape (0, width) where the index needs none.
    nbytes : int
        Bytes of the index in a file: of the stored vectors, or of what FAISS serializes, plus the
        vectors where true distances need them. For all that it holds in memory: `resident_bytes`.
    """

    kind: ClassVar[str]
    ranges: ClassVar[dict[str, tuple[int, int]]] = {}
    on_any_device: ClassVar[bool] = False
    stores_vectors: ClassVar[bool] = True

    random_state: int = 0

    size: int = field(init=False, repr=False, default=0)
    width: int = field(init=False, repr=False, default=0)
    nbytes: int = field(init=False, repr=False, default=0)
    mean: torch.Tensor = field(init=False, repr=False)
    vectors: torch.Tensor = field(init=False, repr=False)

    @property
    def resident_bytes(self) -> int:
        """Bytes that a fitted index holds in memory between two queries.

        Vectors are often held twice: as they were given, and centered or as FAISS keeps them.
        """
        return self.vectors.nbytes + self.mean.nbytes

    def check_settings(self) -> None:
        """Refuse a setting outside its range; every query asks again, as settings may change.

        Raises
        ------
        InputError
        """
        check_seed(self.random_state)
        for name, (low, high) in self.ranges.items():
            check_integer(getattr(self, name), name, low, high)

    def fit(self, vectors: np.ndarray | torch.Tensor) -> Self:
        """Take in the vectors of a memory bank.

        Parameters
        ----------
        vectors : float32 array, or tensor on any device, of shape (size, width)

        Raises
        ------
        IndexRefused
            If there are too few rows or channels for the settings.
        InputError
            If a setting is out of range, or the vectors are not a finite matrix.
        """
        self.check_settings()
        stored = as_patch_tensor(vectors, "memory bank")
        if not self.on_any_device:
            stored = stored.cpu()
        self.size, self.width = stored.shape
        self.mean = stored.mean(0)
        self.nbytes = stored.nbytes
        self.vectors = stored if self.stores_vectors else stored[:0]
        self._build(stored - self.mean)
        return self

    def query(
        self, patches: np.ndarray | torch.Tensor, k: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the k nearest stored vectors of every patch vector.

        Parameters
        ----------
        patches : array, or tensor on any device, of shape (n, width)
        k : int
            A k larger than the memory bank is cut to it.

        Returns
        -------
        distances : float32 array of shape (n, k), L2, ascending
        rows : int64 array of shape (n, k), rows of the memory bank
        """
        self.check_settings()
        queries = as_patch_tensor(patches, width=self.width).to(self.mean.device)
        k = min(int(k), self.size)
        blocks = self._blocks(queries, k)
        length = max(1, len(blocks[0]))
        # Filled block by block. Small results between large tables would keep the memory allocator
        # from using the room of a table again: gigabytes, for many queries.
        distances = torch.empty(len(queries), k, device=queries.device)
        rows = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)

        def search(part: tuple[torch.Tensor, ...]) -> None:
            block, found_distances, found_rows = part
            nearest = self._search(block, k)
            found_distances.copy_(nearest[0])
            found_rows.copy_(nearest[1])

        parts = zip(blocks, distances.split(length), rows.split(length), strict=True)
        self._for_each(search, list(parts))
        return distances.cpu().numpy(), rows.cpu().numpy()

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file must hold besides the vectors so that `restore` can rebuild this index."""
        return {}

    def restore(
        self, vectors: np.ndarray | torch.Tensor | None, arrays: Mapping[str, np.ndarray]
    ) -> Self:
        """Become the index that was saved; nothing is believed before it is checked.

        Parameters
        ----------
        vectors : float32 array, or tensor on any device, of shape (size, width), or None
            None only where the index does not store them.
        arrays : dict of str to array
            As `arrays` returned them.
        """
        if vectors is None:
            raise InputError(f"index {self.kind}: needs the vectors of the memory bank")
        return self.fit(vectors)

    @abstractmethod
    def _build(self, centered: torch.Tensor) -> None:
        """Prepare the search.

        Parameters
        ----------
        centered : float32 tensor of shape (size, width)
            The stored vectors minus `mean`.
        """

    @abstractmethod
    def _search(self, patches: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Distances and rows of one block of queries, each of shape (n, k), ascending.

        Parameters
        ----------
        patches : float32 tensor of shape (n, width)
            As they were given: subtract `mean` to compare them with the centered vectors.
        k : int
            From 1 to `size`.
        """

    def _blocks(self, queries: torch.Tensor, k: int) -> Sequence[torch.Tensor]:
        """The queries in blocks that are searched one at a time."""
        return queries.split(max(1, BLOCK_ENTRIES // self._entries_per_query(k)))

    def _for_each(
        self,
        search: Callable[[tuple[torch.Tensor, ...]], None],
        parts: Sequence[tuple[torch.Tensor, ...]],
    ) -> None:
        """Search every part: a block of queries, and where what is found is written."""
        for part in parts:
            search(part)

    def _entries_per_query(self, k: int) -> int:
        """How many numbers one query needs in memory."""
        return max(FAISS_TABLE_ENTRIES, k * self.width)


def rank_by_true_distance(
    patches: torch.Tensor, rows: torch.Tensor, candidates: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k nearest among candidate vectors, by direct differences.

    Parameters
    ----------
    patches : float32 tensor of shape (n, width)
    rows : int64 tensor of shape (n, candidates)
        Row numbers of the candidates; -1 for "no candidate".
    candidates : float32 tensor of shape (n, candidates, width)
    k : int

    Returns
    -------
    distances, rows : tensors of shape (n, k), ascending by distance
    """
    distances = torch.linalg.vector_norm(patches[:, None] - candidates, dim=2)
    if rows.shape[1] == 1 and (rows >= 0).all():
        return distances, rows
    distances, order = distances.masked_fill_(rows < 0, math.inf).sort(1)
    return distances[:, :k], rows.gather(1, order)[:, :k]
