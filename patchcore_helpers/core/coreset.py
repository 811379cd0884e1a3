"""Coresets: which patches the memory bank keeps.

Greedy k-center (farthest-first traversal, Gonzalez 1985; PatchCore, Roth et al. 2022, section 3.2)
always takes the patch that is farthest from everything taken before. The plain algorithm looks at
all N patches after every pick. `k_center_greedy` makes the same picks in far fewer passes over the
data, because of one fact: *the distance to the nearest center can only fall*.

So keep a **pool** of the B patches that are farthest now, and remember how far the best patch
outside the pool is (the **bound**). As long as the farthest patch in the pool is at or beyond the
bound, no patch outside can beat it, and the next pick needs the pool alone. When the pool runs dry,
all its picks are applied to all N patches by one matrix product.

Taught in notebook 3.
"""

import operator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.random_projection import GaussianRandomProjection
from tqdm.auto import tqdm

from patchcore_helpers.errors import InputError

ROWS = 4096  # rows per chunk: a chunk and its distances stay in the processor's cache
CENTERS = 256  # centers per block
POOL = 2048  # most rows in a pool: the distances between them are computed all at once
TOLERANCE = 1e-4  # largest relative error of a squared distance before the precise form takes over


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
        from any patch to its nearest chosen patch, measured in `space`.
    space : str
        "exact" (distances between the patches) or "projected" (between their random projections).
    """

    indices: np.ndarray
    radii: np.ndarray | None
    space: str

    def __len__(self):
        return len(self.indices)


class _Space:
    """The vectors that are searched, given out in centered float32 pieces.

    A common offset adds nothing to a distance but costs digits in ||x||^2 - 2 x.c + ||c||^2, so
    pieces are centered on the fly; the source itself (perhaps a memory map) is never copied whole.
    """

    name = "exact"

    def __init__(self, patches, projection, random_state, each):
        self.rows, self.each = _as_matrix(patches, "patches"), each
        self.shift, self.scale = _offset_and_scale(self.rows, each)
        width = self.rows.shape[1]
        if projection is not None and width > _count(projection, 1, None, "projection"):
            map_ = GaussianRandomProjection(projection, random_state=random_state)
            matrix = torch.from_numpy(map_.fit(np.zeros((1, width))).components_.T.copy())
            projected = torch.empty(len(self), projection)

            def project(part):  # in float64, so that equal rows stay equal
                projected[part] = ((self.raw(part) - self.shift) * self.scale) @ matrix

            each(project, self.parts())
            self.rows, self.shift, self.name = projected, None, "projected"

    def __len__(self):
        return self.rows.shape[0]

    def parts(self):
        return _parts(len(self))

    def raw(self, part):
        if isinstance(part, torch.Tensor) and isinstance(self.rows, np.ndarray):
            part = part.numpy()
        return _tensor(self.rows[part])

    def centered(self, part):
        """float32 rows without their common offset: for matrix products."""
        rows = self.raw(part)
        if self.name == "projected":
            return rows
        rows = rows.float() if rows.dtype == torch.float16 else rows
        rows = rows - self.shift.to(rows.dtype)
        return (rows if self.scale == 1 else rows * self.scale).float()

    def original(self, part):
        """The rows as they were given: their direct differences lose nothing to rounding."""
        rows = self.raw(part)
        rows = rows.float() if rows.dtype == torch.float16 else rows
        return rows if self.name == "projected" or self.scale == 1 else rows * self.scale


def k_center_greedy(
    patches, n_centers, *, projection=128, random_state=0, weights=None, progress=False
):
    """Choose rows by greedy k-center: the same picks as the sequential algorithm, in fewer passes.

    Parameters
    ----------
    patches : array-like of float16, float32 or float64, shape (n, c)
        NumPy array, torch tensor or `numpy.memmap` (read in chunks, never loaded whole).
    n_centers : int
        How many rows to choose, from 1 to n.
    projection : int or None
        Search in a Gaussian random projection to this many dimensions (Johnson-Lindenstrauss);
        None, or any number from c upwards, searches the patches themselves.
    random_state : int
        Seeds the projection and the first center (a random row, part of the coreset).
    weights : array-like of float, shape (n,), optional
        Positive; each pick is then the row with the largest weight times distance. Only ratios
        between weights matter: they are divided by the largest one.
    progress : bool
        Draw a bar on standard error with the picks, the radius and the time left.

    Returns
    -------
    Coreset
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

    Distances are float32. A row that is so long beside the radius that the matrix product's
    rounding would show in it is from then on compared by direct differences (slower). What is
    smaller than 1e-13 of the widest column may count as 0.

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
    generator = _generator(random_state)
    with _workers() as each, tqdm(unit="pick", disable=not progress) as bar:
        space = _Space(patches, projection, random_state, each)
        n_centers = _count(n_centers, 1, len(space), "n_centers")
        weights2, first = _squared_weights(weights, len(space)), int(generator.integers(len(space)))
        bar.reset(n_centers)
        indices, distances = _greedy(space, n_centers, weights2, first, bar)
    radii = np.sqrt(np.asarray(distances)) / space.scale
    return Coreset(np.asarray(indices, np.int64), radii.astype(np.float32), space.name)


def _greedy(space, n_centers, weights2, first, bar):
    """Picks, and the squared radius after each."""
    n = len(space)
    nearest = torch.full((n,), torch.inf)  # squared distance to the nearest center; chosen: -1
    norms = torch.empty(n)

    def measure(part):
        norms[part] = space.centered(part).square().sum(1)

    space.each(measure, space.parts())
    # below `doubt` a row's priority is lost in the rounding of ||x||^2 - 2 x.c + ||c||^2 ...
    doubt = norms * (16 * torch.finfo(torch.float32).eps / TOLERANCE)
    doubt = doubt if weights2 is None else (doubt * weights2).float()
    by_difference = torch.zeros(n, dtype=torch.bool)  # ... so these rows get ||x - c||^2 instead
    indices, reached, fresh, size = [first], [], [first], min(POOL, 128)
    while True:
        _lower(space, torch.tensor(fresh), nearest, norms, by_difference)
        nearest[fresh], doubt[fresh], by_difference[fresh] = -1, 0, False
        while True:
            priority = nearest if weights2 is None else nearest * weights2
            radius2, floor = max(priority.max().item(), 0.0), doubt.max().item()
            if floor <= radius2:
                break
            rows = (doubt > radius2 / 4).nonzero()[:, 0]
            nearest[rows], doubt[rows], by_difference[rows] = torch.inf, 0, True
            _lower_by_difference(space, rows, torch.tensor(indices), nearest)
        bar.update(len(indices) - bar.n)
        bar.set_postfix(radius=f"{radius2**0.5 / space.scale:.4g}")
        wanted = n_centers - len(indices)
        if radius2 == 0 and wanted:  # no distinct row is left
            indices += np.setdiff1d(np.arange(n), indices)[:wanted].tolist()
            bar.update(wanted)
        if len(indices) == n_centers:
            return indices, reached + [radius2] * (n_centers - len(reached))
        values, rows = priority.topk(min(size + 1, n))
        bound = max(floor, values[size].item()) if n > size else floor
        values, rows = values[:size].numpy().copy(), rows[:size]
        between = _between(space, rows, by_difference[rows].any())
        between = (between if weights2 is None else between * weights2[rows]).numpy()
        picks, best = _pick(values, between, bound, wanted)
        fresh = rows[picks].tolist()
        indices += fresh
        reached += best
        size = min(max(64, 8 * len(fresh)), POOL)  # an early pass yields few picks


def _pick(values, between, bound, wanted):
    """Greedy choice inside the pool for as long as no row outside can be farther."""
    picks, best = [], []
    while len(picks) < wanted:
        i = values.argmax()
        if values[i] < bound or values[i] <= 0:
            break
        picks.append(i)
        best.append(float(values[i]))
        np.minimum(values, between[i], out=values)
        values[i] = -1
    return picks, best


def _between(space, rows, by_difference):
    """Squared distances between the rows of a pool."""
    if by_difference:
        vectors = space.original(rows)
        return _differences(vectors, vectors)
    vectors = space.centered(rows)
    squares = vectors.square().sum(1)
    return _products(vectors, -2 * vectors, squares).add_(squares[:, None]).clamp_(min=0)


def _lower(space, centers, nearest, norms, by_difference):
    """Lower every row's squared distance to its nearest center by the new centers."""
    vectors = space.centered(centers)
    blocks = list(zip(vectors.split(CENTERS), vectors.square().sum(1).split(CENTERS), strict=True))

    def lower(part):
        exempt, lowest = by_difference[part], nearest[part]
        if exempt.all():
            return
        rows = space.centered(part)
        for c, squares in blocks:
            found = _products(rows, -2 * c, squares).amin(1).add_(norms[part]).clamp_(min=0)
            torch.minimum(lowest, found.masked_fill_(exempt, torch.inf), out=lowest)

    space.each(lower, space.parts())
    if by_difference.any():
        _lower_by_difference(space, by_difference.nonzero()[:, 0], centers, nearest)


def _lower_by_difference(space, rows, centers, nearest):
    vectors = space.original(centers)

    def lower(some):
        few = space.original(some)
        found = [_differences(few, c).amin(1) for c in vectors.split(CENTERS)]
        nearest[some] = torch.minimum(nearest[some], torch.stack(found).amin(0))

    space.each(lower, rows.split(ROWS))


def _products(rows, minus_twice, squares):
    """||v||^2 - 2 x.v for all rows x and vectors v: the squared distance but for ||x||^2."""
    if torch.backends.mkldnn.is_available():  # up to twice as fast here as torch.addmm
        return torch.ops.mkldnn._linear_pointwise(rows, minus_twice, squares, "none", [], "")
    return torch.addmm(squares, rows, minus_twice.T)


def _differences(a, b):
    """Squared distances ||x - v||^2 term by term: slow, and right whatever the offset."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square_().float()


def random_coreset(
    patches, n_centers, *, projection=None, random_state=0, weights=None, progress=False
):
    """Choose rows uniformly at random: the baseline that a coreset has to beat.

    Takes what `k_center_greedy` takes, so that either can stand in an experiment; there is no
    search for `projection`, `weights` and `progress` to act on. `radii` is None, because nothing
    was measured; the largest of the nested minimum distances is the coverage radius of any order.

    Examples
    --------
    >>> import numpy as np
    >>> square = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> order = random_coreset(square, 4).indices
    >>> nested_min_distances(square, square[order], [3, 4]).max(axis=1)
    array([1., 0.], dtype=float32)
    """
    n = len(_as_matrix(patches, "patches"))
    n_centers = _count(n_centers, 1, n, "n_centers")
    order = _generator(random_state).permutation(n)[:n_centers]
    return Coreset(order.astype(np.int64), None, "exact")


VARIANCES = ("position", "neighborhood", "dimensions")


def variance_weights(patches, variance="position", exponent=1.0, random_state=0):
    """Weights for weighted k-center: a patch's variance, to the power of `exponent`.

    Parameters
    ----------
    patches : array of float, shape (images, rows, columns, c)
    variance : str
        "position": the variance across the images of what is seen at the patch's place, summed over
        the channels; the same for all images. "neighborhood": the mean squared distance to their
        mean of the patches in the same of 64 k-means clusters of feature space, wherever they are.
        "dimensions": the spread among the numbers of one vector, which says nothing about images;
        kept because a published experiment used it.
    exponent : float, from 0
        0 gives equal weights: plain k-center.
    random_state : int
        Seeds the clusters.

    Returns
    -------
    float64 array of shape (images * rows * columns,)
        Positive, at most 1. Taught in notebook 5.

    Examples
    --------
    >>> patches = np.array([[[[0.0], [1.0]]], [[[0.0], [3.0]]], [[[1.0], [5.0]]]])
    >>> variance_weights(patches).round(2)
    array([0.08, 1.  , 0.08, 1.  , 0.08, 1.  ])
    """
    patches = np.asarray(patches)
    if patches.ndim != 4 or 0 in patches.shape:
        raise InputError(f"patches {patches.shape}: give (images, rows, columns, channels)")
    if variance not in VARIANCES:
        raise InputError(f"variance={variance!r}: choose one of {', '.join(VARIANCES)}")
    if not (isinstance(exponent, int | float | np.number) and 0 <= exponent < np.inf):
        raise InputError(f"exponent={exponent!r}: give a number from 0")
    _count(random_state, 0, 2**32 - 1, "random_state")
    if not np.isfinite(patches.sum(dtype=float)):
        raise InputError("patches: contain NaN or infinity; remove those rows first")
    rows = patches.reshape(-1, patches.shape[-1])
    if variance == "position":
        spread = np.tile(patches.var(0, dtype=float).sum(-1).ravel(), len(patches))
    elif variance == "dimensions":
        spread = rows.var(1, dtype=float)
    else:
        clusters = MiniBatchKMeans(min(64, len(rows)), n_init=1, random_state=random_state)
        label = clusters.fit_predict(rows)
        off = np.square(rows - clusters.cluster_centers_[label], dtype=float).sum(1)
        spread = (np.bincount(label, off) / np.maximum(np.bincount(label), 1))[label]
    top = spread.max()
    share = np.maximum(spread / top, 1e-6) if top > 0 else np.ones(len(rows))
    return share**exponent


def variance_weighted_k_center(
    patches, n_centers, *, variance="position", exponent=1.0, projection=128, random_state=0
):
    """Greedy k-center that prefers patches of high variance; see `variance_weights`.

    Each pick is the patch x with the largest w(x) d(x). Exponent 0 is plain k-center.

    Parameters
    ----------
    patches : array of float, shape (images, rows, columns, c)
    n_centers, projection, random_state : see `k_center_greedy`

    Returns
    -------
    Coreset
        Its radii are weighted distances, relative to the largest weight.
    """
    weights = variance_weights(patches, variance, exponent, random_state)
    rows = patches.reshape(-1, patches.shape[-1])
    return k_center_greedy(
        rows, n_centers, projection=projection, random_state=random_state, weights=weights
    )


SAMPLERS = {"k_center": k_center_greedy, "random": random_coreset}


def nested_min_distances(queries, bank, sizes):
    """Distance from every query to its nearest of the first s bank rows, for each s in `sizes`.

    With the bank in greedy order this is what the banks of all ratios would answer, in one pass.

    Parameters
    ----------
    queries : array-like of float, shape (n_queries, c)
    bank : array-like of float, shape (n_bank, c)
        In the order of the choice.
    sizes : sequence of int
        Rising, each from 1 to n_bank.

    Returns
    -------
    ndarray of float32, shape (len(sizes), n_queries)
        Euclidean distances. The winner is found by a matrix product, its distance is then computed
        from direct differences.

    Examples
    --------
    >>> import numpy as np
    >>> nested_min_distances(np.array([[1.0], [7.0]]), np.array([[0.0], [10.0], [6.0]]), [1, 3])
    array([[1., 7.],
           [1., 1.]], dtype=float32)
    """
    queries, bank = _as_matrix(queries, "queries"), _as_matrix(bank, "bank")
    if queries.shape[1] != bank.shape[1]:
        raise InputError(f"queries: {queries.shape[1]} columns, but bank has {bank.shape[1]}")
    sizes = [_count(s, 1, len(bank), "sizes") for s in sizes]
    if not sizes or any(a >= b for a, b in pairwise(sizes)):
        raise InputError("sizes: give at least one, each larger than the one before")
    bank = _tensor(bank[: sizes[-1]]).float()
    shift = bank.mean(0)
    vectors = bank - shift
    minus_twice, squares = -2 * vectors, vectors.square().sum(1)
    edges = [0, *sizes]
    out = np.empty((len(sizes), len(queries)), np.float32)

    def search(part):
        rows = _tensor(queries[part]).float()
        centered, winner = rows - shift, torch.zeros(len(rows), dtype=torch.int64)
        lowest = torch.full((len(rows),), torch.inf)
        for k, (a, b) in enumerate(pairwise(edges)):
            for s in range(a, b, CENTERS):
                e = min(s + CENTERS, b)
                found = _products(centered, minus_twice[s:e], squares[s:e])
                least = found.amin(1)
                closer = (least < lowest).nonzero()[:, 0]  # fewer and fewer, so look only there
                lowest[closer], winner[closer] = least[closer], found[closer].argmin(1) + s
            out[k, part] = (rows - bank[winner]).norm(dim=1).numpy()

    with _workers() as each:
        each(search, _parts(len(queries)))
    if not (torch.isfinite(shift).all() and np.isfinite(out).all()):
        raise InputError("queries, bank: contain NaN or infinity; remove those rows first")
    return out


def _parts(n):
    return [slice(start, min(start + ROWS, n)) for start in range(0, n, ROWS)]


@contextmanager
def _workers():
    """Gives `each(work, parts)`: single-threaded workers, so that no step waits for another's end.

    (Torch's own threads meet after every operation; on a busy machine that is most of the time.)
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield lambda work, parts: list(pool.map(work, parts))
    finally:
        torch.set_num_threads(threads)


def _as_matrix(values, name):
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    values = values if isinstance(values, np.ndarray) else np.asarray(values)
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"{name}: need a matrix (rows, columns) with entries, got {values.shape}")
    if values.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(f"{name}: need float16, float32 or float64, got {values.dtype}")
    return values


def _tensor(part):
    """A torch view of a NumPy piece (a copy if the piece is read-only) or a tensor as it is."""
    if isinstance(part, torch.Tensor):
        return part
    return torch.from_numpy(np.require(part, requirements=["C", "W"]))


def _offset_and_scale(rows, each):
    """Mean of the rows, and a power of two that keeps squares inside float32's range."""

    parts = _parts(len(rows))
    found = torch.empty(3, len(parts), rows.shape[1], dtype=torch.float64)

    def survey(number):
        part = _tensor(rows[parts[number]])
        found[:, number] = torch.stack([part.amin(0), part.amax(0), part.double().sum(0)])

    each(survey, range(len(parts)))
    low, high, total = found[0].amin(0), found[1].amax(0), found[2].sum(0)
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise InputError("patches: contain NaN or infinity; remove those rows first")
    width = (high - low).max().item()
    scale = 1.0 if width == 0 or 1e-6 < width < 1e12 else 2.0 ** -np.frexp(width)[1]
    return (total / len(rows)).clamp(low, high), float(scale)


def _squared_weights(weights, n):
    if weights is None:
        return None
    weights = np.asarray(weights, np.float64)
    if weights.shape != (n,):
        raise InputError(f"weights: need one per patch, shape ({n},), got {weights.shape}")
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise InputError("weights: must be positive and finite")
    return torch.from_numpy((weights / weights.max()).astype(np.float32)).double() ** 2


def _count(value, low, high, name):
    span = f"from {low} to {high}" if high is not None else f"{low} or more"
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if isinstance(value, bool) or number is None or not low <= number <= (high or number):
        raise InputError(f"{name}: must be a whole number, {span}; got {value!r}")
    return number


def _generator(random_state):
    return np.random.default_rng(_count(random_state, 0, 2**32 - 1, "random_state"))
