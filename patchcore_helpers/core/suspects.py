"""Which images of a folder of supposedly normal ones look odd, before a bank is made of them.

A defective image among the training images teaches the memory bank that its defect is normal, and
greedy k-center gives it far more than its share of the rows. To find it, every image is compared
with all the *others*: a patch that no other image has something like is odd, and so is its image.
The image itself never counts, or every distance would be zero. Nor does its nearest companion have
the last word: two images of the same defect would excuse each other, so a patch has to be matched
by several images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from patchcore_helpers.core.detector import as_image_list, image_scores
from patchcore_helpers.core.distances import products_form, single_threaded_workers
from patchcore_helpers.core.patchcore import PatchCore
from patchcore_helpers.core.validation import check_integer, check_seed
from patchcore_helpers.errors import InputError

REFERENCES = 48  # patches that stand for an image when others are compared with it
COMPANIONS = 3  # images that must have something like a patch for it to be normal


def suspects(
    images: Sequence[Any],
    model: PatchCore | None = None,
    *,
    companions: int = COMPANIONS,
    references: int = REFERENCES,
    random_state: int = 0,
) -> pd.DataFrame:
    """Rank images that are all said to be normal: those that look least like the others first.

    The ranking says where to look, not what is defective: a normal image of a rare kind is odd,
    too. Look at the first ones before you remove any.

    Parameters
    ----------
    images : sequence of samples, paths, PIL images or uint8 arrays
        At least two.
    model : PatchCore, optional
        Its backbone, image size and other settings of the extraction are used; it is not fitted,
        and need not be.
    companions : int
        See `oddness`.
    references : int
        See `oddness`.
    random_state : int
        Seed of the choice of the reference patches, from 0 to 2**32 - 1.

    Returns
    -------
    DataFrame
        A row per image, the oddest first, with the columns

        - image: its place in `images`, from 0;
        - oddness: the mean, over the largest 1 % of its patches, of the distances that `oddness`
          returns. It is no probability, and comparable only within these images.

    Raises
    ------
    InputError
        If there are fewer than two images, or a number is out of bounds.

    Notes
    -----
    Memory and time grow with the number of images: its patches are held at once, and compared with
    `references` patches of each other image, so the time grows with the square of it.

    Examples
    --------
    >>> gray = np.full((64, 64), 127, np.uint8)
    >>> spotted = gray.copy()
    >>> spotted[20:40, 20:40] = 0
    >>> model = PatchCore("resnet18", weights="random", image_size=64)
    >>> int(suspects([gray, gray, spotted, gray], model)["image"].iloc[0])
    2
    """
    images = as_image_list(images)
    _check_count(len(images))
    model = PatchCore() if model is None else model
    patches = model.new_extractor().extract(images)
    distances = oddness(
        patches, companions=companions, references=references, random_state=random_state
    )
    scores = image_scores(distances, "top1_percent")
    order = np.argsort(-scores, kind="stable")
    return pd.DataFrame({"image": order, "oddness": scores[order]})


def oddness(
    patches: ArrayLike,
    *,
    companions: int = COMPANIONS,
    references: int = REFERENCES,
    random_state: int = 0,
) -> np.ndarray:
    """How far every patch is from what the other images hold.

    Parameters
    ----------
    patches : float array of shape (images, rows, columns, channels)
    companions : int
        The distance to the nearest patch is taken for each other image, and the `companions`-th
        smallest of these counts, or the largest where there are fewer other images. With 1, an
        image that occurs twice excuses itself.
    references : int
        Patches of each image, drawn at random, that the others are compared with; all of them where
        an image has no more.
    random_state : int

    Returns
    -------
    float32 array of shape (images, rows, columns)
        Euclidean distances.

    Raises
    ------
    InputError
        If there are fewer than two images, or a number is out of bounds.

    Examples
    --------
    >>> patches = np.array([0.0, 1.0, 1.5, 9.0]).reshape(4, 1, 1, 1)
    >>> oddness(patches, companions=1).ravel()
    array([1. , 0.5, 0.5, 7.5], dtype=float32)
    """
    grids = np.asarray(patches, np.float32)
    if grids.ndim != 4:
        raise InputError(
            f"patches of shape {grids.shape}: give an array (images, rows, columns, channels)"
        )
    _check_count(len(grids))
    companions = check_integer(companions, "companions", 1)
    references = check_integer(references, "references", 1)
    check_seed(random_state)
    n_images, n_rows, n_columns, width = grids.shape
    rows = torch.from_numpy(grids.reshape(n_images, n_rows * n_columns, width))
    mean = rows.mean((0, 1))  # adds nothing to a distance, but costs digits in the product
    drawn = _draw_patches(rows, references, random_state) - mean
    n_drawn = drawn.shape[1]
    centers = drawn.reshape(-1, width)
    minus_twice, squared_norms = -2 * centers, centers.square().sum(1)
    k = min(companions, n_images - 1)

    def distances_of(image: int) -> torch.Tensor:
        own = rows[image] - mean
        table = products_form(own, minus_twice, squared_norms).view(len(own), n_images, n_drawn)
        by_image = table.amin(2) + own.square().sum(1)[:, None]
        by_image[:, image] = torch.inf  # never its own
        return by_image.topk(k, largest=False).values[:, -1].clamp(min=0).sqrt()

    with single_threaded_workers() as for_each:
        found = for_each(distances_of, range(n_images))
    return torch.stack(found).numpy().reshape(n_images, n_rows, n_columns)


def _draw_patches(rows: torch.Tensor, count: int, random_state: int) -> torch.Tensor:
    """Some patches of each image, shape (images, at most `count`, channels)."""
    random = np.random.default_rng(random_state)
    n_patches = rows.shape[1]
    kept = min(count, n_patches)
    chosen = [random.permutation(n_patches)[:kept] for _ in rows]
    return torch.stack([own[torch.from_numpy(c)] for own, c in zip(rows, chosen, strict=True)])


def _check_count(n_images: int) -> None:
    if n_images < 2:
        raise InputError(f"{n_images} image: give at least two, each is compared with the others")
