"""Where in an image the anomaly is, and how large: regions of patches around those that alarm.

An image score of the kind "max" is the highest patch score. So an image that alarms has at least
one patch above the threshold, and what an inspector wants to know, where and how large, is in the
patch scores already. Patches above the threshold alone are the defect's core: the threshold stands
above the highest of all patches of a normal image. So a region grows from there over touching
patches that are nearly as high (hysteresis thresholding, as of edges in Canny 1986).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

TOUCHING = np.ones((3, 3), dtype=int)  # sides and corners
GROWTH = 0.9  # chosen on one product, photographs of cookies; see `anomalous_regions`


class Region(NamedTuple):
    """Patches that touch each other, at least one of them above the threshold.

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
    patch_scores: ArrayLike, threshold: float, size: tuple[int, int], growth: float = GROWTH
) -> list[Region]:
    """The regions of one image that rise above a threshold.

    Parameters
    ----------
    patch_scores : array of float, shape (rows, columns)
        Not negative; they cover the image evenly.
    threshold : float
    size : (height, width), pixels
        Of the image that the boxes are meant for; it may have any size and shape.
    growth : float in (0, 1]
        A region takes in touching patches above `growth` times the threshold; 1 for none below the
        threshold itself. Smaller values make larger regions.

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
    labels, _ = ndimage.label(grid > growth * threshold, structure=TOUCHING)
    regions = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        is_inside = labels[rows, columns] == number
        peak = float(grid[rows, columns][is_inside].max())
        if peak <= threshold:
            continue
        regions.append(
            Region(
                left=columns.start * cell_width,
                top=rows.start * cell_height,
                right=columns.stop * cell_width,
                bottom=rows.stop * cell_height,
                area=float(is_inside.sum() / grid.size),
                peak=peak,
            )
        )
    return sorted(regions, key=lambda region: -region.peak)


def strongest_region(patch_scores: ArrayLike, growth: float = GROWTH) -> np.ndarray:
    """The patches around the highest score of an image, whether it alarms or not.

    Parameters
    ----------
    patch_scores : array of float, shape (rows, columns)
        Not negative.
    growth : float in (0, 1]
        Touching patches above `growth` times the highest score belong to the region.

    Returns
    -------
    bool array of shape (rows, columns)

    Examples
    --------
    >>> strongest_region([[9.5, 0, 10], [0, 0, 9.5]]).astype(int)
    array([[0, 0, 1],
           [0, 0, 1]])
    """
    grid = np.asarray(patch_scores, dtype=float)
    highest = np.unravel_index(grid.argmax(), grid.shape)
    labels, _ = ndimage.label(grid >= growth * grid[highest], structure=TOUCHING)
    return labels == labels[highest]
