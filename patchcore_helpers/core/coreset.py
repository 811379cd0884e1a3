"""Coresets: which patches the memory bank keeps.

Greedy k-center (farthest-first traversal, Gonzalez 1985; PatchCore, Roth et al. 2022, section 3.2)
always takes the patch that is farthest from everything taken before. `k_center_greedy_reference` is
the whole algorithm in ten lines. After every pick it looks at all n patches, and what takes the
time is not the arithmetic but moving all patches through the processor for a single pick.

`k_center_greedy` makes the same picks in far fewer passes over the data, because of one fact: **the
distance to the nearest center can only fall**. Each round of `GreedySearch`

1. takes the patches that are farthest now as a **pool**, and notes the distance of the farthest
   patch outside the pool, the **bound**;
2. runs the reference algorithm inside the pool. As long as the farthest patch of the pool is at or
   beyond the bound, no patch outside can be farther: they were within the bound when the round
   began, and have come no farther since. So each pick is what the reference would have picked;
3. applies all picks of the round to all n patches in one **pass over the data**, a matrix product.

Taught in notebook 3.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from patchcore_helpers.core.device import widest_float
from patchcore_helpers.core.distances import (
    BLOCK_CENTERS,
    BLOCK_ROWS,
    ForEach,
    nested_min_distances,
    products_form,
    row_blocks,
    single_threaded_workers,
    squared_differences,
)
from patchcore_helpers.core.validation import as_float_rows, check_integer, check_seed
from patchcore_helpers.core.variance_weights import VARIANCES, variance_weights
from patchcore_helpers.core.vector_space import VectorSpace, open_space
from patchcore_helpers.errors import InputError

TAKEN = -1.0  # stands for a center's distance: below all distances, so it is never the farthest

__all__ = [
    "SAMPLERS",
    "VARIANCES",
    "Coreset",
    "GreedySearch",
    "Sampler",
    "k_center_greedy",
    "k_center_greedy_reference",
    "nested_min_distances",
    "random_coreset",
    "variance_weighted_k_center",
    "variance_weights",
]


def k_center_greedy_reference(patches: np.ndarray, n_centers: int, *, first: int = 0) -> "Coreset":
    """Greedy k-center as it is written in books: the definition of what `k_center_greedy` chooses.

    Parameters
    ----------
    patches : ndarray of float, shape (n, c)
    n_centers : int
        How many rows to choose, from 1 to the number of distinct rows.
    first : int
        The row to begin with.

    Returns
    -------
    Coreset

    Examples
    --------
    >>> line = np.array([[0.0], [1.0], [4.0], [10.0]])
    >>> chosen = k_center_greedy_reference(line, 3)
    >>> chosen.indices
    array([0, 3, 2])
    >>> chosen.radii
    array([10.,  4.,  1.], dtype=float32)
    """
    centers = [first]
    nearest = np.linalg.norm(patches - patches[first], axis=1)  # distance to the nearest center
    radii = [nearest.max()]
    while len(centers) < n_centers:
        farthest = int(nearest.argmax())
        centers.append(farthest)
        to_farthest = np.linalg.norm(patches - patches[farthest], axis=1)
        nearest = np.minimum(nearest, to_farthest)
        radii.append(nearest.max())
    return Coreset(np.array(centers), np.array(radii, np.float32), "exact")


@dataclass(frozen=True)
class Coreset:
    """Rows chosen from a set of patches, in the order of the choice.

    Every prefix is a coreset too: the first j entries are what a run for j rows would have chosen.

    Attributes
    ----------
    indices : ndarray of int64, shape (k,)
        Row numbers, without repetition.
    radii : ndarray of float32, shape (k,), or None
        Coverage radius after each pick: the largest distance (times weight, if there are weights)
        from any patch to its nearest chosen patch, measured in `space`. None: not measured.
    space : str
        "exact" (distances between the patches) or "projected" (between their random projections).
    """

    indices: np.ndarray
    radii: np.ndarray | None
    space: str

    def __len__(self) -> int:
        return len(self.indices)


class Sampler(Protocol):
    """What all samplers of `SAMPLERS` have in common: they are called in the same way."""

    def __call__(
        self,
        patches: ArrayLike | torch.Tensor,
        n_centers: int,
        *,
        projection: int | None = 128,
        random_state: int = 0,
        weights: ArrayLike | None = None,
        progress: bool = False,
    ) -> Coreset:
        """Choose `n_centers` rows of the patches."""


def k_center_greedy(
    patches: ArrayLike | torch.Tensor,
    n_centers: int,
    *,
    projection: int | None = 128,
    random_state: int = 0,
    weights: ArrayLike | None = None,
    first: int | Sequence[int] | None = None,
    progress: bool = False,
) -> Coreset:
    """Choose rows by greedy k-center: the picks of the reference algorithm, in fewer passes.

    Parameters
    ----------
    patches : array-like of float16, float32 or float64, shape (n, c)
        NumPy array, torch tensor or `numpy.memmap` (read in blocks, never loaded as a whole).
        With a tensor on a GPU, the search runs there.
    n_centers : int
        How many rows to choose, from 1 to n.
    projection : int or None
        Search in a Gaussian random projection to this many dimensions (Johnson-Lindenstrauss)
        where that shortens the vectors at least by half. None, or any number above c / 2, searches
        the patches themselves: the result's `space` says which it was.
    random_state : int
        Seed of the projection and of the first center, from 0 to 2**32 - 1.
    weights : array-like of float, shape (n,), optional
        Positive; each pick is then the row with the largest weight times distance. Only ratios
        between weights matter: they are divided by the largest one.
    first : int or sequence of int, optional
        The row to begin with, from 0 to n - 1; None: a random row. Several rows are taken for
        chosen already, in this order: the search goes on from there.
    progress : bool
        Draw a bar on standard error with the picks, the radius and the time left.

    Returns
    -------
    Coreset
        Before the last of several `first` rows, radii are infinite: they are not measured.
        Once all distinct rows are chosen the radius is 0, and the rows not chosen so far follow in
        the order of their row numbers.

    Raises
    ------
    InputError
        For input that is empty, not a matrix or not finite, and for parameters out of range.

    Notes
    -----
    Extra memory: n x (4 p + 32) bytes for p projected dimensions, n x 32 without a projection
    (24 n more with weights), and about 100 MB whatever n is.

    Distances are float32. Where a row is so long compared with the radius that the rounding of the
    matrix product would show, the row is from then on compared by direct differences (slower).
    What is smaller than 1e-13 of the widest column may count as 0.

    Examples
    --------
    >>> import numpy as np
    >>> line = np.array([[0.0], [1.0], [4.0], [10.0]])
    >>> chosen = k_center_greedy(line, 4, random_state=0)
    >>> chosen.indices
    array([3, 0, 2, 1])
    >>> chosen.radii
    array([10.,  4.,  1.,  0.], dtype=float32)
    """
    seed = check_seed(random_state)
    with single_threaded_workers() as for_each, tqdm(unit="pick", disable=not progress) as bar:
        space = open_space(patches, projection, seed, for_each)
        n_centers = check_integer(n_centers, "n_centers", 1, len(space))
        squared_weights = normalized_squared_weights(weights, len(space))
        if first is None:
            first = int(np.random.default_rng(seed).integers(len(space)))
        begun = [first] if isinstance(first, int | np.integer) else list(first)
        begun = [check_integer(row, "first", 0, len(space) - 1) for row in begun]
        if not 1 <= len(set(begun)) == len(begun) <= n_centers:
            raise InputError(f"first: give from 1 to {n_centers} rows, each once")
        bar.reset(n_centers)
        search = GreedySearch(space, for_each, begun, squared_weights)
        for n_chosen in search.rounds(n_centers):
            bar.update(n_chosen - bar.n)
            bar.set_postfix(radius=f"{search.squared_radius**0.5 / space.scale:.4g}")
    radii = np.sqrt(np.asarray(search.squared_radii)) / space.scale
    return Coreset(np.asarray(search.centers, np.int64), radii.astype(np.float32), space.name)


class GreedySearch:
    """Greedy k-center by pool and bound, as the module's docstring explains it.

    All distances are squared ones: squaring keeps their order. A row's *priority* is its squared
    distance to its nearest center (times its squared weight); the row with the largest is next.

    The distances come from matrix products (`products_form`), which are fast, but whose rounding
    error grows with the length of a row. So every row has a limit of trust: a priority above it is
    right to within `tolerance`. When the search reaches a row's limit, that row is compared by
    differences (`squared_differences`) from then on.

    Parameters
    ----------
    space : VectorSpace
    for_each : callable
        From `single_threaded_workers`.
    first : list of int
        The rows to begin with.
    squared_weights : tensor of float64, shape (n,), optional
    largest_pool : int
        Most rows in a pool, at least 1: the distances between all of them are kept in memory.
    tolerance : float
        Largest relative error of a squared distance.

    Attributes
    ----------
    centers : list of int
        The rows chosen so far, in the order of the choice.
    squared_radii : list of float
        The squared coverage radius after each pick. The last one follows when its pick has been
        applied to all rows: it is the distance of the pick after it.
    squared_radius : float
        The largest priority of all rows.
    """

    def __init__(
        self,
        space: VectorSpace,
        for_each: ForEach,
        first: list[int],
        squared_weights: torch.Tensor | None = None,
        *,
        largest_pool: int = 2048,
        tolerance: float = 1e-4,
    ):
        n = len(space)
        self.space = space
        self.for_each = for_each
        self.squared_weights = None
        if squared_weights is not None:
            wide = widest_float(space.device)
            self.squared_weights = squared_weights.to(wide).to(space.device)
        self.largest_pool = largest_pool
        self.pool_size = min(128, largest_pool)  # a first pool yields few picks

        self.centers = list(first)
        self.squared_radii = [np.inf] * (len(first) - 1)
        self.new_centers = list(first)  # those that `nearest` does not take into account yet

        # Squared distance of each row to its nearest center; it never rises. TAKEN for a center.
        device = space.device
        self.nearest = torch.full((n,), torch.inf, device=device)
        self.squared_norms = torch.empty(n, device=device)
        for_each(self._measure_norms, row_blocks(n, space.width))

        # Rows whose distances are computed by differences. Centers need no distances at all.
        self.by_difference = torch.zeros(n, dtype=torch.bool, device=device)

        # The priority above which a row's product is right to within `tolerance`: 0 for rows that
        # need no trust, since they are compared by differences or are centers.
        rounding_error = 16 * torch.finfo(torch.float32).eps  # of a product, relative to ||x||^2
        self.trust_limit = self._weighted(self.squared_norms * (rounding_error / tolerance)).float()

        # Both follow from the state above, after every pass over the data.
        self.priority = self.nearest
        self.squared_radius = np.inf

    def _measure_norms(self, block: slice) -> None:
        self.squared_norms[block] = self.space.centered(block).square().sum(1)

    def _weighted(self, squared_distances: torch.Tensor) -> torch.Tensor:
        if self.squared_weights is None:
            return squared_distances
        return squared_distances * self.squared_weights

    def rounds(self, n_centers: int) -> Iterator[int]:
        """Choose this many rows, round by round; yields the number of rows chosen so far."""
        self.pass_over_data()
        yield len(self.centers)
        while len(self.centers) < n_centers and self.squared_radius > 0:
            self.pick_from_pool(n_centers - len(self.centers))
            self.pass_over_data()
            yield len(self.centers)
        # What is missing is the radius after the last pick and, if all distinct rows are chosen
        # already, the rest of the rows, which leave the radius at 0.
        self.squared_radii += [self.squared_radius] * (n_centers - len(self.squared_radii))
        if len(self.centers) < n_centers:
            not_chosen = np.setdiff1d(np.arange(len(self.space)), self.centers)
            self.centers += not_chosen[: n_centers - len(self.centers)].tolist()
            yield len(self.centers)

    def pass_over_data(self) -> None:
        """Apply the new centers to all rows; then every priority is right, and so is the radius."""
        new_centers = torch.tensor(self.new_centers, device=self.space.device)
        self._lower_by_products(new_centers)
        self._lower_by_differences(self.by_difference.nonzero()[:, 0], new_centers)
        self.nearest[new_centers] = TAKEN
        self.by_difference[new_centers] = False
        self.trust_limit[new_centers] = 0
        self._update_priority()
        while self.squared_radius < self.trust_limit.max():
            self.switch_to_differences()

    def switch_to_differences(self) -> None:
        """Compare by differences the rows whose priority cannot be trusted at this radius.

        And, not to do this after every pass, the rows that come next: those whose priority cannot
        be trusted until the radius is half of what it is now.
        """
        rows = (self.trust_limit > self.squared_radius / 4).nonzero()[:, 0]
        self.by_difference[rows] = True
        self.trust_limit[rows] = 0
        self.nearest[rows] = torch.inf  # forget what the products said
        self._lower_by_differences(rows, torch.tensor(self.centers, device=self.space.device))
        self._update_priority()

    def _update_priority(self) -> None:
        self.priority = self._weighted(self.nearest)
        self.squared_radius = max(self.priority.max().item(), 0.0)  # 0 if all rows are centers

    def pick_from_pool(self, n_wanted: int) -> None:
        """Greedy k-center among the farthest rows, for as long as no row outside can be farther.

        Chooses from 1 to `n_wanted` rows: the farthest of all rows is always among them.
        """
        n = len(self.space)
        priority, rows = self.priority.topk(min(self.pool_size + 1, n))
        # The pool alone decides down to the farthest row outside it, and down to where some row's
        # priority cannot be trusted.
        bound = self.trust_limit.max().item()
        if n > self.pool_size:
            bound = max(bound, priority[self.pool_size].item())
        pool = rows[: self.pool_size]
        pool_priority = priority[: self.pool_size].cpu().numpy().copy()
        between = self._distances_within(pool).cpu().numpy()

        picks: list[int] = []  # numbers within the pool
        while len(picks) < n_wanted:
            farthest = int(pool_priority.argmax())
            radius = float(pool_priority[farthest])
            if radius < bound or radius <= 0:
                break
            picks.append(farthest)
            self.squared_radii.append(radius)  # of the picks before this one
            np.minimum(pool_priority, between[farthest], out=pool_priority)
            pool_priority[farthest] = TAKEN

        self.new_centers = pool[picks].tolist()
        self.centers += self.new_centers
        # The more picks a pool has given, the larger a pool pays off in the next round.
        self.pool_size = min(max(64, 8 * len(picks)), self.largest_pool)

    def _distances_within(self, pool: torch.Tensor) -> torch.Tensor:
        """Entry (i, j): the priority that row j of the pool has if row i is its only center."""
        if self.by_difference[pool].any():
            vectors = self.space.uncentered(pool)
            squared_distances = squared_differences(vectors, vectors)
        else:
            vectors = self.space.centered(pool)
            squared_norms = vectors.square().sum(1)
            squared_distances = products_form(vectors, -2 * vectors, squared_norms)
            squared_distances.add_(squared_norms[:, None]).clamp_(min=0)
        if self.squared_weights is None:
            return squared_distances
        return squared_distances * self.squared_weights[pool]

    def _lower_by_products(self, new_centers: torch.Tensor) -> None:
        """Lower `nearest` to the distance from the new centers, but for rows `by_difference`."""
        vectors = self.space.centered(new_centers)
        blocks = [
            (-2 * centers, centers.square().sum(1)) for centers in vectors.split(BLOCK_CENTERS)
        ]

        def lower(block: slice) -> None:
            exempt = self.by_difference[block]
            if exempt.all():
                return
            rows = self.space.centered(block)
            nearest = self.nearest[block]  # a view: what is written to it is written to all
            for minus_twice_centers, squared_norms in blocks:
                lowest = products_form(rows, minus_twice_centers, squared_norms).amin(1)
                lowest.add_(self.squared_norms[block]).clamp_(min=0)
                lowest.masked_fill_(exempt, torch.inf)
                torch.minimum(nearest, lowest, out=nearest)

        self.for_each(lower, row_blocks(len(self.space), self.space.width))

    def _lower_by_differences(self, rows: torch.Tensor, centers: torch.Tensor) -> None:
        """Lower `nearest` of these rows to the distance from these centers, computed exactly."""
        if len(rows) == 0:
            return
        blocks = self.space.uncentered(centers).split(BLOCK_CENTERS)

        def lower(part: torch.Tensor) -> None:
            vectors = self.space.uncentered(part)
            lowest = [squared_differences(vectors, block).amin(1) for block in blocks]
            self.nearest[part] = torch.stack([self.nearest[part], *lowest]).amin(0)

        self.for_each(lower, rows.split(BLOCK_ROWS))


def normalized_squared_weights(weights: ArrayLike | None, n: int) -> torch.Tensor | None:
    """The squares of the weights beside the largest one, float64; None if there are no weights.

    Raises
    ------
    InputError
        If the weights are not `n` positive, finite numbers.
    """
    if weights is None:
        return None
    values = np.asarray(weights, np.float64)
    if values.shape != (n,):
        raise InputError(f"weights: need one per patch, shape ({n},), got {values.shape}")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise InputError("weights: must be positive and finite")
    relative = (values / values.max()).astype(np.float32)
    return torch.from_numpy(relative).double() ** 2


def random_coreset(
    patches: ArrayLike | torch.Tensor,
    n_centers: int,
    *,
    projection: int | None = 128,
    random_state: int = 0,
    weights: ArrayLike | None = None,
    progress: bool = False,
) -> Coreset:
    """Choose rows uniformly at random: the baseline that a coreset has to beat.

    Parameters
    ----------
    patches : array-like of float16, float32 or float64, shape (n, c)
    n_centers : int
        How many rows to choose, from 1 to n.
    random_state : int
        Seed of the choice, from 0 to 2**32 - 1.
    projection, weights, progress : ignored
        There is no search that could use them. They are accepted so that all samplers can be called
        in the same way.

    Returns
    -------
    Coreset
        Its `radii` are None: no distance was measured. To measure them, take the largest of the
        `nested_min_distances`, as in the example.

    Raises
    ------
    InputError
        For input that is empty or not a matrix, and for parameters out of range.

    Examples
    --------
    >>> import numpy as np
    >>> square = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> order = random_coreset(square, 4).indices
    >>> nested_min_distances(square, square[order], [3, 4]).max(axis=1)
    array([1., 0.], dtype=float32)
    """
    n = len(as_float_rows(patches, "patches"))
    n_centers = check_integer(n_centers, "n_centers", 1, n)
    rng = np.random.default_rng(check_seed(random_state))
    order = rng.permutation(n)[:n_centers]
    return Coreset(order.astype(np.int64), None, "exact")


def variance_weighted_k_center(
    patches: ArrayLike,
    n_centers: int,
    *,
    variance: str = "position",
    exponent: float = 1.0,
    border_ring: int = 0,
    projection: int | None = 128,
    random_state: int = 0,
    progress: bool = False,
) -> Coreset:
    """Greedy k-center that prefers patches of high variance; see `variance_weights`.

    Each pick is the patch x with the largest w(x) d(x). Exponent 0 is plain k-center.

    Parameters
    ----------
    patches : array-like of float, shape (images, rows, columns, c)
    n_centers : int
        How many patches to choose, from 1 to images * rows * columns.
    variance, exponent, border_ring : see `variance_weights`
    projection, progress : see `k_center_greedy`
    random_state : int
        Seed of the clusters, the projection and the first center, from 0 to 2**32 - 1.

    Returns
    -------
    Coreset
        Its radii are weighted distances, relative to the largest weight.

    Raises
    ------
    InputError
        For patches that are no stack of feature maps or not finite, and for bad parameters.

    Examples
    --------
    >>> patches = np.array([[[[0.0], [1.0]]], [[[0.0], [3.0]]], [[[1.0], [5.0]]]])
    >>> variance_weighted_k_center(patches, 3).indices
    array([5, 1, 3])
    """
    stack = np.asarray(patches)
    weights = variance_weights(stack, variance, exponent, random_state, border_ring)
    return k_center_greedy(
        stack.reshape(-1, stack.shape[-1]),
        n_centers,
        projection=projection,
        random_state=random_state,
        weights=weights,
        progress=progress,
    )


SAMPLERS: dict[str, Sampler] = {"k_center": k_center_greedy, "random": random_coreset}
