"""A category: one product, its normal training images and its labeled test images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from patchcore_helpers.data.images import Readable, read_image, read_mask
from patchcore_helpers.errors import InputError
from patchcore_helpers.validation import check_seed

Item = TypeVar("Item")


class LabeledImage(Readable, Protocol):
    """What a `Category` holds: an image of which it is known whether it is defective.

    `Sample` is one in a file, `patchcore_helpers.data.synthetic.DrawnSample` one that is drawn when
    it is read.
    """

    @property
    def source(self) -> str:
        """Where the image comes from: its file, or the path that names a drawn image."""

    @property
    def label(self) -> int:
        """0 normal, 1 defective."""

    @property
    def kind(self) -> str:
        """ "good" or the name of the defect."""

    @property
    def name(self) -> str:
        """Kind and file name, such as "scratch/000.png"."""

    @property
    def has_mask(self) -> bool:
        """Whether the defective pixels are known; those of a normal image are: there are none."""

    def mask(self) -> NDArray[np.bool_] | None:
        """The defective pixels, bool (height, width); None if they are not known."""


@dataclass(frozen=True)
class Sample:
    """One labeled image in a file.

    Attributes
    ----------
    image : Path
        The image file; `read` reads it.
    label : int
        0 normal, 1 defective.
    kind : str
        "good" or the name of the defect.
    mask_path : Path or None
        The mask of a defective image, if there is one.
    """

    image: Path
    label: int = 0
    kind: str = "good"
    mask_path: Path | None = None

    @property
    def source(self) -> str:
        """The path of the image file."""
        return str(self.image)

    @property
    def name(self) -> str:
        """Kind and file name, such as "scratch/000.png"."""
        return f"{self.kind}/{self.image.name}"

    @property
    def has_mask(self) -> bool:
        """Whether the defective pixels are known; those of a normal image are: there are none."""
        return self.label == 0 or self.mask_path is not None

    def read(self) -> Image.Image:
        """The image as upright RGB."""
        return read_image(self.image)

    def mask(self) -> NDArray[np.bool_] | None:
        """The defective pixels, bool (height, width); None if they are not known."""
        if not self.has_mask:
            return None
        width, height = self.read().size
        if self.label == 0:
            return np.zeros((height, width), bool)
        return self._read_mask((width, height))

    def _read_mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The mask of a defective image that has one; `size` is (width, height)."""
        assert self.mask_path is not None
        return read_mask(self.mask_path, size)


def split(items: Sequence[Item], *sizes: int, seed: int, in_order: bool = True) -> list[list[Item]]:
    """Split items into parts by a seeded shuffle.

    Parameters
    ----------
    items : sequence
    *sizes : int
        Items in each part but the last, which takes what is left.
    seed : int, from 0
        Seed of the shuffle.
    in_order : bool
        Whether the items of a part are in the order that they have in `items`, not in the order of
        the shuffle.

    Returns
    -------
    list of lists
        One more than there are `sizes`.

    Examples
    --------
    >>> split("abcdef", 1, 2, seed=0)
    [['d'], ['c', 'f'], ['a', 'b', 'e']]
    """
    check_seed(seed, "seed")
    order = np.random.default_rng(seed).permutation(len(items))
    parts = np.split(order, np.cumsum(sizes))
    return [[items[i] for i in (sorted(part) if in_order else part)] for part in parts]


@dataclass(frozen=True)
class Category:
    """The images of one product.

    Attributes
    ----------
    name : str
    train : list of LabeledImage
        Normal images only.
    test : list of LabeledImage
    calibration : list of LabeledImage
        Normal images in neither of the two, for a threshold; may be empty.
    left_out : dict of str to int
        How many images were left out, by reason.
    license : str
        License and source of the images, as they must be credited.
    """

    name: str
    train: list[LabeledImage]
    test: list[LabeledImage]
    calibration: list[LabeledImage] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    license: str = "see the owner of the images"

    @property
    def labels(self) -> NDArray[np.int_]:
        """Labels of the test images, int array of shape (n_test,)."""
        return np.array([sample.label for sample in self.test], dtype=int)

    @property
    def groups(self) -> NDArray[np.int_] | None:
        """Groups of the test images, such as the module that each is a part of.

        Returns
        -------
        int array of shape (n_test,), or None
            None unless every test image has a ``group``, as those of ELPV do.
        """
        groups = [getattr(sample, "group", None) for sample in self.test]
        if not groups or None in groups:
            return None
        return np.array(groups, dtype=int)

    def limit(self, train: int = 0, test: int = 0, seed: int = 0) -> "Category":
        """A smaller category for a quick run: a seeded choice of its images.

        Parameters
        ----------
        train : int
            Training images to keep; 0 keeps all.
        test : int
            Test images to keep of each class, normal and defective, and calibration images to keep;
            0 keeps all.
        seed : int, from 0
            Seed of the choice.

        Returns
        -------
        Category
        """

        def choose(samples: list[LabeledImage], count: int) -> list[LabeledImage]:
            return split(samples, count, seed=seed)[0] if count else samples

        normal = [sample for sample in self.test if sample.label == 0]
        defective = [sample for sample in self.test if sample.label == 1]
        return replace(
            self,
            train=choose(self.train, train),
            test=choose(normal, test) + choose(defective, test),
            calibration=choose(self.calibration, test),
        )

    def with_calibration(self, share: float = 0.2, seed: int = 0) -> "Category":
        """The same category with calibration images.

        If there are none yet, a seeded choice of training images is held out for calibration.

        Parameters
        ----------
        share : float
            Share of the training images to hold out; at least one is.
        seed : int, from 0
            Seed of the choice.

        Returns
        -------
        Category

        Raises
        ------
        InputError
            If no training image would be left.
        """
        if self.calibration:
            return self
        count = max(1, round(share * len(self.train)))
        if count >= len(self.train):
            raise InputError(
                f"{self.name}: {len(self.train)} training images are too few to hold some out"
            )
        calibration, train = split(self.train, count, seed=seed)
        return replace(self, train=train, calibration=calibration)

    def counts(self) -> pd.DataFrame:
        """Count the images: a table with the columns role, kind and images."""
        rows = [("train", "good", len(self.train))]
        test_kinds = Counter(sample.kind for sample in self.test)
        for kind, count in sorted(test_kinds.items()):
            rows.append(("test", kind, count))
        if self.calibration:
            rows.append(("calibration", "good", len(self.calibration)))
        for reason, count in self.left_out.items():
            rows.append(("left out", reason, count))
        return pd.DataFrame(rows, columns=["role", "kind", "images"])
