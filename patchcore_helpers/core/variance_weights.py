"""Weights that make a coreset prefer patches of high variance (experiment 2).

Taught in notebook 5.
"""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.cluster import MiniBatchKMeans

from patchcore_helpers.core.validation import check_choice, check_integer, check_real, check_seed
from patchcore_helpers.errors import InputError

VARIANCES = ("position", "neighborhood", "dimensions")
N_CLUSTERS = 64  # of feature space, for "neighborhood"
SMALLEST_WEIGHT = 1e-6  # beside the largest, 1: a patch without variance can still be chosen


def variance_weights(
    patches: ArrayLike,
    variance: str = "position",
    exponent: float = 1.0,
    random_state: int = 0,
    border_ring: int = 0,
) -> np.ndarray:
    """Weights for weighted k-center: a patch's variance, to the power of `exponent`.

    Parameters
    ----------
    patches : array-like of float, shape (images, rows, columns, c)
    variance : str
        - "position": the variance across the images at the patch's position, summed over the
          channels; the same for all images.
        - "neighborhood": the mean squared distance of patches to the center of their cluster, one
          of 64 k-means clusters of feature space; the same for all patches of a cluster.
        - "dimensions": the variance among the numbers of one vector, which says nothing about
          images; kept because a published experiment used it.
    exponent : float, from 0
        0 gives equal weights: plain k-center.
    random_state : int
        Seed of the clusters, from 0 to 2**32 - 1.
    border_ring : int, from 0
        How many rings of patches along the border get the weight of the nearest patch inside them,
        instead of their own. The zeros that count beyond the border (see
        `patchcore_helpers.core.aggregation.local_average`) shorten the vectors of the outermost
        ring to two thirds, and so lower the variances "position" and "dimensions" there, whatever
        the images show: the ring is starved of picks, and normal images score highest in it.
        1 corrects for a 3 x 3 neighborhood on the grid of the patches.

    Returns
    -------
    ndarray of float64, shape (images * rows * columns,)
        From ``1e-6 ** exponent`` to 1, which is the weight of the patch with the largest variance.

    Raises
    ------
    InputError
        For patches that are no stack of feature maps or not finite, and for bad parameters.

    Examples
    --------
    >>> patches = np.array([[[[0.0], [1.0]]], [[[0.0], [3.0]]], [[[1.0], [5.0]]]])
    >>> variance_weights(patches).round(2)
    array([0.08, 1.  , 0.08, 1.  , 0.08, 1.  ])

    Of these 3 x 3 patches only the middle one varies. Its ring may take over its weight:

    >>> stack = np.zeros((2, 3, 3, 1))
    >>> stack[1, 1, 1] = 5.0
    >>> variance_weights(stack)[:9].round(2)
    array([0., 0., 0., 0., 1., 0., 0., 0., 0.])
    >>> variance_weights(stack, border_ring=1)[:9]
    array([1., 1., 1., 1., 1., 1., 1., 1., 1.])
    """
    stack = np.asarray(patches)
    if stack.ndim != 4 or 0 in stack.shape:
        raise InputError(f"patches {stack.shape}: give (images, rows, columns, channels)")
    check_choice(variance, "variance", VARIANCES)
    exponent = check_real(exponent, "exponent", 0)
    random_state = check_seed(random_state)
    border_ring = check_integer(border_ring, "border_ring", 0)
    if min(stack.shape[1:3]) <= 2 * border_ring:
        raise InputError(
            f"border_ring={border_ring}: leaves nothing of {stack.shape[1]} x {stack.shape[2]} "
            "patches; choose fewer rings"
        )
    if not np.isfinite(stack.sum(dtype=float)):
        raise InputError("patches: contain NaN or infinity; remove those rows first")

    if variance == "position":
        values = position_variance(stack)
    elif variance == "neighborhood":
        values = neighborhood_variance(stack, random_state)
    else:
        values = dimension_variance(stack)
    if border_ring:
        values = copied_outwards(values.reshape(stack.shape[:3]), border_ring).ravel()
    largest = values.max()
    if largest == 0:
        return np.ones(len(values))
    return np.maximum(values / largest, SMALLEST_WEIGHT) ** exponent


def copied_outwards(values: np.ndarray, n_rings: int) -> np.ndarray:
    """The outermost rings replaced by the nearest value inside them; (images, rows, columns)."""
    inside = values[:, n_rings:-n_rings, n_rings:-n_rings]
    return np.pad(inside, [(0, 0), (n_rings, n_rings), (n_rings, n_rings)], mode="edge")


def position_variance(stack: np.ndarray) -> np.ndarray:
    """Variance across the images at every grid position, repeated for every image."""
    at_position = stack.var(axis=0, dtype=float).sum(axis=-1)
    return np.tile(at_position.ravel(), len(stack))


def neighborhood_variance(stack: np.ndarray, random_state: int) -> np.ndarray:
    """Mean squared distance to the cluster's center, over the patches of the same cluster."""
    vectors = stack.reshape(-1, stack.shape[-1])
    clusters = MiniBatchKMeans(min(N_CLUSTERS, len(vectors)), n_init=1, random_state=random_state)
    labels = clusters.fit_predict(vectors)
    to_center = np.square(vectors - clusters.cluster_centers_[labels], dtype=float).sum(axis=1)
    in_cluster = np.bincount(labels, to_center) / np.maximum(np.bincount(labels), 1)
    return in_cluster[labels]


def dimension_variance(stack: np.ndarray) -> np.ndarray:
    """Variance among the numbers of each vector."""
    return stack.reshape(-1, stack.shape[-1]).var(axis=1, dtype=float)
