"""Memory banks on disk: a safetensors file of which nothing is believed before it is checked."""

import json
import math
import os
import re

import numpy as np

from patchcore_helpers.files import sha256

LARGEST_HEADER, LARGEST_FILE = 10**6, 2**33  # bytes
VERSIONED = ("torch", "timm", "patchcore-helpers")
OWN_WEIGHTS = "own file"  # stands in a bank for a path, which no file may make us open
WORD, REAL = r'"\w{1,20}"', r"-?\d{1,30}(\.\d{1,30})?(e[-+]?\d{1,2})?"

# What the entries of a file look like as JSON: types, and bounds by their number of digits.
PARAMETERS = dict.fromkeys(("aggregation", "sampler", "image_score", "metric", "precision"), WORD)
PARAMETERS |= {
    "backbone": r'"[A-Za-z]\w{0,99}(\.\w{1,99})?"',
    "layers": r"null|\[\d{1,3}(, \d{1,3}){0,99}\]",
    "weights": r'null|".{1,4096}"',
    "image_size": r"[1-9]\d{0,3}|\[[1-9]\d{0,3}, [1-9]\d{0,3}\]",
    "neighborhood": r"null|\d{1,2}",
    "coreset_ratio": REAL,
    "projection": r"null|\d{1,5}",
    "n_neighbors": r"\d{1,5}",
    "search": WORD + r'|\{("\w{1,20}": (null|\d{1,5}|"\w{1,20}")(, )?){1,9}\}',
    "sigma": r"\d{1,3}(\.\d{1,30})?",
    "batch_size": r"[1-9]\d{0,2}",
    "random_state": r"\d{1,10}",
}
ABOUT = {
    "parameters": r"\{.*\}",
    "weights_hash": '"(random|[0-9a-f]{64})"',
    "precision": '"(float32|bfloat16)"',
    "n_patches": r"\d{1,15}",
    "digest": '"[0-9a-f]{64}"',
    "threshold": "null|" + REAL,
    "made_with": r'\{("[\w-]{1,30}": "[\w.+!-]{1,60}"(, )?){0,9}\}',
}
FAULTS = OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError
AXES = {"memory_bank": 2, "mean": 1, "centroids": 2, "codebooks": 3, "codes": 2}
ENTRY = r'\{{"data_offsets": \[\d+, \d+\], "dtype": "{}", "shape": \[{}\]\}}'


def digest_of(tensors):
    """SHA-256 over all tensors, in the order of their names."""
    return sha256(*(tensors[name].tobytes() for name in sorted(tensors)))


def _check(values, patterns, needed):
    """Every name known, every needed one there, every value as its pattern says."""
    if odd := (values.keys() - patterns.keys()) | (needed - values.keys()):
        raise ValueError(f"{min(odd)[:40]!r} is missing, or does not belong there")
    for name, value in values.items():
        if not re.fullmatch(patterns[name], text := json.dumps(value, sort_keys=True)):
            raise ValueError(f"{name}: {text[:60]} is not allowed in a file")


def read_bank(path):
    """Read a memory bank as `PatchCore.save` writes it.

    The length of the header is checked before it is read, names, types, shapes and offsets of the
    tensors before they are, and every setting has bounds. The file can name no path.

    Parameters
    ----------
    path : path

    Returns
    -------
    about : dict
        With the keys of `ABOUT`; layers and image_size are tuples where they are lists in the file.
    tensors : dict of str to array

    Raises
    ------
    FAULTS
        What is wrong with the file.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(LARGEST_HEADER, size - 8) or size > LARGEST_FILE:
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = json.loads(file.read(length).decode())
        about = json.loads(header.pop("__metadata__")["patchcore"])
        _check(about, ABOUT, ABOUT.keys())
        parameters = about["parameters"]
        _check(parameters, PARAMETERS, PARAMETERS.keys())
        for name in ("layers", "image_size"):
            if type(parameters[name]) is list:
                parameters[name] = tuple(parameters[name])
        kind = parameters["search"]
        kind = kind if type(kind) is str else kind["kind"]
        codes = AXES.keys() - {"memory_bank"} if "_pq" in kind else set()
        rows = not codes or kind == "ivf_pq_refined" or parameters["image_score"] == "reweighted"
        patterns = {}
        for name in codes | ({"memory_bank"} if rows else set()):
            shape = ", ".join([r"[1-9]\d{0,12}"] * AXES[name])
            patterns[name] = ENTRY.format("U8" if name == "codes" else "F32", shape)
        _check(header, patterns, codes or patterns.keys())
        places, tensors, start = {}, {}, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype = np.dtype("u1" if name == "codes" else "<f4")
            begin, end = entry["data_offsets"]
            if (begin, end) != (start, start + math.prod(entry["shape"]) * dtype.itemsize):
                raise ValueError(f"tensor {name} does not fit the file")
            places[name], start = (entry["shape"], dtype), end
        if 8 + length + start != size:
            raise ValueError(f"{size} bytes, its tensors need {8 + length + start}")
        for name, (shape, dtype) in places.items():
            tensors[name] = np.fromfile(file, dtype, math.prod(shape)).reshape(shape)
            if not np.isfinite(tensors[name]).all():
                raise ValueError(f"{name} holds NaN or infinite values")
    if digest_of(tensors) != about["digest"]:
        raise ValueError("its rows are damaged")
    return about, tensors
