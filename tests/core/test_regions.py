"""Regions of patches above a threshold, against a flood fill by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from patchcore_helpers.core.regions import anomalous_regions


def flood_fill(is_above):
    """The sets of touching cells, found one cell at a time."""
    left_over = {tuple(cell) for cell in np.argwhere(is_above)}
    found = []
    while left_over:
        region, front = set(), [left_over.pop()]
        while front:
            row, column = front.pop()
            region.add((row, column))
            around = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
            front += around & left_over
            left_over -= around
        found.append(region)
    return found


@given(
    hnp.arrays(
        float, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 9)
    ),
    st.integers(1, 9),
    st.sampled_from([0.5, 0.75, 1.0]),  # products are exact
)
def test_boxes_areas_and_peaks_are_those_of_a_flood_fill(grid, threshold, growth):
    height, width = 3 * grid.shape[0], 5 * grid.shape[1]  # pixels of a patch: 3 x 5
    expected = sorted(
        (
            5 * min(column for _, column in region),
            3 * min(row for row, _ in region),
            5 * max(column for _, column in region) + 5,
            3 * max(row for row, _ in region) + 3,
            len(region) / grid.size,
            max(grid[cell] for cell in region),
        )
        for region in flood_fill(grid > growth * threshold)
        if max(grid[cell] for cell in region) > threshold
    )
    regions = anomalous_regions(grid, threshold, (height, width), growth)
    np.testing.assert_allclose(sorted(regions), expected)
    peaks = [region.peak for region in regions]
    assert peaks == sorted(peaks, reverse=True)
    assert bool(regions) == (grid.max() > threshold)  # an alarm has a region, and only an alarm
