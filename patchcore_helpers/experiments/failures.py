"""What breaks a memory bank, made on purpose: dirty folders, drift, and parts in the wrong place.

Notebook 8 runs all of it; what it teaches, it does by hand, and takes the rest from here.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from patchcore_helpers.core.bank import MemoryBank
from patchcore_helpers.core.detector import image_scores
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.patchcore import as_rows as rows_of
from patchcore_helpers.core.suspects import oddness
from patchcore_helpers.data.drawing import check_choice
from patchcore_helpers.errors import InputError

Pixels = NDArray[np.uint8]


def bank_scores(bank: MemoryBank, patches: np.ndarray) -> np.ndarray:
    """The image score "max": the distance of the patch that is farthest from the bank.

    Parameters
    ----------
    bank : fitted MemoryBank
    patches : float array of shape (images, rows, columns, channels)

    Returns
    -------
    float array of shape (images,)
    """
    distances = bank.distances(rows_of(patches))
    return image_scores(distances.reshape(patches.shape[:3]))


# --- dirty folders ---------------------------------------------------------------------------


class Ranking(NamedTuple):
    """The images of a folder, the oddest first, as `patchcore_helpers.core.suspects` ranks them.

    Attributes
    ----------
    images : int array of shape (n,)
        Their numbers in the folder.
    oddness : float array of shape (n,)
        Descending.
    is_dirty : bool array of shape (n,)
        Which of them are defective.
    """

    images: np.ndarray
    oddness: np.ndarray
    is_dirty: np.ndarray

    @classmethod
    def of(cls, patches: np.ndarray, is_dirty: np.ndarray, seed: int = 0) -> Self:
        """Rank images by their patch vectors, shape (images, rows, columns, channels)."""
        odd = image_scores(oddness(patches, random_state=seed), "top1_percent")
        order = np.argsort(-odd, kind="stable")
        return cls(order, odd[order], is_dirty[order])


def dirty_folders(
    good: np.ndarray,
    defective: np.ndarray,
    test: np.ndarray,
    labels: np.ndarray,
    *,
    shares: Sequence[float],
    left_out: Sequence[float],
    seeds: Sequence[int],
    coreset_ratio: float,
) -> tuple[
    pd.DataFrame, dict[tuple[float, float, int], np.ndarray], dict[tuple[float, int], Ranking]
]:
    """Memory banks of folders in which some images are defective, before and after a cleaning.

    A folder has as many images as `good`, of which a share is replaced by defective ones, drawn at
    random. The cleaning leaves out the oddest images, see `patchcore_helpers.core.suspects`.

    Parameters
    ----------
    good : float array of shape (images, rows, columns, channels)
        Patch vectors of normal training images.
    defective : float array of shape (more images, rows, columns, channels)
        Patch vectors of defective images that are not among the test images.
    test : float array of shape (test images, rows, columns, channels)
    labels : array of 0 and 1, shape (test images,)
    shares : sequence of float in [0, 1)
        Of dirty images in the folder.
    left_out : sequence of float in [0, 1)
        Shares of the folder that the cleaning leaves out, the oddest first; 0 is no cleaning.
    seeds : sequence of int
        Each draws defective images and the first patch of the coreset.
    coreset_ratio : float

    Returns
    -------
    table : DataFrame
        Columns dirty, left_out, seed, n_dirty (images in the folder), remaining (dirty images after
        the cleaning), rows (of the bank), dirty_rows (those of dirty images), image_auroc.
    scores : dict of array
        Image scores of the test images, by (dirty, left_out, seed).
    rankings : dict of Ranking
        The images of each folder by their oddness, by (dirty, seed).

    Raises
    ------
    InputError
        If there are too few defective images for a share.
    """
    n_images = len(good)
    rows = []
    scores = {}
    rankings = {}
    for seed in seeds:
        for share in shares:
            n_dirty = round(share * n_images)
            if n_dirty > len(defective):
                raise InputError(
                    f"{n_dirty} defective images are needed for a share of {share:.0%} of "
                    f"{n_images}, and there are {len(defective)}; choose smaller shares"
                )
            drawn = np.random.default_rng([seed, n_dirty]).permutation(len(defective))[:n_dirty]
            folder = np.concatenate([good[: n_images - n_dirty], defective[drawn]])
            is_dirty = np.arange(n_images) >= n_images - n_dirty
            ranking = Ranking.of(folder, is_dirty, seed)
            rankings[share, seed] = ranking
            for fraction in left_out:
                kept = np.sort(ranking.images[round(fraction * n_images) :])
                bank = MemoryBank(coreset_ratio=coreset_ratio, random_state=seed)
                bank.fit(rows_of(folder[kept]))
                found = bank_scores(bank, test)
                assert bank.coreset_ is not None  # a bank that was just fitted has one
                origin = kept[bank.coreset_.indices // (folder.shape[1] * folder.shape[2])]
                scores[share, fraction, seed] = found
                rows.append(
                    {
                        "dirty": share,
                        "left_out": fraction,
                        "seed": seed,
                        "n_dirty": n_dirty,
                        "remaining": int(is_dirty[kept].sum()),
                        "rows": len(bank),
                        "dirty_rows": int(is_dirty[origin].sum()),
                        "image_auroc": image_auroc(labels, found),
                    }
                )
    return pd.DataFrame(rows), scores, rankings


# --- drift -----------------------------------------------------------------------------------


def _noisy(pixels: Pixels) -> Pixels:
    noise = np.random.default_rng(pixels.size).normal(0, 8, pixels.shape[:2])
    noise = noise.reshape(*pixels.shape[:2], *[1] * (pixels.ndim - 2))  # the same in all channels
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def _blurred(pixels: Pixels) -> Pixels:
    return ndimage.gaussian_filter(pixels, 1.5, axes=(0, 1))


def _shifted(pixels: Pixels) -> Pixels:
    width = pixels.shape[1]
    step = max(1, width // 50)
    return np.take(pixels, np.clip(np.arange(width) - step, 0, width - 1), axis=1)


def _turned(pixels: Pixels) -> Pixels:
    return ndimage.rotate(pixels, 3, axes=(1, 0), reshape=False, order=1, mode="nearest")


def _shaded(pixels: Pixels) -> Pixels:
    light = np.linspace(1.0, 0.4, pixels.shape[1])
    light = light.reshape(1, -1, *[1] * (pixels.ndim - 2))
    return (pixels * light).astype(np.uint8)


# What may happen to a line between one day and the next. All change every image in the same way.
DRIFTS: dict[str, Callable[[Pixels], Pixels]] = {
    "nothing": lambda pixels: pixels,
    "half as bright": lambda pixels: pixels // 2,
    "light from one side": _shaded,
    "out of focus": _blurred,
    "noisy camera": _noisy,
    "moved by 2 % of the width": _shifted,
    "turned by 3 degrees": _turned,
    "mirrored": lambda pixels: pixels[:, ::-1],
}


def drifted(images: Sequence[Pixels], drift: str) -> list[Pixels]:
    """Change all images in the same way.

    Parameters
    ----------
    images : sequence of uint8 arrays of shape (height, width) or (height, width, channels)
    drift : str
        One of `DRIFTS`.

    Returns
    -------
    list of uint8 arrays, of the shapes of `images`

    Examples
    --------
    >>> drifted([np.full((4, 4), 100, np.uint8)], "half as bright")[0].max()
    np.uint8(50)
    """
    check_choice("drift", drift, DRIFTS)
    return [np.ascontiguousarray(DRIFTS[drift](np.asarray(image))) for image in images]


# --- parts in the wrong place ----------------------------------------------------------------

BOARD_SIDE = 256  # pixels
BOARD_PLACES = ((70, 70), (70, 186), (186, 70), (186, 186))  # (row, column)
BOARD_MISTAKES = ("good", "exchanged", "missing", "one too many", "scratched")


def draw_board(mistake: str = "good", seed: int = 0) -> Pixels:
    """Draw a board with three parts: a disc, a square and a triangle.

    The disc is at the top left and the square at the top right; the triangle is at the bottom left
    or at the bottom right, and both are normal. The place of a part varies by up to 3 pixels, the
    light by a few gray levels, and the board has a grain, so that no two boards are alike.

    Parameters
    ----------
    mistake : str
        "good"; "exchanged": disc and square have changed places; "missing": there is no triangle;
        "one too many": there is a triangle at both places; "scratched": all parts in place, a
        scratch between them.
    seed : int

    Returns
    -------
    uint8 array of shape (256, 256, 3)

    Examples
    --------
    >>> draw_board("exchanged", seed=1).shape
    (256, 256, 3)
    """
    check_choice("mistake", mistake, BOARD_MISTAKES)
    random = np.random.default_rng([seed, BOARD_MISTAKES.index(mistake)])
    top_left, top_right, *bottom = BOARD_PLACES
    if random.random() < 0.5:
        bottom.reverse()
    parts = [("disc", top_left), ("square", top_right), ("triangle", bottom[0])]
    if mistake == "exchanged":
        parts[:2] = [("square", top_left), ("disc", top_right)]
    elif mistake == "missing":
        parts = parts[:2]
    elif mistake == "one too many":
        parts = [*parts, ("triangle", bottom[1])]
    board = Image.new("L", (BOARD_SIDE, BOARD_SIDE), 90)
    pen = ImageDraw.Draw(board)
    for shape, place in parts:
        row, column = np.array(place) + random.integers(-3, 4, 2)
        _draw_part(pen, shape, int(row), int(column))
    if mistake == "scratched":
        row, column = random.integers(110, 146, 2).tolist()
        dx, dy = random.integers(-20, 21, 2).tolist()
        pen.line([(column - dx, row - dy), (column + dx, row + dy + 6)], fill=150, width=2)
    light = 1 + 0.05 * random.standard_normal()
    pixels = np.asarray(board) * light + random.normal(0, 4, (BOARD_SIDE, BOARD_SIDE))
    return np.repeat(np.clip(pixels, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _draw_part(pen: ImageDraw.ImageDraw, shape: str, row: int, column: int) -> None:
    box = (column - 20, row - 20, column + 20, row + 20)
    if shape == "disc":
        pen.ellipse(box, fill=200)
    elif shape == "square":
        pen.rectangle(box, fill=40)
    else:
        corners = [(column, row - 22), (column - 22, row + 20), (column + 22, row + 20)]
        pen.polygon(corners, fill=150)
