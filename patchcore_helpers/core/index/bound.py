"""A lower bound of distances, by which an exact search can pass over most stored vectors.

Wide vectors, such as the 1,536 numbers of two layers of a ResNet50, lie close to a subspace of far
fewer dimensions. A vector x is split into its coordinates p in that subspace and the rest, of which
only the length r is kept. The rests of two vectors are at least as far apart as their lengths
differ, so

    ||q - m||^2  >=  ||p_q - p_m||^2 + (r_q - r_m)^2,

a squared distance of short vectors (p, r). A stored vector whose bound is above the distance to
some other one cannot be the nearest: only the few that are left are compared in full. Nothing is
approximate about the result; a subspace that fits badly only leaves more of them.
"""

from dataclasses import dataclass
from typing import Self

import torch

SMALLEST_WIDTH = 256  # below it, the product of all numbers is as fast
SMALLEST_SIZE = 1024  # rows of a bank
SAMPLE = 512  # rows of which the axes are the principal ones
SHARE_KEPT = 0.97  # of the squared lengths of the stored vectors that the subspace should hold
LARGEST_SHARE = 1 / 3  # of the numbers that may be left, or it does not pay


@dataclass(frozen=True)
class SubspaceBound:
    """The subspace of a set of stored vectors.

    Attributes
    ----------
    axes : float32 tensor of shape (width, dimensions)
        Orthonormal columns.
    """

    axes: torch.Tensor

    @classmethod
    def of(cls, centered: torch.Tensor) -> Self | None:
        """The bound for these vectors; None where it would not pay.

        Parameters
        ----------
        centered : float32 tensor of shape (size, width)
            Stored vectors minus their mean.
        """
        size, width = centered.shape
        if width < SMALLEST_WIDTH or size < SMALLEST_SIZE:
            return None
        sample = centered[:: size // SAMPLE]
        _, _, axes = torch.linalg.svd(sample, full_matrices=False)  # rows, the principal one first
        held = (centered @ axes.T).square().sum(0).cumsum(0)
        dimensions = int((held < SHARE_KEPT * centered.square().sum()).sum()) + 1
        if dimensions > LARGEST_SHARE * width or dimensions > len(axes):
            return None
        return cls(axes[:dimensions].T.contiguous())

    def shorten(self, centered: torch.Tensor) -> torch.Tensor:
        """The short vectors (p, r), float32 tensor of shape (n, dimensions + 1)."""
        within = centered @ self.axes
        rest = centered.square().sum(1) - within.square().sum(1)
        return torch.cat([within, rest.clamp(min=0).sqrt()[:, None]], dim=1)


def smallest_of_each(
    values: torch.Tensor, owners: torch.Tensor, n_owners: int, k: int
) -> torch.Tensor:
    """The places of the k smallest values of every owner, int64 tensor of shape (n_owners, k).

    Parameters
    ----------
    values : float tensor of shape (n,)
    owners : int64 tensor of shape (n,)
        Whose value each is, from 0 to n_owners - 1; every owner has at least k.

    Examples
    --------
    >>> values, owners = torch.tensor([3.0, 1.0, 2.0, 5.0]), torch.tensor([0, 1, 0, 1])
    >>> smallest_of_each(values, owners, 2, 1)
    tensor([[2],
            [1]])
    """
    order = values.argsort()
    order = order[owners[order].argsort(stable=True)]
    counts = torch.zeros(n_owners, dtype=torch.int64, device=owners.device)
    counts.index_add_(0, owners, torch.ones_like(owners))
    starts = counts.cumsum(0) - counts
    return order[starts[:, None] + torch.arange(k, device=owners.device)]
