"""Verdicts of a saved model on many images, in memory that does not grow with them.

Needs no torch: the model may be an exported one.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from PIL import Image

from patchcore_helpers.app.pictures import heat_map_picture, picture_name
from patchcore_helpers.core.anomaly_result import AnomalyResult
from patchcore_helpers.core.region_of_interest import in_words
from patchcore_helpers.core.regions import Region, anomalous_regions
from patchcore_helpers.data.images import iter_image_files, read_image
from patchcore_helpers.errors import InputError
from patchcore_helpers.files import atomic_directory

ALARM = "alarm"
OK = "ok"


def verdict_word(score: float, threshold: float) -> str:
    """The verdict on an image score, in the word that the command, tables and reports use.

    >>> verdict_word(2.5, threshold=2.0), verdict_word(2.0, threshold=2.0)
    ('alarm', 'ok')
    """
    return ALARM if score > threshold else OK


class Model(Protocol):
    """What judges: a `PatchCore`, a `ProductBank` or an `ExportedModel`.

    It may also have a `threshold_`, a float, and a `required_size`, the (height, width) of all
    images. A `ProductBank` has a threshold for each product, and its results say the products.
    """

    image_score: str

    def detect_batches(self, images: Sequence[Any]) -> Iterator[Any]:
        """An `AnomalyResult` for each of the next few images."""

    def to_maps(self, result: Any) -> np.ndarray:
        """Anomaly maps, float32 array of shape (n, height, width)."""


@dataclass(frozen=True)
class Verdict:
    """What a model says of one image.

    Attributes
    ----------
    path : Path
    score : float
        The image score; higher is more anomalous.
    word : "alarm", "ok", or None if the model has no threshold
    regions : list of Region, or None
        Where the image is above the threshold, in its own pixels; empty if it is nowhere. None if
        the model has no threshold of patch scores: no threshold at all, or another image score
        than "max".
    result : AnomalyResult
        Of this image alone, for its anomaly map.
    threshold : float or None
        What the score was compared with.
    product : str or None
        What the image was judged as, if the model is of several products.
    """

    path: Path
    score: float
    word: str | None
    regions: list[Region] | None
    result: AnomalyResult
    threshold: float | None
    product: str | None = None

    def as_object(self) -> dict[str, Any]:
        """What `predict --json` prints, and the log of `--follow` keeps, of an image."""
        regions = self.regions
        verdict = {
            "path": str(self.path),
            "score": self.score,
            "verdict": self.word,
            "regions": None if regions is None else [region._asdict() for region in regions],
        }
        if self.product is None:
            return verdict
        return verdict | {"product": self.product, "threshold": self.threshold}


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be read, and why."""

    path: Path
    error: InputError


class LazyImage:
    """An image file that is read when the detector asks for it.

    A file that cannot be read must not end a batch of others: it becomes one black pixel, and the
    reason is kept in `error`. The same goes for an image that has not the size that it must have.

    Parameters
    ----------
    path : Path
    required_size : (height, width), pixels, or None
        Of the region of interest, if the model has one.
    """

    def __init__(self, path: Path, required_size: tuple[int, int] | None = None) -> None:
        self.path = path
        self.required_size = required_size
        self.error: InputError | None = None
        self.size = required_size or (1, 1)  # (height, width), pixels; known once it is read

    def read(self) -> Image.Image:
        """The image as upright RGB (PIL)."""
        try:
            image = read_image(self.path)
            self._refuse_other_size(image)
        except InputError as error:
            self.error = error
            height, width = self.size
            return Image.new("RGB", (width, height))
        self.size = (image.height, image.width)
        return image

    def _refuse_other_size(self, image: Image.Image) -> None:
        if self.required_size is None or self.required_size == (image.height, image.width):
            return
        raise InputError(f"{self.path}: {in_words(image, self.required_size)}")


def judge(model: Model, paths: Sequence[Path]) -> Iterator[Verdict | Unreadable]:
    """Judge images by a fitted model, batch by batch.

    Parameters
    ----------
    model : PatchCore, ProductBank or ExportedModel
    paths : sequence of paths

    Yields
    ------
    Verdict or Unreadable
        One for each path, in their order.
    """
    if not paths:
        return
    required_size = getattr(model, "required_size", None)
    images = [LazyImage(path, required_size) for path in paths]
    remaining = iter(images)
    for batch in model.detect_batches(images):
        for position, image in enumerate(islice(remaining, len(batch))):
            if image.error:
                yield Unreadable(image.path, image.error)
                continue
            yield _verdict(image, batch.select([position]), model)


def _verdict(image: LazyImage, result: AnomalyResult, model: Model) -> Verdict:
    score = float(result.scores[0])
    product = _product_of(result)
    threshold = threshold_of(model, product)
    word = regions = None
    if threshold is not None:
        word = verdict_word(score, threshold)
        if has_regions(model):
            regions = anomalous_regions(result.patch_scores[0], threshold, image.size)
    return Verdict(image.path, score, word, regions, result, threshold, product)


def _product_of(result: AnomalyResult) -> str | None:
    """The product that one image was judged as, if the model is of several."""
    products = getattr(result, "products", None)
    return products[0] if products else None


def threshold_of(model: Any, product: str | None) -> float | None:
    """The threshold of a model, or of one of its products; None if it has none."""
    if product is not None:
        return model.threshold_of(product)
    return getattr(model, "threshold_", None)


def has_products(model: Any) -> bool:
    """Whether it is a `ProductBank`, which can be asked without torch."""
    return hasattr(model, "threshold_of")


def has_regions(model: Model) -> bool:
    """Whether the threshold of image scores is one of patch scores, too."""
    return model.image_score == "max"


def image_paths(names: Iterable[str | Path]) -> Iterator[Path]:
    """The images that a user names: of a folder, all images below it; other names as they are.

    Raises
    ------
    InputError
        For a folder without images.
    """
    for path in map(Path, names):
        if not path.is_dir():
            yield path
            continue
        images = list(iter_image_files(path))
        if not images:
            raise InputError(f"{path}: holds no image (png, jpg, jpeg, bmp, tif, tiff)")
        yield from images


class VerdictFolder:
    """Heat maps of images, and a table of their verdicts, in a folder that is being written.

    Heat maps run from half the threshold to one and a half times it. A model without a threshold,
    or whose image score is not a patch score ("max"), has no scale for all images: then each heat
    map runs from its own median to its maximum.
    """

    def __init__(self, folder: Path, model: Model, table: TextIO) -> None:
        self.folder = folder
        self.model = model
        self.rows = csv.writer(table, lineterminator="\n")
        self.has_products = has_products(model)
        columns = ["path", "score", "verdict", "heatmap"]
        self.rows.writerow([*columns, "product"] if self.has_products else columns)
        (folder / "heatmaps").mkdir()

    def add(self, number: int, verdict: Verdict) -> None:
        """Add an image; `number` keeps pictures of files of the same name apart."""
        name = f"heatmaps/{picture_name(number, verdict.path)}"
        (values,) = self.model.to_maps(verdict.result)
        limits = self._limits(values, verdict.threshold)
        picture = heat_map_picture(read_image(verdict.path), values, limits)
        picture.save(self.folder / name)
        row = [verdict.path, verdict.score, verdict.word or "-", name]
        self.rows.writerow([*row, verdict.product] if self.has_products else row)

    def _limits(self, values: np.ndarray, threshold: float | None) -> tuple[float, float]:
        if threshold is None or self.model.image_score != "max":
            return float(np.median(values)), float(values.max())
        return threshold / 2, threshold * 1.5


@contextmanager
def verdict_folder(output: str | Path, model: Model) -> Iterator[VerdictFolder]:
    """A `VerdictFolder` that takes the name `output` when it is complete."""
    with (
        atomic_directory(output) as folder,
        # File names need not be valid text: they are written with the bytes that they have.
        open(
            folder / "scores.csv", "w", newline="", encoding="utf-8", errors="surrogateescape"
        ) as table,
    ):
        yield VerdictFolder(folder, model, table)
