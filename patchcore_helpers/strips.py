"""PatchCore on strips: through the network in pieces with real context, stitched to one map.

A piece is what the network sees at once: some cloth to be scored, and around it what its patches
can see besides; beyond the cloth, its mirror image. The patches of that context are dropped, so
that neither the seams between pieces nor the zeros that the network pads with show in the map.
"""

from copy import copy
from dataclasses import replace
from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from .coreset import SAMPLERS
from .errors import CourseError
from .images import read_image
from .neighbours import check_patches
from .patchcore import PatchCore, conformal_threshold, smooth_maps
from .tiling import cloth_columns, manifest, offsets, tile, untile

STEP = 32  # pixels: at its multiples the grids of all layers agree
TILE = 256  # pixels a side
SETTINGS = {
    **{"layers": (2, 3), "coreset_ratio": 0.03, "sampler": "random", "image_size": 256},
    **{"sigma": 12.0},
}
TOP = 1280  # pixels: as many as 20 patches of stride 8


def _pixels(item):
    """A sample, path, PIL image or uint8 array as uint8 of shape (height, width, 3)."""
    return np.asarray(item.read() if hasattr(item, "label") else read_image(item))


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
        How much is seen around a piece on every side.
    inset : (int, int), pixels
        How far from the upper and lower, and from the left and right end of the cloth scores begin
        to count: its edge is never straight, and the mirror image beyond it is not quite cloth.

    Attributes
    ----------
    patchcore_ : PatchCore
        A copy of `model` with the memory bank.
    scale_ : float32 array of shape (channels,)
        Standard deviation of each channel over the normal patches, by which it is divided.
    threshold_ : float
        Set by `calibrate`.

    Examples
    --------
    >>> strips = [np.random.default_rng(i).integers(0, 99, (64, 400), np.uint8) for i in range(3)]
    >>> small = PatchCore("resnet18", weights="random", coreset_ratio=0.1)
    >>> model = StripPatchCore(small, piece=128, context=32).fit(strips[:2])
    >>> model.anomaly_map(strips[2]).shape, model.score(strips).shape
    ((64, 400), (3,))
    """

    def __init__(self, model=None, *, piece=1024, context=64, inset=(16, 32)):
        self.model, self.piece, self.context, self.inset = model, piece, context, inset

    def _stitch(self, cloth, each):
        """One grid for the whole cloth, of what `each` makes of the patches of its pieces.

        Parameters
        ----------
        cloth : uint8 array of shape (height, width, 3)
        each : function
            Takes float32 patches of shape (rows, columns, channels), gives an array that starts
            with (rows, columns).

        Returns
        -------
        grid : array that starts with (rows, columns)
        step : int
            Pixels from one patch to the next.
        """
        more = [-length % STEP for length in cloth.shape[:2]]
        around = [(self.context, self.context + length) for length in more]
        padded = np.pad(cloth, (*around, (0, 0)), mode="reflect")
        whole = cloth.shape[1] + more[1]
        size = min(self.piece, whole)
        extractor = copy(self.extractor_)
        extractor.input_size = (padded.shape[0], size + 2 * self.context)
        grids, places = [], []
        for x in offsets(whole, size, size):
            (patches,) = extractor.patches([padded[:, x : x + size + 2 * self.context]])
            step = extractor.input_size[1] // patches.shape[2]
            cut = self.context // step
            grids.append(each(patches[0, cut:-cut, cut:-cut].numpy()))
            places.append((x // step, 0, *grids[-1].shape[1::-1]))
        places = pd.DataFrame(places, columns=["x", "y", "width", "height"])
        return untile(grids, places), step

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
        for name in ("piece", "context"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value % STEP or value < STEP:
                raise CourseError(f"{name}={value!r}: give pixels, a multiple of {STEP}")
        model, rows = PatchCore(**SETTINGS) if self.model is None else clone(self.model), []
        self.extractor_ = model._make_extractor()
        for strip in tqdm(strips, "memory bank", unit="strip", disable=not model.progress):
            image = _pixels(strip)
            first, last = cloth_columns(image)
            if last > first:
                rows.append(model._vectors(self._stitch(image[:, first:last], np.copy)[0]))
        if not rows:
            raise CourseError("no cloth in the normal strips: give strips that show some")
        patches = check_patches(np.concatenate(rows), f"features of {model.backbone}")
        self.scale_ = np.maximum(patches.std(0), 1e-6)
        patches /= self.scale_
        count = max(1, round(model.coreset_ratio * len(patches)))
        options = {"projection": model.projection} if model.sampler != "random" else {}
        coreset = SAMPLERS[model.sampler](
            patches, count, random_state=model.random_state, **options
        )
        model._remember(self.extractor_, patches[coreset.indices], len(patches), coreset)
        self.patchcore_ = model
        vars(self).pop("threshold_", None)
        return self

    def _patch_scores(self, patches):
        model = self.patchcore_
        vectors = model._vectors(patches) / self.scale_
        l2, _ = model.search_.query(vectors, model.n_neighbors)
        return model._distance(l2).mean(1).reshape(patches.shape[:2])

    def anomaly_map(self, strip):
        """One stitched map at the strip's size; 0 where there is no cloth.

        Parameters
        ----------
        strip : sample, path, PIL image or uint8 array

        Returns
        -------
        float32 array of shape (height, width)
        """
        check_is_fitted(self, "scale_")
        image = _pixels(strip)
        first, last = cloth_columns(image)
        out = np.zeros(image.shape[:2], np.float32)
        if first < last:
            grid, step = self._stitch(image[:, first:last], self._patch_scores)
            size = tuple(step * n for n in grid.shape)
            smooth = smooth_maps(grid[None], size, self.patchcore_.sigma)[0]
            (rows, columns), height = self.inset, len(out)
            inner = np.s_[rows : height - rows, first + columns : last - columns]
            out[inner] = smooth[rows : height - rows, columns : last - first - columns]
        return out

    def anomaly_maps(self, strips):
        """The maps of strips, one by one, so that only one need be in memory."""
        check_is_fitted(self, "scale_")
        for strip in tqdm(strips, "score", unit="strip", disable=not self.patchcore_.progress):
            yield self.anomaly_map(strip)

    def score(self, strips, y=None):
        """Image scores of the stitched maps, see `strip_score`; float32 array of shape (n,)."""
        return np.array([strip_score(m) for m in self.anomaly_maps(strips)], np.float32)

    def calibrate(self, normal_strips, false_alarm_rate=0.1):
        """Set `threshold_` from normal strips that were not in `fit`; see `conformal_threshold`."""
        self.threshold_ = conformal_threshold(self.score(normal_strips), false_alarm_rate)
        return self


def strip_score(strip_map):
    """The image score of a strip: the mean of the `TOP` largest values of its stitched map."""
    flat = strip_map.ravel()
    return np.partition(flat, -min(TOP, flat.size))[-min(TOP, flat.size) :].mean()


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
