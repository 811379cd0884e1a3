"""A toy that can be drawn in the plane: what happens when a coreset prefers patches that vary.

Every image has two places. At place A nearly all normal images look alike, and a few are *odd*: far
off, in any direction. At place B all normal images differ, along a line. B has the larger variance.
Taught in notebook 5.
"""

from dataclasses import dataclass

import numpy as np

from patchcore_helpers.core.coreset import k_center_greedy
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.variance_weights import variance_weights

A, B = 0, 1  # the places
JITTER = 0.1  # standard deviation, in the units of the plane
RADIUS = 3.0  # how far off odd images are at A
LINE = (6.0, 12.0)  # where the line of B begins and ends
FAINT = 0.5  # how far from the line a faint defect at B is
CLEAR = 1.5  # how far from A a clear defect is: nearer than the odd normal images
FUTURES = ("faint defects at B", "clear defects at A, odd normal images")


def draw_images(random: np.random.Generator, count: int, share_odd: float = 0.1) -> np.ndarray:
    """Normal images of the toy.

    Parameters
    ----------
    random : Generator
    count : int
    share_odd : float
        Share of the images that are odd at A.

    Returns
    -------
    float array of shape (count, 1, 2, 2)
        As patches: images, one row, the places A and B, two features.
    """
    at_a = random.normal(0, JITTER, (count, 2))
    is_odd = random.random(count) < share_odd
    angle = random.uniform(0, 2 * np.pi, count)
    at_a[is_odd] += RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)[is_odd]
    at_b = np.stack([random.uniform(*LINE, count), random.normal(0, JITTER, count)], axis=1)
    return np.stack([at_a, at_b], axis=1)[:, None]


def draw_future(
    random: np.random.Generator, future: str, count: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """Normal and defective test images of one of the `FUTURES`."""
    if future == FUTURES[0]:
        good, defective = (draw_images(random, count, share_odd=0) for _ in range(2))
        defective[:, 0, B, 1] += FAINT
    else:
        good, defective = draw_images(random, count, share_odd=0.3), draw_images(random, count, 0)
        defective[:, 0, A, 0] += CLEAR
    return good, defective


@dataclass(frozen=True)
class ToyBank:
    """A memory bank of the toy.

    Attributes
    ----------
    rows : float array of shape (picks, 2)
    places : int array of shape (picks,)
        A or B, for each row.
    """

    rows: np.ndarray
    places: np.ndarray

    def auroc(self, good: np.ndarray, defective: np.ndarray) -> float:
        """Image AUROC on test images of shape (count, 1, 2, 2)."""
        images = np.concatenate([good, defective])
        distances = np.linalg.norm(images[:, 0, :, None] - self.rows, axis=-1).min(axis=-1)
        labels = np.repeat([0, 1], [len(good), len(defective)])
        auroc = image_auroc(labels, distances.max(axis=1))
        assert auroc is not None  # both classes are there
        return auroc


def choose_bank(train: np.ndarray, picks: int, exponent: float, seed: int) -> ToyBank:
    """K-center with weights: the variance across the images, to the power of `exponent`."""
    points = train.reshape(-1, 2)
    weights = variance_weights(train, exponent=exponent)
    chosen = k_center_greedy(
        points, picks, projection=None, weights=weights, random_state=seed
    ).indices
    return ToyBank(points[chosen], chosen % 2)


def gains(picks: int, seed: int) -> dict[str, float]:
    """By how much weighting changes the AUROC of one draw of the toy, for each of the `FUTURES`.

    Examples
    --------
    >>> {future: bool(gain > 0) for future, gain in gains(16, seed=0).items()}
    {'faint defects at B': True, 'clear defects at A, odd normal images': False}
    """
    random = np.random.default_rng(seed)
    train = draw_images(random, 300)
    plain, weighted = (choose_bank(train, picks, exponent, seed) for exponent in (0, 1))
    changes = {}
    for future in FUTURES:
        images = draw_future(random, future)
        changes[future] = weighted.auroc(*images) - plain.auroc(*images)
    return changes
