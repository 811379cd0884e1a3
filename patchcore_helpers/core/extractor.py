"""From images to patch vectors: resize, normalize, run the backbone, join its layers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from patchcore_helpers.core.aggregation import AGGREGATIONS, aggregate
from patchcore_helpers.core.backbones import Backbone
from patchcore_helpers.core.feature_cache import FeatureCache
from patchcore_helpers.core.items import read_item
from patchcore_helpers.core.threads import map_in_threads
from patchcore_helpers.core.validation import check_choice, check_integer
from patchcore_helpers.errors import InputError, error_line

PRECISIONS = ("auto", "float32", "bfloat16")
LARGEST_SIZE = 9999  # pixels a side


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


def resolve_precision(precision: str) -> str:
    """The arithmetic of the forward pass: "auto" takes bfloat16 where the processor has it."""
    check_choice(precision, "precision", PRECISIONS)
    if precision == "auto":
        return "bfloat16" if has_bfloat16() else "float32"
    return precision


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
    precision : "auto", "float32" or "bfloat16"
    batch_size : int
    cache : FeatureCache, optional
    """

    def __init__(
        self,
        backbone: Backbone,
        image_size: int | tuple[int, int] = 256,
        *,
        aggregation: str = "concat",
        neighborhood: int | None = None,
        precision: str = "auto",
        batch_size: int = 16,
        cache: FeatureCache | None = None,
    ) -> None:
        if neighborhood is None:
            neighborhood = 1 if backbone.patch_size else 3
        self.backbone = backbone
        self.aggregation = check_choice(aggregation, "aggregation", AGGREGATIONS)
        self.neighborhood = _check_odd(neighborhood)
        self.batch_size = check_integer(batch_size, "batch_size", 1)
        self.input_size = _input_size(image_size, backbone)
        self.precision = resolve_precision(precision)
        self.cache = cache
        backbone.network.to(memory_format=torch.channels_last)
        self.mean = torch.tensor(backbone.mean)[:, None, None]
        self.std = torch.tensor(backbone.std)[:, None, None]

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
        ]

    def prepare(self, item: Any) -> Tensor:
        """One image as the backbone takes it: float32 tensor of shape (3, height, width)."""
        height, width = self.input_size
        image = read_item(item).resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return (pixels.float() / 255 - self.mean) / self.std

    def _compute_batch(self, items: Sequence[Any]) -> list[Tensor]:
        """The maps of one batch, in the chosen precision."""
        images = torch.stack([self.prepare(item) for item in items])
        images = images.contiguous(memory_format=torch.channels_last)
        dtype = getattr(torch, self.precision)
        is_reduced = dtype is torch.bfloat16
        with torch.autocast("cpu", dtype) if is_reduced else nullcontext():
            try:
                maps = self.backbone.maps(images)
            except (RuntimeError, AssertionError) as error:
                raise InputError(
                    f"backbone {self.backbone.name!r}: cannot take images of {self.input_size} "
                    f"(height, width) pixels ({error_line(error)[:120]}); change image_size"
                ) from None
        return [layer.to(dtype) for layer in maps]

    def _batches(self, items: Sequence[Any]) -> Iterator[Sequence[Any]]:
        for start in range(0, len(items), self.batch_size):
            yield items[start : start + self.batch_size]

    def compute_maps(self, items: Sequence[Any]) -> Iterator[list[Tensor]]:
        """Run the network; yield by batch the list of its layers' maps in the chosen precision."""
        yield from map_in_threads(self._compute_batch, self._batches(items))

    def _join(self, maps: list[Tensor]) -> Tensor:
        """Patch vectors from the maps of one batch."""
        with torch.inference_mode():
            return aggregate([layer.float() for layer in maps], self.aggregation, self.neighborhood)

    def patches(
        self,
        items: Sequence[Any],
        progress: str | None = None,
        then: Callable[[Tensor], Any] | None = None,
    ) -> Iterator[Any]:
        """Yield patch vectors by batch, float32 tensors of shape (b, height, width, channels).

        Parameters
        ----------
        items : sequence of samples, paths, PIL images or uint8 arrays
        progress : str, optional
            Label of a progress bar on standard error; without it there is no bar.
        then : function, optional
            Is called on each batch of patch vectors, in the thread that computed it; its results
            are yielded instead.
        """

        def finish(maps: list[Tensor]) -> Any:
            patches = self._join(maps)
            return then(patches) if then else patches

        def compute_and_finish(batch: Sequence[Any]) -> Any:
            return finish(self._compute_batch(batch))

        if self.cache:
            cached_maps = self.cache.get_or_compute(
                self.key(),
                items,
                self.backbone.layers,
                self.batch_size,
                compute=lambda: self.compute_maps(items),
            )
            results = map_in_threads(finish, cached_maps)
        else:
            results = map_in_threads(compute_and_finish, self._batches(items))
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
            vectors[start : start + len(batch)] = batch.numpy()
            start += len(batch)
        assert vectors is not None
        return vectors


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
