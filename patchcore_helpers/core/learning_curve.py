"""How many normal images does it take? Memory banks from a few of them, and from more and more.

Taught in notebook 1, section on few images; `patchcore-course new` draws it for a user's images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from patchcore_helpers.core.detector import as_image_list, image_scores
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.patchcore import PatchCore
from patchcore_helpers.core.scorers import BankScorer
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
        Its settings are used; it need not be fitted and is not changed. Instead of the image score
        "reweighted", "max" is taken.
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
    known, unknown = (
        extractor.inside(extractor.extract(images))[:, None] for images in (train, tested)
    )
    image_score = "max" if model.image_score == "reweighted" else model.image_score
    rows = []
    for draw in range(draws):
        order = np.random.default_rng([seed, draw]).permutation(len(train))
        for n_images in numbers_of_images(len(train)):
            scorer = BankScorer(model.new_bank()).fit(known[order[:n_images]])
            scores = image_scores(scorer.score(unknown), image_score)
            normal_score = float(np.median(scores[labels == 0]))
            rows.append((n_images, draw, image_auroc(labels, scores), normal_score))
    return pd.DataFrame(rows, columns=["images", "draw", "image_auroc", "normal_score"])


def numbers_of_images(n_images: int) -> list[int]:
    """The numbers of images on the curve, up to all, each well below the next.

    >>> numbers_of_images(160), numbers_of_images(21), numbers_of_images(3)
    ([5, 10, 20, 50, 100, 160], [5, 10, 21], [3])
    """
    return [*(step for step in STEPS if step <= 0.7 * n_images), n_images]
