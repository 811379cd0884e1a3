"""Search in the memory bank: the nearest stored patches of a query patch, exactly or nearly."""

import math
from numbers import Integral

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from patchcore_helpers.errors import InputError

ENTRIES = 2**22  # numbers per block (16 MB, near the caches): memory stays flat for any bank
LIMITS = {"bits": (1, 16), "links": (2, 512), "random_state": (0, 2**32 - 1)}
IVF, PQ = {"n_clusters": None, "nprobe": 8}, {"m": 8, "bits": 8}
SETTINGS: dict[str, dict] = {kind: {} for kind in ("exact", "sklearn", "flat")} | {
    "ivf_pq": IVF | PQ,
    "ivf_pq_fast": IVF | PQ | {"bits": 4},
    "ivf_sq8": IVF,
    "ivf_pq_refined": IVF | PQ | {"k_factor": 10},
    "hnsw": {"links": 32, "efSearch": 64},
}


class IndexRefused(InputError):
    """The memory bank has too few rows or channels for the settings of a search."""


def as_patch_matrix(patches, name="patches", width=None):
    """Bring patch vectors to a float32 array of shape (rows, channels); refuse anything else."""
    patches = np.asarray(patches, dtype=np.float32)
    if patches.ndim != 2 or 0 in patches.shape:
        raise InputError(f"{name}: shape {patches.shape}; give at least one row of channels")
    if width is not None and patches.shape[1] != width:
        raise InputError(f"{name}: {patches.shape[1]} channels, but the memory bank has {width}")
    if not np.isfinite(patches).all():
        raise InputError(f"{name}: holds NaN or infinite values")
    return np.ascontiguousarray(patches)


def make_index(search="exact", random_state=0):
    """A search with the methods of `ExactIndex`, by name.

    Parameters
    ----------
    search : str or dict
        A kind, or ``{"kind": kind, setting: value, …}``. The kinds and their settings:

        - "exact", "sklearn", "flat": every row compared, by PyTorch, scikit-learn and FAISS.
        - "ivf_pq" (n_clusters=None, nprobe=8, m=8, bits=8): a k-means puts the rows into clusters
          (None: as many as the square root of the rows); the rest of a row is cut into m parts,
          each replaced by the nearest of 2**bits codewords (Jégou et al. 2011). A query visits the
          nprobe nearest clusters.
        - "ivf_pq_fast" (the same, bits=4 only): FAISS's fast-scan layout, look-ups in 8 bits.
        - "ivf_sq8" (n_clusters, nprobe): every number of a rest in 8 bits.
        - "ivf_pq_refined" (as "ivf_pq", k_factor=10): k * k_factor candidates, then true distances.
        - "hnsw" (links=32, ef_search=64): a walk along a graph of neighbors (Malkov and Yashunin
          2018), then true distances.
    random_state : int
        Seeds the training; the same seed gives the same index, however many threads there are.

    Returns
    -------
    ExactIndex, SklearnIndex or FaissSearch
        With the settings as attributes; nprobe, ef_search and k_factor may change after `fit`.

    Raises
    ------
    InputError
        If there is no such kind or setting, or a value is beyond its limits.

    Examples
    --------
    >>> bank = np.random.default_rng(0).normal(size=(500, 20))
    >>> search = make_index({"kind": "ivf_pq_refined", "m": 4}).fit(bank)
    >>> search.nprobe = 22
    >>> distances, rows = search.query(bank[:3], k=2)
    >>> distances.shape, rows[:, 0].tolist()
    ((3, 2), [0, 1, 2])
    """
    settings = dict(search) if isinstance(search, dict) else {"kind": search}
    kind = settings.pop("kind", None)
    if kind not in list(SETTINGS):
        raise InputError(f"search={search!r}: choose one of {', '.join(SETTINGS)}")
    if unknown := [name for name in settings if name not in SETTINGS[kind]]:
        known = ", ".join(SETTINGS[kind]) or "none"
        raise InputError(f"search: {kind} has no setting {unknown[0]!r}; it has {known}")
    maker = KINDS.get(kind)
    if maker is None:
        from patchcore_helpers.core.faiss_search import (
            FaissSearch as maker,  # which draws on this module
        )
    made = maker()
    vars(made).update({**SETTINGS[kind], **settings, "random_state": random_state, "kind": kind})
    made.check_settings()
    return made


class ExactIndex:
    """Brute force: every query against every row, by one matrix product per block.

    Candidates are found with ||q||^2 - 2 q.m + ||m||^2 on data centered on the bank's mean; the
    distances returned are then taken directly from q - m, so cancellation cannot spoil them.

    Attributes
    ----------
    nbytes : int
        Bytes of the memory bank; with FAISS, of the serialized index, and of the bank where true
        distances need it besides.
    arrays : dict
        What `restore` needs besides the memory bank.
    """

    kind, keeps_bank, arrays, k_factor = "exact", True, {}, 1
    bits: int

    def check_settings(self):
        """Refuse settings beyond their limits; done by `query` too, as nprobe may change."""
        for name in vars(self).keys() & ({"random_state"} | set().union(*SETTINGS.values())):
            value, (low, high) = getattr(self, name), LIMITS.get(name, (1, 2**31 - 1))
            whole = isinstance(value, Integral) and low <= value <= high
            if not whole and (name, value) != ("n_clusters", None):
                raise InputError(f"{name}={value!r}: give a whole number from {low} to {high}")
        if self.kind == "ivf_pq_fast" and self.bits != 4:
            raise InputError(f"bits={self.bits}: ivf_pq_fast has 4 only; leave it out")

    def fit(self, bank):
        """Take in the memory bank, float32 of shape (rows, channels).

        Raises
        ------
        IndexRefused
            If it has too few rows or channels for the settings.
        """
        bank = torch.from_numpy(as_patch_matrix(bank, "memory bank"))
        (self.size, self.width), self.mean, self.nbytes = bank.shape, bank.mean(0), bank.nbytes
        self.bank = bank if self.keeps_bank else None
        self._build(bank - self.mean)
        return self

    def restore(self, bank, arrays):
        """Become what `fit` had made, from the memory bank and `arrays`, once they are checked."""
        return self.fit(bank)

    def query(self, patches, k=1):
        """The k nearest rows of every patch.

        Parameters
        ----------
        patches : array of shape (n, channels)
        k : int
            At most the number of rows in the bank; a larger k is cut to it.

        Returns
        -------
        distances : float32 array of shape (n, k), L2, ascending
        indices : int64 array of shape (n, k), rows of the bank
        """
        self.check_settings()
        patches = torch.from_numpy(as_patch_matrix(patches, width=self.width))
        k = min(int(k), self.size)
        compared = self.size if self.kind == "exact" else 4096  # FAISS keeps tables per query
        blocks = patches.split(max(1, ENTRIES // max(compared, k * self.k_factor * self.width)))
        found = zip(*(self._query(block, k) for block in blocks), strict=True)
        return tuple(torch.cat(part).numpy() for part in found)

    def _build(self, centered):
        self.centered, self.squares = centered, centered.square().sum(1)

    def _query(self, patches, k):
        scores = torch.addmm(self.squares, patches - self.mean, self.centered.T, alpha=-2)
        near = scores.argmin(1, keepdim=True) if k == 1 else scores.topk(k, largest=False).indices
        return self._rerank(patches, near, self.bank[near], k)

    def _rerank(self, patches, rows, vectors, k):
        exact = torch.linalg.vector_norm(patches[:, None] - vectors, dim=2)
        exact, order = exact.masked_fill_(rows < 0, math.inf).sort(1)
        return exact[:, :k], rows.gather(1, order)[:, :k]


class SklearnIndex(ExactIndex):
    """Brute force as scikit-learn does it."""

    def _build(self, centered):
        self.index = NearestNeighbors(algorithm="brute").fit(centered.numpy())

    def _query(self, patches, k):
        near = self.index.kneighbors((patches - self.mean).numpy(), k, return_distance=False)
        return self._rerank(patches, torch.from_numpy(near), self.bank[near], k)


KINDS: dict[str, type] = {"exact": ExactIndex, "sklearn": SklearnIndex}  # all others are FAISS's
