"""Memory banks on disk: a safetensors file, validated before any of it is used.

The file holds arrays and five texts: the format, the bank's settings, the settings of the detector
that saved it (if one did), what that detector remembers of its images, and a SHA-256 over the
arrays and the other texts but the format, which finds damage (a forger would compute it again). A
bank of several products has a sixth text, see `patchcore_helpers.core.product_file`.
Nothing in a file can name a path to open or code to run; every setting has a type and bounds. Names
of images are there to be shown.

Format 3 added the images: their names, the origin of each row and the scores behind the threshold.
Files of format 2 are still read; they do not know these. Format 4 is format 3 with several
products: code that knows of one product only refuses it.

A file is read in this order, and refused in one line at the first step that fails: the sizes of its
header and of itself; safetensors' own check of the header, and that the arrays fill the file
exactly; the format; names, types and axes of the arrays; their contents, which must be finite; the
SHA-256; types and bounds of all settings. A detector then compares the hash of its weights, and
only then is an index built from the arrays. What passes all checks is believed: a forger can still
make it judge wrongly, so take bank files only from people you trust.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from patchcore_helpers.errors import InputError, error_line, translate_os_errors
from patchcore_helpers.files import atomic_write, sha256

FORMAT = "patchcore-helpers memory bank 3"  # a layout that older code could misread gets a new one
FORMAT_OF_PRODUCTS = "patchcore-helpers memory bank 4"  # for banks of several products
FORMAT_WITHOUT_IMAGES = "patchcore-helpers memory bank 2"  # still read
# The texts in a file of each format that its SHA-256 covers, in their order.
TEXTS = {
    FORMAT_WITHOUT_IMAGES: ("bank", "detector"),
    FORMAT: ("bank", "detector", "images"),
    FORMAT_OF_PRODUCTS: ("bank", "detector", "images", "products"),
}
LARGEST_HEADER = 10**6  # bytes
LARGEST_FILE = 2**33  # bytes
# The arrays that a file may hold: their type in safetensors' words, and their number of axes.
ARRAYS = {
    "vectors": ("F32", 2),
    "mean": ("F32", 1),
    "centroids": ("F32", 2),
    "codebooks": ("F32", 3),
    "codes": ("U8", 2),
    "origins": ("I64", 1),
}
# Those that belong to a detector, not to the bank itself; see `ImageMemory`.
IMAGE_ARRAYS = {
    "image_names": ("U8", 1),
    "image_digests": ("U64", 1),
    "calibration_names": ("U8", 1),
    "calibration_digests": ("U64", 1),
    "calibration_scores": ("F32", 1),
    "roi": ("U8", 2),
}

Word = Annotated[str, Field(pattern=r"^\w{1,20}$")]
Count = Annotated[int, Field(ge=0, le=99_999)]


class Settings(BaseModel):
    """Settings in a file: nothing unknown, nothing missing, each with a type and bounds."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Self:
        """From parameters in memory, where NumPy numbers count as numbers."""
        try:
            return cls.model_validate_json(json.dumps(parameters, default=_as_json))
        except ValidationError as error:
            raise InputError(f"{first_problem(error)}; such a setting cannot be saved") from None

    def parameters(self) -> dict[str, Any]:
        """As keyword arguments."""
        return dict(self)


class BankSettings(Settings):
    """The parameters of a `MemoryBank`."""

    coreset_ratio: Annotated[float, Field(gt=0, le=1)]
    sampler: Word
    projection: Count | None
    metric: Word
    index: Word | dict[Word, Word | Count | None]
    n_neighbors: Count
    random_state: Annotated[int, Field(ge=0, lt=2**32)]


class BankVersionWarning(UserWarning):
    """A memory bank was saved with other versions of the libraries that shape its scores."""


@dataclass(frozen=True)
class BankFile:
    """What a file holds, checked.

    Attributes
    ----------
    settings : BankSettings
    tensors : dict of str to array
    n_vectors : int
        How many vectors the bank was fitted on.
    detector : str
        JSON of the detector's settings, for the detector to check; empty if a bank alone was saved.
    images : str
        JSON of what the detector remembers of its images; empty if it remembers nothing.
    products : str
        JSON of what belongs to which product; empty if all belongs to one.
    """

    settings: BankSettings
    tensors: dict[str, np.ndarray]
    n_vectors: int
    detector: str = ""
    images: str = ""
    products: str = ""


class _Record(BaseModel):
    """The text about the bank."""

    model_config = ConfigDict(strict=True, extra="forbid")

    settings: BankSettings
    n_vectors: Annotated[int, Field(ge=1, lt=10**15)]


def write_bank_file(path: str | Path, file: BankFile) -> None:
    """Write a bank file; it is complete or not there at all.

    Parameters
    ----------
    path : path
    file : BankFile
        With arrays whose names are in `ARRAYS` and `IMAGE_ARRAYS`.
    """
    unknown = set(file.tensors) - set(ARRAYS) - set(IMAGE_ARRAYS)
    if unknown:
        raise InputError(f"array {min(unknown)!r}: add it to ARRAYS, or it could not be read again")
    arrays = {name: np.ascontiguousarray(array) for name, array in file.tensors.items()}
    record = _Record(settings=file.settings, n_vectors=file.n_vectors)
    texts = {"bank": record.model_dump_json(), "detector": file.detector, "images": file.images}
    if file.products:
        texts["products"] = file.products
    metadata = {
        "format": FORMAT_OF_PRODUCTS if file.products else FORMAT,
        **texts,
        "digest": digest_of(arrays, *texts.values()),
    }
    with translate_os_errors(path, "choose another path"):
        atomic_write(path, save(arrays, metadata))


def read_bank_file(path: str | Path) -> BankFile:
    """Read a file that `write_bank_file` wrote.

    Parameters
    ----------
    path : path

    Raises
    ------
    InputError
        If the file is missing, damaged, from another version of this package or no bank at all.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such memory bank file")
    with refusing_damaged(path):
        _check_sizes(path)
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            _check_format(metadata)
            tensors = _read_tensors(file)
        texts = {name: metadata[name] for name in TEXTS[metadata["format"]]}
        if digest_of(tensors, *texts.values()) != metadata["digest"]:
            raise ValueError("it is damaged: its contents do not match their checksum")
        record = _Record.model_validate_json(texts.pop("bank"))
    return BankFile(record.settings, tensors, record.n_vectors, **texts)


@contextmanager
def refusing_damaged(path: str | Path) -> Iterator[None]:
    """Turn whatever a damaged or hostile file causes in this block into one `InputError`."""
    try:
        yield
    except ValidationError as error:
        reason = first_problem(error)
    except (OSError, LookupError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        reason = error_line(error)
    else:
        return
    raise InputError(
        f"{path}: not a memory bank of this package ({reason}); fit it and save it again"
    ) from None


def first_problem(error: ValidationError) -> str:
    """The first setting that is wrong, and why."""
    problem = error.errors()[0]
    setting = ".".join(str(part) for part in problem["loc"])
    return f"{setting}: {problem['msg']}"


def digest_of(tensors: dict[str, np.ndarray], *texts: str) -> str:
    """SHA-256 over all arrays, in the order of their names, and texts."""
    return sha256(*(tensors[name].tobytes() for name in sorted(tensors)), *texts)


def _check_sizes(path: str | Path) -> None:
    """Refuse a header or a file that is larger than any bank, before either is read."""
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    file_bytes = Path(path).stat().st_size
    if header_bytes > LARGEST_HEADER or file_bytes > LARGEST_FILE:
        raise ValueError(f"a header of {header_bytes} bytes in a file of {file_bytes}")


def _check_format(metadata: dict[str, str]) -> None:
    if "patchcore" in metadata:  # the layout before format 2
        raise ValueError("it was saved before format 2, and is no longer read")
    if metadata.get("format") not in TEXTS:
        raise ValueError("its metadata do not say that it is one")


def _read_tensors(file: Any) -> dict[str, np.ndarray]:
    """The arrays of a file, whose names, types and axes are checked before their contents."""
    names = file.keys()
    for name in names:
        entry = file.get_slice(name)
        expected = (ARRAYS | IMAGE_ARRAYS).get(name)
        if (entry.get_dtype(), len(entry.get_shape())) != expected or 0 in entry.get_shape():
            raise ValueError(
                f"array {name[:40]!r} of type {entry.get_dtype()} does not belong in it"
            )
    tensors = {name: file.get_tensor(name) for name in names}
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinite values")
    return tensors


def _as_json(value: Any) -> Any:
    """NumPy numbers and arrays as JSON knows them; a path as its text."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)
