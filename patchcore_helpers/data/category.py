"""Categories: one product, its normal training images, its labeled test images."""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from patchcore_helpers.data.images import read_image, read_mask
from patchcore_helpers.errors import InputError


@dataclass(frozen=True)
class Sample:
    """One labeled image.

    Attributes
    ----------
    image : Path
        The image file; read it with `read()`.
    label : int
        0 normal, 1 defective.
    kind : str
        "good" or the name of the defect.
    mask_path : Path or None
        The mask of a defective image, where there is one.
    """

    image: Path
    label: int = 0
    kind: str = "good"
    mask_path: Path | None = None

    @property
    def name(self):
        return f"{self.kind}/{self.image.name}"

    @property
    def has_mask(self):
        """Whether the true defect pixels are known; a normal image has none, which is known."""
        return self.label == 0 or self.mask_path is not None

    def read(self):
        """The image as upright RGB (PIL)."""
        return read_image(self.image)

    def mask(self):
        """The true defect pixels, bool (height, width); none if normal, None if unknown."""
        width, height = self.read().size
        if self.label == 0:
            return np.zeros((height, width), bool)
        return None if self.mask_path is None else read_mask(self.mask_path, (width, height))


@dataclass(frozen=True)
class Category:
    """The images of one product.

    Attributes
    ----------
    name : str
    train : list of Sample
        Normal images only.
    test : list of Sample
    calibration : list of Sample
        Normal images in neither of the two, for a threshold; may be empty.
    left_out : dict of str to int
        How many images were kept out, by reason.
    license : str
        License and source of the images, as they must be credited.
    """

    name: str
    train: list
    test: list
    calibration: list = field(default_factory=list)
    left_out: dict = field(default_factory=dict)
    license: str = "see the owner of the images"

    @property
    def labels(self):
        """Labels of the test images, int array of shape (n_test,)."""
        return np.array([sample.label for sample in self.test], dtype=int)

    def limit(self, train=0, test=0, seed=0):
        """A smaller category for a quick run: a seeded choice of images, 0 meaning all.

        Parameters
        ----------
        train : int
            Training images kept.
        test : int
            Test images kept of each class, normal and defective, and calibration images kept.
        """

        def some(samples, count):
            chosen = np.random.default_rng(seed).permutation(len(samples))[: count or None]
            return [samples[i] for i in sorted(chosen)]

        by_class = [[s for s in self.test if s.label == label] for label in (0, 1)]
        test_images = [sample for samples in by_class for sample in some(samples, test)]
        parts = {"train": some(self.train, train), "calibration": some(self.calibration, test)}
        return replace(self, test=test_images, **parts)

    def with_calibration(self, share=0.2, seed=0):
        """Itself, or with a seeded share of the training images held out for calibration."""
        if self.calibration:
            return self
        order = np.random.default_rng(seed).permutation(len(self.train))
        count = max(1, round(share * len(order)))
        if count >= len(order):
            raise InputError(
                f"{self.name}: {len(order)} training images are too few to hold some out"
            )
        parts = sorted(order[count:]), sorted(order[:count])
        train, calibration = ([self.train[i] for i in part] for part in parts)
        return replace(self, train=train, calibration=calibration)

    def counts(self):
        """How many images there are, by role and kind, as a table."""
        tested = sorted(Counter(sample.kind for sample in self.test).items())
        rows = [("train", "good", len(self.train)), *(("test", *pair) for pair in tested)]
        rows += [("calibration", "good", len(self.calibration))] if self.calibration else []
        rows += [("left out", reason, n) for reason, n in self.left_out.items()]
        return pd.DataFrame(rows, columns=["role", "kind", "images"])
