"""Search in the memory bank: the nearest stored patches of a query patch."""

import numpy as np
import torch

from .errors import CourseError

ENTRIES = 2**24  # numbers per block (64 MB): memory stays flat whatever the size of the bank


def check_patches(patches, name="patches", width=None):
    """Bring patch vectors to a float32 array of shape (rows, channels); refuse anything else."""
    patches = np.asarray(patches, dtype=np.float32)
    if patches.ndim != 2 or 0 in patches.shape:
        raise CourseError(
            f"{name}: shape {patches.shape}; give at least one row of shape (channels,)"
        )
    if width is not None and patches.shape[1] != width:
        raise CourseError(f"{name}: {patches.shape[1]} channels, but the memory bank has {width}")
    if not np.isfinite(patches).all():
        raise CourseError(f"{name}: holds NaN or infinite values")
    return np.ascontiguousarray(patches)


class ExactSearch:
    """Brute force: every query against every row, by one matrix product per block.

    Candidates are found with ||q||^2 - 2 q.m + ||m||^2 on data centred on the bank's mean; the
    distances returned are then taken directly from q - m, so cancellation cannot spoil them.
    """

    def fit(self, bank):
        """Keep the memory bank, float32 of shape (rows, channels)."""
        self.bank = torch.from_numpy(check_patches(bank, "memory bank"))
        self.mean = self.bank.mean(0)
        self.centred = self.bank - self.mean
        self.squares = self.centred.square().sum(1)
        return self

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
        patches = torch.from_numpy(check_patches(patches, width=self.bank.shape[1]))
        k = min(int(k), len(self.bank))
        distances, indices = [], []
        rows = max(1, ENTRIES // max(len(self.bank), k * self.bank.shape[1]))
        for block in patches.split(rows):
            scores = torch.addmm(self.squares, block - self.mean, self.centred.T, alpha=-2)
            near = (
                scores.argmin(1, keepdim=True) if k == 1 else scores.topk(k, largest=False).indices
            )
            exact = torch.linalg.vector_norm(block[:, None] - self.bank[near], dim=2)
            exact, order = exact.sort(1)
            distances.append(exact)
            indices.append(near.gather(1, order))
        return torch.cat(distances).numpy(), torch.cat(indices).numpy()
