"""Bank files taken apart and put together again, so that tests can change any of their parts."""

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from patchcore_helpers.core.bank_file import (
    FORMAT,
    FORMAT_OF_PRODUCTS,
    FORMAT_WITHOUT_IMAGES,
    IMAGE_ARRAYS,
    TEXTS,
    digest_of,
)


@dataclass
class BankParts:
    """What a bank file holds; `changed_metadata` overrides what follows from the rest."""

    bank: dict
    detector: dict
    images: dict
    tensors: dict[str, np.ndarray]
    changed_metadata: dict = field(default_factory=dict)

    def metadata(self):
        bank = json.dumps(self.bank)
        detector = json.dumps(self.detector)
        images = json.dumps(self.images)
        digest = digest_of(self.tensors, bank, detector, images)
        sound = {"format": FORMAT, "bank": bank, "detector": detector, "images": images}
        sound["digest"] = digest
        return {**sound, **self.changed_metadata}

    def to_bytes(self):
        arrays = {name: np.ascontiguousarray(array) for name, array in self.tensors.items()}
        return save(arrays, self.metadata())


def read_parts(path):
    """The parts of a sound bank file."""
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    texts = [json.loads(metadata[name]) for name in ("bank", "detector", "images")]
    return BankParts(*texts, tensors)


def change_bank(path, change):
    """Let `change` alter the parts of a bank file in place."""
    parts = read_parts(path)
    change(parts)
    Path(path).write_bytes(parts.to_bytes())


def without_images(path, earlier):
    """Write a bank file as format 2 had it: it remembers no images, and no origins of rows."""
    parts = read_parts(path)
    left_out = {*IMAGE_ARRAYS, "origins"}
    tensors = {name: array for name, array in parts.tensors.items() if name not in left_out}
    texts = [json.dumps(parts.bank), json.dumps(parts.detector)]
    metadata = dict(zip(("bank", "detector"), texts, strict=True))
    metadata |= {"format": FORMAT_WITHOUT_IMAGES, "digest": digest_of(tensors, *texts)}
    Path(earlier).write_bytes(save(tensors, metadata))


def header_and_data(content):
    """The JSON header of a safetensors file and the bytes of its arrays."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def pack(header, data=b""):
    """A safetensors file from a header (JSON, or raw bytes) and the bytes of its arrays."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def products_changed(path, change):
    """The bytes of a bank file of several products after a change of its products or arrays.

    `change` alters the decoded text `products` and the arrays in place; the checksum fits them.
    """
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    products = json.loads(metadata["products"])
    change(products, tensors)
    metadata["products"] = json.dumps(products)
    texts = [metadata[name] for name in TEXTS[FORMAT_OF_PRODUCTS]]
    return save(tensors, {**metadata, "digest": digest_of(tensors, *texts)})
