"""PatchCore on strips: through the network in pieces with real context, stitched to one map.

A piece is what the network sees at once: some cloth to be scored, and around it what its patches
can see besides; beyond the cloth, its mirror image. The patches of that context are dropped, so
that neither the seams between pieces nor the zeros that the network pads with show in the map.
Every strip's features are standardized by its own mean and spread: light and dye differ from one
strip to the next, and a defect is too small to move them.
"""

from copy import copy
from dataclasses import replace
from numbers import Integral
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from patchcore_helpers.core.extractor import read_item
from patchcore_helpers.core.patchcore import PatchCore, conformal_threshold, smooth_maps
from patchcore_helpers.data.tiling import fabric_extent, manifest, offsets, tile
from patchcore_helpers.errors import InputError

STEP = 32  # pixels: at its multiples the grids of all layers agree
TILE = 256  # pixels a side
SETTINGS = {
    **{"layers": (2, 3), "coreset_ratio": 0.05, "sampler": "k_center", "image_size": 256},
    **{"sigma": 12.0, "n_neighbors": 3},
}


def _pixels(item):
    """A sample, path, PIL image or uint8 array as uint8 of shape (height, width, 3)."""
    return np.asarray(read_item(item))


class Piece(NamedTuple):
    """Some rows and columns of a cloth, mirrored ones too; copied when they are read."""

    cloth: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    label: int = 0

    def read(self):
        return Image.fromarray(self.cloth[np.ix_(self.rows, self.columns)])


class StripPatchCore(BaseEstimator):
    """A memory bank for strips of any width, and one anomaly map for each strip.

    Parameters
    ----------
    model : PatchCore, optional
        Says what backbone, coreset, search and smoothing there are; by default one with
        `SETTINGS`. Its `image_size` does not matter: a strip is seen as large as it is.
    piece : int, pixels, a multiple of 32
        How much of a strip goes through the network at once.
    context : int, pixels, a multiple of 32
        How much is seen around a piece on every side; 0 shows what that is good for.
    inset : (int, int), pixels
        How far from the upper and lower, and from the left and right end of the cloth patches begin
        to count: its edge is never straight, and the mirror image beyond it is not quite cloth.
    standardize : "strip" or "bank"
        Whose mean and standard deviation each channel is standardized by: the strip's own, or
        those of all normal patches together.

    Attributes
    ----------
    patchcore_ : PatchCore
        A copy of `model` with the memory bank.
    statistics_ : (mean, standard deviation), float32 arrays of shape (channels,)
        Over all normal patches, as the bank holds them before `standardize="bank"`.
    threshold_ : float
        Set by `calibrate`.

    Examples
    --------
    >>> strips = [np.random.default_rng(i).integers(0, 99, (64, 400), np.uint8) for i in range(3)]
    >>> small = PatchCore("resnet18", weights="random", coreset_ratio=0.1)
    >>> model = StripPatchCore(small, piece=128, context=32).fit(strips[:2])
    >>> model.anomaly_map(strips[2]).shape, model.anomaly_scores(strips).shape
    ((64, 400), (3,))
    """

    def __init__(self, model=None, *, piece=512, context=128, inset=(24, 32), standardize="strip"):
        self.model, self.piece, self.context = model, piece, context
        self.inset, self.standardize = inset, standardize

    def _stitch(self, cloth):
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
        more = [-length % STEP for length in cloth.shape[:2]]
        rows, columns = (
            np.pad(np.arange(length), (self.context, self.context + extra), mode="reflect")
            for length, extra in zip(cloth.shape[:2], more, strict=True)
        )
        whole = cloth.shape[1] + more[1]
        size = min(self.piece, whole)
        extractor = copy(self.extractor_)
        extractor.input_size = (len(rows), size + 2 * self.context)
        extractor.batch_size, grid = 1, None
        starts = offsets(whole, size, size)
        pieces = [Piece(cloth, rows, columns[x : x + size + 2 * self.context]) for x in starts]
        for x, patches in zip(starts, extractor.patches(pieces), strict=True):
            step = extractor.input_size[1] // patches.shape[2]
            cut, (high, wide) = self.context // step, patches.shape[1:3]
            part = patches[0, cut : high - cut, cut : wide - cut].numpy()
            if grid is None:
                grid = np.empty((len(part), whole // step, part.shape[2]), np.float32)
            grid[:, x // step : x // step + part.shape[1]] = part
        return grid, step

    def _inner(self, image):
        """Where in a strip scores count, and its standardized patches: (window, grid, step)."""
        first, last = fabric_extent(image)
        (rows, columns), height = self.inset, len(image)
        window = np.s_[rows : height - rows, first + columns : last - columns]
        if min(height - 2 * rows, last - first - 2 * columns) <= 0:
            return None, None, None
        grid, step = self._stitch(image[:, first:last])
        spans = ((rows, height), (columns, last - first))
        grid = grid[tuple(np.s_[cut // step : -(-(end - cut) // step)] for cut, end in spans)]
        if self.standardize == "strip":
            grid -= grid.mean((0, 1))  # in place: the grid of a long strip is large
            variance = np.einsum("ijk,ijk->k", grid, grid) / grid[..., 0].size
            grid /= np.maximum(np.sqrt(variance), 1e-6)
        return window, grid, step

    def fit(self, strips, y=None):
        """Fill the memory bank from normal strips; what an earlier fit learned is forgotten.

        Parameters
        ----------
        strips : sequence of samples, paths, PIL images or uint8 arrays
        y : ignored

        Returns
        -------
        self
        """
        for name, least in (("piece", STEP), ("context", 0)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value % STEP or value < least:
                raise InputError(f"{name}={value!r}: give pixels, a multiple of {STEP}")
        if self.standardize not in ("strip", "bank"):
            raise InputError(f"standardize={self.standardize!r}: choose strip or bank")
        model, rows = PatchCore(**SETTINGS) if self.model is None else clone(self.model), []
        self.extractor_ = model._make_extractor()
        for strip in tqdm(strips, "memory bank", unit="strip", disable=not model.progress):
            grid = self._inner(_pixels(strip))[1]
            if grid is not None:
                rows.append(model._vectors(grid))
        if not rows:
            raise InputError("no cloth in the normal strips: give strips that show some")
        patches = np.concatenate(rows)
        self.statistics_ = patches.mean(0), np.maximum(patches.std(0), 1e-6)
        model._fill(self.extractor_, self._relative(patches))
        self.patchcore_ = model
        self.__dict__.pop("threshold_", None)
        return self

    def _relative(self, vectors):
        if self.standardize == "strip":
            return vectors
        mean, deviation = self.statistics_
        return (vectors - mean) / deviation

    def _scores(self, grid):
        model = self.patchcore_
        l2, _ = model.search_.query(self._relative(model._vectors(grid)), model.n_neighbors)
        return model._distance(l2).mean(1).reshape(grid.shape[:2])

    def anomaly_map(self, strip):
        """One stitched map at the strip's size; 0 where there is no cloth.

        Parameters
        ----------
        strip : sample, path, PIL image or uint8 array

        Returns
        -------
        float32 array of shape (height, width)
        """
        check_is_fitted(self, "patchcore_")
        model, image = self.patchcore_, _pixels(strip)
        out = np.zeros(image.shape[:2], np.float32)
        window, grid, step = self._inner(image)
        del image  # what is large goes when it is used up, for the sake of long strips
        if grid is not None:
            parts = np.array_split(grid, -(-grid.shape[1] // 512), axis=1)  # to copy little at once
            scores = np.concatenate([self._scores(part) for part in parts], axis=1)
            size = tuple(step * n for n in grid.shape[:2])
            del grid, parts
            smooth = smooth_maps(scores[None], size, model.sigma)[0]
            beyond = [cut % step for cut in self.inset]  # where an inset cuts a patch
            height, width = out[window].shape
            out[window] = smooth[beyond[0] :, beyond[1] :][:height, :width]
        return out

    def anomaly_maps(self, strips):
        """The maps of strips, one by one, so that only one need be in memory."""
        check_is_fitted(self, "patchcore_")
        for strip in tqdm(strips, "score", unit="strip", disable=not self.patchcore_.progress):
            yield self.anomaly_map(strip)

    def anomaly_scores(self, strips):
        """Image scores of the stitched maps, see `strip_score`; float32 array of shape (n,)."""
        return np.array([strip_score(m) for m in self.anomaly_maps(strips)], np.float32)

    def calibrate(self, normal_strips, false_alarm_rate=0.1):
        """Set `threshold_` from normal strips that were not in `fit`; see `conformal_threshold`."""
        self.threshold_ = conformal_threshold(self.anomaly_scores(normal_strips), false_alarm_rate)
        return self


def strip_score(strip_map):
    """The image score of a strip: the largest value of its stitched map."""
    return strip_map.max()


def score_tiles(category, maps, size=TILE, stride=None):
    """The tiles of all test strips with their scores, the largest value of the map in each.

    Parameters
    ----------
    category : Category
    maps : iterable of arrays of shape (height, width)
        Of its test strips.
    size, stride : see `tile`

    Returns
    -------
    DataFrame
        `manifest` with the column score, without the tiles that show no cloth.
    """
    table = manifest(replace(category, train=[], calibration=[]), size, stride)
    scores = [part.max() for strip_map in maps for part in tile(strip_map, size, stride)]
    return table.assign(score=scores)[(table.cloth > 0) | (table.label == 1).fillna(False)]
