"""PatchCore: a memory bank of normal patches; what lies far from all of them is an anomaly."""

import json
import math
import warnings
from importlib.metadata import version
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from scipy import stats
from scipy.ndimage import gaussian_filter
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from patchcore_helpers.core.backbones import find_weights, load_backbone, parameter_count
from patchcore_helpers.core.bank_file import (
    FAULTS,
    OWN_WEIGHTS,
    PARAMETERS,
    VERSIONED,
    digest_of,
    read_bank,
)
from patchcore_helpers.core.coreset import SAMPLERS
from patchcore_helpers.core.extractor import Extractor, as_size
from patchcore_helpers.core.feature_cache import FeatureCache
from patchcore_helpers.core.neighbors import as_patch_matrix, make_index
from patchcore_helpers.errors import InputError, translate_os_errors
from patchcore_helpers.files import atomic_write

REWEIGHT_NEIGHBORS = 9  # b in Eq. 7
IMAGE_SCORES = ("max", "mean", "top1_percent", "reweighted")
METRICS = ("l2", "cosine")
LARGEST_RANDOM = 10**8  # parameters of a network that a file may have us fill with random numbers
NEED_A_FIT = (
    *("backbone", "layers", "weights", "image_size", "aggregation", "neighborhood"),
    *("metric", "search"),
)


class AnomalyResult(NamedTuple):
    """Image scores, shape (n,), and the patch scores they come from, shape (n, rows, columns)."""

    scores: np.ndarray
    patch_scores: np.ndarray


def image_scores(patch_scores, kind="max"):
    """One score per image from its patch scores.

    Parameters
    ----------
    patch_scores : array of shape (n, rows, columns)
    kind : "max", "mean" or "top1_percent" (mean of the largest 1 % of patches, at least one)

    Examples
    --------
    >>> image_scores(np.array([[[1.0, 2.0], [3.0, 6.0]]]), "mean")
    array([3.])
    """
    flat = patch_scores.reshape(len(patch_scores), -1)
    if kind == "mean":
        return flat.mean(1)
    count = max(1, round(flat.shape[1] / 100)) if kind == "top1_percent" else 1
    return np.sort(flat, axis=1)[:, -count:].mean(1)


def smooth_maps(patch_scores, size, sigma=4.0):
    """Anomaly maps: patch scores resized bilinearly to `size` and smoothed by a Gaussian.

    Parameters
    ----------
    patch_scores : float32 array of shape (n, rows, columns)
    size : (height, width), pixels
    sigma : float, pixels
        Standard deviation of the Gaussian; 0 leaves the map as it is.

    Returns
    -------
    float32 array of shape (n, height, width)
    """
    maps = torch.from_numpy(np.ascontiguousarray(patch_scores, np.float32))[:, None]
    maps = F.interpolate(maps, size=size, mode="bilinear")[:, 0].numpy()
    return gaussian_filter(maps, sigma, axes=(1, 2)) if sigma > 0 else maps


class PatchCore(BaseEstimator):
    """Anomaly detection with a memory bank of patch features (Roth et al. 2022).

    Parameters
    ----------
    backbone : str
        A name that `load_backbone` knows.
    layers, weights : see `load_backbone`
    image_size : int or (height, width), pixels
    aggregation, neighborhood, precision, batch_size : see `Extractor`
    cache : bool, path or FeatureCache, optional
        Keep feature maps on disk: True in the usual folder, a path in that one. Off by default.
    coreset_ratio : float in (0, 1]
        Share of the training patches that the memory bank keeps.
    sampler : str
        How they are chosen: "k_center" (greedy) or "random".
    projection : int or None
        Dimensions of the random projection that the coreset is chosen in; None: exact distances.
    n_neighbors : int
        A patch score is the mean distance to so many nearest rows of the memory bank.
    search : str or dict
        How they are found: "exact", or what else `make_index` knows, such as "ivf_pq" or
        {"kind": "ivf_pq", "m": 16, "nprobe": 4}.
    image_score : "max", "mean", "top1_percent" or "reweighted"
        How patch scores become an image score; "reweighted" is Eq. 7 with b = 9 neighbors.
    metric : "l2" or "cosine"
    sigma : float, pixels
        Smoothing of anomaly maps.
    random_state : int
        Seeds the coreset, and the training of an approximate search.
    progress : bool
        Draw progress bars on standard error.

    Attributes
    ----------
    memory_bank_ : float32 array of shape (rows, channels)
        Missing after `load` where the file holds only codes; see `save`.
    search_ : ExactIndex, SklearnIndex or FaissSearch
        Fitted on the memory bank.
    coreset_ : Coreset
        Which of the training patches were kept, in the order of the choice. None after `load`.
    n_patches_ : int
        How many training patches there were.
    grid_ : (rows, columns)
        Of patches in an image; set by `fit`.
    threshold_ : float
        Set by `calibrate`.

    Notes
    -----
    `fit` takes all images for normal and does not look at labels. For `cross_val_score` or
    `GridSearchCV`, give the images as an object array, the labels as y, a `cv` whose training parts
    hold normal images only, and as `scoring` a function (model, images, labels), such as the image
    AUROC of ``model.anomaly_scores(images)``; tests/test_contract.py shows it.

    Examples
    --------
    >>> from patchcore_helpers import load_category
    >>> category = load_category("elpv/mono")
    >>> model = PatchCore("resnet18", weights="random", image_size=64).fit(category.train[:4])
    >>> model.memory_bank_.shape
    (3, 384)
    >>> model.anomaly_scores(category.test[:2]).shape, model.anomaly_maps(category.test[:2]).shape
    ((2,), (2, 64, 64))
    """

    def __init__(
        self,
        backbone="efficientnet_lite0",
        *,
        layers=None,
        weights=None,
        image_size=256,
        aggregation="concat",
        neighborhood=None,
        coreset_ratio=0.01,
        sampler="k_center",
        projection=128,
        n_neighbors=1,
        search="exact",
        image_score="max",
        metric="l2",
        sigma=4.0,
        precision="auto",
        batch_size=16,
        cache=None,
        random_state=0,
        progress=False,
    ):
        given = locals()
        for name in self._get_param_names():
            setattr(self, name, given[name])

    def _check_parameters(self):
        ratio, k = self.coreset_ratio, self.n_neighbors
        if not isinstance(ratio, Real) or not 0 < ratio <= 1:
            raise InputError(f"coreset_ratio={ratio}: give a share above 0 and at most 1")
        if not isinstance(k, Integral) or k < 1:
            raise InputError(f"n_neighbors={k!r}: give a whole number from 1")
        if not isinstance(self.sigma, Real) or not 0 <= self.sigma < math.inf:
            raise InputError(f"sigma={self.sigma!r}: give pixels, 0 or more")
        if not isinstance(self.random_state, Integral) or not 0 <= self.random_state < 2**32:
            raise InputError(f"random_state={self.random_state!r}: give a whole number from 0")
        make_index(self.search, self.random_state)
        choices = {"sampler": SAMPLERS, "image_score": IMAGE_SCORES, "metric": METRICS}
        for name, known in choices.items():
            value = getattr(self, name)
            if value not in known:
                raise InputError(f"{name}={value!r}: choose one of {', '.join(known)}")

    def _make_extractor(self):
        self._check_parameters()
        return Extractor(
            load_backbone(self.backbone, self.layers, self.weights),
            self.image_size,
            aggregation=self.aggregation,
            neighborhood=self.neighborhood,
            precision=self.precision,
            batch_size=self.batch_size,
            cache=FeatureCache.of(self.cache),
        )

    def _vectors(self, patches):
        """Patch vectors as rows, of unit length for the cosine metric."""
        rows = patches.reshape(-1, patches.shape[-1])
        if self.metric == "cosine":
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return rows

    def fit(self, images, y=None):
        """Fill the memory bank from normal images; what an earlier fit learned is forgotten.

        Parameters
        ----------
        images : sequence of samples, paths, PIL images or uint8 arrays
        y : ignored

        Returns
        -------
        self
        """
        extractor = self._make_extractor()
        patches = extractor.extract(images, self._label("memory bank"))
        self._fill(extractor, self._vectors(patches))
        self.grid_ = patches.shape[1:3]
        return self

    def _fill(self, extractor, patches):
        """Choose the memory bank from patch vectors, and remember it."""
        as_patch_matrix(patches, f"features of {self.backbone}")
        count = max(1, round(self.coreset_ratio * len(patches)))
        options = {"projection": self.projection} if self.sampler != "random" else {}
        coreset = SAMPLERS[self.sampler](patches, count, random_state=self.random_state, **options)
        self._remember(extractor, patches[coreset.indices], len(patches), coreset)

    def _remember(self, extractor, bank, n_patches, coreset=None, search=None):
        self.search_ = search or make_index(self.search, self.random_state).fit(bank)
        self.extractor_ = extractor
        self.memory_bank_ = bank
        if bank is None:
            del self.memory_bank_
        self.fitted_with_ = {name: repr(getattr(self, name)) for name in NEED_A_FIT}
        self.n_patches_ = n_patches
        self.coreset_ = coreset
        self.__dict__.pop("threshold_", None)
        return self

    def origin(self, rows):
        """Where rows of the memory bank come from: (image of `fit`, grid row, grid column) each.

        Parameters
        ----------
        rows : int array of shape (k,)

        Returns
        -------
        int array of shape (k, 3)
        """
        check_is_fitted(self, "coreset_")
        if self.coreset_ is None:
            raise InputError("a loaded memory bank does not know its images; fit it again")
        rows_, columns = self.grid_
        image, place = np.divmod(self.coreset_.indices[np.asarray(rows)], rows_ * columns)
        return np.stack([image, *np.divmod(place, columns)], axis=1)

    def _label(self, text):
        return text if self.progress else None

    def _distance(self, l2):
        """The metric's distance from L2: for unit vectors, half its square is the cosine one."""
        return l2**2 / 2 if self.metric == "cosine" else l2

    def detect(self, images):
        """Score images; both kinds of scores from one pass.

        Parameters
        ----------
        images : sequence of samples, paths, PIL images or uint8 arrays

        Returns
        -------
        AnomalyResult
        """
        parts = list(self.detect_batches(images))
        return AnomalyResult(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def detect_batches(self, images):
        """Score images batch by batch, in memory that does not grow with their number.

        Parameters
        ----------
        images : sequence of samples, paths, PIL images or uint8 arrays
            Read a batch or two before they are scored.

        Yields
        ------
        AnomalyResult
            Of the next `batch_size` images; the last batch may be smaller.
        """
        check_is_fitted(self, "search_")
        self._check_parameters()
        if changed := [n for n, old in self.fitted_with_.items() if repr(getattr(self, n)) != old]:
            raise InputError(f"{changed[0]}: changed since the memory bank was made; fit it again")
        images = list(images)
        if not images:
            raise InputError("no images: give at least one")

        def look(batch):
            vectors = self._vectors(batch.numpy())
            l2, rows = self.search_.query(vectors, self.n_neighbors)
            distances = self._distance(l2)
            values = distances.mean(1).reshape(batch.shape[:3])
            if self.image_score == "reweighted":
                per_image = vectors.reshape(len(batch), -1, vectors.shape[1])
                nearest = rows[:, 0].reshape(len(batch), -1)
                scores = self._reweighted(values.reshape(len(batch), -1), per_image, nearest)
            else:
                scores = image_scores(values, self.image_score)
            return AnomalyResult(scores, values)

        yield from self.extractor_.patches(images, self._label("score"), look)

    def _reweighted(self, values, vectors, nearest):
        """Eq. 7: the largest patch score, times one minus the softmax share of its nearest row
        among that row's b nearest rows (itself included)."""
        if not hasattr(self, "memory_bank_"):
            raise InputError(
                f"image_score='reweighted': needs the memory bank, the file holds {self.search} "
                "codes only; choose another score or fit it again"
            )
        images = np.arange(len(values))
        worst = values.argmax(1)
        patches, rows = vectors[images, worst], nearest[images, worst]
        _, around = self.search_.query(self.memory_bank_[rows], REWEIGHT_NEIGHBORS)
        if around.shape[1] < 2:
            return values[images, worst]
        missed = (around != rows[:, None]).all(1)  # an approximate search may miss the row itself
        around[missed, -1] = rows[missed]

        def to(others):
            return self._distance(np.linalg.norm(patches[:, None] - others, axis=2))

        shift = to(self.memory_bank_[around])
        top = shift.max(1, keepdims=True)
        own = np.exp(to(self.memory_bank_[rows][:, None]) - top)[:, 0]
        return values[images, worst] * (1 - own / np.exp(shift - top).sum(1))

    def anomaly_scores(self, images):
        """Image scores, float32 array of shape (n,); higher is more anomalous."""
        return self.detect(images).scores

    def anomaly_maps(self, images):
        """Anomaly maps at image size, float32 array of shape (n, height, width)."""
        return self.to_maps(self.detect(images).patch_scores)

    def to_maps(self, patch_scores):
        """Anomaly maps from patch scores; see `smooth_maps`."""
        return smooth_maps(patch_scores, as_size(self.image_size), self.sigma)

    def calibrate(self, normal_images, false_alarm_rate=0.05):
        """Set `threshold_` from normal images that were not in `fit`; see `conformal_threshold`.

        Returns
        -------
        self
        """
        self.threshold_ = conformal_threshold(self.anomaly_scores(normal_images), false_alarm_rate)
        return self

    def predict(self, images):
        """1 where the image score exceeds `threshold_`, else 0; int array of shape (n,)."""
        check_is_fitted(
            self, "threshold_", msg="set a threshold first: call calibrate(normal_images)"
        )
        return (self.anomaly_scores(images) > self.threshold_).astype(int)

    def save(self, path):
        """Write the memory bank and its settings to a safetensors file, whole or not at all.

        For the searches "ivf_pq" and "ivf_pq_fast" the file holds the codes and codebooks, and not
        the rows that they stand for, unless image_score is "reweighted". "ivf_pq_refined" keeps
        both. For all others `load` makes the index from the rows again, with the same seed. The
        file says which weights and versions it was made with, but not where a weights file lay.
        """
        check_is_fitted(self, "search_")
        tensors = dict(self.search_.arrays)
        needed = self.search_.keeps_bank or not tensors or self.image_score == "reweighted"
        if needed and hasattr(self, "memory_bank_"):
            tensors["memory_bank"] = self.memory_bank_
        parameters = {k: v for k, v in self.get_params().items() if k in PARAMETERS}
        if parameters["weights"] not in (None, "random"):
            parameters["weights"] = OWN_WEIGHTS
        about = {
            "parameters": parameters,
            "weights_hash": self.extractor_.backbone.weights_hash,
            "precision": self.extractor_.precision,
            "n_patches": self.n_patches_,
            "digest": digest_of(tensors),
            "threshold": getattr(self, "threshold_", None),
            "made_with": {name: version(name) for name in VERSIONED},
        }
        content = save(
            {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()},
            {"patchcore": json.dumps(about, default=_plain)},
        )
        with translate_os_errors(path, "choose another path"):
            atomic_write(path, content)

    @classmethod
    def load(cls, path, weights=None):
        """Read a memory bank written by `save`.

        No code in the file is ever run, and nothing in it is believed before it is checked; it can
        make us open no other file. Warns where it was made with other versions of torch, timm or
        this package.

        Parameters
        ----------
        path : path
        weights : path, optional
            The checkpoint that the bank was made with, where that was a file of one's own.

        Raises
        ------
        InputError
            If the file is missing, damaged or not a memory bank, or if the backbone's weights here
            are not those it was made with.
        """
        if not Path(path).is_file():
            raise InputError(f"{path}: no such memory bank file")
        try:
            about, tensors = read_bank(path)
            model = cls(**about["parameters"])
            model._check_parameters()
            bank = tensors.pop("memory_bank", None)
            search = make_index(model.search, model.random_state).restore(bank, tensors)
        except FAULTS as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"{path}: not a memory bank of this package ({reason}); save it again"
            ) from None
        if weights is None and model.weights not in (None, "random"):
            raise InputError(
                f"{path}: made with a weights file of one's own; name it: weights=FILE in Python, "
                "--weights FILE on the command line"
            )
        model.weights = weights or model.weights
        there, here = about["made_with"], {name: version(name) for name in VERSIONED}
        if other := [
            f"{n} {there.get(n)} (here {v})" for n, v in here.items() if there.get(n) != v
        ]:
            text = f"{path}: made with {', '.join(other)}; scores may differ, fit it again"
            warnings.warn(text, stacklevel=2)
        try:
            _, digest, _ = find_weights(model.backbone, model.weights)
            if digest != about["weights_hash"]:
                raise InputError(
                    f"made with other weights of {model.backbone} ({about['weights_hash'][:12]}… "
                    f"there, {digest[:12]}… here); fit it again"
                )
            if digest == "random" and parameter_count(model.backbone) > LARGEST_RANDOM:
                raise InputError(f"{model.backbone} is too large for random weights; fit it again")
            extractor = model._make_extractor()
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        if extractor.precision != about["precision"]:
            raise InputError(
                f"{path}: made with precision {about['precision']}, but {extractor.precision} is "
                "what this processor resolves to; fit it again with precision='float32'"
            )
        model._remember(extractor, bank, about["n_patches"], search=search)
        if about["threshold"] is not None:
            model.threshold_ = float(about["threshold"])
        return model


def _plain(value):
    """NumPy numbers and arrays as JSON knows them; a path as its text."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else str(value)


def conformal_threshold(scores, false_alarm_rate=0.05):
    """A threshold from the scores of normal images that were not in the memory bank.

    The ceil((n + 1)(1 - rate))-th smallest of n scores (split conformal prediction, Vovk et al.
    2005): a new normal image, drawn like those, exceeds it with a probability of at most the rate.

    Parameters
    ----------
    scores : array of float, shape (n,)
    false_alarm_rate : float in (0, 1)

    Returns
    -------
    float

    Raises
    ------
    InputError
        If n is too small for the rate: at least 1 / rate - 1 scores are needed.

    Examples
    --------
    >>> conformal_threshold(np.arange(1, 20), 0.05)
    19.0
    """
    scores = np.sort(np.asarray(scores, dtype=float))
    return float(scores[_rank(len(scores), false_alarm_rate) - 1])


def _rank(n, false_alarm_rate):
    """Which of n sorted scores is the threshold, counted from 1."""
    if not 0 < false_alarm_rate < 1:
        raise InputError(f"false_alarm_rate={false_alarm_rate}: give a share between 0 and 1")
    rank = math.ceil((n + 1) * (1 - false_alarm_rate) - 1e-9)
    if rank > n:
        raise InputError(
            f"{n} normal images are too few for false_alarm_rate={false_alarm_rate}: "
            f"give at least {math.ceil(1 / false_alarm_rate - 1 - 1e-9)}, or a higher rate"
        )
    return rank


class FalseAlarms(NamedTuple):
    """The expected false-alarm rate and the interval that holds the actual one."""

    mean: float
    low: float
    high: float


def false_alarm_interval(n, rate=0.05, confidence=0.95, n_new=None):
    """How far the false-alarm rate of one `conformal_threshold` may lie from what is promised.

    The promise holds on average over calibration sets. The threshold from one set of n scores, of
    rank r = ceil((n + 1)(1 - rate)), has a rate of its own: of the next normal images, a share is
    above it that is distributed as Beta(n + 1 - r, r) where scores are continuous (a threshold that
    is an order statistic; Vovk 2012). What is then counted among `n_new` further images scatters
    around that share in turn: beta-binomial.

    Parameters
    ----------
    n : int
        Calibration images.
    rate : float in (0, 1)
        The promised false-alarm rate.
    confidence : float in (0, 1)
        Of the equal-tailed interval.
    n_new : int, optional
        For the interval of the rate observed among so many further normal images.

    Returns
    -------
    FalseAlarms
        mean, (n + 1 - r) / (n + 1), is at most `rate`.

    Raises
    ------
    InputError
        If n is too small for the rate, or a number is out of bounds.

    Notes
    -----
    Vovk, "Conditional validity of inductive conformal predictors", ACML 2012, arXiv 1209.2673.

    Examples
    --------
    >>> [round(share, 3) for share in false_alarm_interval(19, 0.05)]
    [0.05, 0.001, 0.176]
    >>> [round(share, 3) for share in false_alarm_interval(188, 0.05, n_new=200)]
    [0.048, 0.015, 0.095]
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence}: give a share between 0 and 1")
    if n_new is not None and (not isinstance(n_new, Integral) or n_new < 1):
        raise InputError(f"n_new={n_new!r}: give a whole number from 1")
    rank = _rank(n, rate)
    above = n + 1 - rank
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    if n_new is None:
        low, high = stats.beta.ppf(tails, above, rank)
    else:
        low, high = stats.betabinom.ppf(tails, n_new, above, rank) / n_new
    return FalseAlarms(above / (n + 1), float(low), float(high))
