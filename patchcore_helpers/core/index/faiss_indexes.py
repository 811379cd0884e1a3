"""Approximate indexes, by FAISS: inverted lists, quantizers and graphs.

An inverted-file index (IVF) puts the stored vectors into the clusters of a k-means; a query visits
the `nprobe` nearest clusters. What is stored of a vector is its residual, the vector minus its
cluster's center: product quantization (PQ, Jégou et al. 2011) cuts it into `m` parts and replaces
each by the nearest of 2**bits codewords; scalar quantization (SQ) rounds every number to 8 bits. A
hierarchical navigable small-world graph (HNSW, Malkov and Yashunin 2018) is walked from vector to
vector. Taught in notebook 6.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import faiss
import numpy as np
import torch

from patchcore_helpers.core.distances import single_threaded_workers
from patchcore_helpers.core.index.base import (
    LARGEST_COUNT,
    Index,
    IndexRefused,
    rank_by_true_distance,
)
from patchcore_helpers.core.validation import as_patch_tensor, check_integer
from patchcore_helpers.errors import InputError


@dataclass(kw_only=True, eq=False)
class FaissIndex(Index):
    """An index that FAISS builds and searches.

    FAISS returns row -1 where the clusters visited, or the walk, meet fewer than k vectors. Such a
    query is asked again with twice the effort (`nprobe` or `ef_search`) until it has k rows; where
    even the largest effort does not help, it is compared with every stored vector.

    Attributes
    ----------
    searched : faiss.Index
        Answers queries; it may miss rows.
    exhaustive : faiss.Index
        Compares every stored vector, as a last resort; `IVFPQFastIndex` needs none for that.
    """

    searched: Any = field(init=False, repr=False)
    exhaustive: Any = field(init=False, repr=False)

    @abstractmethod
    def _empty(self) -> Any:
        """An untrained FAISS index with these settings."""

    def _first_effort(self) -> int:
        """The effort of the first try; 0 if the index has no such parameter."""
        return 0

    def _search_parameters(self, effort: int) -> Any:
        """How FAISS is told how much of the index a query visits.

        It goes with the query: what is set at an index itself would be shared by all threads.
        """
        return None

    def pad(self, vectors: torch.Tensor) -> np.ndarray:
        """The vectors as FAISS takes them."""
        return vectors.numpy()

    def _n_candidates(self, k: int) -> int:
        """How many rows are asked for when k are wanted."""
        return k

    def _build(self, centered: torch.Tensor) -> None:
        index = self._empty()
        vectors = self.pad(centered)
        self._seed_training(index)
        index.train(vectors)
        n_threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)  # with several, an HNSW graph would differ from run to run
        index.add(vectors)
        faiss.omp_set_num_threads(n_threads)
        self._remember_codes(index, vectors)
        self._finish(index)

    def _seed_training(self, index: Any) -> None:
        """Seed the k-means of the clusters and of the product quantizer."""
        parts: list[Any] = [index, getattr(index, "pq", None)]
        for part in parts:
            if hasattr(part, "cp"):
                part.cp.seed = self.random_state % 2**31
                part.cp.min_points_per_centroid = 1  # no warning on small banks

    def _remember_codes(self, index: Any, vectors: np.ndarray) -> None:
        """Keep what a bank file needs."""

    def _finish(self, index: Any) -> None:
        """Set what is searched first, what is searched as a last resort, and the bytes."""
        self.searched = index
        self.exhaustive = index
        self.nbytes = faiss.serialize_index(index).nbytes

    @property
    def resident_bytes(self) -> int:
        # The file of an index is what FAISS holds, but for tables that it computes when it is read.
        return super().resident_bytes + self.nbytes + _table_bytes(self.searched)

    def _search_everything(
        self, queries: np.ndarray, n_candidates: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances and rows, each of shape (n, candidates), of every stored vector."""
        return self.exhaustive.search(queries, n_candidates)

    def _for_each(
        self,
        search: Callable[[tuple[torch.Tensor, ...]], None],
        parts: Sequence[tuple[torch.Tensor, ...]],
    ) -> None:
        """Search several blocks at a time, each on one core.

        FAISS and torch bring a pool of threads each. With both at work in every block, the threads
        of one pool wait for the next block where those of the other should compute.
        """

        def search_on_one_core(part: tuple[torch.Tensor, ...]) -> None:
            faiss.omp_set_num_threads(1)  # of this thread alone
            search(part)

        if len(parts) > 1 and torch.get_num_threads() > 1:
            with single_threaded_workers() as for_each:
                for_each(search_on_one_core, parts)
        else:
            super()._for_each(search, parts)

    def _search(self, patches: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        queries = self.pad(patches - self.mean)
        squared, rows = self._search_until_full(queries, k)
        return self._distances(patches, queries, squared, rows, k)

    def _search_until_full(self, queries: np.ndarray, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared distances and rows, each of shape (n, candidates), as FAISS finds them."""
        n_candidates = min(self._n_candidates(k), self.size)
        squared = np.zeros((len(queries), n_candidates), np.float32)
        rows = np.zeros((len(queries), n_candidates), np.int64)
        unfilled = np.ones(len(queries), bool)
        effort = self._first_effort()
        while effort and unfilled.any():
            squared[unfilled], rows[unfilled] = self.searched.search(
                queries[unfilled], n_candidates, params=self._search_parameters(effort)
            )
            unfilled = rows[:, k - 1] < 0
            # The largest useful effort is the whole bank; after that there is nothing to double.
            effort = min(2 * effort, self.size) if effort < self.size else 0
        if unfilled.any():
            squared[unfilled], rows[unfilled] = self._search_everything(
                queries[unfilled], n_candidates
            )
        return torch.from_numpy(squared), torch.from_numpy(rows)

    def _distances(
        self,
        patches: torch.Tensor,
        queries: np.ndarray,
        squared: torch.Tensor,
        rows: torch.Tensor,
        k: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """L2 distances: true ones where the vectors are stored, else those to the codes."""
        if self.stores_vectors:
            return rank_by_true_distance(patches, rows, self.vectors[rows], k)
        return squared.clamp_(min=0).sqrt_(), rows


@dataclass(kw_only=True, eq=False)
class FlatIndex(FaissIndex):
    """Every stored vector compared, by FAISS."""

    kind: ClassVar[str] = "flat"

    def _empty(self) -> Any:
        return faiss.IndexFlatL2(self.width)


@dataclass(kw_only=True, eq=False)
class HNSWIndex(FaissIndex):
    """A walk along a graph of neighbors, then true distances.

    Attributes
    ----------
    links : int
        Neighbors of each vector in the graph, from 2 to 512.
    ef_search : int
        Candidates kept during the walk; may change after `fit`.
    """

    kind: ClassVar[str] = "hnsw"
    ranges: ClassVar = {"links": (2, 512), "ef_search": (1, LARGEST_COUNT)}
    links: int = 32
    ef_search: int = 64

    def _empty(self) -> Any:
        return faiss.index_factory(self.width, f"HNSW{self.links}")

    def _first_effort(self) -> int:
        return self.ef_search

    def _search_parameters(self, effort: int) -> Any:
        return faiss.SearchParametersHNSW(efSearch=effort)  # type: ignore[attr-defined]

    def _finish(self, index: Any) -> None:
        super()._finish(index)
        self.exhaustive = faiss.downcast_index(index.storage)


@dataclass(kw_only=True, eq=False)
class IVFIndex(FaissIndex):
    """What the indexes with inverted lists share.

    Attributes
    ----------
    n_clusters : int or None
        Clusters of the k-means; None for the square root of the number of stored vectors.
    nprobe : int
        Clusters that a query visits; may change after `fit`.
    """

    ranges: ClassVar = {"nprobe": (1, LARGEST_COUNT)}
    stores_vectors: ClassVar[bool] = False

    n_clusters: int | None = None
    nprobe: int = 8

    def check_settings(self) -> None:
        super().check_settings()
        if self.n_clusters is not None:
            check_integer(self.n_clusters, "n_clusters", 1, LARGEST_COUNT)

    def _first_effort(self) -> int:
        return self.nprobe

    def _search_parameters(self, effort: int) -> Any:
        return faiss.SearchParametersIVF(nprobe=effort)  # type: ignore[call-arg]

    @property
    def _wanted_clusters(self) -> int:
        """The number of clusters that the settings ask for."""
        return self.n_clusters or round(math.sqrt(self.size))

    def _resolved_clusters(self) -> int:
        """The number of clusters, once the memory bank is known to be large enough."""
        clusters = self._wanted_clusters
        if clusters > self.size:
            raise IndexRefused(
                f"index: n_clusters={clusters} needs {clusters} rows, "
                f"the memory bank has {self.size}; give less"
            )
        return clusters


@dataclass(kw_only=True, eq=False)
class IVFSQ8Index(IVFIndex):
    """Inverted lists; every number of a residual in 8 bits."""

    kind: ClassVar[str] = "ivf_sq8"

    def _empty(self) -> Any:
        return faiss.index_factory(self.width, f"IVF{self._resolved_clusters()},SQ8")


@dataclass(kw_only=True, eq=False)
class IVFPQIndex(IVFIndex):
    """Inverted lists; a residual is cut into m parts, each one replaced by a codeword.

    Only the codes are stored, so distances are those to what the codes stand for. Where m does not
    divide the number of channels, columns of zeros are added; that changes no distance.

    Attributes
    ----------
    m : int
        Parts of a vector.
    bits : int
        Bits of a part's code, from 1 to 16: each part has 2**bits codewords.
    codes : dict of str to array
        What a bank file holds; see `restore`.
    """

    kind: ClassVar[str] = "ivf_pq"
    ranges: ClassVar = {
        "nprobe": (1, LARGEST_COUNT),
        "m": (1, LARGEST_COUNT),
        "bits": (1, 16),
    }

    m: int = 8
    bits: int = 8

    codes: dict[str, np.ndarray] = field(init=False, repr=False, default_factory=dict)

    @property
    def padded_width(self) -> int:
        """Channels including the added columns of zeros."""
        return self.width + self._padding()

    def _padding(self) -> int:
        return -self.width % self.m

    def pad(self, vectors: torch.Tensor) -> np.ndarray:
        return torch.nn.functional.pad(vectors, (0, self._padding())).numpy()

    def _resolved_clusters(self) -> int:
        clusters = self._wanted_clusters
        rows_needed = max(clusters, 2**self.bits)
        if rows_needed > self.size or self.m > self.width:
            raise IndexRefused(
                f"index: n_clusters={clusters}, bits={self.bits}, m={self.m} need {rows_needed} "
                f"rows of {self.m} channels, the memory bank has {self.size} of {self.width}; "
                "give less"
            )
        return clusters

    def _empty(self) -> Any:
        # "np": no polysemous codes, which would cost training time and change nothing here.
        description = f"IVF{self._resolved_clusters()},PQ{self.m}x{self.bits}np"
        return faiss.index_factory(self.padded_width, description)

    def _remember_codes(self, index: Any, vectors: np.ndarray) -> None:
        codebooks = faiss.vector_to_array(index.pq.centroids)
        self.codes = {
            "mean": self.mean.numpy(),
            "centroids": index.quantizer.reconstruct_n(0, index.nlist),
            "codebooks": codebooks.reshape(self.m, 2**self.bits, -1),
            "codes": index.sa_encode(vectors),
        }

    @property
    def resident_bytes(self) -> int:
        return super().resident_bytes + sum(array.nbytes for array in self.codes.values())

    def arrays(self) -> dict[str, np.ndarray]:
        return dict(self.codes)

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """What the codes of some rows stand for: the center of the cluster plus a codeword a part.

        Parameters
        ----------
        rows : int array of shape (n,)

        Returns
        -------
        float32 array of shape (n, padded width)
            Centered, as queries are.
        """
        codes = self.codes["codes"][rows]
        cluster_bytes = codes.shape[1] - _bytes_for(self.m * self.bits)
        cluster = codes[:, :cluster_bytes] @ 256 ** np.arange(cluster_bytes)
        bits = np.unpackbits(codes[:, cluster_bytes:], axis=1, bitorder="little")
        bits = bits[:, : self.m * self.bits].reshape(len(codes), self.m, self.bits)
        numbers = bits @ 2 ** np.arange(self.bits)
        codewords = self.codes["codebooks"][np.arange(self.m), numbers]
        return self.codes["centroids"][cluster] + codewords.reshape(len(codes), -1)

    def restore(
        self, vectors: np.ndarray | torch.Tensor | None, arrays: Mapping[str, np.ndarray]
    ) -> Self:
        """Become the index that was saved; FAISS sees the arrays only once they are checked.

        Parameters
        ----------
        vectors : float32 array of shape (size, width), or None
            Needed where true distances are (`stores_vectors`).
        arrays : dict
            mean (width,), centroids (n_clusters, padded width) and codebooks (m, 2**bits, padded
            width / m), float32; codes, uint8 of shape (size, bytes): the number of the cluster, low
            byte first, in as many bytes as it needs, and then the m codes.
        """
        self.check_settings()
        self.size = len(arrays["codes"])
        self.width = arrays["mean"].size
        self._check_arrays(arrays)
        self.vectors = torch.empty(0, self.width)
        if self.stores_vectors and vectors is None:
            raise InputError(f"index {self.kind}: needs the vectors of the memory bank")
        if vectors is not None:
            stored = as_patch_tensor(vectors, "memory bank", self.width).cpu()
            if len(stored) != self.size:
                raise InputError(f"memory bank: {len(stored)} rows, but {self.size} codes")
            self.vectors = stored
        self.codes = dict(arrays)
        self.mean = torch.from_numpy(arrays["mean"])
        index = self._empty()
        index.quantizer.add(arrays["centroids"])
        faiss.copy_array_to_vector(arrays["codebooks"].ravel(), index.pq.centroids)
        index.is_trained = True
        index.precompute_table()
        index.add_sa_codes(arrays["codes"])
        self._finish(index)
        return self

    def _check_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Refuse arrays of another type or shape, with NaN, or with clusters that do not exist."""
        clusters = self._resolved_clusters()
        cluster_bytes = _bytes_for((clusters - 1).bit_length())
        code_bytes = _bytes_for(self.m * self.bits)
        part_width = self.padded_width // self.m
        expected = {
            "mean": (np.float32, (self.width,)),
            "centroids": (np.float32, (clusters, self.padded_width)),
            "codebooks": (np.float32, (self.m, 2**self.bits, part_width)),
            "codes": (np.uint8, (self.size, cluster_bytes + code_bytes)),
        }
        for name, (dtype, shape) in expected.items():
            array = arrays[name]
            if array.dtype != dtype or array.shape != shape or not np.isfinite(array).all():
                raise InputError(f"{name}: not finite {dtype.__name__} of shape {shape}")
        low_byte_first = 256 ** np.arange(cluster_bytes)
        cluster_of_row = arrays["codes"][:, :cluster_bytes] @ low_byte_first
        if (cluster_of_row >= clusters).any():
            raise InputError("codes: name a cluster that does not exist")


def _table_bytes(index: Any) -> int:
    """Bytes of the look-up tables that FAISS computes in advance and does not write to a file."""
    table = getattr(index, "precomputed_table", None)
    return 4 * table.size() if table is not None else 0


def _bytes_for(bits: int) -> int:
    """Bytes that hold so many bits."""
    return (bits + 7) // 8


@dataclass(kw_only=True, eq=False)
class IVFPQFastIndex(IVFPQIndex):
    """As `IVFPQIndex` with 4 bits, in FAISS's fast-scan layout: look-ups in 8-bit registers.

    The fast layout only names the nearest rows: its own distances saturate, and are NaN where all
    rows have one code. So they are computed again, from what the codes stand for (`decode`); that
    takes the codes a second time, in the order of the rows.
    """

    kind: ClassVar[str] = "ivf_pq_fast"

    bits: int = 4

    def check_settings(self) -> None:
        super().check_settings()
        if self.bits != 4:
            raise InputError(f"bits={self.bits}: ivf_pq_fast has 4 only; leave it out")

    def _finish(self, index: Any) -> None:
        # Made again from its bytes: as FAISS makes it, it would keep the slow layout alive.
        serialized = faiss.serialize_index(faiss.IndexIVFPQFastScan(index))
        self.searched = faiss.deserialize_index(serialized)
        self.nbytes = serialized.nbytes

    def _search_everything(
        self, queries: np.ndarray, n_candidates: int
    ) -> tuple[np.ndarray, np.ndarray]:
        return faiss.knn(queries, self.decode(np.arange(self.size)), n_candidates)

    def _distances(
        self,
        patches: torch.Tensor,
        queries: np.ndarray,
        squared: torch.Tensor,
        rows: torch.Tensor,
        k: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        decoded = torch.from_numpy(self.decode(rows.numpy().ravel())).view(*rows.shape, -1)
        return rank_by_true_distance(torch.from_numpy(queries), rows, decoded, k)


@dataclass(kw_only=True, eq=False)
class IVFPQRefinedIndex(IVFPQIndex):
    """As `IVFPQIndex`, for k * k_factor candidates, which are then ranked by true distances.

    Attributes
    ----------
    k_factor : int
        Candidates for each row asked for; may change after `fit`.
    """

    kind: ClassVar[str] = "ivf_pq_refined"
    ranges: ClassVar = {**IVFPQIndex.ranges, "k_factor": (1, LARGEST_COUNT)}
    stores_vectors: ClassVar[bool] = True

    k_factor: int = 10

    def _n_candidates(self, k: int) -> int:
        return k * self.k_factor

    def _entries_per_query(self, k: int) -> int:
        return super()._entries_per_query(k * self.k_factor)

    def _finish(self, index: Any) -> None:
        super()._finish(index)
        self.nbytes += self.vectors.nbytes

    @property
    def resident_bytes(self) -> int:
        return super().resident_bytes - self.vectors.nbytes  # which are in `nbytes` already
