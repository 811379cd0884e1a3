"""The live control of the front page: solar cells, their anomaly maps, and a threshold to move."""

import io

import numpy as np
from PIL import Image

from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.course.page_views import heat_states

SIDE = 32  # numbers along a side of a map: it is smooth, so a browser can enlarge it
CALIBRATION_RATE = 0.05  # the false-alarm rate of the first position of the slider
ALT = (
    "A photograph of a solar cell, and beside it the same one with the places tinted orange that "
    "are less like anything normal than the threshold allows."
)


def examples(labels, scores):
    """Which test images to show: not only those that flatter.

    Returns
    -------
    list of (name, sentence, index)
        The defective cells with the median, the highest and the lowest score, and the good ones
        with the median and the highest.
    """
    good, defective = (np.flatnonzero(labels == label) for label in (0, 1))
    good = good[np.argsort(scores[good])]
    defective = defective[np.argsort(scores[defective])]
    return [
        ("defective, typical", "A defective cell with a typical score.",
         defective[len(defective) // 2]),
        ("defective, most suspicious", "The defective cell with the highest score.",
         defective[-1]),
        ("defective, least suspicious", "The defective cell with the lowest score.",
         defective[0]),
        ("good, typical", "A good cell with a typical score.", good[len(good) // 2]),
        ("good, most suspicious", "The good cell with the highest score.", good[-1]),
    ]  # fmt: skip


def front_states(max_train=0, max_test=0):
    """Fit PatchCore on solar cells, and return the states of the control.

    Parameters
    ----------
    max_train, max_test : int
        Fewer images, for tests; 0 for all.

    Returns
    -------
    dict
        See `heat_states`.
    """
    category = load_category("elpv/mono").limit(max_train, max_test)
    model = PatchCore(image_size=256, coreset_ratio=0.01, random_state=0).fit(category.train)
    model.calibrate(category.calibration, CALIBRATION_RATE)
    scores = model.anomaly_scores(category.test)
    labels = np.array([sample.label for sample in category.test])
    shown = examples(labels, scores)
    chosen = [category.test[index] for _, _, index in shown]
    return heat_states(
        ALT,
        pictures=[png(sample.read()) for sample in chosen],
        names=[name for name, _, _ in shown],
        words=[sentence for _, sentence, _ in shown],
        maps=np.stack([coarse(part) for part in model.anomaly_maps(chosen)]),
        scores=scores[[index for _, _, index in shown]],
        threshold=float(model.threshold_),
    )


def png(image):
    """A photograph as a square PNG of 256 pixels."""
    buffer = io.BytesIO()
    image.resize((256, 256), Image.Resampling.BILINEAR).save(buffer, "PNG")
    return buffer.getvalue()


def coarse(anomaly_map):
    """Means over squares of a map, SIDE of them along each side."""
    block = anomaly_map.shape[0] // SIDE
    return anomaly_map.reshape(SIDE, block, SIDE, block).mean(axis=(1, 3))
