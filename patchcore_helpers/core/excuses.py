"""Why a defect was missed: which rows of the memory bank are like it, and whose rows they are.

A defect is missed because normal patches excuse it: the patches where it is have rows of the memory
bank nearby. A row may be there by mistake, if its image shows a defect itself and was taken for
normal. Or it is right, and the defect looks like something normal: then removing the row brings
false alarms.

Where the defect is cannot be told by the patch scores alone: where a defect is excused best, they
are low. So a patch is asked what it would score if the one image that is most like it were not in
the bank. Where this is highest, the image depends most on a single training image, or is
anomalous whatever image is left out.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from patchcore_helpers.core.detector import as_image_list
from patchcore_helpers.core.patchcore import PatchCore
from patchcore_helpers.core.regions import strongest_region


class Excuse(NamedTuple):
    """A row of the memory bank that patches of a missed image are near to.

    Attributes
    ----------
    row : int
        Of the memory bank.
    n_patches : int
        How many patches of the excused region it is nearest to.
    distance : float
        The smallest of their distances to it.
    image : int
        The image that the row comes from, counted from 0 in the order in which they were taught.
    name : str
        What that image is called; "" if it has no name.
    place : (row, column)
        Of the patch in that image's grid of patches.
    """

    row: int
    n_patches: int
    distance: float
    image: int
    name: str
    place: tuple[int, int]


def excuses(model: PatchCore, images: Sequence[Any]) -> list[list[Excuse]]:
    """For each image, the rows that are nearest to its excused region.

    Parameters
    ----------
    model : PatchCore
        Fitted, or loaded from a file that remembers its images.
    images : sequence of samples, paths, PIL images or uint8 arrays
        With a defect that the model does not find.

    Returns
    -------
    list of lists of Excuse
        One for each image; the row that excuses most patches first.

    Raises
    ------
    InputError
        If the model does not know where its rows come from.

    Examples
    --------
    >>> from patchcore_helpers import load_category
    >>> category = load_category("elpv/mono")
    >>> model = PatchCore("resnet18", weights="random", image_size=64).fit(category.train[:4])
    >>> (found,) = excuses(model, category.test[-1:])
    >>> found[0].name == model.taught_.names[found[0].image]
    True
    """
    return [_excuses_of(model, image) for image in as_image_list(images)]


def _excuses_of(model: PatchCore, image: Any) -> list[Excuse]:
    patches = model.extractor_.extract([image])[0]
    region = excused_region(model, patches)
    distances, rows = model.bank_.nearest(
        patches[region & model.inspected_patches()], model.n_neighbors
    )
    found = []
    for row in np.unique(rows):
        is_nearest = rows == row
        (origin,) = model.origin(np.array([row]))
        name = model.taught_.names[origin[0]] if model.taught_ else ""
        found.append(
            Excuse(
                row=int(row),
                n_patches=int(is_nearest.any(axis=1).sum()),
                distance=float(distances[is_nearest].min()),
                image=int(origin[0]),
                name=name,
                place=(int(origin[1]), int(origin[2])),
            )
        )
    return sorted(found, key=lambda excuse: (-excuse.n_patches, excuse.distance))


def excused_region(model: PatchCore, patches: np.ndarray) -> np.ndarray:
    """Where an image would be most anomalous if no single training image could excuse a patch.

    Parameters
    ----------
    model : PatchCore
    patches : float32 array of shape (rows, columns, channels)
        Of the image.

    Returns
    -------
    bool array of shape (rows, columns)
        The `strongest_region` of these scores.
    """
    inside = model.inspected_patches()
    images = model.origin(np.arange(len(model.bank_)))[:, 0]
    scores = model.bank_.second_distances(patches[inside], images)
    if np.isinf(scores).any():  # the bank is of one image
        scores = model.bank_.distances(patches[inside], 1)
    grid = np.zeros(inside.shape)
    grid[inside] = scores
    return strongest_region(grid)
