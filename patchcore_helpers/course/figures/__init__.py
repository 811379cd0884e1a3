"""Every figure of the course, in one style.

The figures of the experiments are in modules of their own: ``figures.exp1.comparison(...)``.
"""

from patchcore_helpers.course.figures import compression, exp1, exp2, exp3
from patchcore_helpers.course.figures.bank import matches, neighbors, pipeline
from patchcore_helpers.course.figures.curves import (
    distortion,
    few_shot,
    growth,
    layer_scores,
    mean_curves,
    ratio_view,
)
from patchcore_helpers.course.figures.decisions import scores, threshold_view
from patchcore_helpers.course.figures.panels import heat_map, overlay
from patchcore_helpers.course.figures.pictures import (
    heat_maps,
    images,
    layer_maps,
    receptive_fields,
    reconstructions,
)
from patchcore_helpers.course.figures.strips import strip_maps, strip_tiles, tile_and_patch
from patchcore_helpers.course.figures.style import STYLE, THRESHOLD, use_style
from patchcore_helpers.course.figures.toy import greedy_steps, toy_bank, toy_unfold

__all__ = [
    "STYLE",
    "THRESHOLD",
    "compression",
    "distortion",
    "exp1",
    "exp2",
    "exp3",
    "few_shot",
    "greedy_steps",
    "growth",
    "heat_map",
    "heat_maps",
    "images",
    "layer_maps",
    "layer_scores",
    "matches",
    "mean_curves",
    "neighbors",
    "overlay",
    "pipeline",
    "ratio_view",
    "receptive_fields",
    "reconstructions",
    "scores",
    "strip_maps",
    "strip_tiles",
    "threshold_view",
    "tile_and_patch",
    "toy_bank",
    "toy_unfold",
    "use_style",
]
