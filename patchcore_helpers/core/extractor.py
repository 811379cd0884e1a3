"""From images to patch vectors: resize, normalize, run the backbone, join its layers."""

import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from numbers import Integral

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm.auto import tqdm

from patchcore_helpers.data.images import read_image
from patchcore_helpers.errors import InputError

AGGREGATIONS = ("concat", "paper")
PRECISIONS = ("auto", "float32", "bfloat16")
PAPER_CHANNELS = 1024


def as_size(image_size):
    """`image_size` as (height, width); one number means a square.

    Examples
    --------
    >>> as_size(256), as_size((128, 512))
    ((256, 256), (128, 512))
    """
    try:
        pair = (image_size,) * 2 if np.ndim(image_size) == 0 else tuple(image_size)
        height, width = (int(n) for n in pair)
        if (height, width) != tuple(pair) or not 1 <= min(pair) <= max(pair) < 10_000:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"image_size={image_size!r}: give pixels per side, or (height, width), up to 9999"
        ) from None
    return height, width


def has_bfloat16():
    """Whether this processor multiplies bfloat16 in hardware."""
    flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(getattr(torch.cpu, flag, lambda: False)() for flag in flags)


def resolve_precision(precision):
    """The arithmetic of the forward pass: "auto" takes bfloat16 where the processor has it."""
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision == "auto":
        return "bfloat16" if has_bfloat16() else "float32"
    return precision


def read_item(item):
    """The upright RGB image of a sample, a path, a PIL image or a uint8 array."""
    return item.read() if hasattr(item, "read") else read_image(item)


def local_average(maps, size):
    """Mean over a `size` x `size` neighborhood at stride 1.

    Beyond the border stand zeros, and they count: border patches come out smaller, which makes up
    for the network's own zero padding, whose effect there would else pass for an anomaly.

    Parameters
    ----------
    maps : float tensor of shape (b, channels, height, width)
    size : odd int
    """
    return F.avg_pool2d(maps, size, 1, size // 2, count_include_pad=True)


def _resize(maps, size):
    return maps if maps.shape[2:] == size else F.interpolate(maps, size=size, mode="bilinear")


def aggregate(maps, aggregation="concat", neighborhood=3):
    """Join the maps of several layers into locally aware patch vectors.

    "concat": the mean over the neighborhood in every layer, deeper layers resized bilinearly to
    the first one's grid, channels joined. "paper": the authors' code: the neighborhood unfolded
    (zeros beyond the border), channels x neighborhood pooled adaptively to 1024 per layer, the
    layers' vectors joined and pooled to 1024 again.

    Parameters
    ----------
    maps : list of float32 tensors of shape (b, channels_l, height_l, width_l), shallow layers first
    aggregation : "concat" or "paper"
    neighborhood : odd int

    Returns
    -------
    float32 tensor of shape (b, height, width, channels), on the grid of the first layer

    Notes
    -----
    Roth et al. 2022, arXiv 2106.08265, section 3.1; taught in notebook 2.
    """
    grid = maps[0].shape[2:]
    if aggregation == "concat":
        parts = [_resize(local_average(m, neighborhood), grid) for m in maps]
        return torch.cat(parts, 1).permute(0, 2, 3, 1).contiguous()
    parts = []
    for m in maps:
        unfolded = F.unfold(m, neighborhood, padding=neighborhood // 2)  # (b, channels * 9, places)
        pooled = F.adaptive_avg_pool1d(unfolded.transpose(1, 2), PAPER_CHANNELS)
        parts.append(_resize(pooled.transpose(1, 2).unflatten(2, m.shape[2:]), grid))
    joined = torch.cat(parts, 1).permute(0, 2, 3, 1)
    return F.adaptive_avg_pool1d(joined.flatten(1, 2), PAPER_CHANNELS).unflatten(1, grid)


def map_in_threads(function, parts):
    """Apply a function to parts, several at a time, each in a thread with its share of the cores.

    A network keeps two cores busier with two batches at a time than with one after the other. At
    most one part more than there are lanes is under way or waits to be taken.

    Parameters
    ----------
    function : callable
        Takes one part.
    parts : iterable

    Yields
    ------
    The results, in the order of the parts.

    Examples
    --------
    >>> list(map_in_threads(len, ["a", "bc", ""]))
    [1, 2, 0]
    """
    parts = iter(parts)
    first = list(itertools.islice(parts, 2))
    cores = torch.get_num_threads()
    lanes = min(cores, 4) if len(first) > 1 else 1
    if lanes == 1:
        yield from map(function, itertools.chain(first, parts))
        return
    with ThreadPoolExecutor(lanes, "lane", torch.set_num_threads, (cores // lanes,)) as pool:
        waiting = deque()
        for part in itertools.chain(first, parts):
            waiting.append(pool.submit(function, part))
            if len(waiting) > lanes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


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
        backbone,
        image_size=256,
        *,
        aggregation="concat",
        neighborhood=None,
        precision="auto",
        batch_size=16,
        cache=None,
    ):
        if aggregation not in AGGREGATIONS:
            raise InputError(
                f"aggregation={aggregation!r}: choose one of {', '.join(AGGREGATIONS)}"
            )
        if neighborhood is None:
            neighborhood = 1 if backbone.patch_size else 3
        if not isinstance(neighborhood, Integral) or neighborhood < 1 or neighborhood % 2 == 0:
            raise InputError(f"neighborhood={neighborhood!r}: give an odd number such as 3")
        if not isinstance(batch_size, Integral) or batch_size < 1:
            raise InputError(f"batch_size={batch_size!r}: give a whole number from 1")
        self.backbone, self.cache, self.batch_size = backbone, cache, batch_size
        self.aggregation, self.neighborhood = aggregation, neighborhood
        height, width = as_size(image_size)
        step = backbone.patch_size or 1
        self.input_size = (height // step * step, width // step * step)
        if min(self.input_size) == 0:
            raise InputError(f"image_size={image_size}: smaller than one {step}-pixel patch")
        self.precision = resolve_precision(precision)
        self.dtype = getattr(torch, self.precision)
        backbone.network.to(memory_format=torch.channels_last)
        self.mean, self.std = (
            torch.tensor(values)[:, None, None] for values in (backbone.mean, backbone.std)
        )

    def key(self):
        """What the maps depend on besides the images, for the cache."""
        b = self.backbone
        network = b.timm_name, b.weights_hash, b.layers, b.mean, b.std
        return [*network, self.input_size, self.precision]

    def prepare(self, item):
        """One image as the backbone takes it: float32 tensor of shape (3, height, width)."""
        image = read_item(item).resize(self.input_size[::-1], Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return (pixels.float() / 255 - self.mean) / self.std

    def _maps(self, items):
        """The maps of one batch, in the chosen precision."""
        images = torch.stack([self.prepare(item) for item in items])
        images = images.contiguous(memory_format=torch.channels_last)
        reduced = self.dtype is torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16) if reduced else nullcontext():
            try:
                maps = self.backbone.maps(images)
            except (RuntimeError, AssertionError) as error:
                raise InputError(
                    f"backbone {self.backbone.name!r}: cannot take images of {self.input_size} "
                    f"(height, width) pixels ({' '.join(str(error).split())[:120]}); "
                    "change image_size"
                ) from None
        return [m.to(self.dtype) for m in maps]

    def _batches(self, items):
        return (items[i : i + self.batch_size] for i in range(0, len(items), self.batch_size))

    def compute_maps(self, items):
        """Run the network; yield per batch the list of its layers' maps in the chosen precision."""
        yield from map_in_threads(self._maps, self._batches(items))

    def patches(self, items, progress=None, then=None):
        """Yield patch vectors by batch, float32 tensors of shape (b, height, width, channels).

        Parameters
        ----------
        items : sequence of samples, paths, PIL images or uint8 arrays
        progress : str, optional
            Label of a progress bar on standard error; none without it.
        then : function, optional
            Makes what is yielded of each batch of patch vectors, in the batch's own thread.
        """

        def finish(maps):
            with torch.inference_mode():
                maps = [m.float() for m in maps]
                patches = aggregate(maps, self.aggregation, self.neighborhood)
            return then(patches) if then else patches

        if self.cache:
            batches = map_in_threads(finish, self.cache.maps(self, items))
        else:
            batches = map_in_threads(lambda part: finish(self._maps(part)), self._batches(items))
        with tqdm(total=len(items), desc=progress, unit="image", disable=not progress) as bar:
            for batch in batches:
                yield batch
                bar.update(min(self.batch_size, bar.total - bar.n))

    def extract(self, items, progress=None):
        """All patch vectors at once, float32 array of shape (n, height, width, channels)."""
        items = list(items)
        if not items:
            raise InputError("no images: give at least one")
        out, start = None, 0
        for batch in self.patches(items, progress):
            if out is None:
                out = np.empty((len(items), *batch.shape[1:]), np.float32)
            out[start : start + len(batch)] = batch.numpy()
            start += len(batch)
        return out


def receptive_field(extractor, item, row, column, draws=4, seed=0):
    """How strongly each pixel moves one patch vector: its effective receptive field.

    The patch vector is multiplied by random signs and differentiated with respect to the image; the
    root mean square over the draws estimates the length of the vector's derivative, pixel by pixel
    (Luo et al. 2016).

    Parameters
    ----------
    extractor : Extractor
    item : sample, path, PIL image or uint8 array
    row, column : int
        Place of the patch in the grid.
    draws : int
    seed : int

    Returns
    -------
    float32 array of shape `extractor.input_size`, largest value 1
    """
    image = extractor.prepare(item)[None].requires_grad_()
    maps = extractor.backbone.maps(image, gradient=True)
    patches = aggregate(maps, extractor.aggregation, extractor.neighborhood)
    if not (0 <= row < patches.shape[1] and 0 <= column < patches.shape[2]):
        raise InputError(f"patch ({row}, {column}): the grid is {tuple(patches.shape[1:3])}")
    vector, total = patches[0, row, column], torch.zeros(1)
    signs = torch.randint(0, 2, (draws, len(vector)), generator=torch.manual_seed(seed)) * 2.0 - 1
    for sign in signs:
        (gradient,) = torch.autograd.grad(vector @ sign, image, retain_graph=True)
        total = total + gradient[0].square().sum(0)
    return (total.sqrt() / total.sqrt().max().clamp_min(1e-12)).numpy()


def effective_area(field, share=0.9):
    """The smallest share of the pixels that holds this share of a field of view's influence.

    Examples
    --------
    >>> effective_area(np.array([[8.0, 1.0], [1.0, 0.0]]), share=0.9)
    0.5
    """
    influence = np.sort(field.ravel())[::-1].cumsum(dtype=float)
    return float((influence < share * influence[-1] - 1e-9).sum() + 1) / field.size


def patch_box(row, column, grid, size):
    """Pixels (left, top, right, bottom) of the grid cell that a patch stands on.

    Parameters
    ----------
    row, column : int
    grid : (rows, columns)
    size : (height, width) of the image, pixels

    Examples
    --------
    >>> patch_box(1, 2, grid=(32, 32), size=(256, 256))
    (16, 8, 24, 16)
    """
    edges = [round(i * n / k) for i, n, k in (
        (column, size[1], grid[1]), (row, size[0], grid[0]),
        (column + 1, size[1], grid[1]), (row + 1, size[0], grid[0]),
    )]  # fmt: skip
    return tuple(edges)


def extract(items, backbone, image_size=256, *, progress=None, **options):
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
