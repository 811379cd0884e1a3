"""PatchCore on strips: through the network in crops with real context, stitched to one map.

A crop is what the network sees at once: some cloth that is scored, and around it what its patches
can see besides; beyond the cloth, its mirror image. The patches of that context are dropped, so
that neither the seams between crops nor the zeros that the network pads with show in the map. Every
strip's features are standardized by its own mean and spread: light and dye differ from one strip to
the next, and a defect is too small to move them.

The words: a *strip* is a photograph as the camera delivers it; the *cloth* is the part of it that
shows fabric; a *piece* is the part of the cloth that is scored in one go; a *crop* is a piece with
its context; a *tile* is a square of the strip by which results are counted.

Taught in notebook 7.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from patchcore_helpers.core.detector import (
    AnomalyResult,
    Detector,
    Frame,
    Grids,
    as_image_list,
    smooth_maps,
)
from patchcore_helpers.core.engines import device_beside
from patchcore_helpers.core.extractor import Extractor
from patchcore_helpers.core.items import read_item
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.patchcore import PatchCore, as_rows
from patchcore_helpers.core.region_of_interest import refuse_region
from patchcore_helpers.core.validation import check_choice
from patchcore_helpers.data.category import Category
from patchcore_helpers.data.tiling import fabric_extent, manifest, offsets, tile
from patchcore_helpers.errors import InputError

GRID_STEP = 32  # pixels: at its multiples the grids of all layers agree
TILE_SIZE = 256  # pixels a side
BLOCK_COLUMNS = 512  # patch columns that are searched at once, to copy little of a long strip
SMALLEST_SPREAD = 1e-6  # a channel that never varies is not divided by 0
# What `StripPatchCore` uses when no PatchCore is given.
STRIP_SETTINGS: dict[str, Any] = {
    "layers": (2, 3),
    "coreset_ratio": 0.05,
    "sampler": "k_center",
    "image_size": 256,
    "sigma": 12.0,
    "n_neighbors": 3,
}


@dataclass(frozen=True)
class Crop:
    """Rows and columns of a cloth, mirrored ones included; copied when it is read."""

    cloth: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def read(self) -> Image.Image:
        """The crop as an RGB image."""
        return Image.fromarray(self.cloth[np.ix_(self.rows, self.columns)])


# The settings of PatchCore that a cloth's patches depend on; the others are about the bank.
EXTRACTION_SETTINGS = (
    "backbone",
    "layers",
    "weights",
    "aggregation",
    "neighborhood",
    "precision",
    "engine",
    "device",
)


class PatchMemory:
    """What the network has seen, kept for several models that look at the same strips.

    Models that differ in the bank, the border margin or the standardization need the same patches.
    With one memory they share one network, and each strip goes through it once. The memory keeps
    4 bytes for every number of every patch: some 5 MB for a cloth of 2,048 x 256 pixels.

    Examples
    --------
    >>> memory = PatchMemory()
    >>> strips = [np.random.default_rng(i).integers(0, 99, (64, 400), np.uint8) for i in range(2)]
    >>> small = PatchCore("resnet18", weights="random", coreset_ratio=0.1)
    >>> wide = StripPatchCore(small, piece=128, context=32, memory=memory).fit(strips)
    >>> narrow = StripPatchCore(
    ...     small, piece=128, context=32, border_margin=(0, 0), memory=memory
    ... ).fit(strips)
    >>> len(memory)  # the second model has met the same two strips
    2
    """

    def __init__(self) -> None:
        self._extractors: dict[tuple[Any, ...], Extractor] = {}
        self._grids: dict[tuple[Any, ...], tuple[np.ndarray, int]] = {}

    def __len__(self) -> int:
        """The number of cloths, each counted once for every way it was looked at."""
        return len(self._grids)

    def __deepcopy__(self, memo: Any) -> Self:
        """The memory itself: a cloned model goes on sharing it."""
        return self

    def extractor(self, settings: PatchCore) -> Extractor:
        """The network for these settings, the same one every time."""
        key = _extraction_key(settings)
        if key not in self._extractors:
            self._extractors[key] = settings.new_extractor()
        return self._extractors[key]

    def stitch(self, model: "StripPatchCore", cloth: np.ndarray) -> tuple[np.ndarray, int]:
        """A copy of what `StripPatchCore.stitch` returns for this model and cloth."""
        content = hashlib.sha256(cloth.tobytes()).digest()
        key = (_extraction_key(model.settings_), model.piece, model.context, cloth.shape, content)
        if key not in self._grids:
            self._grids[key] = model.stitch(cloth)
        grid, step = self._grids[key]
        return grid.copy(), step  # it is standardized in place


def _extraction_key(settings: PatchCore) -> tuple[Any, ...]:
    return type(settings), *(str(getattr(settings, name)) for name in EXTRACTION_SETTINGS)


class StripPatchCore(Detector):
    """A memory bank for strips of any width, and one anomaly map for each strip.

    Parameters
    ----------
    model : PatchCore, optional
        Says which backbone, coreset, index and smoothing to use; by default one with
        `STRIP_SETTINGS`. Its `image_size` does not matter: a strip is seen at its own size.
    piece : int, pixels, a multiple of 32
        How much of a strip goes through the network at once.
    context : int, pixels, a multiple of 32
        How much is seen around a piece on every side; 0 shows what that is good for.
    border_margin : (int, int), pixels
        Pixels at the upper and lower, and at the left and right edge of the cloth that are not
        scored: the edge is never straight, and the mirror image beyond it is not quite cloth.
    standardize : "strip" or "bank"
        Standardize each channel by the strip's own mean and standard deviation, or by those of all
        normal patches together. "strip" makes up for light and dye, and is blind to what is wrong
        with a whole strip, such as its shade or the density of its weave.
    memory : PatchMemory, optional
        Shared by models that look at the same strips, so that each is looked at once.

    Attributes
    ----------
    bank_ : MemoryBank
    extractor_ : Extractor
    statistics_ : (mean, standard deviation), float32 arrays of shape (channels,)
        Over all normal patches, as they are before `standardize="bank"`.
    threshold_ : float
        Set by `calibrate`.

    Notes
    -----
    The image score of a strip is the largest value of its smoothed map.

    Examples
    --------
    >>> strips = [np.random.default_rng(i).integers(0, 99, (64, 400), np.uint8) for i in range(3)]
    >>> small = PatchCore("resnet18", weights="random", coreset_ratio=0.1)
    >>> model = StripPatchCore(small, piece=128, context=32).fit(strips[:2])
    >>> model.anomaly_map(strips[2]).shape, model.anomaly_scores(strips).shape
    ((64, 400), (3,))
    """

    def __init__(
        self,
        model: PatchCore | None = None,
        *,
        piece: int = 512,
        context: int = 128,
        border_margin: tuple[int, int] = (24, 32),
        standardize: str = "strip",
        memory: PatchMemory | None = None,
    ):
        self.model = model
        self.piece = piece
        self.context = context
        self.border_margin = border_margin
        self.standardize = standardize
        self.memory = memory

    def fit(self, images: Sequence[Any], y: Any = None) -> Self:
        """Fill the memory bank from normal strips; what an earlier fit learned is forgotten.

        Parameters
        ----------
        images : sequence of samples, paths, PIL images or uint8 arrays
        y : ignored
        """
        self._check_settings()
        strips = as_image_list(images)
        self.settings_ = PatchCore(**STRIP_SETTINGS) if self.model is None else clone(self.model)
        refuse_region(self.settings_.roi, "strips of fabric")
        self.extractor_ = self._new_extractor()
        normal = []
        for strip in tqdm(strips, "memory bank", unit="strip", disable=not self.settings_.progress):
            grid, _ = self._patch_grid(strip)
            if grid is not None:
                normal.append(as_rows(grid))
        if not normal:
            raise InputError("no cloth in the normal strips: give strips that show some")
        patches = np.concatenate(normal)
        del normal  # as large as the patches themselves
        self.statistics_ = patches.mean(0), np.maximum(patches.std(0), SMALLEST_SPREAD)
        self.bank_ = self.settings_.new_bank().fit(self._standardized_by_bank(patches))
        self._forget_threshold()
        return self

    def detect_batches(self, images: Sequence[Any]) -> Iterator[AnomalyResult]:
        """Score strips one by one; see `Detector.detect_batches`.

        Yields
        ------
        AnomalyResult
            For one strip, with its `Frame`; no patch scores where there is no cloth.
        """
        for patch_scores, frame in self._scored_grids(images):
            strip_map = self._to_map(patch_scores, frame)
            scores = np.array([strip_score(strip_map)], np.float32)
            yield AnomalyResult(scores, [patch_scores], [frame])

    def _scored_grids(self, images: Sequence[Any]) -> Iterator[tuple[np.ndarray, Frame]]:
        """The patch scores of strips, one by one, and where they lie."""
        check_is_fitted(self, "bank_")
        strips = as_image_list(images)
        for strip in tqdm(strips, "score", unit="strip", disable=not self.settings_.progress):
            grid, frame = self._patch_grid(strip)
            patch_scores = np.zeros((0, 0), np.float32) if grid is None else self._score(grid)
            del grid  # the patches of a long strip are large
            yield patch_scores, frame

    def to_maps(self, result: AnomalyResult) -> list[np.ndarray]:
        """One stitched map for each strip, at its size; 0 where there is no cloth."""
        check_is_fitted(self, "bank_")
        grids = zip(result.patch_scores, result.frames or (), strict=True)
        return [self._to_map(patch_scores, frame) for patch_scores, frame in grids]

    def anomaly_map(self, strip: Any) -> np.ndarray:
        """One stitched map at the strip's size; 0 where there is no cloth.

        Parameters
        ----------
        strip : sample, path, PIL image or uint8 array

        Returns
        -------
        float32 array of shape (height, width)
        """
        return self.anomaly_maps([strip])[0]

    def anomaly_maps(self, images: Sequence[Any]) -> list[np.ndarray]:
        """One stitched map for each strip; each is smoothed once, unlike ``to_maps(detect(...))``,
        where the scores need the maps as well."""
        return list(self.iterate_maps(images))

    def iterate_maps(self, strips: Sequence[Any]) -> Iterator[np.ndarray]:
        """The maps of strips one by one, so that only one need be in memory."""
        for patch_scores, frame in self._scored_grids(strips):
            yield self._to_map(patch_scores, frame)

    def extra_metrics(self, category: Category, maps: Grids) -> dict[str, Any]:
        """The AUROC by tile: a tile is positive if any of its pixels is a defect.

        Tiles that show neither cloth nor a defect are left out, as are those of defective strips
        without a mask.
        """
        tiles = score_tiles(category, maps).dropna(subset="label")
        return {"tile_auroc": image_auroc(tiles.label.to_numpy(int), tiles.score.to_numpy())}

    def summary(self) -> dict[str, Any]:
        check_is_fitted(self, "bank_")
        return {
            "backbone": self.settings_.backbone,
            "image_size": None,
            "coreset_ratio": self.settings_.coreset_ratio,
            "n_patches": self.bank_.n_vectors_,
            "bank_size": len(self.bank_),
        }

    def _new_extractor(self) -> Extractor:
        if self.memory is None:
            return self.settings_.new_extractor()
        return self.memory.extractor(self.settings_)

    def _seen(self, cloth: np.ndarray) -> tuple[np.ndarray, int]:
        """The patches of a whole cloth, from the memory if there is one."""
        if self.memory is None:
            return self.stitch(cloth)
        return self.memory.stitch(self, cloth)

    def _check_settings(self) -> None:
        for name, smallest in (("piece", GRID_STEP), ("context", 0)):
            value = getattr(self, name)
            is_multiple = isinstance(value, int | np.integer) and value % GRID_STEP == 0
            if not is_multiple or value < smallest:
                raise InputError(f"{name}={value!r}: give pixels, a multiple of {GRID_STEP}")
        check_choice(self.standardize, "standardize", ("strip", "bank"))

    def _patch_grid(self, strip: Any) -> tuple[np.ndarray | None, Frame]:
        """The patches of a strip that count, and where they are; None if there is no cloth."""
        image = np.asarray(read_item(strip))
        first, last = fabric_extent(image)
        frame = self._frame(image.shape, first, last)
        if frame.bottom <= frame.top or frame.right <= frame.left:
            return None, frame
        cloth = image[:, first:last]
        grid, step = self._seen(cloth)
        margin_rows, margin_columns = self.border_margin
        height, width = len(image), last - first
        rows = slice(margin_rows // step, _ceil_divide(height - margin_rows, step))
        columns = slice(margin_columns // step, _ceil_divide(width - margin_columns, step))
        grid = grid[rows, columns]
        if self.standardize == "strip":
            _standardize_in_place(grid)
        offset = (margin_rows % step, margin_columns % step)
        return grid, replace(frame, offset=offset, step=step)

    def _frame(self, shape: tuple[int, ...], first: int, last: int) -> Frame:
        height, width = shape[:2]
        margin_rows, margin_columns = self.border_margin
        return Frame(
            height,
            width,
            top=margin_rows,
            left=first + margin_columns,
            bottom=height - margin_rows,
            right=last - margin_columns,
            offset=(0, 0),
            step=1,
        )

    def stitch(self, cloth: np.ndarray) -> tuple[np.ndarray, int]:
        """The patches of a whole cloth as one grid, put together from its pieces.

        Parameters
        ----------
        cloth : uint8 array of shape (height, width, 3)

        Returns
        -------
        grid : float32 array of shape (rows, columns, channels)
        step : int
            Pixels from one patch to the next.
        """
        height, width = cloth.shape[:2]
        rows = self._mirrored(height)
        columns = self._mirrored(width)
        padded_width = len(columns) - 2 * self.context
        piece = min(self.piece, padded_width)
        crop_width = piece + 2 * self.context
        extractor = self.extractor_.resized(len(rows), crop_width, batch_size=1)
        starts = offsets(padded_width, piece, piece)
        crops = [Crop(cloth, rows, columns[start : start + crop_width]) for start in starts]
        grid = np.empty(0, np.float32)
        step = 0
        for start, patches in zip(starts, extractor.patches(crops), strict=True):
            n_rows, n_columns = patches.shape[1:3]
            step = crop_width // n_columns
            context = self.context // step
            scored = patches[0, context : n_rows - context, context : n_columns - context]
            if not grid.size:
                grid = np.empty((len(scored), padded_width // step, scored.shape[2]), np.float32)
            column = start // step
            grid[:, column : column + scored.shape[1]] = scored.cpu().numpy()
        return grid, step

    def _mirrored(self, length: int) -> np.ndarray:
        """Positions along one side, continued by mirror images: the context on either end, and
        what is missing to a multiple of the grid's step."""
        missing = -length % GRID_STEP
        return np.pad(np.arange(length), (self.context, self.context + missing), mode="reflect")

    def _standardized_by_bank(self, vectors: np.ndarray) -> np.ndarray:
        if self.standardize == "strip":
            return vectors
        mean, deviation = self.statistics_
        return (vectors - mean) / deviation

    def _score(self, grid: np.ndarray) -> np.ndarray:
        """Patch scores, float32 array of shape (rows, columns), from patches of that grid."""
        blocks = np.array_split(grid, _ceil_divide(grid.shape[1], BLOCK_COLUMNS), axis=1)
        scored = []
        for block in blocks:
            vectors = self._standardized_by_bank(as_rows(block))
            distances = self.bank_.distances(vectors, self.settings_.n_neighbors)
            scored.append(distances.reshape(block.shape[:2]))
        return np.concatenate(scored, axis=1)

    def _to_map(self, patch_scores: np.ndarray, frame: Frame) -> np.ndarray:
        """The stitched map of one strip at its size."""
        strip_map = np.zeros((frame.height, frame.width), np.float32)
        if not patch_scores.size:
            return strip_map
        n_rows, n_columns = patch_scores.shape
        size = (frame.step * n_rows, frame.step * n_columns)
        device = device_beside(self.settings_.engine, self.settings_.device)
        smooth = smooth_maps(patch_scores[None], size, self.settings_.sigma, device)[0]
        # The first row and column of patches may begin outside the part that counts.
        skipped_rows, skipped_columns = frame.offset
        smooth = smooth[skipped_rows:, skipped_columns:]
        scored = strip_map[frame.top : frame.bottom, frame.left : frame.right]
        scored[:] = smooth[: scored.shape[0], : scored.shape[1]]
        return strip_map


def strip_score(strip_map: np.ndarray) -> float:
    """The image score of a strip: the largest value of its stitched map."""
    return strip_map.max()


def peak_of(strip_map: np.ndarray) -> tuple[int, int]:
    """The row and the column of a map's largest value."""
    row, column = np.unravel_index(strip_map.argmax(), strip_map.shape)
    return int(row), int(column)


def peak_is_on_defect(strip_map: np.ndarray, mask: np.ndarray, reach: int = 16) -> bool:
    """Whether a map is highest on the defect, or at most `reach` pixels beside it.

    A strip can get a high score for a wrong reason; this asks for the right one.

    Parameters
    ----------
    strip_map : array of shape (height, width)
    mask : bool array of the same shape
        The defective pixels.
    reach : int, pixels
        Patches lie 8 pixels apart and see their neighbors, so a peak is not exact.

    Examples
    --------
    >>> strip_map = np.zeros((64, 200))
    >>> strip_map[30, 100] = 1
    >>> mask = np.zeros((64, 200), bool)
    >>> mask[30, 110:120] = True
    >>> peak_is_on_defect(strip_map, mask), peak_is_on_defect(strip_map, mask, reach=5)
    (True, False)
    """
    row, column = peak_of(strip_map)
    rows = slice(max(row - reach, 0), row + reach + 1)
    columns = slice(max(column - reach, 0), column + reach + 1)
    return bool(mask[rows, columns].any())


def score_tiles(
    category: Category,
    maps: Grids,
    size: int = TILE_SIZE,
    stride: int | None = None,
) -> pd.DataFrame:
    """The tiles of all test strips with their scores, the largest value of the map in each.

    Parameters
    ----------
    category : Category
    maps : sequence of arrays of shape (height, width)
        The maps of its test strips.
    size, stride : see `tile`

    Returns
    -------
    DataFrame
        `manifest` with the column score, without the tiles that show neither cloth nor a defect.
    """
    table = manifest(replace(category, train=[], calibration=[]), size, stride)
    scores = [part.max() for strip_map in maps for part in tile(strip_map, size, stride)]
    shows_cloth = table.cloth > 0
    is_defective = (table.label == 1).fillna(False)
    return table.assign(score=scores)[shows_cloth | is_defective]


def _standardize_in_place(grid: np.ndarray) -> None:
    """Bring every channel of a strip's patches to mean 0 and standard deviation 1."""
    grid -= grid.mean((0, 1))  # in place, because the grid of a long strip is large
    variance = np.einsum("ijk,ijk->k", grid, grid) / grid[..., 0].size
    grid /= np.maximum(np.sqrt(variance), SMALLEST_SPREAD)


def _ceil_divide(length: int, step: int) -> int:
    return -(-length // step)
