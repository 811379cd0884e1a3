"""PatchCore: a memory bank of normal patches; what lies far from all of them is an anomaly.

Roth et al. 2022, "Towards total recall in industrial anomaly detection", arXiv 2106.08265. The
method in plain torch, from top to bottom, is in `patchcore_helpers.core.reference`.
"""

import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import Field
from sklearn.utils.validation import check_is_fitted

from patchcore_helpers.core.backbones import (
    REGISTRY,
    find_weights,
    load_backbone,
    parameter_count,
)
from patchcore_helpers.core.bank import MemoryBank
from patchcore_helpers.core.bank_file import (
    BankFile,
    BankVersionWarning,
    Count,
    Settings,
    Word,
    read_bank_file,
    refusing_damaged,
    write_bank_file,
)
from patchcore_helpers.core.detector import (
    AnomalyResult,
    Detector,
    as_image_list,
    image_scores,
    smooth_maps,
)
from patchcore_helpers.core.engines import device_beside
from patchcore_helpers.core.export import TOLERANCE, Agreement, export_checked
from patchcore_helpers.core.extractor import Extractor, as_size
from patchcore_helpers.core.feature_cache import FeatureCache
from patchcore_helpers.core.image_memory import ImageMemory
from patchcore_helpers.core.known_images import KnownImages
from patchcore_helpers.core.onnx_file import ExportedSettings
from patchcore_helpers.core.onnx_graph import GraphParts
from patchcore_helpers.core.region_of_interest import RegionOfInterest
from patchcore_helpers.core.validation import as_patch_matrix, check_choice, check_real
from patchcore_helpers.errors import InputError
from patchcore_helpers.files import sha256

Vectors = TypeVar("Vectors", np.ndarray, torch.Tensor)

IMAGE_SCORES = ("max", "mean", "top1_percent", "reweighted")
LARGEST_RANDOM = 10**8  # parameters of a network that a file may have us fill with random numbers
CUSTOM_WEIGHTS = "custom file"  # replaces a path in a bank file, which may not name one to open
VERSIONED = ("torch", "timm", "patchcore-helpers")
# Queries must be described as the memory bank was: after a change of one of these, scores would
# compare unlike things. (What only chooses the rows of the bank, such as coreset_ratio, may change;
# the bank stays as it is until the next fit.)
NEED_A_FIT = (
    "backbone",
    "layers",
    "weights",
    "image_size",
    "aggregation",
    "neighborhood",
    "metric",
    "index",
    "roi",
)


class PatchCore(Detector):
    """Anomaly detection with a memory bank of patch features.

    Parameters
    ----------
    backbone : str
        A name that `load_backbone` knows.
    layers, weights : see `load_backbone`
    image_size : int or (height, width), pixels
    aggregation, neighborhood, precision, engine, batch_size : see `Extractor`
    device : "auto", "cpu", "cuda" or "mps"
        Where torch runs the network, chooses the coreset, searches (with the index "exact") and
        makes maps. "auto" takes a GPU if there is one. OpenVINO and FAISS run on the processor.
    cache : bool, path or FeatureCache, optional
        Keep feature maps on disk: True for the usual folder, or a folder. Off by default.
    coreset_ratio, sampler, projection, metric, index : see `MemoryBank`
    n_neighbors : int
        A patch score is the mean distance to the n_neighbors nearest rows of the memory bank.
    roi : path, bool array of shape (height, width), or None
        The region of interest, at the images' own size, which they must share: True, or in a file
        any color but black, is inside. See `patchcore_helpers.core.region_of_interest`.
    image_score : "max", "mean", "top1_percent" or "reweighted"
        How patch scores become an image score; "reweighted" is Eq. 7 of the paper.
    sigma : float, pixels
        Standard deviation of the Gaussian that smooths anomaly maps.
    random_state : int
        Seed of the coreset and of an approximate index, from 0 to 2**32 - 1.
    progress : bool
        Draw progress bars on standard error.

    Attributes
    ----------
    bank_ : MemoryBank
    extractor_ : Extractor
    taught_ : KnownImages or None
        The images in the memory bank, in the order of `fit` and `teach`. None where a file of an
        earlier version did not say.
    grid_ : (rows, columns)
        Patches in an image; missing where `taught_` is None.
    threshold_ : float
        Set by `calibrate`.
    calibration_ : Calibration
        Set by `calibrate`.

    Notes
    -----
    `fit` takes all images for normal and does not look at labels. A defective image among them does
    more harm than its share: greedy k-center prefers what is far from everything else, and so its
    defects (on elpv/mono, 2 % of defective images supply 11 % of the rows). And a distance is no
    density: a normal patch of a rare kind may be as far from the bank as a defect, and alarms.

    For `cross_val_score` or `GridSearchCV`, give the images as an object array, the labels as y,
    and a `cv` whose training parts hold normal images only; `score` is the image AUROC. Taught in
    notebooks 1 to 3.

    Examples
    --------
    >>> from patchcore_helpers import load_category
    >>> category = load_category("elpv/mono")
    >>> model = PatchCore("resnet18", weights="random", image_size=64).fit(category.train[:4])
    >>> model.bank_.vectors_.shape
    (3, 384)
    >>> images = category.test[:2]
    >>> model.anomaly_scores(images).shape, model.anomaly_maps(images).shape
    ((2,), (2, 64, 64))
    """

    def __init__(  # noqa: PLR0913 (the settings of the method)
        self,
        backbone: str = "efficientnet_lite0",
        *,
        layers: Sequence[int] | None = None,
        weights: str | Path | None = None,
        image_size: int | tuple[int, int] = 256,
        aggregation: str = "concat",
        neighborhood: int | None = None,
        coreset_ratio: float = 0.01,
        sampler: str = "k_center",
        projection: int | None = 128,
        n_neighbors: int = 1,
        index: str | dict = "exact",
        image_score: str = "max",
        metric: str = "l2",
        sigma: float = 4.0,
        precision: str = "float32",
        engine: str = "auto",
        device: str = "auto",
        batch_size: int = 16,
        roi: str | Path | np.ndarray | None = None,
        cache: bool | str | Path | FeatureCache | None = None,
        random_state: int = 0,
        progress: bool = False,
    ):
        self.backbone = backbone
        self.layers = layers
        self.weights = weights
        self.image_size = image_size
        self.aggregation = aggregation
        self.neighborhood = neighborhood
        self.coreset_ratio = coreset_ratio
        self.sampler = sampler
        self.projection = projection
        self.n_neighbors = n_neighbors
        self.index = index
        self.image_score = image_score
        self.metric = metric
        self.sigma = sigma
        self.precision = precision
        self.engine = engine
        self.device = device
        self.batch_size = batch_size
        self.roi = roi
        self.cache = cache
        self.random_state = random_state
        self.progress = progress

    def fit(self, images: Sequence[Any], y: Any = None) -> Self:
        """Fill the memory bank from normal images; what an earlier fit learned is forgotten.

        Parameters
        ----------
        images : sequence of samples, paths, PIL images or uint8 arrays
        y : ignored
        """
        self._check_settings()
        images = as_image_list(images)
        extractor = self.new_extractor()
        patches = extractor.extract(images, self._label("memory bank"))
        inside = as_rows(extractor.inside(patches))
        vectors = as_patch_matrix(inside, f"features of {self.backbone}")
        bank = self.new_bank().fit(vectors)
        self._remember(extractor, bank)
        self.grid_ = grid_of(patches)
        self.taught_: KnownImages | None = KnownImages.of(images)
        return self

    def teach(self, images: Sequence[Any]) -> Self:
        """Extend the memory bank by further normal images, without those of `fit`.

        The greedy order goes on: rows that are kept stay, and the new images add theirs (see
        `MemoryBank.extend`). The threshold is forgotten, because it belongs to the bank before;
        call `calibrate`.

        Parameters
        ----------
        images : sequence of samples, paths, PIL images or uint8 arrays
            They follow those of `fit` in the numbers that `origin` gives.
        """
        check_is_fitted(self, "bank_")
        self._check_settings()
        self._refuse_changed_settings()
        images = as_image_list(images)
        patches = self.extractor_.extract(images, self._label("memory bank"))
        inside = as_rows(self.extractor_.inside(patches))
        self.bank_.extend(as_patch_matrix(inside, f"features of {self.backbone}"))
        if self.taught_ is not None:
            self.taught_ = self.taught_.joined(KnownImages.of(images))
        self._forget_threshold()
        return self

    def forget(self, rows: ArrayLike) -> Self:
        """Remove rows from the memory bank; the threshold, which belongs to all, is forgotten.

        Parameters
        ----------
        rows : sequence of int
            Rows of `bank_.vectors_`; see `MemoryBank.remove`.
        """
        check_is_fitted(self, "bank_")
        self._refuse_changed_settings()
        self.bank_.remove(rows)
        self._forget_threshold()
        return self

    def detect_batches(self, images: Sequence[Any]) -> Iterator[AnomalyResult]:
        """Score images batch by batch, in memory that does not grow with their number.

        Parameters
        ----------
        images : sequence of samples, paths, PIL images or uint8 arrays
            Read a batch or two before they are scored.

        Yields
        ------
        AnomalyResult
            For the next `batch_size` images; the last batch may be smaller.
        """
        check_is_fitted(self, "bank_")
        self._check_settings()
        self._refuse_changed_settings()
        images = as_image_list(images)
        yield from self.extractor_.patches(images, self._label("score"), self.score_patches)

    def score_patches(self, patches: torch.Tensor) -> AnomalyResult:
        """Patch scores and image scores from patch vectors.

        Parameters
        ----------
        patches : float32 tensor of shape (images, rows, columns, channels)
            As `extractor_` yields them.
        """
        vectors = as_rows(self.extractor_.inside(patches))
        distances, nearest = self.bank_.nearest(vectors, self.n_neighbors)
        per_image = distances.mean(1).reshape(len(patches), -1)
        patch_scores = self._on_grid(per_image, grid_of(patches))
        if self.image_score != "reweighted":
            scores = image_scores(per_image[:, None], self.image_score)
            return AnomalyResult(scores, patch_scores)
        images = np.arange(len(patches))
        worst = images * per_image.shape[1] + per_image.argmax(1)  # rows of `vectors`
        factor = self.bank_.reweighting(vectors[worst], nearest[worst, 0])
        return AnomalyResult(per_image.max(1) * factor, patch_scores)

    def _on_grid(self, values: np.ndarray, grid: tuple[int, int], outside: float = 0) -> np.ndarray:
        """Values of the patches inside, (n, patches), on the grid of all: (n, rows, columns)."""
        region = self.extractor_.region
        if region is None:
            return values.reshape(len(values), *grid)
        on_grid = np.full((len(values), *grid), outside, values.dtype)
        on_grid[:, region.cells(grid)] = values
        return on_grid

    def to_maps(self, result: AnomalyResult) -> np.ndarray:
        """Anomaly maps at image size, float32 array of shape (n, height, width).

        0 outside the region of interest. Inside, near its border, smoothing mixes these zeros in.
        """
        device = device_beside(self.engine, self.device)
        maps = smooth_maps(result.patch_scores, self.metric_size, self.sigma, device)
        pixels = self.inspected_pixels()
        if pixels is not None:
            maps[:, ~pixels] = 0
        return maps

    def inspected_pixels(self) -> np.ndarray | None:
        """The region of interest at the size of the maps, bool (height, width); None for all."""
        if self.roi is None:  # recipes make maps by a model that is not fitted
            return None
        region = self.extractor_.region
        return None if region is None else region.pixels(self.metric_size)

    def inspected_patches(self) -> np.ndarray:
        """Which patches are inside the region of interest, bool array of shape (rows, columns)."""
        check_is_fitted(self, "bank_")
        region = self.extractor_.region
        return np.ones(self.grid_, bool) if region is None else region.cells(self.grid_)

    @property
    def required_size(self) -> tuple[int, int] | None:
        """The (height, width) that every image must have, pixels; None if any will do."""
        region = self.extractor_.region
        return None if region is None else region.size

    def new_extractor(self) -> Extractor:
        """An extractor with these settings; it loads the backbone."""
        return Extractor(
            load_backbone(self.backbone, self.layers, self.weights),
            self.image_size,
            aggregation=self.aggregation,
            neighborhood=self.neighborhood,
            precision=self.precision,
            engine=self.engine,
            device=self.device,
            batch_size=self.batch_size,
            cache=FeatureCache.of(self.cache),
            region=RegionOfInterest.of(self.roi),
        )

    def new_bank(self) -> MemoryBank:
        """An empty memory bank with these settings."""
        return MemoryBank(
            coreset_ratio=self.coreset_ratio,
            sampler=self.sampler,
            projection=self.projection,
            metric=self.metric,
            index=self.index,
            n_neighbors=self.n_neighbors,
            random_state=self.random_state,
            progress=self.progress,
            device=device_beside(self.engine, self.device),
        )

    def origin(self, rows: np.ndarray) -> np.ndarray:
        """Where rows of the memory bank come from: (image of `fit`, grid row, grid column).

        Parameters
        ----------
        rows : int array of shape (k,)

        Returns
        -------
        int array of shape (k, 3)
            `taught_.names` says what an image is called.
        """
        check_is_fitted(self, "bank_")
        if self.bank_.coreset_ is None:
            raise InputError(
                "this memory bank comes from a file that does not know its images; fit it again"
            )
        patch_numbers = self.bank_.coreset_.indices[np.asarray(rows)]
        inside = np.flatnonzero(self.inspected_patches())
        image, number = np.divmod(patch_numbers, len(inside))
        row, column = np.divmod(inside[number], self.grid_[1])
        return np.stack([image, row, column], axis=1)

    @property
    def metric_size(self) -> tuple[int, int]:
        return as_size(self.image_size)

    def summary(self) -> dict[str, Any]:
        check_is_fitted(self, "bank_")
        return {
            "backbone": self.backbone,
            "image_size": self.image_size,
            "coreset_ratio": self.coreset_ratio,
            "n_patches": self.bank_.n_vectors_,
            "bank_size": len(self.bank_),
        }

    def _label(self, text: str) -> str | None:
        return text if self.progress else None

    def _check_settings(self) -> None:
        self.new_bank().check_settings()
        check_real(self.sigma, "sigma", 0, what="pixels")
        check_choice(self.image_score, "image_score", IMAGE_SCORES)
        RegionOfInterest.of(self.roi)

    def _refuse_changed_settings(self) -> None:
        for name, value in self.fitted_with_.items():
            if as_text(getattr(self, name)) != value:
                raise InputError(f"{name}: changed since the memory bank was made; fit it again")

    def _remember(self, extractor: Extractor, bank: MemoryBank) -> None:
        self.extractor_ = extractor
        self.bank_ = bank
        self.fitted_with_ = {name: as_text(getattr(self, name)) for name in NEED_A_FIT}
        self._forget_threshold()

    def save(self, path: str | Path) -> None:
        """Write the memory bank and the settings to a safetensors file, complete or not at all.

        See `MemoryBank.save` for what an approximate index stores; with image_score="reweighted"
        the vectors are always kept. The file says which weights and versions it was made with, but
        not where a weights file was. It holds the names of images and the scores of the calibration
        images, but no image. Not saved, because they belong to a machine: engine, device, cache and
        progress.
        """
        write_bank_file(path, self.as_bank_file())

    def as_bank_file(self) -> BankFile:
        """What `save` writes."""
        check_is_fitted(self, "bank_")
        tensors = self.bank_.tensors(with_vectors=self.image_score == "reweighted")
        images = ""
        if self.taught_ is not None:
            calibration = getattr(self, "calibration_", None)
            region = self.extractor_.region
            roi = None if region is None else region.inside
            memory = ImageMemory(self.taught_, self.grid_, calibration, roi)
            tensors |= memory.arrays()
            images = memory.settings()
        return BankFile(
            settings=self.bank_.settings(),
            tensors=tensors,
            n_vectors=self.bank_.n_vectors_,
            detector=PatchCoreSettings.of(self._file_settings()).model_dump_json(),
            images=images,
        )

    def nearest_rows(self, images: Sequence[Any]) -> np.ndarray:
        """For each patch the nearest row of the memory bank, int64 (n, rows, columns).

        -1 outside the region of interest.
        """
        check_is_fitted(self, "bank_")
        patches = self.extractor_.extract(as_image_list(images))
        rows = self.bank_.nearest(as_rows(self.extractor_.inside(patches)), 1)[1]
        return self._on_grid(rows.reshape(len(patches), -1), grid_of(patches), outside=-1)

    def export(
        self,
        path: str | Path,
        images: Sequence[Any] | None = None,
        *,
        tolerance: float = TOLERANCE,
    ) -> Agreement:
        """Write the model as one ONNX graph, from a photograph of any size to score and map.

        The graph is first run beside this model, on `images`; if it does not agree, nothing is
        written. It takes one image at a time, uint8 (1, height, width, 3), and searches exactly.
        Threshold and settings are in its metadata. Needs the packages onnx and onnxruntime.

        Parameters
        ----------
        path : path
        images : sequence of samples, paths, PIL images or uint8 arrays, optional
            By default eight photographs of solar cells.
        tolerance : float
            Largest relative difference that is accepted, of image scores, patch scores and maps.

        Returns
        -------
        Agreement

        Raises
        ------
        InputError
            If the model cannot be exported (an approximate index, for one), or the graph does not
            agree with it.
        """
        check_is_fitted(self, "bank_")
        self._check_settings()
        self._refuse_changed_settings()
        if self.roi is not None:
            raise InputError(
                "roi: an exported graph has no region of interest; use the memory bank itself: "
                "patchcore-course predict BANK"
            )
        parts = GraphParts(
            task=self.extractor_.task(),
            bank=self.bank_,
            image_score=self.image_score,
            n_neighbors=self.n_neighbors,
            sigma=self.sigma,
            map_size=self.metric_size,
        )
        return export_checked(self, parts, self._exported_settings(), path, images, tolerance)

    def _exported_settings(self) -> ExportedSettings:
        return ExportedSettings.of(
            {
                "backbone": self.backbone,
                "weights_hash": self.extractor_.backbone.weights_hash,
                "image_size": self.metric_size,
                "image_score": self.image_score,
                "metric": self.metric,
                "n_neighbors": self.n_neighbors,
                "bank_size": len(self.bank_),
                "n_vectors": self.bank_.n_vectors_,
                "threshold": getattr(self, "threshold_", None),
                "made_with": installed_versions(),
            }
        )

    def _file_settings(self) -> dict[str, Any]:
        is_custom = self.weights not in (None, "random")
        return {
            "backbone": self.backbone,
            "layers": self.layers,
            "weights": CUSTOM_WEIGHTS if is_custom else self.weights,
            "image_size": self.image_size,
            "aggregation": self.aggregation,
            "neighborhood": self.neighborhood,
            "image_score": self.image_score,
            "sigma": self.sigma,
            "batch_size": self.batch_size,
            "precision": self.extractor_.precision,
            "weights_hash": self.extractor_.backbone.weights_hash,
            "threshold": getattr(self, "threshold_", None),
            "made_with": installed_versions(),
        }

    @classmethod
    def load(
        cls,
        path: str | Path,
        weights: str | Path | None = None,
        *,
        engine: str = "auto",
        device: str = "auto",
    ) -> Self:
        """Read a file written by `save`.

        No code in the file is ever run, and everything in it is validated before it is used. It
        cannot name a file to open; it names a backbone, whose weights must be installed, in the
        hub's cache, or of a backbone in `REGISTRY` to be downloaded. The checksum guards against
        damage, not against a deliberate forgery.

        Parameters
        ----------
        path : path
        weights : path, optional
            The checkpoint that the bank was made with, if that was a custom file.
        engine, device : str
            The parameters of these names, which belong to a machine and are not in the file.

        Raises
        ------
        InputError
            If the file is missing, damaged or not a memory bank, or if the backbone's weights here
            are not those it was made with.

        Warns
        -----
        BankVersionWarning
            If it was made with other versions of torch, timm or this package.
        """
        file = read_bank_file(path)
        if file.products:
            raise InputError(
                f"{path}: holds several products; read it with ProductBank.load of "
                "patchcore_helpers.core.products"
            )
        return cls.of_file(path, file, weights, engine=engine, device=device)

    @classmethod
    def of_file(
        cls,
        path: str | Path,
        file: BankFile,
        weights: str | Path | None = None,
        *,
        engine: str = "auto",
        device: str = "auto",
    ) -> Self:
        """From what `read_bank_file` has read, of one product; else as `load`.

        `path` is for messages.
        """
        if not file.detector:
            raise InputError(
                f"{path}: holds a memory bank without a detector; read it with MemoryBank.load"
            )
        with refusing_damaged(path):
            settings = PatchCoreSettings.model_validate_json(file.detector)
            arguments = settings.constructor_arguments() | file.settings.parameters()
            memory = ImageMemory.of_file(file)
            roi = None if memory is None else memory.roi
            model = cls(**arguments, roi=roi, engine=engine, device=device)
            model._check_settings()
        if weights is None and settings.weights == CUSTOM_WEIGHTS:
            raise InputError(
                f"{path}: made with a custom weights file; name it: weights=FILE in Python, "
                "--weights FILE on the command line"
            )
        model.weights = weights or settings.weights
        _warn_of_other_versions(path, settings.made_with)
        try:
            model._refuse_other_weights(settings.weights_hash)
            extractor = model.new_extractor()
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        return model.restored(path, file, extractor)

    def with_bank_of(self, path: str | Path, file: BankFile) -> Self:
        """A model with these settings and this network, and the bank and threshold of a file.

        Parameters
        ----------
        path : path
            For messages.
        file : BankFile
            Saved with the same settings.
        """
        model = type(self)(**self.get_params())
        return model.restored(path, file, self.extractor_)

    def restored(self, path: str | Path, file: BankFile, extractor: Extractor) -> Self:
        """This model with what a file has learned."""
        with refusing_damaged(path):
            settings = PatchCoreSettings.model_validate_json(file.detector)
            bank = MemoryBank.restore(
                file.settings,
                file.tensors,
                file.n_vectors,
                device=device_beside(self.engine, self.device),
            )
            self._remember(extractor, bank)
            self._recall(ImageMemory.of_file(file))
        if settings.threshold is not None:
            self.threshold_ = settings.threshold
        return self

    def _recall(self, memory: ImageMemory | None) -> None:
        """Take over what a file remembers of its images; refused if it cannot be of this bank."""
        self.taught_ = None
        if memory is None:
            return
        self.grid_ = memory.grid
        n_images = len(memory.taught)
        if n_images * np.count_nonzero(self.inspected_patches()) != self.bank_.n_vectors_:
            raise ValueError(f"{self.bank_.n_vectors_} vectors are not of {n_images} images")
        self.taught_ = memory.taught
        if memory.calibration is not None:
            self.calibration_ = memory.calibration

    def _refuse_other_weights(self, expected: str) -> None:
        """Compare the weights' hash before a network is built from them."""
        # A file must not make us download gigabytes: it may name any network of timm.
        download = self.backbone in REGISTRY
        digest = find_weights(self.backbone, self.weights, download=download).digest
        if digest != expected:
            raise InputError(
                f"made with other weights of {self.backbone} ({expected[:12]}… in the file, "
                f"{digest[:12]}… here); fit it again"
            )
        if digest == "random" and parameter_count(self.backbone) > LARGEST_RANDOM:
            raise InputError(f"{self.backbone} is too large for random weights; fit it again")


class PatchCoreSettings(Settings):
    """What a bank file says about the detector that saved it."""

    backbone: Annotated[str, Field(pattern=r"^[A-Za-z]\w{0,99}(\.\w{1,99})?$")]
    layers: Annotated[tuple[Count, ...], Field(max_length=100)] | None
    weights: Literal["random", "custom file"] | None
    image_size: (
        Annotated[int, Field(ge=1, le=9999)]
        | tuple[Annotated[int, Field(ge=1, le=9999)], Annotated[int, Field(ge=1, le=9999)]]
    )
    aggregation: Word
    neighborhood: Annotated[int, Field(ge=1, le=99)] | None
    image_score: Word
    sigma: Annotated[float, Field(ge=0, le=999)]
    batch_size: Annotated[int, Field(ge=1, le=999)]
    precision: Literal["float32", "bfloat16"]
    weights_hash: Annotated[str, Field(pattern=r"^(random|[0-9a-f]{64})$")]
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None
    made_with: Annotated[dict[str, Annotated[str, Field(max_length=60)]], Field(max_length=9)]

    def constructor_arguments(self) -> dict[str, Any]:
        """Those that `PatchCore` takes, without the weights, which may need a path."""
        not_arguments = {"weights", "weights_hash", "threshold", "made_with"}
        return {name: value for name, value in self if name not in not_arguments}


def as_rows(patches: Vectors) -> Vectors:
    """Patch vectors one below the other: (n, channels) from (images, rows, columns, channels)."""
    return patches.reshape(-1, patches.shape[-1])


def grid_of(patches: np.ndarray | torch.Tensor) -> tuple[int, int]:
    """(rows, columns) of patch vectors (images, rows, columns, channels)."""
    _, n_rows, n_columns, _ = patches.shape
    return n_rows, n_columns


def as_text(setting: Any) -> str:
    """A setting as text that another value does not have."""
    if isinstance(setting, np.ndarray):
        return sha256(str((setting.shape, setting.dtype)), setting.tobytes())
    return repr(setting)


def installed_versions() -> dict[str, str]:
    """The versions of the libraries that shape the scores."""
    return {name: version(name) for name in VERSIONED}


def _warn_of_other_versions(path: str | Path, made_with: dict[str, str]) -> None:
    changed = [
        f"{name} {made_with.get(name)} (here {installed})"
        for name, installed in installed_versions().items()
        if made_with.get(name) != installed
    ]
    if changed:
        warnings.warn(
            f"{path}: made with {', '.join(changed)}; scores may differ, fit it again",
            BankVersionWarning,
            stacklevel=4,
        )
