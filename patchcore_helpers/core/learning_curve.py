"""How many normal images does it take? Memory banks from a few of them, and from more and more.

Taught in notebook 1, section on few images; `patchcore-course new` draws it for a user's images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from patchcore_helpers.core.detector import as_image_list, image_scores
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.patchcore import PatchCore, as_rows
from patchcore_helpers.core.validation import check_integer

STEPS = (5, 10, 20, 50, 100, 200, 500)
MOST_TRAINING_IMAGES = 500  # their patch vectors are held in memory


def learning_curve(
    model: PatchCore,
    train: Sequence[Any],
    normal: Sequence[Any],
    defective: Sequence[Any] = (),
    *,
    draws: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores of memory banks that were made from some of the normal images.

    In each draw the images are put in a random order, and every bank takes the first so many of
    them: a larger bank has seen all that a smaller one has.

    Parameters
    ----------
    model : PatchCore
        Its settings are used; it need not be fitted and is not changed.
    train : sequence of images
        Normal ones; the first `MOST_TRAINING_IMAGES` of them are used.
    normal, defective : sequences of images
        They are scored by every bank. `defective` may be empty.
    draws : int
    seed : int

    Returns
    -------
    DataFrame
        One row per number of images and draw: ``images``, ``draw``, ``image_auroc`` (None without
        defective images), and ``normal_score``, the median score of the images `normal`: how far
        a new normal image is from what the bank knows.

    Raises
    ------
    InputError
        If there are no training or normal images.
    """
    check_integer(draws, "draws", 1)
    train = as_image_list(train)[:MOST_TRAINING_IMAGES]
    tested = [*as_image_list(normal), *defective]
    labels = np.repeat([0, 1], [len(tested) - len(defective), len(defective)])
    extractor = model.new_extractor()
    known, unknown = extractor.extract(train), extractor.extract(tested)
    rows = []
    for draw in range(draws):
        order = np.random.default_rng([seed, draw]).permutation(len(train))
        for n_images in numbers_of_images(len(train)):
            bank = model.new_bank().fit(as_rows(known[order[:n_images]]))
            scores = _scores(bank, unknown, model)
            rows.append((n_images, draw, image_auroc(labels, scores), _median(scores[labels == 0])))
    return pd.DataFrame(rows, columns=["images", "draw", "image_auroc", "normal_score"])


def numbers_of_images(n_images: int) -> list[int]:
    """The numbers of images on the curve, up to all, each well below the next.

    >>> numbers_of_images(160), numbers_of_images(21), numbers_of_images(3)
    ([5, 10, 20, 50, 100, 160], [5, 10, 21], [3])
    """
    return [*(step for step in STEPS if step <= 0.7 * n_images), n_images]


def _scores(bank: Any, patches: np.ndarray | torch.Tensor, model: PatchCore) -> np.ndarray:
    """Image scores from patch vectors of shape (images, rows, columns, channels), one by one."""
    kind = "max" if model.image_score == "reweighted" else model.image_score
    scores = []
    for image in patches:
        distances, _ = bank.nearest(as_rows(image), model.n_neighbors)
        scores.append(image_scores(distances.mean(1).reshape(1, *image.shape[:2]), kind)[0])
    return np.array(scores)


def _median(values: np.ndarray) -> float:
    return float(np.median(values))
