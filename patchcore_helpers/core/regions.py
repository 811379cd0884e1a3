"""Where in an image the anomaly is, and how large: regions of patches above a threshold.

An image score of the kind "max" is the highest patch score. So an image that alarms has at least
one patch above the threshold, and what an inspector wants to know, where and how large, is in the
patch scores already: patches above the threshold that touch each other, also at a corner, are one
region.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

TOUCHING = np.ones((3, 3), dtype=int)  # sides and corners


class Region(NamedTuple):
    """Patches above the threshold that touch each other.

    Attributes
    ----------
    left, top, right, bottom : float, pixels of the image
        The box around the region; right and bottom are the first pixels outside it.
    area : float
        Of all its patches together, as a share of the image.
    peak : float
        The highest patch score in it.
    """

    left: float
    top: float
    right: float
    bottom: float
    area: float
    peak: float


def anomalous_regions(
    patch_scores: ArrayLike, threshold: float, size: tuple[int, int]
) -> list[Region]:
    """The regions of one image whose patch scores exceed a threshold.

    Parameters
    ----------
    patch_scores : array of float, shape (rows, columns)
        They cover the image evenly.
    threshold : float
    size : (height, width), pixels
        Of the image that the boxes are meant for; it may have any size and shape.

    Returns
    -------
    list of Region
        The highest peak first; empty where no patch exceeds the threshold.

    Examples
    --------
    >>> scores = [[0, 0, 0, 0], [0, 5, 0, 0], [0, 0, 6, 0], [9, 0, 0, 0]]
    >>> for region in anomalous_regions(scores, 4, size=(40, 80)):
    ...     print(region)
    Region(left=0.0, top=30.0, right=20.0, bottom=40.0, area=0.0625, peak=9.0)
    Region(left=20.0, top=10.0, right=60.0, bottom=30.0, area=0.125, peak=6.0)
    """
    grid = np.asarray(patch_scores, dtype=float)
    n_rows, n_columns = grid.shape
    cell_height, cell_width = size[0] / n_rows, size[1] / n_columns
    labels, _ = ndimage.label(grid > threshold, structure=TOUCHING)
    regions = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        is_inside = labels[rows, columns] == number
        regions.append(
            Region(
                left=columns.start * cell_width,
                top=rows.start * cell_height,
                right=columns.stop * cell_width,
                bottom=rows.stop * cell_height,
                area=float(is_inside.sum() / grid.size),
                peak=float(grid[rows, columns][is_inside].max()),
            )
        )
    return sorted(regions, key=lambda region: -region.peak)
