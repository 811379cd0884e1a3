"""From images to patch vectors: resize, normalize, run the backbone, join its layers."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from patchcore_helpers.core.aggregation import AGGREGATIONS
from patchcore_helpers.core.backbones import Backbone
from patchcore_helpers.core.engines import (
    ENGINES,
    Engine,
    EngineTask,
    device_beside,
    make_engine,
)
from patchcore_helpers.core.feature_cache import FeatureCache
from patchcore_helpers.core.items import read_item
from patchcore_helpers.core.region_of_interest import RegionOfInterest
from patchcore_helpers.core.threads import map_in_threads
from patchcore_helpers.core.validation import check_choice, check_integer
from patchcore_helpers.errors import InputError

PRECISIONS = ("auto", "float32", "bfloat16")
LARGEST_SIZE = 9999  # pixels a side
MAX_ENGINES = 4  # compiled at a time, for different input sizes


def as_size(image_size: Any) -> tuple[int, int]:
    """`image_size` as (height, width); one number means a square.

    Examples
    --------
    >>> as_size(256), as_size((128, 512))
    ((256, 256), (128, 512))
    """
    try:
        sides = [image_size] * 2 if np.ndim(image_size) == 0 else list(image_size)
        height, width = (int(side) for side in sides)
        is_whole = [height, width] == sides
        if not is_whole or not all(1 <= side <= LARGEST_SIZE for side in (height, width)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"image_size={image_size!r}: give pixels per side, or (height, width), "
            f"up to {LARGEST_SIZE}"
        ) from None
    return height, width


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware."""
    flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(getattr(torch.cpu, flag, lambda: False)() for flag in flags)


Patches = TypeVar("Patches", np.ndarray, Tensor)

RESIZING = "the width, then the height"  # `resized`; another way makes other maps


class Extractor:
    """Turns images into feature maps and patch vectors, batch by batch.

    Parameters
    ----------
    backbone : Backbone
    image_size : int or (height, width), pixels
        Images are resized to it bilinearly with antialiasing, no crop. A ViT sees the nearest
        smaller multiple of its patch size; a CNN takes any size.
    aggregation : "concat" or "paper"
        See `aggregate`.
    neighborhood : odd int, optional
        By default 3 for a CNN and 1 for a ViT, whose tokens have looked at all others already.
    precision : "float32", "bfloat16" or "auto"
        Arithmetic of the network. "auto" means float32. bfloat16 is faster where the processor has
        it in hardware, but scores then differ between machines and engines.
    batch_size : int
    cache : FeatureCache, optional
    engine : "auto", "openvino" or "torch"
        What runs the network; see `patchcore_helpers.core.engines.make_engine`.
    device : "auto", "cpu", "cuda" or "mps"
        Where torch runs it. OpenVINO runs on the processor.
    region : RegionOfInterest, optional
        The network sees nothing of what lies outside.
    """

    def __init__(  # noqa: PLR0913 (the settings of an extraction)
        self,
        backbone: Backbone,
        image_size: int | tuple[int, int] = 256,
        *,
        aggregation: str = "concat",
        neighborhood: int | None = None,
        precision: str = "float32",
        batch_size: int = 16,
        cache: FeatureCache | None = None,
        engine: str = "auto",
        device: str = "auto",
        region: RegionOfInterest | None = None,
    ) -> None:
        if neighborhood is None:
            neighborhood = 1 if backbone.patch_size else 3
        self.backbone = backbone
        self.aggregation = check_choice(aggregation, "aggregation", AGGREGATIONS)
        self.neighborhood = _check_odd(neighborhood)
        self.batch_size = check_integer(batch_size, "batch_size", 1)
        self.input_size = _input_size(image_size, backbone)
        check_choice(precision, "precision", PRECISIONS)
        self.precision = "bfloat16" if precision == "bfloat16" else "float32"
        self.cache = cache
        self.engine = check_choice(engine, "engine", ENGINES)
        self.device = device_beside(engine, device)
        self.region = region
        self._engines: OrderedDict[tuple[int, int], Engine] = OrderedDict()

    def resized(self, height: int, width: int, batch_size: int | None = None) -> "Extractor":
        """This extractor for images of another size; it shares the network.

        What has been compiled for a size serves every extractor that was made from this one.

        Parameters
        ----------
        height, width : int, pixels
            What the network sees; for a ViT, multiples of its patch size.
        batch_size : int, optional
            By default as it is.
        """
        extractor = copy.copy(self)
        extractor.input_size = as_size((height, width))
        if batch_size is not None:
            extractor.batch_size = check_integer(batch_size, "batch_size", 1)
        return extractor

    def __getstate__(self) -> dict[str, Any]:
        """For other processes: without what is compiled, which stays in this one."""
        return self.__dict__ | {"_engines": OrderedDict()}

    def __copy__(self) -> "Extractor":
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def task(self) -> EngineTask:
        """What an engine computes for this extractor."""
        return EngineTask(
            self.backbone, self.input_size, self.precision, self.aggregation, self.neighborhood
        )

    def _running_engine(self) -> Engine:
        """The engine for the input size; the one that has not been used for longest is dropped."""
        task = self.task()
        engine = self._engines.pop(self.input_size, None)
        if engine is None or engine.task != task:
            engine = make_engine(task, self.engine, self.device)
        self._engines[self.input_size] = engine
        if len(self._engines) > MAX_ENGINES:
            self._engines.popitem(last=False)
        return engine

    @property
    def engine_name(self) -> str:
        """What runs the network, such as "openvino 2026.4.1" or "torch cuda"."""
        engine = self._running_engine()
        engine.network()
        return engine.name

    def key(self) -> list[Any]:
        """What the maps depend on besides the images, for the cache."""
        return [
            self.backbone.timm_name,
            self.backbone.weights_hash,
            self.backbone.layers,
            self.backbone.mean,
            self.backbone.std,
            self.input_size,
            self.precision,
            self.engine_name,
            RESIZING,
            *([self.region.digest] if self.region else []),
        ]

    def prepare(self, item: Any) -> Tensor:
        """One image as the backbone takes it: float32 tensor of shape (3, height, width)."""
        return self.task().normalize(torch.from_numpy(self._read_pixels([item])))[0]

    def _read_pixels(self, items: Sequence[Any]) -> np.ndarray:
        """Images at the input size, uint8 array of shape (b, height, width, 3)."""
        height, width = self.input_size
        pixels = np.empty((len(items), height, width, 3), np.uint8)
        for number, item in enumerate(items):
            pixels[number] = resized(self._painted(item), (height, width))
        return pixels

    def _painted(self, item: Any) -> Image.Image:
        """The image of an item; what lies outside the region of interest is painted over."""
        image = read_item(item)
        if self.region is None:
            return image
        return self.region.painted(image, name_of(item))

    def inside(self, patches: Patches) -> Patches:
        """The patch vectors inside the region of interest; all of them if there is none.

        Parameters
        ----------
        patches : array or tensor of shape (images, rows, columns, channels)

        Returns
        -------
        array or tensor of shape (images, patches inside, channels)
        """
        n_images, n_rows, n_columns, n_channels = patches.shape
        flat = patches.reshape(n_images, n_rows * n_columns, n_channels)
        if self.region is None:
            return flat
        positions = np.flatnonzero(self.region.cells((n_rows, n_columns)))
        if isinstance(flat, torch.Tensor):
            return flat[:, torch.from_numpy(positions).to(flat.device)]
        return flat[:, positions]

    def _batches(self, items: Sequence[Any]) -> Iterator[Sequence[Any]]:
        for start in range(0, len(items), self.batch_size):
            yield items[start : start + self.batch_size]

    def compute_maps(self, items: Sequence[Any]) -> Iterator[list[Tensor]]:
        """Run the network; yield by batch the list of its layers' maps in the chosen precision."""
        network = self._running_engine().network()
        yield from map_in_threads(
            lambda batch: network(self._read_pixels(batch)), self._batches(items)
        )

    def all_maps(self, items: Sequence[Any]) -> list[Tensor]:
        """The feature maps of every layer for all images at once, through the cache.

        One forward pass serves every choice of layers and neighborhoods that is made afterwards.

        Returns
        -------
        list of float32 tensors of shape (n, channels_l, height_l, width_l), on the processor
        """
        batches = self.compute_maps(items)
        if self.cache:
            batches = self.cache.get_or_compute(
                self.key(),
                items,
                self.backbone.layers,
                self.batch_size,
                compute=lambda: self.compute_maps(items),
            )
        maps: list[Tensor] = []
        start = 0
        for batch in batches:
            if not maps:  # made once: joining batches in the end would hold everything twice
                maps = [torch.empty(len(items), *layer.shape[1:]) for layer in batch]
            stop = start + len(batch[0])
            for whole, layer in zip(maps, batch, strict=True):
                whole[start:stop] = layer
            start = stop
        return maps

    def patches(
        self,
        items: Sequence[Any],
        progress: str | None = None,
        then: Callable[[Tensor], Any] | None = None,
    ) -> Iterator[Any]:
        """Yield patch vectors by batch, float32 tensors of shape (b, height, width, channels).

        They are where they were computed: on a GPU if the extractor uses one.

        Parameters
        ----------
        items : sequence of samples, paths, PIL images or uint8 arrays
        progress : str, optional
            Label of a progress bar on standard error; without it there is no bar.
        then : function, optional
            Is called on each batch of patch vectors, in the thread that computed it; its results
            are yielded instead.
        """

        def finish(patches: Tensor) -> Any:
            return then(patches) if then else patches

        engine = self._running_engine()
        if self.cache:
            key = self.key()  # settles which engine runs the network, and so the rest
            join = engine.joiner()
            cached_maps = self.cache.get_or_compute(
                key,
                items,
                self.backbone.layers,
                self.batch_size,
                compute=lambda: self.compute_maps(items),
            )
            results = map_in_threads(lambda maps: finish(join(maps)), cached_maps)
        else:
            pipeline = engine.pipeline()
            results = map_in_threads(
                lambda batch: finish(pipeline(self._read_pixels(batch))), self._batches(items)
            )
        with tqdm(total=len(items), desc=progress, unit="image", disable=not progress) as bar:
            for result in results:
                yield result
                bar.update(min(self.batch_size, len(items) - bar.n))

    def extract(self, items: Iterable[Any], progress: str | None = None) -> np.ndarray:
        """All patch vectors at once, float32 array of shape (n, height, width, channels)."""
        items = list(items)
        if not items:
            raise InputError("no images: give at least one")
        vectors = None
        start = 0
        for batch in self.patches(items, progress):
            if vectors is None:
                vectors = np.empty((len(items), *batch.shape[1:]), np.float32)
            vectors[start : start + len(batch)] = batch.cpu().numpy()
            start += len(batch)
        assert vectors is not None
        return vectors


def resized(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """An image at another size: bilinear with antialiasing, the width first, then the height.

    Between the two, values are rounded to 8 bits, so their order can move a pixel by one gray
    level. Pillow, asked for both at once, chooses the order itself; an exported graph cannot.

    Parameters
    ----------
    image : PIL image, mode RGB
    size : (height, width), pixels

    Returns
    -------
    uint8 array of shape (height, width, 3)
    """
    height, width = size
    narrow = image.resize((width, image.height), Image.Resampling.BILINEAR)
    return np.asarray(narrow.resize((width, height), Image.Resampling.BILINEAR))


def name_of(item: Any) -> str:
    """What a message calls an image: its file, if it has one."""
    source = item if isinstance(item, str | Path) else getattr(item, "source", None)
    return str(source) if source else "image"


def _check_odd(neighborhood: int) -> int:
    refusal = f"neighborhood={neighborhood!r}: give an odd number such as 3"
    try:
        size = check_integer(neighborhood, "neighborhood", 1)
    except InputError:
        raise InputError(refusal) from None
    if size % 2 == 0:
        raise InputError(refusal)
    return size


def _input_size(image_size: int | tuple[int, int], backbone: Backbone) -> tuple[int, int]:
    """The (height, width) that the network sees: for a ViT, multiples of its patch size."""
    height, width = as_size(image_size)
    step = backbone.patch_size or 1
    if min(height, width) < step:
        raise InputError(f"image_size={image_size}: smaller than one {step}-pixel patch")
    return height // step * step, width // step * step


def extract(
    items: Iterable[Any],
    backbone: Backbone,
    image_size: int | tuple[int, int] = 256,
    *,
    progress: str | None = None,
    **options: Any,
) -> np.ndarray:
    """Patch vectors of images: float32 array of shape (n, height, width, channels).

    `options` are those of `Extractor`.

    Examples
    --------
    >>> from patchcore_helpers.core.backbones import load_backbone
    >>> gray = np.full((300, 200), 127, np.uint8)
    >>> extract([gray], load_backbone("resnet18", weights="random"), 64).shape
    (1, 8, 8, 384)
    """
    return Extractor(backbone, image_size, **options).extract(items, progress)
