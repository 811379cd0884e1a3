"""AU-PRO by its definition, without a shortcut."""

from collections import deque
from itertools import pairwise

import numpy as np


def regions_of(mask):
    """Sets of defect pixels that touch by a side or a corner, by walking from pixel to pixel."""
    left, regions = {tuple(p) for p in np.argwhere(mask)}, []
    while left:
        region, queue = set(), deque([left.pop()])
        while queue:
            i, j = queue.popleft()
            region.add((i, j))
            around = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= around
            queue.extend(around)
        regions.append(region)
    return regions


def au_pro_by_hand(masks, maps, limit=0.3):
    """Every threshold in turn, every region in turn; trapezia up to the limit."""
    regions = [(n, r) for n, mask in enumerate(masks) for r in regions_of(mask)]
    normal = [values[~mask] for mask, values in zip(masks, maps, strict=True)]
    count = sum(map(len, normal))
    curve = [(0.0, 0.0)]
    for threshold in sorted({float(v) for values in maps for v in values.ravel()}, reverse=True):
        false_alarms = sum(int((values >= threshold).sum()) for values in normal)
        overlaps = [sum(maps[n][p] >= threshold for p in r) / len(r) for n, r in regions]
        curve.append((false_alarms / count, sum(overlaps) / len(overlaps)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x1 > limit:
            if x0 < limit:
                y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
                area += (limit - x0) * (y0 + y1) / 2
            break
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit
