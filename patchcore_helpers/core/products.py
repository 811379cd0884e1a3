"""Several products in one memory bank: each is compared with its own rows alone.

An image whose product is not given is taken for the product that it is most like: each of its
patches votes for the product whose bank has the nearest rows, and the product with most votes is
that of the image. Scores, maps and threshold are then those of this product's own `PatchCore`, as
if there were no other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from patchcore_helpers.core.anomaly_result import AnomalyResult
from patchcore_helpers.core.bank_file import (
    BankFile,
    read_bank_file,
    refusing_damaged,
    write_bank_file,
)
from patchcore_helpers.core.detector import as_image_list
from patchcore_helpers.core.patchcore import PatchCore
from patchcore_helpers.core.product_file import check_alike, join_files, split_file
from patchcore_helpers.errors import InputError


@dataclass(frozen=True)
class ProductResult(AnomalyResult):
    """What a bank of several products finds in a batch of images.

    Attributes
    ----------
    products : tuple of str
        The product that each image was judged as.
    """

    products: tuple[str, ...] = ()

    def select(self, indices: Sequence[int]) -> "ProductResult":
        """The results of these images, in this order."""
        result = super().select(indices)
        products = tuple(self.products[index] for index in indices)
        return ProductResult(result.scores, result.patch_scores, result.frames, products)


class ProductBank:
    """A `PatchCore` for each product; all have the same settings, and so describe patches alike.

    Parameters
    ----------
    models : mapping of str to PatchCore
        Fitted, by the name of the product.

    Attributes
    ----------
    models : dict of str to PatchCore
    image_score : str
        The parameter of this name of all models.

    Raises
    ------
    InputError
        If two names differ only by case, or the models by a setting.

    Examples
    --------
    >>> from patchcore_helpers import load_category
    >>> names = ["elpv/mono", "elpv/poly"]
    >>> settings = {"weights": "random", "image_size": 64}
    >>> images = {name: load_category(name).train[:4] for name in names}
    >>> bank = ProductBank(
    ...     {name: PatchCore("resnet18", **settings).fit(images[name]) for name in names}
    ... )
    >>> (result,) = bank.detect_batches(images["elpv/poly"][:2])
    >>> result.products
    ('elpv/poly', 'elpv/poly')
    """

    def __init__(self, models: Mapping[str, PatchCore]) -> None:
        check_alike({name: model.as_bank_file() for name, model in models.items()})
        self.models = dict(models)
        self.image_score = self._any.image_score

    @property
    def products(self) -> list[str]:
        """The names of the products."""
        return list(self.models)

    def only(self, product: str) -> "ProductBank":
        """This product alone, so that every image is judged as it.

        Raises
        ------
        InputError
            If there is no such product.
        """
        return ProductBank({product: self.of(product)})

    def of(self, product: str) -> PatchCore:
        """The model of a product.

        Raises
        ------
        InputError
            If there is no such product.
        """
        if product not in self.models:
            raise InputError(
                f"product {product!r}: not in the memory bank; its products are "
                f"{', '.join(self.models)}"
            )
        return self.models[product]

    def detect_batches(self, images: Sequence[Any]) -> Iterator[ProductResult]:
        """Recognize the product of each image, and score it; batch by batch.

        Parameters
        ----------
        images : sequence of samples, paths, PIL images or uint8 arrays

        Yields
        ------
        ProductResult
        """
        yield from self._any.extractor_.patches(as_image_list(images), None, self._judge)

    def _judge(self, patches: torch.Tensor) -> ProductResult:
        """The results of the products that patch vectors are recognized as."""
        results = [model.score_patches(patches) for model in self.models.values()]
        patch_scores = np.stack([np.asarray(result.patch_scores) for result in results])
        scores = np.stack([result.scores for result in results])
        recognized = most_like(patch_scores[:, :, self._any.inspected_patches()])
        images = np.arange(len(patches))
        return ProductResult(
            scores=scores[recognized, images],
            patch_scores=patch_scores[recognized, images],
            products=tuple(self.products[number] for number in recognized),
        )

    def to_maps(self, result: AnomalyResult) -> np.ndarray:
        """Anomaly maps at image size; see `PatchCore.to_maps`."""
        return self._any.to_maps(result)

    def threshold_of(self, product: str) -> float | None:
        """The threshold of a product; None if it has none."""
        return getattr(self.of(product), "threshold_", None)

    @property
    def required_size(self) -> tuple[int, int] | None:
        """See `PatchCore.required_size`."""
        return self._any.required_size

    @property
    def _any(self) -> PatchCore:
        """One of the models, for what they have in common."""
        return next(iter(self.models.values()))

    def save(self, path: str | Path) -> None:
        """Write one file of all products, complete or not at all; see `PatchCore.save`."""
        files = {name: model.as_bank_file() for name, model in self.models.items()}
        write_bank_file(path, join_files(files))

    @classmethod
    def load(
        cls,
        path: str | Path,
        weights: str | Path | None = None,
        *,
        engine: str = "auto",
        device: str = "auto",
    ) -> Self:
        """Read a file that `save` wrote; everything in it is checked, as by `PatchCore.load`."""
        file = read_bank_file(path)
        if not file.products:
            raise InputError(f"{path}: holds one product; read it with PatchCore.load")
        return cls.of_file(path, file, weights, engine=engine, device=device)

    @classmethod
    def of_file(
        cls, path: str | Path, file: BankFile, weights: str | Path | None = None, **options: str
    ) -> Self:
        """From what `read_bank_file` has read; else as `load`. `path` is for messages."""
        with refusing_damaged(path):
            parts = split_file(file)
        models: dict[str, PatchCore] = {}
        for product, part in parts.items():
            if models:  # the network is loaded once
                models[product] = next(iter(models.values())).with_bank_of(path, part)
            else:
                models[product] = PatchCore.of_file(path, part, weights, **options)
        return cls(models)


def most_like(patch_scores: np.ndarray) -> np.ndarray:
    """The product that wins most patches of each image.

    Parameters
    ----------
    patch_scores : float array of shape (products, images, patches)
        By the bank of each product.

    Returns
    -------
    int array of shape (images,)
        The number of the product; of several with as many patches, the first.

    Examples
    --------
    >>> most_like(np.array([[[1.0, 5.0, 5.0]], [[9.0, 4.0, 4.0]]]))
    array([1])
    """
    winners = patch_scores.argmin(axis=0)
    numbers = range(len(patch_scores))
    votes = np.stack([(winners == number).sum(axis=1) for number in numbers])
    return votes.argmax(axis=0)


def load_model(
    path: str | Path,
    weights: str | Path | None = None,
    *,
    engine: str = "auto",
    device: str = "auto",
) -> PatchCore | ProductBank:
    """The model in a bank file, of one product or of several; see `PatchCore.load`."""
    file = read_bank_file(path)
    if file.products:
        return ProductBank.of_file(path, file, weights, engine=engine, device=device)
    return PatchCore.of_file(path, file, weights, engine=engine, device=device)
