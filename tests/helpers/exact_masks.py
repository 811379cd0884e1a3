"""The promise that drawn defects keep: their masks are exact."""

import numpy as np
from scipy import ndimage

from patchcore_helpers.data.drawing import MIN_CHANGE, MIN_MASK, MIN_SPOT


def assert_exact(before, after, mask):
    """The mask is where the images differ, by more than the level in reach of every pixel."""
    np.testing.assert_array_equal(after[~mask], before[~mask])
    changed = np.abs(after.astype(int) - before) > MIN_CHANGE
    distance = ndimage.distance_transform_edt(~changed)
    assert mask.dtype == bool and distance[mask].max() < 2.5
    assert MIN_MASK <= mask.sum() < 0.2 * mask.size
    assert changed[mask].mean() > 0.3
    spots, count = ndimage.label(mask, np.ones((3, 3)))
    assert ndimage.sum_labels(changed, spots, np.arange(1, count + 1)).min() >= MIN_SPOT
