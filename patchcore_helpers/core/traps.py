"""A trap audit: what separates defective from normal images without looking for a defect.

A detector is easily praised for what a clock could have told it. If all defects were photographed
on one day, the file number separates them; if the lamp was brighter then, so does the mean gray
level. None of these values knows what a defect is, so an AUROC far from 0.5 means that the images
differ in something else as well, and that a detector's own AUROC may in part be due to it.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import ndimage

from patchcore_helpers.core.intervals import grouped_auroc_interval
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.threads import map_in_threads
from patchcore_helpers.data.category import Category, LabeledImage
from patchcore_helpers.errors import InputError

BLUR = 0.02  # standard deviation of the blur, as a share of the shorter side


def image_traits(samples: Sequence[LabeledImage]) -> pd.DataFrame:
    """Simple values of images, none of which knows what a defect is.

    Parameters
    ----------
    samples : sequence of LabeledImage

    Returns
    -------
    DataFrame
        A row per image, with the columns

        - file number: the last whole number in the name of its file, NaN if there is none;
        - mean gray level, from 0 to 255;
        - sharpness: the mean length of the gradient, gray levels per pixel;
        - darkest point: the lowest gray level after a Gaussian blur, whose standard deviation is
          2 % of the shorter side;
        - image size: the number of pixels.
    """
    return pd.DataFrame(list(map_in_threads(_traits, samples)))


def _traits(sample: LabeledImage) -> dict[str, float]:
    gray = np.asarray(sample.read().convert("L"), dtype=float)
    numbers = re.findall(r"\d+", re.split(r"[/\\]", sample.source)[-1].rpartition(".")[0])
    down, right = np.gradient(gray)
    blurred = ndimage.gaussian_filter(gray, BLUR * min(gray.shape), mode="nearest")
    return {
        "file number": float(numbers[-1]) if numbers else np.nan,
        "mean gray level": gray.mean(),
        "sharpness": np.hypot(down, right).mean(),
        "darkest point": blurred.min(),
        "image size": float(gray.size),
    }


def trap_aurocs(category: Category) -> pd.DataFrame:
    """How well simple values separate the defective from the normal test images.

    Parameters
    ----------
    category : Category
        Images of both classes in its test.

    Returns
    -------
    DataFrame
        A row for each value of `image_traits` that all test images have. Columns: trap; auroc, the
        chance that a defective image has the larger value; separation, the same whichever class has
        the larger ones: max(auroc, 1 - auroc), 0.5 where the value says nothing. If the test images
        have groups (as those of ELPV do), also within_groups: the separation of images of the same
        group, by the AUROC over all such pairs. A value that separates the classes over all images
        but not within groups tells the groups apart, not the defects.

    Raises
    ------
    InputError
        If all test images are of one class.
    """
    labels = category.labels
    if not 0 < labels.sum() < len(labels):
        raise InputError(f"{category.name}: give normal and defective test images")
    traits = image_traits(category.test).dropna(axis="columns")
    rows = []
    for trap, values in traits.items():
        auroc = image_auroc(labels, values.to_numpy())
        assert auroc is not None
        row = {"trap": trap, "auroc": auroc, "separation": max(auroc, 1 - auroc)}
        if category.groups is not None:
            within = grouped_auroc_interval(
                labels, values.to_numpy(), category.groups, weights="pairs"
            ).estimate
            row["within_groups"] = max(within, 1 - within)
        rows.append(row)
    return pd.DataFrame(rows)
