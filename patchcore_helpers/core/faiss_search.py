"""Approximate search in the memory bank, by FAISS: inverted lists, quantizers, graphs."""

import math

import faiss
import numpy as np
import torch

from patchcore_helpers.core.neighbors import ExactIndex, IndexRefused, as_patch_matrix
from patchcore_helpers.errors import InputError


class FaissSearch(ExactIndex):
    """The kinds of `make_index` that FAISS does.

    Kinds that keep no bank return the distances to what their codes stand for. The fast-scan layout
    only names the rows: its own distances saturate, and are NaN where all rows have one code.

    FAISS fills up with row -1 where the clusters visited, or the walk, meet fewer than k rows. Such
    a query is asked again with twice the nprobe (or efSearch) until it has k rows; where even the
    largest efSearch does not help, every row is compared.

    Where m does not divide the number of channels, columns of zeros are added; that changes no
    distance.
    """

    m, bits = 1, 0
    n_clusters: int | None
    links: int
    random_state: int
    keeps_bank = property(lambda self: self.kind in ("flat", "hnsw", "ivf_pq_refined"))

    def _empty(self):
        if self.kind in ("flat", "hnsw"):
            form = "Flat" if self.kind == "flat" else f"HNSW{self.links}"
            return faiss.index_factory(self.width, form)
        codes = f"PQ{self.m}x{self.bits}np" if self.bits else "SQ8"  # np: no polysemous codes
        columns = self.width + -self.width % self.m
        return faiss.index_factory(columns, f"IVF{self._clusters()},{codes}")

    def _clusters(self):
        clusters = self.n_clusters or round(math.sqrt(self.size))
        rows = max(clusters, 2**self.bits)
        if rows > self.size or self.m > self.width:
            raise IndexRefused(
                f"search: n_clusters={clusters}, bits={self.bits}, m={self.m} need {rows} rows of "
                f"{self.m} channels, the memory bank has {self.size} of {self.width}; give less"
            )
        return clusters

    def _pad(self, patches):
        return torch.nn.functional.pad(patches, (0, -self.width % self.m)).numpy()

    def _build(self, centered):
        index, patches = self._empty(), self._pad(centered)
        for part in (index, getattr(index, "pq", None)):
            if hasattr(part, "cp"):
                part.cp.seed, part.cp.min_points_per_centroid = self.random_state % 2**31, 1
        index.train(patches)
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)  # several would build another HNSW graph each time
        index.add(patches)
        faiss.omp_set_num_threads(threads)
        if self.bits:
            codebooks = faiss.vector_to_array(index.pq.centroids)
            self.arrays = {
                "mean": self.mean.numpy(),
                "centroids": index.quantizer.reconstruct_n(0, index.nlist),
                "codebooks": codebooks.reshape(self.m, 2**self.bits, -1),
                "codes": index.sa_encode(patches),
            }
        self._finish(index)

    def _finish(self, index):
        self.index = self.complete = index
        if self.kind == "ivf_pq_fast":
            index.make_direct_map()
            self.index = faiss.IndexIVFPQFastScan(index)
        elif self.kind == "hnsw":
            self.complete = faiss.downcast_index(index.storage)
        self.nbytes = faiss.serialize_index(self.index).nbytes
        self.nbytes += self.bank.nbytes if self.kind == "ivf_pq_refined" else 0

    def restore(self, bank, arrays):
        """Become what `fit` had made; FAISS sees the arrays only once they are checked.

        Parameters
        ----------
        bank : array or None
            Needed by all kinds but "ivf_pq" and "ivf_pq_fast".
        arrays : dict
            For the kinds with product quantization: mean (channels,), centroids (n_clusters,
            columns) and codebooks (m, 2**bits, columns / m), float32; codes, uint8 of shape (rows,
            bytes): the number of the cluster in as many bytes as it needs, lowest first, and then
            the m codes. The other kinds are built from the bank anew.
        """
        if not self.bits:
            return self.fit(bank)
        self.size, self.width = len(arrays["codes"]), arrays["mean"].size
        clusters = self._clusters()
        place, columns = (clusters - 1).bit_length() + 7 >> 3, self.width + -self.width % self.m
        for name, dtype, shape in (
            ("mean", np.float32, (self.width,)),
            ("centroids", np.float32, (clusters, columns)),
            ("codebooks", np.float32, (self.m, 2**self.bits, columns // self.m)),
            ("codes", np.uint8, (self.size, place + (self.m * self.bits + 7 >> 3))),
        ):
            a = arrays[name]
            if a.dtype != dtype or a.shape != shape or not np.isfinite(a).all():
                raise InputError(f"{name}: not finite {dtype.__name__} of shape {shape}")
        if (arrays["codes"][:, :place] @ 256 ** np.arange(place) >= clusters).any():
            raise InputError("codes: name a cluster that is not there")
        if self.keeps_bank or bank is not None:
            self.bank = torch.from_numpy(as_patch_matrix(bank, "memory bank", self.width))
            if len(self.bank) != self.size:
                raise InputError(f"memory bank: {len(self.bank)} rows, but {self.size} codes")
        self.arrays, self.mean, index = arrays, torch.from_numpy(arrays["mean"]), self._empty()
        index.quantizer.add(arrays["centroids"])
        faiss.copy_array_to_vector(arrays["codebooks"].ravel(), index.pq.centroids)
        index.is_trained = True
        index.precompute_table()
        index.add_sa_codes(arrays["codes"])
        self._finish(index)
        return self

    def _query(self, patches, k):
        queries, wanted = self._pad(patches - self.mean), min(k * self.k_factor, self.size)
        squares, short = np.zeros((len(queries), wanted), np.float32), np.ones(len(queries), bool)
        rows = squares.astype(np.int64)
        name = "efSearch" if self.kind == "hnsw" else "nprobe"
        effort = getattr(self, name, 0)
        while effort and short.any():
            faiss.ParameterSpace().set_index_parameter(self.index, name, effort)
            squares[short], rows[short] = self.index.search(queries[short], wanted)
            short = rows[:, k - 1] < 0
            effort = min(2 * effort, self.size) if effort < self.size else 0
        if short.any():
            squares[short], rows[short] = self.complete.search(queries[short], wanted)
        found, rows = torch.from_numpy(squares), torch.from_numpy(rows)
        if self.keeps_bank:
            return self._rerank(patches, rows, self.bank[rows], k)
        if self.kind == "ivf_pq_fast":
            near = torch.from_numpy(self.complete.reconstruct_batch(rows.ravel()))
            return self._rerank(torch.from_numpy(queries), rows, near.view(*rows.shape, -1), k)
        return found.clamp_(min=0).sqrt_(), rows
