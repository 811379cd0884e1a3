"""The vectors that a coreset search compares: the patches themselves, or a random projection.

A search needs its vectors in two forms, for the two ways to compute a distance
(see `patchcore_helpers.core.distances`):

- `centered`: float32, without the common offset. A common offset adds nothing to a distance, but
  it costs digits in ||x||^2 - 2 x.v + ||v||^2.
- `uncentered`: as they were given. Their direct differences lose nothing to rounding.

The patches may be a memory map larger than the memory: rows are read, centered and scaled as they
are asked for, and never copied as a whole.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.random_projection import GaussianRandomProjection

from patchcore_helpers.core.distances import ForEach, as_tensor, row_blocks
from patchcore_helpers.core.validation import as_float_matrix, check_integer
from patchcore_helpers.errors import InputError

# Squares of column ranges in between are normal float32 numbers (1e-38 to 3e38), with a margin.
SMALLEST_RANGE = 1e-6
LARGEST_RANGE = 1e12

# A projection saves passes over long vectors and bends distances. It is used only where it makes
# the vectors at least this many times shorter.
SHORTENS_BY = 2

Rows = slice | torch.Tensor  # consecutive rows, or row numbers


class VectorSpace(Protocol):
    """What a search asks of a space.

    Attributes
    ----------
    name : str
        "exact" or "projected".
    scale : float
        The vectors are this many times as long as the patches (a power of two).
    """

    name: str
    scale: float

    def __len__(self) -> int:
        """The number of vectors."""

    def centered(self, rows: Rows) -> torch.Tensor:
        """The vectors of these rows without their common offset, float32: for matrix products."""

    def uncentered(self, rows: Rows) -> torch.Tensor:
        """The vectors of these rows in the precision of the patches: for direct differences."""


def open_space(
    patches: ArrayLike | torch.Tensor,
    projection: int | None,
    random_state: int,
    for_each: ForEach,
) -> VectorSpace:
    """The space that `k_center_greedy` searches.

    Parameters
    ----------
    patches : array-like of float16, float32 or float64, shape (n, c)
    projection : int or None
        Dimensions of the projection; None, or any number above c / 2: no projection. It has to
        shorten the vectors at least by half, or it saves too little time for the distances that it
        bends. From 152 channels to 128 it saves no time, and the coverage radius grows by 9 % (1 %
        of ELPV's patches).
    random_state : int
        Seed of the projection, from 0 to 2**32 - 1.
    for_each : callable
        From `single_threaded_workers`.

    Returns
    -------
    ExactSpace or ProjectedSpace

    Raises
    ------
    InputError
        For patches that are empty, not a matrix or not finite, and for a bad `projection`.
    """
    exact = ExactSpace(patches, for_each)
    if projection is None:
        return exact
    dimensions = check_integer(projection, "projection", 1)
    if exact.width < SHORTENS_BY * dimensions:
        return exact
    return ProjectedSpace(exact, dimensions, random_state, for_each)


class ExactSpace:
    """The patches themselves.

    Parameters
    ----------
    patches : array-like of float16, float32 or float64, shape (n, c)
    for_each : callable
        From `single_threaded_workers`.

    Attributes
    ----------
    patches : ndarray, shape (n, c)
        As given, not copied.
    offset : tensor of float64, shape (c,)
        Mean of the patches.
    scale : float
        1, or a power of two that keeps squares inside float32's range: 1e-30 and 1e30 are both
        fine numbers to compare, but not to square.
    """

    name = "exact"

    def __init__(self, patches: ArrayLike | torch.Tensor, for_each: ForEach):
        self.patches = as_float_matrix(patches, "patches")
        lowest, highest, mean = column_statistics(self.patches, for_each)
        self.offset = mean.clamp(lowest, highest)  # a constant column has exactly its mean
        self.scale = safe_scale((highest - lowest).max().item())

    def __len__(self) -> int:
        return self.patches.shape[0]

    @property
    def width(self) -> int:
        """The number of columns."""
        return self.patches.shape[1]

    def raw(self, rows: Rows) -> torch.Tensor:
        """Rows of the patches, in their own dtype."""
        if isinstance(rows, torch.Tensor):
            return as_tensor(self.patches[rows.numpy()])
        return as_tensor(self.patches[rows])

    def centered(self, rows: Rows) -> torch.Tensor:
        vectors = at_least_float32(self.raw(rows))
        vectors = vectors - self.offset.to(vectors.dtype)
        return self.scaled(vectors).float()

    def uncentered(self, rows: Rows) -> torch.Tensor:
        return self.scaled(at_least_float32(self.raw(rows)))

    def scaled(self, vectors: torch.Tensor) -> torch.Tensor:
        """The vectors times `scale`."""
        return vectors if self.scale == 1 else vectors * self.scale


class ProjectedSpace:
    """A Gaussian random projection of the patches, computed once and kept in memory as float32.

    Distances between the projections are nearly those between the patches (Johnson and
    Lindenstrauss 1984), and cheaper. The matrix depends on the seed, `dimensions` and the width of
    the patches alone, so different patches of one width can share it.

    Parameters
    ----------
    exact : ExactSpace
    dimensions : int
    random_state : int
        Seed of the projection, from 0 to 2**32 - 1.
    for_each : callable
        From `single_threaded_workers`.

    Attributes
    ----------
    vectors : tensor of float32, shape (n, dimensions)
    scale : float
        Inherited from `exact`.
    """

    name = "projected"

    def __init__(self, exact: ExactSpace, dimensions: int, random_state: int, for_each: ForEach):
        projection = GaussianRandomProjection(dimensions, random_state=random_state)
        projection.fit(np.zeros((1, exact.width)))  # only the width matters
        matrix = torch.from_numpy(projection.components_.T.copy())
        vectors = torch.empty(len(exact), dimensions)

        def project(block: slice) -> None:
            # In float64, so that equal patches are equal after the projection.
            centered = (exact.raw(block) - exact.offset) * exact.scale
            vectors[block] = (centered @ matrix).float()

        for_each(project, row_blocks(len(exact)))
        self.vectors = vectors
        self.scale = exact.scale

    def __len__(self) -> int:
        return len(self.vectors)

    def centered(self, rows: Rows) -> torch.Tensor:
        return self.vectors[rows]  # the patches were centered before they were projected

    def uncentered(self, rows: Rows) -> torch.Tensor:
        return self.vectors[rows]


def column_statistics(
    patches: np.ndarray, for_each: ForEach
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Smallest, largest and mean value of every column, float64; one pass over the data.

    Raises
    ------
    InputError
        If the patches contain NaN or infinity.
    """

    def survey(block: slice) -> torch.Tensor:
        vectors = as_tensor(patches[block])
        return torch.stack(
            [vectors.amin(0).double(), vectors.amax(0).double(), vectors.double().sum(0)]
        )

    blocks = for_each(survey, row_blocks(len(patches)))
    lows, highs, sums = torch.stack(blocks, dim=1)  # each of shape (blocks, c)
    lowest = lows.amin(0)
    highest = highs.amax(0)
    if not (torch.isfinite(lowest).all() and torch.isfinite(highest).all()):
        raise InputError("patches: contain NaN or infinity; remove those rows first")
    return lowest, highest, sums.sum(0) / len(patches)


def safe_scale(widest: float) -> float:
    """A power of two that brings the widest column near 1, if its squares might leave float32.

    >>> safe_scale(3.0), safe_scale(2.0**100) == 2.0**-101
    (1.0, True)
    """
    if widest == 0 or SMALLEST_RANGE < widest < LARGEST_RANGE:
        return 1.0
    return float(2.0 ** -np.frexp(widest)[1])


def at_least_float32(vectors: torch.Tensor) -> torch.Tensor:
    """float16 becomes float32; float32 and float64 stay as they are."""
    return vectors.float() if vectors.dtype == torch.float16 else vectors
