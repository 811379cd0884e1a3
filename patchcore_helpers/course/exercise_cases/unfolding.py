"""What the answers to the exercises of notebook 2 are checked with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from patchcore_helpers.core.aggregation import aggregate
from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.metrics import au_pro, pixel_auroc
from patchcore_helpers.core.receptive_field import Box, patch_box
from patchcore_helpers.course.exercise_cases.kinds import Cases, Judgement

Answer = Callable[..., Any]
PatchesOf = Callable[[Tensor], Any]  # patch vectors (rows, columns, channels) of one image

MOVED_ENOUGH = 0.25  # of the length of the patch vector
FOOLED = 0.95  # pixel AUROC
HALF = 0.5
TOLERANCE = 1e-4


def mean_3x3() -> Cases:
    """The sum of the neighbors that exist, divided by 9."""
    random = np.random.default_rng(0)
    for shape in [(4, 4), (1, 1), (3, 7)]:
        values = random.normal(size=shape)
        expected = np.zeros(shape)
        for row, column in np.ndindex(shape):
            neighbors = values[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            expected[row, column] = neighbors.sum() / 9
        yield f"a map of shape {shape}", (values,), expected


def border_factor() -> Cases:
    """The share of the neighborhood's places that exist, counted one by one."""
    shapes = [(4, 4, 3), (4, 4, 5), (1, 1, 3), (3, 7, 5), (2, 6, 7)]
    for height, width, size in shapes:
        for row, column in [(0, 0), (height - 1, width // 2), (height // 2, width // 2)]:
            offsets = range(-(size // 2), size // 2 + 1)
            n_existing = sum(
                0 <= row + down < height and 0 <= column + right < width
                for down in offsets
                for right in offsets
            )
            case = f"place ({row}, {column}) of a {height} x {width} map and size {size}"
            yield case, (row, column, height, width, size), n_existing / size**2


def source_position() -> Cases:
    """What torch makes of a row whose values are its positions."""
    for n_in, n_out in [(2, 4), (16, 32), (3, 7), (8, 32)]:
        positions = torch.arange(float(n_in)).view(1, 1, 1, n_in)
        enlarged = F.interpolate(positions, size=(1, n_out), mode="bilinear")[0, 0, 0]
        for i in {0, 1, n_out // 2, n_out - 1}:
            yield f"cell {i}, from {n_in} to {n_out}", (i, n_in, n_out), float(enlarged[i])


def edit_outside(answer: Answer, *, patches_of: PatchesOf, x: Tensor, box: Box) -> Judgement:
    """The cell is as it was, and its patch vector is not."""
    left, top, right, bottom = box
    edited = torch.as_tensor(answer(x.clone(), box))
    if edited.shape != x.shape:
        return Judgement(False, f"the image has shape {tuple(edited.shape)}, not {tuple(x.shape)}")
    if not torch.equal(edited[..., top:bottom, left:right], x[..., top:bottom, left:right]):
        return Judgement(False, "the pixels inside the box have changed, too")
    before, after = (torch.as_tensor(patches_of(image)) for image in (x, edited))
    row = (top + bottom) * before.shape[0] // (2 * x.shape[2])
    column = (left + right) * before.shape[1] // (2 * x.shape[3])
    vector = before[row, column]
    moved = float((after[row, column] - vector).norm() / vector.norm())
    return Judgement(moved >= MOVED_ENOUGH, f"the patch vector moved by {moved:.0%} of its length")


def edit_outside_context() -> dict[str, Any]:
    """One small image and its patches."""
    backbone = load_backbone("efficientnet_lite0")
    x = torch.randn(1, 3, 96, 96, generator=torch.manual_seed(0))
    return {
        "patches_of": lambda image: aggregate(backbone.maps(image))[0],
        "x": x,
        "box": patch_box(5, 6, (12, 12), (96, 96)),
    }


def lazy_map(answer: Answer) -> Judgement:
    """A high pixel AUROC, though most defects are missed."""
    masks = np.zeros((4, 64, 64), bool)
    masks[1, 8:44, 10:46] = True
    for image, corner in [(0, 5), (2, 30), (3, 50)]:
        masks[image, corner : corner + 4, corner : corner + 4] = True
    maps = np.asarray(answer(masks.copy()), float)
    pixels, regions = pixel_auroc(masks, maps), au_pro(masks, maps)
    assert pixels is not None
    assert regions is not None
    is_fooled = pixels >= FOOLED and regions < HALF
    return Judgement(is_fooled, f"pixel AUROC {pixels:.3f}, AU-PRO {regions:.3f}")


def extract_with_hooks(
    answer: Answer, *, network: torch.nn.Module, x: Tensor, P: np.ndarray
) -> Judgement:
    """The learner's patch vectors are those of the page."""
    vectors = torch.as_tensor(answer(network, x)).detach()
    expected = torch.as_tensor(P)
    if vectors.shape != expected.shape:
        return Judgement(False, f"shape {tuple(vectors.shape)}, not {tuple(expected.shape)}")
    error = float((vectors - expected).abs().max() / expected.abs().max())
    return Judgement(error <= TOLERANCE, f"the largest difference is {error:.1e} of the maximum")


def extract_with_hooks_context() -> dict[str, Any]:
    """The network of the notebook, and one small image."""
    backbone = load_backbone("efficientnet_lite0")
    x = torch.randn(1, 3, 64, 64, generator=torch.manual_seed(0))
    return {"network": backbone.network, "x": x, "P": aggregate(backbone.maps(x))[0].numpy()}
