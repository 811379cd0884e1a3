"""Coresets of more patch vectors than a memory holds, or one machine.

The vectors lie in shards, files that are read by memory map. Greedy k-center runs on every shard
by itself (`choose_candidates`), then once more on what the shards have chosen (`choose_among`).
That loses little, because of a fact: if all candidates cover their shards to within r1, and the
centers cover the candidates to within r2, then the centers cover everything to within r1 + r2.
"""

import io
import json
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.coreset import Coreset, k_center_greedy
from patchcore_helpers.core.distances import nested_min_distances
from patchcore_helpers.core.extractor import Extractor
from patchcore_helpers.core.feature_cache import fingerprint
from patchcore_helpers.core.validation import as_float_matrix, check_integer
from patchcore_helpers.errors import InputError, translate_os_errors
from patchcore_helpers.files import atomic_write, sha256
from patchcore_helpers.parallel import in_parallel

Shard = np.ndarray | torch.Tensor | str | Path


@dataclass(frozen=True)
class ShardedCoreset(Coreset):
    """Rows chosen from shards, in the order of the choice; every prefix is a coreset too.

    Attributes
    ----------
    indices : ndarray of int64, shape (k,)
        Row numbers in the shards stacked one below the other.
    radii : ndarray of float32, shape (k,)
        After each pick, the largest distance from any candidate to its nearest chosen row.
    space : str
        "exact" or "projected": where all these distances were measured.
    shards : ndarray of int64, shape (k,)
        The number of the shard that each row comes from.
    rows : ndarray of int64, shape (k,)
        The number of each row within its shard.
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


@dataclass(frozen=True)
class ShardList:
    """Shards that fit together, and how long they are.

    Attributes
    ----------
    sources : list of arrays and absolute paths
    lengths : list of int
        The rows of each shard.
    """

    sources: list[Shard]
    lengths: list[int]

    @property
    def n_rows(self) -> int:
        """The rows of all shards together."""
        return sum(self.lengths)


@dataclass(frozen=True)
class Candidates:
    """The rows that the shards have chosen in the first round, shard by shard.

    Attributes
    ----------
    vectors : ndarray of float, shape (m, c)
    indices, shards, rows : ndarray of int64, shape (m,)
        Where they come from, as in `ShardedCoreset`.
    shard_radius : float
        The largest distance from any row to the nearest candidate of its shard.
    """

    vectors: np.ndarray
    indices: np.ndarray
    shards: np.ndarray
    rows: np.ndarray
    shard_radius: float


def composable_k_center(
    shards: Sequence[Shard],
    n_centers: int,
    *,
    per_shard: int | None = None,
    projection: int | None = 128,
    random_state: int = 0,
    n_jobs: int = 1,
    scheduler: str = "",
) -> ShardedCoreset:
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
    shard_list = scan_shards(shards)
    n_centers = check_integer(n_centers, "n_centers", 1, shard_list.n_rows)
    per_shard = check_integer(n_centers if per_shard is None else per_shard, "per_shard", 1)
    n_candidates = sum(min(length, per_shard) for length in shard_list.lengths)
    if n_candidates < n_centers:
        raise InputError(
            f"per_shard={per_shard}: gives {n_candidates} candidates for n_centers={n_centers}; "
            "raise it"
        )
    candidates = choose_candidates(
        shard_list,
        per_shard,
        projection=projection,
        random_state=random_state,
        n_jobs=n_jobs,
        scheduler=scheduler,
    )
    return choose_among(candidates, n_centers, projection=projection, random_state=random_state)


def scan_shards(shards: Sequence[Shard]) -> ShardList:
    """Open every shard once, and check that they fit together.

    Parameters
    ----------
    shards : see `composable_k_center`

    Returns
    -------
    ShardList
        Its paths are absolute, so that they mean the same file in any process.

    Raises
    ------
    InputError
        For a shard that cannot be read, is empty or has another width, by its number.
    """
    if not isinstance(shards, list | tuple) or not shards:
        raise InputError("shards: give a list of arrays or of .npy files, at least one")
    shapes = [_on_shard(number, shard, np.shape) for number, shard in enumerate(shards)]
    width = shapes[0][1]
    for number, shape in enumerate(shapes):
        if shape[1] != width:
            raise InputError(f"shards[{number}]: {shape[1]} columns, but shards[0]: {width}")
    sources = [
        Path(shard).resolve() if isinstance(shard, str | Path) else shard for shard in shards
    ]
    return ShardList(sources, [length for length, _ in shapes])


def choose_candidates(
    shards: ShardList,
    per_shard: int,
    *,
    projection: int | None = 128,
    random_state: int = 0,
    n_jobs: int = 1,
    scheduler: str = "",
) -> Candidates:
    """The first round: greedy k-center in every shard by itself, in parallel.

    Parameters
    ----------
    shards : ShardList
        From `scan_shards`.
    per_shard : int
        Candidates of each shard, at least 1; of a shorter shard, all its rows.
    projection, random_state, n_jobs, scheduler : see `composable_k_center`

    Returns
    -------
    Candidates
    """
    calls = [
        (number, shard, _choose_in_shard, min(length, per_shard), projection, random_state)
        for number, (shard, length) in enumerate(zip(shards.sources, shards.lengths, strict=True))
    ]
    vectors = []
    indices = []
    shard_numbers = []
    rows = []
    radii = []
    first_index = 0  # of the shard, in the shards stacked one below the other
    for number, (chosen, centers) in enumerate(_in_order(_on_shard, calls, n_jobs, scheduler)):
        vectors.append(centers)
        indices.append(first_index + chosen.indices)
        shard_numbers.append(np.full(len(chosen), number))
        rows.append(chosen.indices)
        radii.append(float(chosen.radii[-1]))
        first_index += shards.lengths[number]
    return Candidates(
        np.concatenate(vectors),
        np.concatenate(indices),
        np.concatenate(shard_numbers),
        np.concatenate(rows),
        max(radii),
    )


def choose_among(
    candidates: Candidates,
    n_centers: int,
    *,
    projection: int | None = 128,
    random_state: int = 0,
) -> ShardedCoreset:
    """The second round: greedy k-center among the candidates, from the first one on.

    Parameters
    ----------
    candidates : Candidates
        From `choose_candidates`.
    n_centers : int
        How many to choose, from 1 to the number of candidates.
    projection, random_state : see `composable_k_center`
        The same as in the first round.

    Returns
    -------
    ShardedCoreset
    """
    chosen = k_center_greedy(
        candidates.vectors, n_centers, projection=projection, random_state=random_state, first=0
    )
    picks = chosen.indices
    return ShardedCoreset(
        indices=candidates.indices[picks],
        radii=chosen.radii,
        space=chosen.space,
        shards=candidates.shards[picks],
        rows=candidates.rows[picks],
        centers=candidates.vectors[picks],
        shard_radius=candidates.shard_radius,
    )


def coverage_radius(
    shards: Sequence[Shard],
    centers: np.ndarray | str | Path,
    *,
    n_jobs: int = 1,
    scheduler: str = "",
) -> float:
    """The largest Euclidean distance from any row of the shards to its nearest center.

    Parameters
    ----------
    shards : see `composable_k_center`
    centers : array of float, shape (k, c), or the path of an .npy file
    n_jobs, scheduler : see `in_parallel`

    Returns
    -------
    float
        Between the vectors themselves, whatever space the centers were searched in.

    Raises
    ------
    InputError
        For a shard that cannot be read, has another width or holds NaN, by its number.

    Examples
    --------
    >>> coverage_radius([np.array([[0.0], [1.0]]), np.array([[7.0]])], np.array([[0.0], [5.0]]))
    2.0
    """
    sources = scan_shards(shards).sources
    calls = [(number, shard, _farthest, centers) for number, shard in enumerate(sources)]
    return max(_in_order(_on_shard, calls, n_jobs, scheduler))


def write_shards(
    extractor: Extractor,
    images: Iterable[Any],
    folder: str | Path,
    rows_per_shard: int = 200_000,
    *,
    n_jobs: int = 1,
    scheduler: str = "",
) -> list[Path]:
    """Write the patch vectors of images to .npy files, a shard in memory at a time.

    Every worker extracts the images of its shards, through the extractor's cache if it has one, and
    writes the files itself. A file gets its name when it is complete; the name holds a hash of all
    that the content depends on, so a second run writes only what is missing.

    Parameters
    ----------
    extractor : Extractor
        Other processes load the backbone themselves, by its name; only custom weights are sent.
    images : iterable of samples, paths, PIL images or uint8 arrays
    folder : path
        Created if it does not exist.
    rows_per_shard : int
        Most rows in a shard, at least 1; but a shard holds at least one image. A worker's memory
        holds a shard twice.
    n_jobs, scheduler : see `in_parallel`

    Returns
    -------
    list of Path
        Float32 arrays of shape (rows, c), in the order of the images; read one by
        ``np.load(path, mmap_mode="r", allow_pickle=False)``.

    Raises
    ------
    InputError
        If there are no images, if one cannot be read, or if the folder cannot be written to.

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
    images = list(images)
    folder = Path(folder).resolve()
    rows_per_shard = check_integer(rows_per_shard, "rows_per_shard", 1)
    if not images:
        raise InputError("images: there are none; give at least one")
    first_maps = next(iter(extractor.compute_maps(images[:1])))
    height, width = first_maps[0].shape[2:]
    images_per_shard = max(1, rows_per_shard // (height * width))
    if n_jobs != 1 or scheduler:
        extractor = without_network(extractor)
    calls = [
        (extractor, images[start : start + images_per_shard], folder, number)
        for number, start in enumerate(range(0, len(images), images_per_shard))
    ]
    return _in_order(_write_shard, calls, n_jobs, scheduler)


class NetworkLeftOut(torch.nn.Module):
    """Takes the place of a backbone's network that each process loads for itself."""


def without_network(extractor: Extractor) -> Extractor:
    """A copy that is quick to send to another process, unless it has custom weights."""
    backbone = extractor.backbone
    if backbone.source == "own file":
        return extractor
    light = copy(extractor)
    light.backbone = replace(backbone, network=NetworkLeftOut())
    return light


def with_network(extractor: Extractor) -> Extractor:
    """The extractor complete again, with the same weights.

    Raises
    ------
    InputError
        If this machine has other weights under the backbone's name.
    """
    wanted = extractor.backbone
    if not isinstance(wanted.network, NetworkLeftOut):
        return extractor
    weights = "random" if wanted.weights_hash == "random" else None
    backbone = _load_once(wanted.name, wanted.layers, weights)
    if backbone.weights_hash != wanted.weights_hash:
        raise InputError(f"backbone {wanted.name!r}: a worker has other weights; copy the file")
    backbone.network.to(memory_format=torch.channels_last)
    complete = copy(extractor)
    complete.backbone = backbone
    return complete


_load_once = lru_cache(maxsize=1)(load_backbone)  # a worker writes many shards


def _write_shard(extractor: Extractor, images: list, folder: Path, number: int) -> Path:
    extractor = with_network(extractor)
    settings = [*extractor.key(), extractor.aggregation, extractor.neighborhood, torch.__version__]
    content_hash = sha256(json.dumps(settings), *map(fingerprint, images))
    path = folder / f"shard_{number:05}_{content_hash[:24]}.npy"
    if not path.exists():
        patches = extractor.extract(images)
        content = io.BytesIO()
        np.save(content, patches.reshape(-1, patches.shape[-1]))
        with translate_os_errors(folder, "choose another folder"):
            folder.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content.getbuffer())
    return path


def _choose_in_shard(
    vectors: np.ndarray, n_centers: int, projection: int | None, random_state: int
) -> tuple[Coreset, np.ndarray]:
    """The coreset of a shard, and the vectors of its rows."""
    chosen = k_center_greedy(vectors, n_centers, projection=projection, random_state=random_state)
    return chosen, np.array(vectors[chosen.indices])


def _farthest(vectors: np.ndarray, centers: np.ndarray | str | Path) -> float:
    """The distance of the row that is farthest from its nearest center."""
    if isinstance(centers, str | Path):
        return _farthest(vectors, np.load(centers, mmap_mode="r"))
    return float(nested_min_distances(vectors, centers, [len(centers)]).max())


def _in_order(function: Callable, calls: list[tuple], n_jobs: int, scheduler: str) -> list[Any]:
    """The results of all calls, in the order of the calls."""
    results = dict(in_parallel(function, calls, n_jobs, scheduler))
    return [results[number] for number in range(len(calls))]


def _on_shard(number: int, shard: Shard, work: Callable, *arguments: Any) -> Any:
    """``work(vectors, *arguments)`` on the vectors of a shard; an error names the shard."""
    try:
        if isinstance(shard, str | Path):
            vectors = np.load(shard, mmap_mode="r", allow_pickle=False)
        else:
            vectors = shard
        return work(as_float_matrix(vectors, "patches"), *arguments)
    except InputError as error:
        raise InputError(f"shards[{number}]: {error}") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"shards[{number}]: {error}; write it with write_shards") from None
