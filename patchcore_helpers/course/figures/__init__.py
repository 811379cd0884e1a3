"""Every figure of the course, in one style.

The figures of the experiments are in modules of their own: ``figures.exp1.comparison(...)``.
"""

from patchcore_helpers.course.figures import compression, exp1, exp2, exp3, failures, since
from patchcore_helpers.course.figures.bank import pipeline
from patchcore_helpers.course.figures.coverage import (
    bank_size_curves,
    dirt_shares,
    greedy_strip,
    pool_and_bound,
    radius_line,
    rows_by_image,
    suspects,
)
from patchcore_helpers.course.figures.curves import distortion, few_shot, growth, ratio_view
from patchcore_helpers.course.figures.decisions import recalibration, scores, splits, threshold_view
from patchcore_helpers.course.figures.features import (
    cumulative_influence,
    enlarged,
    layer_intervals,
    overlap_by_setting,
    patch_neighbors,
    receptive_fields,
    scores_to_map,
)
from patchcore_helpers.course.figures.panels import overlay
from patchcore_helpers.course.figures.pictures import (
    changed_images,
    heat_maps,
    images,
    layer_maps,
    reconstructions,
)
from patchcore_helpers.course.figures.strips import (
    peaks_along_cloth,
    seam_pictures,
    strip_maps,
    strip_tiles,
    tile_and_patch,
)
from patchcore_helpers.course.figures.style import STYLE, THRESHOLD, use_style
from patchcore_helpers.course.figures.toy import greedy_steps, toy_bank, toy_unfold
from patchcore_helpers.course.heat import heat_map

__all__ = [
    "STYLE",
    "THRESHOLD",
    "bank_size_curves",
    "changed_images",
    "compression",
    "cumulative_influence",
    "dirt_shares",
    "distortion",
    "enlarged",
    "exp1",
    "exp2",
    "exp3",
    "failures",
    "few_shot",
    "greedy_steps",
    "greedy_strip",
    "growth",
    "heat_map",
    "heat_maps",
    "images",
    "layer_intervals",
    "layer_maps",
    "overlap_by_setting",
    "overlay",
    "patch_neighbors",
    "peaks_along_cloth",
    "pipeline",
    "pool_and_bound",
    "radius_line",
    "ratio_view",
    "recalibration",
    "receptive_fields",
    "reconstructions",
    "rows_by_image",
    "scores",
    "scores_to_map",
    "seam_pictures",
    "since",
    "splits",
    "strip_maps",
    "strip_tiles",
    "suspects",
    "threshold_view",
    "tile_and_patch",
    "toy_bank",
    "toy_unfold",
    "use_style",
]
