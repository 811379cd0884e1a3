"""A bank file of several products: the files of each, one after the other, and what is whose.

The products share the network and all settings. Every array holds the part of the first product,
then that of the second, and so on; the text `products` says how long the parts are, and holds each
product's threshold. So every row, and every name of an image, belongs to one product.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from patchcore_helpers.core.bank_file import BankFile, Settings
from patchcore_helpers.core.image_memory import MemorySettings, as_lines, names_of
from patchcore_helpers.core.patchcore import PatchCoreSettings
from patchcore_helpers.errors import InputError

LONGEST_PRODUCT = 100  # characters of a product's name
MOST_PRODUCTS = 999
# What the length of an array is counted in: a field of `ProductRecord`.
COUNTED_IN = {
    "vectors": "rows",
    "origins": "rows",
    "image_names": "images",
    "image_digests": "images",
    "calibration_names": "calibration_images",
    "calibration_digests": "calibration_images",
    "calibration_scores": "calibration_images",
}
NEEDED = {"vectors", "origins", "image_names", "image_digests"}
NAMES = {"image_names", "calibration_names"}  # lines of text: see `as_lines`
SHARED = {"roi"}  # arrays that belong to all products


class ProductRecord(Settings):
    """What belongs to a product."""

    name: str
    rows: Annotated[int, Field(ge=1, lt=10**9)]
    images: Annotated[int, Field(ge=1, lt=10**9)]
    calibration_images: Annotated[int, Field(ge=0, lt=10**9)]
    false_alarm_rate: Annotated[float, Field(gt=0, lt=1)] | None
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None


class ProductRecords(Settings):
    """The text `products` of a file."""

    products: Annotated[tuple[ProductRecord, ...], Field(min_length=1, max_length=MOST_PRODUCTS)]


def check_product_names(names: Sequence[str]) -> None:
    """Refuse names that are empty, long or not printable, and two that differ only by case.

    Raises
    ------
    InputError
        Also for no name at all, or more than `MOST_PRODUCTS`.
    """
    if not 1 <= len(names) <= MOST_PRODUCTS:
        raise InputError(f"{len(names)} products: give 1 to {MOST_PRODUCTS}")
    seen: dict[str, str] = {}
    for name in names:
        if not (name.isprintable() and 1 <= len(name) <= LONGEST_PRODUCT):
            raise InputError(
                f"product {name[:LONGEST_PRODUCT]!r}: rename it to 1 to {LONGEST_PRODUCT} "
                "printable characters"
            )
        same = seen.setdefault(name.casefold(), name)
        if same != name:
            raise InputError(f"products {same!r} and {name!r} differ only by case; rename one")


def check_alike(files: Mapping[str, BankFile]) -> None:
    """Refuse files of products, by name, that cannot be one file.

    Raises
    ------
    InputError
        If their names or settings do not go together, or a file has no vectors or does not
        remember its images.
    """
    check_product_names(list(files))
    for name, file in files.items():
        _refuse_incomplete(name, file)
    first_name, first = next(iter(files.items()))
    shared = _shared(first)
    for name, file in files.items():
        if _shared(file) != shared:
            raise InputError(
                f"product {name!r}: has other settings than {first_name!r}; fit it with the same"
            )


def join_files(files: Mapping[str, BankFile]) -> BankFile:
    """One file of the files of several products, by name.

    Raises
    ------
    InputError
        See `check_alike`.
    """
    check_alike(files)
    settings, detector, images, _ = _shared(next(iter(files.values())))
    records = tuple(_record(name, file) for name, file in files.items())
    return BankFile(
        settings=settings,
        tensors=_joined_arrays(list(files.values())),
        n_vectors=sum(file.n_vectors for file in files.values()),
        detector=detector.model_dump_json(),
        images=images.model_dump_json(),
        products=ProductRecords(products=records).model_dump_json(),
    )


def _refuse_incomplete(name: str, file: BankFile) -> None:
    others = set(file.tensors) - set(COUNTED_IN) - SHARED
    if others:
        raise InputError(
            f"product {name!r}: an approximate index has {min(others)!r}, which cannot be joined; "
            "fit it with index='exact'"
        )
    if not file.images or not set(file.tensors) >= NEEDED:
        raise InputError(
            f"product {name!r}: its memory bank does not know its images; fit it again"
        )


def _shared(file: BankFile) -> tuple:
    """What all products have in common, to be compared: settings, and the region of interest."""
    detector = PatchCoreSettings.model_validate_json(file.detector)
    images = MemorySettings.model_validate_json(file.images)
    roi = file.tensors.get("roi")
    return (
        file.settings,
        detector.model_copy(update={"threshold": None}),
        images.model_copy(update={"false_alarm_rate": None}),
        None if roi is None else roi.tobytes(),
    )


def _record(name: str, file: BankFile) -> ProductRecord:
    threshold = PatchCoreSettings.model_validate_json(file.detector).threshold
    rate = MemorySettings.model_validate_json(file.images).false_alarm_rate
    return ProductRecord(
        name=name,
        rows=len(file.tensors["vectors"]),
        images=len(file.tensors["image_digests"]),
        calibration_images=len(file.tensors.get("calibration_digests", ())),
        false_alarm_rate=rate,
        threshold=threshold,
    )


def _joined_arrays(files: list[BankFile]) -> dict[str, np.ndarray]:
    arrays = {name: files[0].tensors[name] for name in SHARED & set(files[0].tensors)}
    for name in COUNTED_IN:
        parts = [file.tensors[name] for file in files if name in file.tensors]
        if parts:
            arrays[name] = np.concatenate(parts)
    # Vectors are counted through all products, so that the file is also one large bank.
    starts = np.cumsum([0] + [file.n_vectors for file in files[:-1]])
    origins = [file.tensors["origins"] + start for file, start in zip(files, starts, strict=True)]
    arrays["origins"] = np.concatenate(origins)
    return arrays


def split_file(file: BankFile) -> dict[str, BankFile]:
    """The files of the products, by name, from one that `read_bank_file` has read.

    Raises
    ------
    ValueError
        If its parts do not belong together.
    """
    records = ProductRecords.model_validate_json(file.products).products
    check_product_names([record.name for record in records])
    if len({record.name for record in records}) < len(records):
        raise ValueError("two products have the same name")
    patches, rest = divmod(file.n_vectors, sum(record.images for record in records))
    if rest:
        raise ValueError(f"{file.n_vectors} vectors are not of whole images")
    detector = PatchCoreSettings.model_validate_json(file.detector)
    images = MemorySettings.model_validate_json(file.images)
    parts = {}
    start = 0  # of the product's vectors
    for record, arrays in zip(records, _cut_arrays(file.tensors, records), strict=True):
        arrays["origins"] = arrays["origins"] - start
        changed = {"false_alarm_rate": record.false_alarm_rate}
        parts[record.name] = replace(
            file,
            tensors=arrays,
            n_vectors=patches * record.images,
            detector=detector.model_copy(update={"threshold": record.threshold}).model_dump_json(),
            images=images.model_copy(update=changed).model_dump_json(),
            products="",
        )
        start += patches * record.images
    return parts


def _cut_arrays(
    tensors: dict[str, np.ndarray], records: Sequence[ProductRecord]
) -> list[dict[str, np.ndarray]]:
    """The arrays of each product."""
    others = set(tensors) - set(COUNTED_IN) - SHARED
    if others or not set(tensors) >= NEEDED:
        raise ValueError("its arrays are not those of several products")
    for record in records:
        if (record.calibration_images == 0) != (record.false_alarm_rate is None):
            raise ValueError(f"product {record.name!r}: calibration images and no rate, or a rate")
    shared = {name: tensors[name] for name in SHARED & set(tensors)}
    parts = [dict(shared) for _ in records]
    for name, unit in COUNTED_IN.items():
        counts = [getattr(record, unit) for record in records]
        for part, piece in zip(parts, _pieces(name, tensors.get(name), counts), strict=True):
            if len(piece):
                part[name] = piece
    return parts


def _pieces(name: str, array: np.ndarray | None, counts: list[int]) -> list[np.ndarray]:
    """An array cut into parts of these lengths; of names, each is as long as it has lines."""
    whole = () if array is None else names_of(array) if name in NAMES else array
    if len(whole) != sum(counts):
        raise ValueError(f"{name} has a length of {len(whole)}, and products of {sum(counts)}")
    ends = np.cumsum(counts)
    pieces = [whole[end - count : end] for end, count in zip(ends, counts, strict=True)]
    if name in NAMES:
        return [as_lines(tuple(piece)) for piece in pieces]
    return [np.asarray(piece) for piece in pieces]
