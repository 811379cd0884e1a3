"""Coresets of more patch vectors than a memory holds, or one machine.

The vectors lie in shards, files that are read by memory map. Greedy k-center runs on every shard
by itself, then once more on what the shards have chosen. That loses little, because of a fact: if
all candidates cover their shards to within r1, and the centers cover the candidates to within r2,
then the centers cover everything to within r1 + r2.
"""

import io
import json
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from patchcore_helpers.core import coreset
from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.feature_cache import fingerprint
from patchcore_helpers.errors import InputError, translate_os_errors
from patchcore_helpers.files import atomic_write, sha256
from patchcore_helpers.parallel import in_parallel


@dataclass(frozen=True)
class ShardedCoreset(coreset.Coreset):
    """Rows chosen from shards, in the order of the choice; every prefix is a coreset too.

    Attributes
    ----------
    indices : ndarray of int64, shape (k,)
        Row numbers as if the shards stood one below the other.
    radii : ndarray of float32, shape (k,)
        After each pick, the largest distance from any candidate to its nearest chosen row.
    space : str
        "exact" or "projected": where all these distances were measured.
    shards, rows : ndarray of int64, shape (k,)
        The same rows as number of the shard and row in it.
    centers : ndarray of float, shape (k, c)
        The rows themselves.
    shard_radius : float
        The largest distance from any row to the nearest candidate of its shard, so that no row is
        farther than ``shard_radius + radii[-1]`` from a chosen one.
    """

    shards: np.ndarray
    rows: np.ndarray
    centers: np.ndarray
    shard_radius: float


def composable_k_center(
    shards, n_centers, *, per_shard=None, projection=128, random_state=0, n_jobs=1, scheduler=""
):
    """Choose rows by greedy k-center in two rounds: in each shard, then among those candidates.

    Parameters
    ----------
    shards : list of arrays of float, shape (rows_i, c), memory maps, or paths of .npy files
        A path is opened by memory map where it is worked on. Give paths to a Dask cluster: arrays,
        and memory maps made here, are sent to it.
    n_centers : int
        How many rows to choose, from 1 to the number of all rows.
    per_shard : int, optional
        Candidates of each shard (or all its rows, if it has fewer); by default `n_centers`.
    projection, random_state : see `k_center_greedy`
        The random projection depends on the seed and the widths alone: all shards share it.
    n_jobs, scheduler : see `in_parallel`
        The result is the same for any.

    Returns
    -------
    ShardedCoreset

    Raises
    ------
    InputError
        For a shard that cannot be read, is empty, has another width or holds NaN, by its number;
        and for parameters out of range.

    Notes
    -----
    Greedy k-center reaches at most twice the best possible radius (Gonzalez 1985). Two rounds reach
    at most 4 times (Malkomes et al. 2015, "Fast distributed k-center clustering with outliers on
    massive data"; composable core-sets: Indyk et al. 2014): were r1 or r2 above 2 OPT, k + 1 rows
    would lie more than 2 OPT apart, and two of them share a center of the best solution. With fewer
    candidates, m < k to a shard, r1 is at most twice the best radius of *m* centers, and the bound
    becomes 2 OPT(m) + 2 OPT(k). The bounds hold for the distances that are searched; a projection
    distorts them. What was reached is measured by `coverage_radius`.

    Time: rows x per_shard distances for the first round, candidates x n_centers for the second.
    Memory of a worker: as `k_center_greedy` for one shard; of this process: all candidates.

    Examples
    --------
    >>> shards = [np.array([[0.0], [1.0], [9.0]]), np.array([[10.0], [4.0]])]
    >>> chosen = composable_k_center(shards, 3, random_state=0)
    >>> chosen.centers.ravel(), chosen.shards, chosen.rows
    (array([9., 0., 4.]), array([0, 0, 1]), array([2, 0, 1]))
    """
    shards, lengths = _survey(shards)
    n_centers = coreset._count(n_centers, 1, sum(lengths), "n_centers")
    per_shard = coreset._count(n_centers if per_shard is None else per_shard, 1, None, "per_shard")
    counts = np.minimum(lengths, per_shard)
    if counts.sum() < n_centers:
        gives = f"gives {counts.sum()} candidates for n_centers={n_centers}"
        raise InputError(f"per_shard={per_shard}: {gives}; raise it")
    calls = [
        (number, shard, _choose, count, projection, random_state)
        for number, (shard, count) in enumerate(zip(shards, counts.tolist(), strict=True))
    ]
    indices, union, reached = zip(*_collect(_on_shard, calls, n_jobs, scheduler), strict=True)
    union = np.concatenate(union)
    with coreset._workers() as each, tqdm(disable=True) as bar:
        space = coreset._Space(union, projection, random_state, each)
        picks, squared = coreset._greedy(space, n_centers, None, 0, bar)
    radii = (np.sqrt(squared) / space.scale).astype(np.float32)
    shard, row = np.repeat(np.arange(len(shards)), counts)[picks], np.concatenate(indices)[picks]
    index = np.cumsum([0, *lengths])[shard] + row
    return ShardedCoreset(index, radii, space.name, shard, row, union[picks], max(reached))


def coverage_radius(shards, centers, *, n_jobs=1, scheduler=""):
    """The largest Euclidean distance from any row of the shards to its nearest center.

    Parameters
    ----------
    shards : see `composable_k_center`
    centers : array of float, shape (k, c), or the path of an .npy file
    n_jobs, scheduler : see `in_parallel`

    Returns
    -------
    float
        Of the vectors themselves, whatever space the centers were searched in.

    Examples
    --------
    >>> coverage_radius([np.array([[0.0], [1.0]]), np.array([[7.0]])], np.array([[0.0], [5.0]]))
    2.0
    """
    calls = [(n, shard, _farthest, centers) for n, shard in enumerate(_survey(shards)[0])]
    return max(_collect(_on_shard, calls, n_jobs, scheduler))


def write_shards(extractor, images, folder, rows_per_shard=200_000, *, n_jobs=1, scheduler=""):
    """Write the patch vectors of images to .npy files, a shard in memory at a time.

    Every worker extracts the images of its shards, through the extractor's cache if it has one, and
    writes the files itself. A file has its name once it is whole; the name holds a hash of all that
    the content depends on, so a second run writes what is missing.

    Parameters
    ----------
    extractor : Extractor
        Other processes make their own from the names of the backbone and its weights; weights from
        a file of one's own are sent.
    images : sequence of samples, paths, PIL images or uint8 arrays
    folder : path
    rows_per_shard : int
        At most; but at least one image is in a shard. A worker's memory holds them twice.
    n_jobs, scheduler : see `in_parallel`

    Returns
    -------
    list of Path
        Float32 arrays of shape (rows, c), in the order of the images; read one by
        ``np.load(path, mmap_mode="r", allow_pickle=False)``.

    Examples
    --------
    >>> import tempfile
    >>> from patchcore_helpers.core.extractor import Extractor
    >>> extractor = Extractor(load_backbone("resnet18", weights="random"), 64)
    >>> images = [np.zeros((64, 64, 3), np.uint8)] * 3
    >>> shards = write_shards(extractor, images, tempfile.mkdtemp(), rows_per_shard=150)
    >>> [np.load(shard, mmap_mode="r", allow_pickle=False).shape for shard in shards]
    [(128, 384), (64, 384)]
    """
    images, folder = list(images), Path(folder).resolve()
    rows_per_shard = coreset._count(rows_per_shard, 1, None, "rows_per_shard")
    if not images:
        raise InputError("images: there are none; give at least one")
    height, width = next(iter(extractor.compute_maps(images[:1])))[0].shape[2:]
    if (n_jobs != 1 or scheduler) and extractor.backbone.source != "own file":
        extractor = copy(extractor)
        extractor.backbone = replace(extractor.backbone, network=None)
    some = max(1, rows_per_shard // (height * width))
    parts = [images[start : start + some] for start in range(0, len(images), some)]
    calls = [(extractor, part, folder, number) for number, part in enumerate(parts)]
    return _collect(_write_shard, calls, n_jobs, scheduler)


_load = lru_cache(maxsize=1)(load_backbone)  # a worker writes many shards


def _write_shard(extractor, images, folder, number):
    known = extractor.backbone
    if known.network is None:
        weights = "random" if known.weights_hash == "random" else None
        extractor.backbone = found = _load(known.name, known.layers, weights)
        if found.weights_hash != known.weights_hash:
            raise InputError(f"backbone {known.name!r}: a worker has other weights; copy the file")
        found.network.to(memory_format=torch.channels_last)
    made_by = [*extractor.key(), extractor.aggregation, extractor.neighborhood, torch.__version__]
    key = sha256(json.dumps(made_by), *map(fingerprint, images))
    path, content = folder / f"shard_{number:05}_{key[:24]}.npy", io.BytesIO()
    if not path.exists():
        rows = extractor.extract(images)
        np.save(content, rows.reshape(-1, rows.shape[-1]))
        with translate_os_errors(folder, "choose another folder"):
            folder.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content.getbuffer())
    return path


def _choose(rows, count, projection, random_state):
    chosen = coreset.k_center_greedy(rows, count, projection=projection, random_state=random_state)
    return chosen.indices, np.array(rows[chosen.indices]), float(chosen.radii[-1])


def _farthest(rows, centers):
    centers = np.load(centers, mmap_mode="r") if isinstance(centers, str | Path) else centers
    return float(coreset.nested_min_distances(rows, centers, [len(centers)]).max())


def _collect(function, calls, n_jobs, scheduler):
    results = dict(in_parallel(function, calls, n_jobs, scheduler))
    return [results[number] for number in range(len(calls))]


def _on_shard(number, shard, work, *more):
    """Work on the rows of a shard; an error says which it is."""
    try:
        is_file = isinstance(shard, str | Path)
        rows = np.load(shard, mmap_mode="r", allow_pickle=False) if is_file else shard
        return work(coreset._as_matrix(rows, "patches"), *more)
    except InputError as error:
        raise InputError(f"shards[{number}]: {error}") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"shards[{number}]: {error}; write it with write_shards") from None


def _survey(shards):
    """The shards, whose paths any folder understands, and how long they are."""
    if not isinstance(shards, list | tuple) or not shards:
        raise InputError("shards: give a list of arrays or of .npy files, at least one")
    shapes = [_on_shard(number, shard, np.shape) for number, shard in enumerate(shards)]
    for number, (_, width) in enumerate(shapes):
        if width != shapes[0][1]:
            raise InputError(f"shards[{number}]: {width} columns, but shards[0]: {shapes[0][1]}")
    sent = [Path(s).resolve() if isinstance(s, str | Path) else s for s in shards]
    return sent, [length for length, _ in shapes]
