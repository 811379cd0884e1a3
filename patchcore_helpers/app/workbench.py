"""What the page of a report needs to answer questions by itself, without Python behind it.

The page moves the threshold, counts alarms, finds regions and works out alarms per day, in
`report.js`. It gets numbers for that from here: all image scores, the intervals of every possible
count of false alarms, the patch scores of each pictured image, and the nearest normal patch.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from PIL import Image, ImageDraw

from patchcore_helpers.core.detector import AnomalyResult
from patchcore_helpers.core.intervals import share_interval
from patchcore_helpers.core.learning_curve import learning_curve
from patchcore_helpers.core.patchcore import PatchCore, as_rows
from patchcore_helpers.core.regions import GROWTH
from patchcore_helpers.core.suspects import suspects
from patchcore_helpers.course.figures import use_style
from patchcore_helpers.course.figures.curves import few_shot
from patchcore_helpers.data.category import Category

CROP_SHARE = 0.2  # of an image's longer side: what a cut-out around a patch shows
CROP_SIDE = 120  # pixels of a cut-out
WEBP_QUALITY = 82
MOST_COMPARED = 300  # good images that are compared with each other; the time grows with the square
MOST_SUSPECTS = 12  # of them are shown, and at most a fifth
THUMBNAIL = 220  # pixels, the longer side of a suspect's picture
MOST_CURVE_IMAGES = 40  # normal and defective images that the learning curve scores, of each


@dataclass(frozen=True)
class Explanation:
    """Why an image has its score: its worst patch, and the nearest patch of the memory bank.

    Attributes
    ----------
    picture : str
        Both cut-outs side by side, as a data URI.
    image : str
        The file name of the normal image that the nearest patch comes from.
    distance : float
        Between the two patch vectors.
    """

    picture: str
    image: str
    distance: float


def as_data_uri(picture: Image.Image) -> str:
    """A picture as WebP inside an address, so that a page needs no file beside it."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=WEBP_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def as_base64(values: np.ndarray) -> str:
    """Numbers as the page reads them: float32, little-endian, row by row.

    >>> as_base64(np.array([[1.0]]))
    'AACAPw=='
    """
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode("ascii")


def page_numbers(ranking: pd.DataFrame, normal_scores: np.ndarray, model: PatchCore) -> dict:
    """All numbers that the page computes with, ready for JSON.

    Parameters
    ----------
    ranking : DataFrame
        With the columns score and label, as in scores.csv.
    normal_scores : array of shape (n,)
        Image scores of the calibration images.
    model : PatchCore
        With a threshold.

    Returns
    -------
    dict
        ``threshold``; ``growth``, see `anomalous_regions`; ``scores`` and ``labels`` of the test
        images; ``calibration``, the scores of the calibration images; ``rates``, for 0, 1, ... n of
        them above a threshold the low and high end of the false-alarm rate (95 %, Clopper and
        Pearson).
    """
    n_normal = len(normal_scores)
    low, high = share_interval(np.arange(n_normal + 1), n_normal)
    return {
        "threshold": float(model.threshold_),
        "growth": GROWTH,
        "scores": ranking["score"].tolist(),
        "labels": ranking["label"].tolist(),
        "calibration": np.sort(normal_scores).astype(float).tolist(),
        "rates": np.stack([low, high], axis=1).round(5).tolist(),
    }


def explain(
    model: PatchCore, category: Category, result: AnomalyResult, positions: list[int]
) -> list[Explanation]:
    """For test images, the worst patch of each beside the nearest patch of the memory bank.

    Parameters
    ----------
    model : PatchCore
        Fitted on the category's training images in this process.
    category : Category
    result : AnomalyResult
        Of all test images.
    positions : list of int
        Which test images.

    Returns
    -------
    list of Explanation, in the order of `positions`
    """
    samples = [category.test[position] for position in positions]
    if not samples:
        return []
    explanations = []
    for position, sample, patches in zip(
        positions, samples, model.extractor_.extract(samples), strict=True
    ):
        grid = np.asarray(result.patch_scores[position])
        row, column = divmod(int(grid.argmax()), grid.shape[1])
        vector = as_rows(patches[row, column][None, None])
        distances, nearest = model.bank_.nearest(vector, 1)
        image, normal_row, normal_column = model.origin(nearest[0])[0]
        normal = category.train[image]
        pair = side_by_side(
            cut_out(sample.read(), (row, column), grid.shape),
            cut_out(normal.read(), (normal_row, normal_column), grid.shape),
        )
        name = Path(normal.source).name
        explanations.append(Explanation(as_data_uri(pair), name, float(distances[0, 0])))
    return explanations


def cut_out(image: Image.Image, place: tuple[int, int], grid: tuple[int, int]) -> Image.Image:
    """The surroundings of a patch, with a frame around the patch itself.

    Parameters
    ----------
    image : PIL image
    place : (row, column)
        Of the patch.
    grid : (rows, columns)
        Patches in the image.

    Returns
    -------
    PIL image, mode RGB, `CROP_SIDE` pixels square; black where it leaves the image
    """
    cell_height, cell_width = image.height / grid[0], image.width / grid[1]
    center_x, center_y = (place[1] + 0.5) * cell_width, (place[0] + 0.5) * cell_height
    half = max(CROP_SHARE * max(image.size) / 2, cell_height, cell_width)
    left, top = round(center_x - half), round(center_y - half)
    side = round(2 * half)
    picture = image.convert("RGB").crop((left, top, left + side, top + side))
    picture = picture.resize((CROP_SIDE, CROP_SIDE), Image.Resampling.BILINEAR)
    scale = CROP_SIDE / (2 * half)
    width, height = scale * cell_width / 2, scale * cell_height / 2
    middle = CROP_SIDE / 2
    frame = (middle - width, middle - height, middle + width, middle + height)
    ImageDraw.Draw(picture).rectangle(frame, outline="#E69F00", width=2)
    return picture


def side_by_side(left: Image.Image, right: Image.Image, gap: int = 6) -> Image.Image:
    """Two pictures of the same height in one."""
    joined = Image.new("RGB", (left.width + gap + right.width, left.height), "white")
    joined.paste(left, (0, 0))
    joined.paste(right, (left.width + gap, 0))
    return joined


@dataclass(frozen=True)
class Suspect:
    """An image of the good folder that looks odd beside the others.

    Attributes
    ----------
    picture : str
        The image, reduced, as a data URI.
    image : str
        Its file.
    """

    picture: str
    image: str


def odd_good_images(category: Category, model: PatchCore) -> list[Suspect]:
    """The good images that look least like the other good ones, the oddest first.

    A defective image among them would teach the memory bank that its defect is normal. Those for
    the threshold are looked at too: one there makes the threshold too high.
    """
    images = [*category.train, *category.calibration][:MOST_COMPARED]
    n_shown = min(MOST_SUSPECTS, len(images) // 5)
    if n_shown == 0:
        return []
    found = []
    for position in suspects(images, model)["image"].head(n_shown):
        picture = images[position].read().convert("RGB")
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        found.append(Suspect(as_data_uri(picture), str(images[position].source)))
    return found


@dataclass(frozen=True)
class Curve:
    """How results change with the number of normal images: a picture, and a sentence."""

    picture: str
    alt: str
    sentence: str


def draw_curve(category: Category, model: PatchCore, seed: int) -> Curve | None:
    """The learning curve of the user's images; None if there are too few to draw one."""
    tested = category.calibration
    if len(category.train) < 2 or len(tested) < 2:
        return None
    defective = [sample for sample in category.test if sample.label]
    table = learning_curve(
        model,
        category.train,
        tested[:MOST_CURVE_IMAGES],
        defective[:MOST_CURVE_IMAGES],
        seed=seed,
    )
    if table["images"].nunique() < 2:
        return None
    column, label = "image_auroc", "image AUROC"
    if not defective:
        column, label = "normal_score", "median score of new normal images"
    table = table.rename(columns={column: "value"})
    use_style()
    figure = few_shot(table, value="value", label=label)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    alt = f"{label} against the number of normal images, mean and range of three draws"
    return Curve(as_data_uri(Image.open(buffer)), alt, describe_curve(table, label))


def describe_curve(table: pd.DataFrame, label: str) -> str:
    """What the curve says of its last step, compared with how far the draws are apart.

    Parameters
    ----------
    table : DataFrame
        With the columns images and value, one row per draw.
    label : str
        What the value is.

    Examples
    --------
    >>> table = pd.DataFrame({"images": [5, 5, 10, 10], "value": [0.7, 0.72, 0.9, 0.91]})
    >>> describe_curve(table, "AUROC")  # doctest: +NORMALIZE_WHITESPACE
    'Mean AUROC with 5 images: 0.71; with all 10: 0.905. That is a larger step than the draws are
    apart: more normal images may well change it further.'
    """
    draws = table.groupby("images")["value"]
    means, spreads = draws.mean(), draws.max() - draws.min()
    fewer, most = means.index[-2:]
    step = abs(means[most] - means[fewer])
    verdict = (
        "That is a larger step than the draws are apart: more normal images may well change it "
        "further."
        if step > max(spreads[fewer], spreads[most])
        else "The draws are further apart than that: no use of more normal images shows here."
    )
    return (
        f"Mean {label} with {fewer} images: {means[fewer]:.3g}; with all {most}: "
        f"{means[most]:.3g}. {verdict}"
    )


def regions_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The regions of all images above the threshold, one per row, with fixed columns."""
    columns = ["path", "left", "top", "right", "bottom", "area", "peak"]
    return pd.DataFrame(rows, columns=columns)
