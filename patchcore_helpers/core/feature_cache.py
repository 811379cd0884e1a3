"""Feature maps kept on disk, so that the same images pass through the same backbone once."""

import json
import os
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from patchcore_helpers.core.backbones import sha256_of
from patchcore_helpers.data.images import read_image
from patchcore_helpers.errors import InputError, translate_os_errors
from patchcore_helpers.files import cache_folder, sha256, temporary_sibling


def fingerprint(item):
    """What identifies an image's content: the hash of its file, or of its pixels.

    Parameters
    ----------
    item : sample, path, PIL image or uint8 array
    """
    if hasattr(item, "fingerprint"):
        return item.fingerprint()
    path = getattr(item, "image", item)
    if isinstance(path, (str, Path)):
        if not Path(path).is_file():
            raise InputError(f"{path}: no such image file")
        return sha256_of(path)
    image = read_image(item)
    return sha256(str(image.size), image.tobytes())


class FeatureCache:
    """Feature maps of lists of images, one ``.npy`` file per layer, read as memory maps.

    An entry's name is the hash of the images' content, the backbone, its weights, layers and
    normalization, the image size and the precision: whatever changes, misses. Files are written
    under a temporary name and renamed when they are whole, so neither a kill nor a second process
    can leave half an entry; a check sum finds what the disk has changed. On a full disk the maps
    are not kept, with a warning. bfloat16 maps are stored as their 16-bit patterns.

    Parameters
    ----------
    folder : path, optional
        ``~/.cache/patchcore_helpers/features`` by default, or below `PATCHCORE_CACHE`.
    """

    def __init__(self, folder=None):
        self.folder, self._takes = Path(folder) if folder else cache_folder("features"), True
        with translate_os_errors(f"cache folder {self.folder}", "name another"):
            self.folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of(cls, cache):
        """A cache from PatchCore's parameter: None or False for none, True for the usual folder."""
        if cache is None or cache is False or isinstance(cache, cls):
            return cache or None
        return cls(None if cache is True else cache)

    def _paths(self, extractor, items):
        prints = [fingerprint(item) for item in items]
        key = sha256(json.dumps([extractor.key(), torch.__version__]), *prints)[:40]
        return [self.folder / f"{key}-{layer}.npy" for layer in extractor.backbone.layers]

    def _read(self, paths, count, dtype):
        """The entry's memory maps, or None if it is not there, not whole, or damaged."""
        try:
            maps = [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]
            right = all(m.ndim == 4 and len(m) == count and m.dtype == dtype for m in maps)
            sums = [int(np.fromfile(p, "<u4", offset=p.stat().st_size - 4)[0]) for p in paths]
            return maps if right and sums == [zlib.crc32(m) for m in maps] else None
        except (OSError, ValueError, EOFError, IndexError):
            return None

    def maps(self, extractor, items):
        """Yield the extractor's maps batch by batch, from the cache if they are there.

        Yields
        ------
        list of tensors, as `Extractor.compute_maps` does
        """
        paths = self._paths(extractor, items)
        stored = np.int16 if extractor.dtype is torch.bfloat16 else np.float32
        maps = self._read(paths, len(items), stored)
        if maps is None:
            yield from self._compute(extractor, items, paths, stored)
            return
        for start in range(0, len(items), extractor.batch_size):
            batch = [torch.from_numpy(m[start : start + extractor.batch_size].copy()) for m in maps]
            yield [m.view(extractor.dtype) for m in batch]

    def _compute(self, extractor, items, paths, stored):
        parts, sums = [temporary_sibling(path) for path in paths], self._takes and [0] * len(paths)
        try:
            for batch in extractor.compute_maps(items):
                if sums:
                    maps = [m.contiguous() for m in batch]
                    bits = [m.view(torch.int16) if stored is np.int16 else m for m in maps]
                    sums = self._tried(_append, parts, bits, [len(items)] * len(bits), sums)
                yield batch
            if sums:
                self._tried(_finish, parts, sums, paths)
        finally:
            for part in parts:
                with suppress(OSError):
                    part.unlink()

    def _tried(self, write, *columns):
        """Write for each layer; where it fails, the work goes on without, after one warning."""
        try:
            return [write(*each) for each in zip(*columns, strict=True)]
        except OSError as error:
            self._takes = False
            warnings.warn(
                f"cache folder {self.folder}: {error.strerror}; features are not kept there: make "
                "room, or set PATCHCORE_CACHE to another folder",
                stacklevel=2,
            )

    def files(self):
        """The cache's own files, half-written ones included."""
        return sorted([*self.folder.glob("*-*.npy"), *self.folder.glob(".*.npy.*.part")])

    def clear(self):
        """Remove the cache's own files, nothing else; returns how many there were."""
        files = self.files()
        for path in files:
            path.unlink(missing_ok=True)
        return len(files)


def _append(part, maps, count, crc):
    """Add a batch to one layer's file, by plain writes: a map of a full disk would kill us."""
    array = maps.numpy()
    with open(part, "ab") as file:
        if not file.tell():
            about = {"descr": array.dtype.str, "fortran_order": False}
            about["shape"] = (count, *array.shape[1:])
            np.lib.format.write_array_header_1_0(file, about)
        file.write(array.data)
    return zlib.crc32(array, crc)


def _finish(part, crc, path):
    """The check sum goes behind the array, where NumPy does not look."""
    with open(part, "ab") as file:
        file.write(crc.to_bytes(4, "little"))
    os.replace(part, path)
