"""Feature maps kept on disk, so that the same images pass through the same backbone once."""

import json
import os
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from patchcore_helpers.core.backbones import sha256_of
from patchcore_helpers.core.items import read_item
from patchcore_helpers.data.category import Sample
from patchcore_helpers.errors import InputError, translate_os_errors
from patchcore_helpers.files import cache_folder, sha256, temporary_sibling

CRC_BYTES = 4

Maps = list[Tensor]  # of one batch: for each layer (b, channels, height, width)


@runtime_checkable
class Fingerprinted(Protocol):
    """An image that knows what identifies its content, for example because it is drawn."""

    def fingerprint(self) -> str: ...


def fingerprint(item: Any) -> str:
    """What identifies an image's content: the hash of its file, or of its pixels.

    Parameters
    ----------
    item : sample, path, PIL image or uint8 array
    """
    if isinstance(item, Fingerprinted):
        return item.fingerprint()
    path = item.image if isinstance(item, Sample) else item
    if isinstance(path, str | Path):
        if not Path(path).is_file():
            raise InputError(f"{path}: no such image file")
        return sha256_of(path)
    image = read_item(item)
    return sha256(str(image.size), image.tobytes())


class FeatureCache:
    """Feature maps of lists of images: one entry per list, one ``.npy`` file per layer.

    An entry's name is a hash of the images' content and of all that the maps depend on, so a change
    of any of them misses. Files get their names when they are complete: neither a kill nor a second
    process can leave half an entry. A checksum finds what the disk has changed. On a full disk the
    maps are not kept, with one warning.

    Parameters
    ----------
    folder : path, optional
        ``~/.cache/patchcore_helpers/features`` by default, or below `PATCHCORE_CACHE`.

    Notes
    -----
    A file is an array in NumPy's format followed by four bytes, the CRC-32 of the array's data.
    NumPy reads as many bytes as the header announces, so `numpy.load` opens the file as it is.
    bfloat16, which NumPy does not have, is stored as int16 of the same bits.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder else cache_folder("features")
        self._has_room = True
        with translate_os_errors(f"cache folder {self.folder}", "name another"):
            self.folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of(cls, cache: "bool | str | Path | FeatureCache | None") -> "FeatureCache | None":
        """A cache from PatchCore's parameter: None or False for none, True for the usual folder."""
        if cache is None or cache is False:
            return None
        if isinstance(cache, FeatureCache):
            return cache
        return cls(None if isinstance(cache, bool) else cache)

    def get_or_compute(
        self,
        made_by: Sequence[Any],
        items: Sequence[Any],
        layers: Sequence[int],
        batch_size: int,
        compute: Callable[[], Iterable[Maps]],
    ) -> Iterator[Maps]:
        """Yield the maps of images batch by batch: from the disk, or computed and kept.

        Parameters
        ----------
        made_by : list that JSON can express
            All that the maps depend on besides the images.
        items : sequence of samples, paths, PIL images or uint8 arrays
        layers : sequence of int
            Which layers a batch holds the maps of.
        batch_size : int
        compute : callable
            Yields the maps batch by batch; called if the entry is missing or damaged.

        Yields
        ------
        list of float32 or bfloat16 tensors of shape (b, channels_l, height_l, width_l)
        """
        key = sha256(json.dumps([*made_by, torch.__version__]), *map(fingerprint, items))[:40]
        paths = [self.folder / f"{key}-{layer}.npy" for layer in layers]
        stored = _read_entry(paths, len(items))
        if stored is None:
            yield from self._compute_and_keep(paths, len(items), compute)
            return
        for start in range(0, len(items), batch_size):
            yield [_from_stored(layer[start : start + batch_size]) for layer in stored]

    def _compute_and_keep(
        self, paths: list[Path], n_images: int, compute: Callable[[], Iterable[Maps]]
    ) -> Iterator[Maps]:
        writer = EntryWriter(paths, n_images)
        try:
            for maps in compute():
                self._unless_full(writer.append, maps)
                yield maps
            self._unless_full(writer.commit)
        finally:
            writer.discard()

    def _unless_full(self, write: Callable[..., None], *arguments: Any) -> None:
        """Write; if that fails, this cache keeps nothing more, and one warning says so."""
        if not self._has_room:
            return
        try:
            write(*arguments)
        except OSError as error:
            self._has_room = False
            warnings.warn(
                f"cache folder {self.folder}: {error.strerror}; features are not kept there: make "
                "room, or set PATCHCORE_CACHE to another folder",
                stacklevel=2,
            )

    def files(self) -> list[Path]:
        """The cache's own files, half-written ones included."""
        return sorted([*self.folder.glob("*-*.npy"), *self.folder.glob(".*.npy.*.part")])

    def clear(self) -> int:
        """Remove the cache's own files, nothing else; returns how many there were."""
        files = self.files()
        for path in files:
            path.unlink(missing_ok=True)
        return len(files)


class EntryWriter:
    """Writes one entry under temporary names; `commit` gives the files their own.

    Parameters
    ----------
    paths : list of Path
        The final name of each layer's file.
    n_images : int
        How many images all batches hold together.
    """

    def __init__(self, paths: list[Path], n_images: int) -> None:
        self.layers = [LayerWriter(path, n_images) for path in paths]

    def append(self, maps: Maps) -> None:
        for layer, batch in zip(self.layers, maps, strict=True):
            layer.append(_to_stored(batch))

    def commit(self) -> None:
        for layer in self.layers:
            layer.commit()

    def discard(self) -> None:
        """Remove what has not been committed."""
        for layer in self.layers:
            with suppress(OSError):
                layer.temporary.unlink()


class LayerWriter:
    """Appends the maps of one layer to a file, by plain writes.

    A memory map would be shorter, but on a full disk writing to one kills the process.
    """

    def __init__(self, path: Path, n_images: int) -> None:
        self.path = path
        self.temporary = temporary_sibling(path)
        self.n_images = n_images
        self.checksum = 0

    def append(self, batch: np.ndarray) -> None:
        with open(self.temporary, "ab") as file:
            if file.tell() == 0:
                header = {
                    "descr": batch.dtype.str,
                    "fortran_order": False,
                    "shape": (self.n_images, *batch.shape[1:]),
                }
                np.lib.format.write_array_header_1_0(file, header)
            file.write(batch.data)
        self.checksum = zlib.crc32(batch.data, self.checksum)

    def commit(self) -> None:
        with open(self.temporary, "ab") as file:
            file.write(self.checksum.to_bytes(CRC_BYTES, "little"))
        os.replace(self.temporary, self.path)


def _read_entry(paths: list[Path], n_images: int) -> list[np.ndarray] | None:
    """The entry's memory maps, or None if it is missing, incomplete or damaged."""
    layers = [_read_layer(path) for path in paths]
    stored = [layer for layer in layers if layer is not None and len(layer) == n_images]
    return stored if len(stored) == len(paths) else None


def _read_layer(path: Path) -> np.ndarray | None:
    try:
        layer = np.load(path, mmap_mode="r", allow_pickle=False)
        checksum = np.fromfile(path, "<u4", offset=path.stat().st_size - CRC_BYTES)[0]
    except (OSError, ValueError, EOFError, IndexError):
        return None
    is_map = layer.ndim == 4 and layer.dtype in (np.float32, np.int16)
    return layer if is_map and zlib.crc32(layer) == checksum else None


def _to_stored(maps: Tensor) -> np.ndarray:
    maps = maps.contiguous()
    return (maps.view(torch.int16) if maps.dtype == torch.bfloat16 else maps).numpy()


def _from_stored(stored: np.ndarray) -> Tensor:
    maps = torch.from_numpy(stored.copy())
    return maps.view(torch.bfloat16) if maps.dtype == torch.int16 else maps
