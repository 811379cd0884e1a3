"""The memory bank: vectors in, distances out. It knows nothing of images.

A bank keeps a coreset of the vectors it is given, and answers for any vector how far it is from
what was kept. `PatchCore` fills one with the patch vectors of normal images.
"""

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from patchcore_helpers.core.bank_file import (
    IMAGE_ARRAYS,
    BankFile,
    BankSettings,
    read_bank_file,
    refusing_damaged,
    write_bank_file,
)
from patchcore_helpers.core.coreset import SAMPLERS, Coreset, k_center_greedy
from patchcore_helpers.core.device import resolve_device
from patchcore_helpers.core.distances import nested_min_distances
from patchcore_helpers.core.index import Index, make_index
from patchcore_helpers.core.validation import (
    as_patch_matrix,
    as_patch_tensor,
    check_choice,
    check_integer,
    check_real,
    check_seed,
)
from patchcore_helpers.errors import InputError

METRICS = ("l2", "cosine")
REWEIGHTING_NEIGHBORS = 9  # b in Eq. 7
QUERIES_AT_A_TIME = 64  # whose distances to all rows are in memory
NOT_SAVED = ("progress", "device")  # they belong to a machine


class MemoryBank(BaseEstimator):
    """A coreset of vectors and an index to search it.

    Parameters
    ----------
    coreset_ratio : float in (0, 1]
        Share of the vectors that are kept, at least one.
    sampler : str
        How they are chosen: "k_center" (greedy) or "random".
    projection : int or None
        Dimensions of the random projection in which the coreset is chosen. It is used where the
        vectors have at least twice as many channels (see `k_center_greedy`); the default backbone's
        have 152 and are compared as they are. None for exact distances.
    metric : "l2" or "cosine"
        The cosine distance is one minus the cosine of the angle between two vectors.
    index : str or dict
        How the nearest kept vectors are found: "exact", or another kind that `make_index` knows.
    n_neighbors : int
        `distances` averages over the distances to the n_neighbors nearest kept vectors.
    random_state : int
        Seed of the coreset and of an approximate index, from 0 to 2**32 - 1.
    progress : bool
        Draw a progress bar on standard error while the coreset is chosen.
    device : "auto", "cpu", "cuda" or "mps"
        Where the coreset is chosen and the index "exact" searches; all other indexes, and scikit-
        learn and FAISS, work on the processor. Not saved: it belongs to a machine.

    Attributes
    ----------
    vectors_ : float32 array of shape (rows, channels)
        The kept vectors, of unit length for the cosine metric. Missing after `load` where the file
        holds only the codes of an index.
    coreset_ : Coreset or None
        Which vectors were kept, in the order of the choice; after `load` without radii. None where
        a file of an earlier version did not say.
    index_ : Index
        Fitted on `vectors_`.
    n_vectors_ : int
        How many vectors `fit` was given.

    Notes
    -----
    Roth et al. 2022, "Towards total recall in industrial anomaly detection", arXiv 2106.08265,
    sections 3.2 and 3.3. Taught in notebooks 1, 3 and 6.

    Examples
    --------
    >>> vectors = np.array([[0.0, 0.0], [0.0, 0.1], [3.0, 4.0], [3.0, 4.1]])
    >>> bank = MemoryBank(coreset_ratio=0.5).fit(vectors)
    >>> len(bank), bank.distances(np.array([[3.0, 3.0]])).round(1)
    (2, array([1.1], dtype=float32))
    """

    def __init__(  # noqa: PLR0913 (the settings of a bank)
        self,
        *,
        coreset_ratio: float = 0.01,
        sampler: str = "k_center",
        projection: int | None = 128,
        metric: str = "l2",
        index: str | dict = "exact",
        n_neighbors: int = 1,
        random_state: int = 0,
        progress: bool = False,
        device: str = "cpu",
    ):
        self.coreset_ratio = coreset_ratio
        self.sampler = sampler
        self.projection = projection
        self.metric = metric
        self.index = index
        self.n_neighbors = n_neighbors
        self.random_state = random_state
        self.progress = progress
        self.device = device

    def check_settings(self) -> None:
        """Refuse a setting that is out of range.

        Raises
        ------
        InputError
        """
        check_real(self.coreset_ratio, "coreset_ratio", 0, 1, include="right", what="a share")
        check_integer(self.n_neighbors, "n_neighbors", 1)
        check_seed(self.random_state)
        check_choice(self.sampler, "sampler", SAMPLERS)
        check_choice(self.metric, "metric", METRICS)
        make_index(self.index, self.random_state)

    def fit(self, vectors: np.ndarray | torch.Tensor, y: Any = None) -> Self:
        """Choose the coreset and build the index.

        Parameters
        ----------
        vectors : float array, or tensor on any device, of shape (n, channels)
        y : ignored

        Raises
        ------
        InputError
            If a setting is out of range or the vectors are not a finite matrix.
        IndexRefused
            If the coreset is too small for the index.
        """
        self.check_settings()
        checked = as_patch_tensor(vectors, "vectors").to(resolve_device(self.device))
        vectors = as_patch_tensor(self._comparable(checked))
        n_kept = max(1, round(self.coreset_ratio * len(vectors)))
        choose = SAMPLERS[self.sampler]
        coreset = choose(
            vectors,
            n_kept,
            projection=self.projection,
            random_state=self.random_state,
            progress=self.progress,
        )
        kept = vectors[torch.from_numpy(coreset.indices).to(vectors.device)]
        index = make_index(self.index, self.random_state).fit(kept)
        return self._remember(index, kept.cpu().numpy(), coreset, n_vectors=len(vectors))

    def extend(self, vectors: np.ndarray | torch.Tensor) -> Self:
        """Go on with the greedy order on more vectors; every row that is kept stays.

        Only the kept rows and the new vectors are looked at. So that `coreset_ratio` holds for all
        vectors seen, the new ones supply `coreset_ratio` times their number of rows. Distances are
        those between the vectors, without the random projection.

        Parameters
        ----------
        vectors : float array, or tensor on any device, of shape (n, channels)

        Raises
        ------
        InputError
            If the bank was chosen at random, or its file holds only codes; if the vectors are not
            a finite matrix with as many channels as those of the bank.
        """
        self._need_vectors("extend")
        if self.sampler != "k_center":
            raise InputError(f"sampler={self.sampler!r}: has no order to go on with; fit it again")
        new = as_patch_tensor(self._comparable(as_patch_tensor(vectors, "vectors"))).cpu()
        n_before, channels = self.vectors_.shape
        if new.shape[1] != channels:
            raise InputError(f"vectors: {new.shape[1]} channels, and the bank has {channels}")
        n_seen = self.n_vectors_ + len(new)
        n_kept = max(n_before, round(self.coreset_ratio * n_seen))
        everything = torch.cat([torch.from_numpy(self.vectors_), new])
        order = k_center_greedy(
            everything,
            min(n_kept, len(everything)),
            projection=None,
            first=range(n_before),
            progress=self.progress,
        ).indices
        kept = everything[torch.from_numpy(order)]
        coreset = None
        if self.coreset_ is not None:
            numbers = order[n_before:] - n_before + self.n_vectors_
            indices = np.concatenate([self.coreset_.indices, numbers])
            coreset = Coreset(indices, None, "exact")
        index = make_index(self.index, self.random_state).fit(kept.to(resolve_device(self.device)))
        return self._remember(index, kept.numpy(), coreset, n_vectors=n_seen)

    def remove(self, rows: ArrayLike) -> Self:
        """Forget some of the kept vectors; the others stay in their order.

        Distances can only rise.

        Parameters
        ----------
        rows : sequence of int
            Rows of `vectors_`.

        Raises
        ------
        InputError
            If a row is not there, none would be left, or the bank holds only codes.
        IndexRefused
            If too few are left for the index.
        """
        self._need_vectors("remove")
        removed = {check_integer(row, "rows", 0, len(self) - 1) for row in np.asarray(rows).ravel()}
        stays = np.array([row for row in range(len(self)) if row not in removed], dtype=np.int64)
        if not len(stays):
            raise InputError(f"rows: all {len(self)} would be removed; leave at least one")
        kept = self.vectors_[stays]
        coreset = None
        if self.coreset_ is not None:
            coreset = Coreset(self.coreset_.indices[stays], None, self.coreset_.space)
        on_device = torch.from_numpy(kept).to(resolve_device(self.device))
        index = make_index(self.index, self.random_state).fit(on_device)
        return self._remember(index, kept, coreset, self.n_vectors_)

    def _remember(
        self, index: Index, kept: np.ndarray | None, coreset: Coreset | None, n_vectors: int
    ) -> Self:
        self.index_ = index
        self.coreset_ = coreset
        self.n_vectors_ = n_vectors
        if kept is not None:
            self.vectors_ = kept
        elif hasattr(self, "vectors_"):
            del self.vectors_
        return self

    def __len__(self) -> int:
        """How many vectors are kept."""
        check_is_fitted(self, "index_")
        return self.index_.size

    def nearest(
        self, vectors: np.ndarray | torch.Tensor, k: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest kept vectors of every vector.

        Parameters
        ----------
        vectors : array, or tensor on any device, of shape (n, channels)
        k : int, optional
            `n_neighbors` by default; cut to the size of the bank.

        Returns
        -------
        distances : float32 array of shape (n, k), ascending
            In the bank's metric.
        rows : int64 array of shape (n, k)
            Rows of `vectors_`.
        """
        check_is_fitted(self, "index_")
        k = self.n_neighbors if k is None else k
        l2, rows = self.index_.query(self._comparable(vectors), k)
        return self._in_metric(l2), rows

    def distances(self, vectors: np.ndarray | torch.Tensor, k: int | None = None) -> np.ndarray:
        """Mean distance to the k nearest kept vectors, float32 array of shape (n,)."""
        return self.nearest(vectors, k)[0].mean(1)

    def second_distances(
        self, vectors: np.ndarray | torch.Tensor, groups: np.ndarray
    ) -> np.ndarray:
        """Distances that would be left if the group of the nearest row were not in the bank.

        With the images that rows come from as groups: what a patch would score if no single image
        could excuse it.

        Parameters
        ----------
        vectors : array, or tensor on any device, of shape (n, channels)
        groups : int array of shape (rows,)
            The group of every kept vector.

        Returns
        -------
        float32 array of shape (n,)
            Distance to the nearest row of any group but that of the nearest row; infinite where
            there is only one group.
        """
        self._need_vectors("second_distances")
        queries = as_patch_tensor(self._comparable(vectors)).cpu()
        kept = torch.from_numpy(self.vectors_)
        group_of = torch.from_numpy(np.asarray(groups))
        parts = []
        for block in queries.split(QUERIES_AT_A_TIME):
            distances = torch.cdist(block, kept, compute_mode="donot_use_mm_for_euclid_dist")
            nearest_group = group_of[distances.argmin(1)]
            distances[group_of == nearest_group[:, None]] = torch.inf
            parts.append(distances.amin(1))
        return self._in_metric(torch.cat(parts).numpy())

    def nested_distances(self, vectors: np.ndarray | torch.Tensor, sizes: list[int]) -> np.ndarray:
        """Distances that the first rows of the bank alone would give, at several sizes at once.

        A greedy coreset is nested: its first s picks are the coreset of size s.

        Parameters
        ----------
        vectors : array, or tensor on any device, of shape (n, channels)
        sizes : increasing list of int, at most the size of the bank

        Returns
        -------
        float32 array of shape (len(sizes), n)
            Distance to the nearest of the first s rows, for each s.
        """
        self._need_vectors("nested_distances")
        queries = as_patch_tensor(self._comparable(vectors)).to(self.index_.mean.device)
        l2 = nested_min_distances(queries, self.vectors_, sizes)
        return self._in_metric(l2)

    def reweighting(self, vectors: np.ndarray | torch.Tensor, rows: np.ndarray) -> np.ndarray:
        """The factor of Eq. 7: close to 1 where the nearest kept vector is itself isolated.

        One minus the softmax share of the distance to the nearest kept vector m*, among the
        distances to the b = 9 kept vectors nearest to m* (m* included). Published results differ in
        this factor: the authors' own code leaves it out, anomalib applies it.

        Parameters
        ----------
        vectors : array of shape (n, channels)
        rows : int array of shape (n,)
            The row of m* for every vector.

        Returns
        -------
        float32 array of shape (n,)
            1 in a bank of one row, which has no neighbors to ask.
        """
        self._need_vectors("image_score='reweighted'")
        vectors = as_patch_matrix(self._comparable(vectors))
        nearest = self.vectors_[rows]
        _, around = self.index_.query(nearest, REWEIGHTING_NEIGHBORS)
        if around.shape[1] < 2:
            return np.ones(len(vectors), np.float32)
        # An approximate index may miss m* among its own neighbors: it then takes the last place.
        missed = (around != rows[:, None]).all(1)
        around[missed, -1] = rows[missed]
        to_nearest = self._in_metric(np.linalg.norm(vectors - nearest, axis=1))
        to_around = self._in_metric(
            np.linalg.norm(vectors[:, None] - self.vectors_[around], axis=2)
        )
        # Shifted by the largest distance, so that the exponentials cannot overflow.
        largest = to_around.max(1)
        share = np.exp(to_nearest - largest) / np.exp(to_around - largest[:, None]).sum(1)
        return 1 - share

    def _comparable(self, vectors: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
        """The vectors as the bank compares them: of unit length for the cosine metric."""
        if self.metric == "l2":
            return vectors
        given = as_patch_tensor(vectors)
        lengths = torch.linalg.vector_norm(given, dim=1, keepdim=True)
        return given / lengths.clamp(min=1e-12)

    def _in_metric(self, l2: np.ndarray) -> np.ndarray:
        """The metric's distance from the L2 one: half its square is the cosine distance of unit
        vectors."""
        return l2 if self.metric == "l2" else l2**2 / 2

    def _need_vectors(self, name: str) -> None:
        check_is_fitted(self, "index_")
        if not hasattr(self, "vectors_"):
            raise InputError(
                f"{name}: needs the vectors of the memory bank, and the file holds only "
                f"{self.index_.kind} codes; fit it again"
            )

    def settings(self) -> BankSettings:
        """The parameters as they are written to a file."""
        parameters = self.get_params()
        for name in NOT_SAVED:
            del parameters[name]
        return BankSettings.of(parameters)

    def tensors(self, with_vectors: bool = False) -> dict[str, np.ndarray]:
        """The arrays that a file holds.

        Parameters
        ----------
        with_vectors : bool
            Keep the vectors even where the index needs only its codes.
        """
        check_is_fitted(self, "index_")
        tensors = self.index_.arrays()
        needed = with_vectors or self.index_.stores_vectors or not tensors
        if needed and hasattr(self, "vectors_"):
            tensors["vectors"] = self.vectors_
        if self.coreset_ is not None:
            tensors["origins"] = self.coreset_.indices.astype(np.int64)
        return tensors

    def save(self, path: str | Path) -> None:
        """Write the bank to a safetensors file; the file is complete or not there at all.

        For the indexes "ivf_pq" and "ivf_pq_fast" it holds the codes, not the vectors that they
        stand for; "ivf_pq_refined" keeps both. All other indexes are built again by `load`, from
        the vectors and with the same seed.
        """
        write_bank_file(path, BankFile(self.settings(), self.tensors(), self.n_vectors_))

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> Self:
        """Read a bank written by `save`, or the bank in a file written by `PatchCore.save`.

        `device` is the parameter of that name.

        Raises
        ------
        InputError
            If the file is missing, damaged or not a memory bank.
        """
        file = read_bank_file(path)
        with refusing_damaged(path):
            return cls.restore(file.settings, file.tensors, file.n_vectors, device)

    @classmethod
    def restore(
        cls,
        settings: BankSettings,
        tensors: dict[str, np.ndarray],
        n_vectors: int,
        device: str = "cpu",
    ) -> Self:
        """A bank from what `read_bank_file` has checked."""
        bank = cls(**settings.parameters(), device=device)
        bank.check_settings()
        arrays = {name: array for name, array in tensors.items() if name not in IMAGE_ARRAYS}
        origins = arrays.pop("origins", None)
        kept = arrays.pop("vectors", None)
        on_device = None if kept is None else as_patch_tensor(kept).to(resolve_device(device))
        index = make_index(bank.index, bank.random_state).restore(on_device, arrays)
        coreset = None if origins is None else _coreset_of_file(origins, index.size, n_vectors)
        return bank._remember(index, kept, coreset, n_vectors)


def _coreset_of_file(origins: np.ndarray, n_rows: int, n_vectors: int) -> Coreset:
    """Which vectors the rows were, as a file says; refused if that cannot be."""
    in_range = origins.min() >= 0 and origins.max() < n_vectors
    if not in_range or len(np.unique(origins)) != len(origins) or len(origins) != n_rows:
        raise ValueError(f"origins do not name {n_rows} of {n_vectors} vectors")
    return Coreset(origins, None, "exact")
