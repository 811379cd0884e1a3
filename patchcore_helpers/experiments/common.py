"""What the experiments share: settings, tasks, and the patch vectors that they start from."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from patchcore_helpers.core.backbones import find_spec, hub_file, load_backbone
from patchcore_helpers.core.engines import ENGINES, device_beside
from patchcore_helpers.core.extractor import Extractor
from patchcore_helpers.core.feature_cache import FeatureCache
from patchcore_helpers.data.catalog import load_category
from patchcore_helpers.data.category import Category
from patchcore_helpers.data.elpv import SPLITS
from patchcore_helpers.errors import InputError
from patchcore_helpers.experiments.grid import Skipped, Task
from patchcore_helpers.validation import check_choice


@dataclass(frozen=True)
class ImageSettings:
    """Which images every task of an experiment takes, and how they reach the network.

    Parameters
    ----------
    data_dir : str
        The folder that holds mvtec_ad/, visa/ and other data sets.
    image_size : int
        Pixels per side that the network sees.
    max_train, max_test : int
        Training images per category, test images per class and category; 0 for all.
    use_cache : bool
        Keep feature maps on disk, so that tasks on the same images share them.
    engine : "auto", "openvino" or "torch"
        What runs the network.
    device : "auto", "cpu", "cuda" or "mps"
        Where torch runs the network; in experiment 1 it also chooses the coresets and searches
        there. Experiments 2 and 3 compare methods on the processor.
    split : "stretch" or "random"
        How the cells of ELPV are split: "stretch" keeps whole stretches of files for the test, see
        `patchcore_helpers.data.elpv`. Other categories have a split of their own.
    """

    data_dir: str = "data"
    image_size: int = 224
    max_train: int = 0
    max_test: int = 0
    use_cache: bool = True
    engine: str = "auto"
    device: str = "auto"
    split: str = "stretch"

    def __post_init__(self) -> None:
        check_choice(self.engine, "engine", ENGINES)
        check_choice(self.split, "split", SPLITS)
        device_beside(self.engine, self.device)  # refuses a device that is not here

    @classmethod
    def of(cls, settings: Self | Mapping[str, Any]) -> Self:
        """Settings as they are, or rebuilt from the dict that a task of a grid holds."""
        return cls(**settings) if isinstance(settings, Mapping) else settings


def make_tasks(settings: ImageSettings, **entries: Sequence) -> list[Task]:
    """One task for every combination of values; all values are plain, so that JSON can hold them.

    Parameters
    ----------
    settings : ImageSettings
        What is the same for all tasks.
    **entries : sequence
        The values that each entry of a task takes; the last one varies fastest.

    Examples
    --------
    >>> tasks = make_tasks(ImageSettings(), category=["elpv/mono", "elpv/poly"], seed=[0, 1])
    >>> [(task["category"], task["seed"]) for task in tasks]
    [('elpv/mono', 0), ('elpv/mono', 1), ('elpv/poly', 0), ('elpv/poly', 1)]
    >>> ImageSettings.of(tasks[0]["settings"]) == ImageSettings()
    True
    """
    return [
        {**dict(zip(entries, values, strict=True)), "settings": asdict(settings)}
        for values in itertools.product(*entries.values())
    ]


def require_weights(backbone: str) -> None:
    """Skip a task whose weights are not on this machine; nothing is downloaded in a grid.

    Raises
    ------
    Skipped
        If the weights have to be fetched first.
    InputError
        If there is no such backbone.
    """
    spec = find_spec(backbone)
    if spec.package:
        return
    try:
        hub_file(backbone, spec, download=False)
    except InputError:
        raise Skipped(
            f"the weights are not here; run: patchcore-course fetch-weights {backbone}"
        ) from None


def load_images(settings: ImageSettings, category: str) -> Category:
    """The images of a category that these settings ask for."""
    images = load_category(category, data_dir=settings.data_dir, split=settings.split)
    return images.limit(settings.max_train, settings.max_test)


@dataclass(frozen=True)
class Patches:
    """The images of a category, and their patch vectors.

    Attributes
    ----------
    images : Category
    train, test : float32 arrays of shape (images, rows, columns, channels)
    """

    images: Category
    train: np.ndarray
    test: np.ndarray


def load_patches(settings: ImageSettings, backbone: str, category: str) -> Patches:
    """Send the images of a category through a backbone.

    With `use_cache`, the network sees them once: later calls, of this process or of others, read
    the feature maps from disk.
    """
    extractor = make_extractor(settings, backbone)
    return extract_patches(extractor, load_images(settings, category))


def make_extractor(settings: ImageSettings, backbone: str) -> Extractor:
    """What sends images through a backbone as these settings say."""
    require_weights(backbone)
    return Extractor(
        load_backbone(backbone),
        settings.image_size,
        cache=FeatureCache.of(settings.use_cache or None),
        engine=settings.engine,
        device=settings.device,
    )


def extract_patches(extractor: Extractor, images: Category) -> Patches:
    """Send images that are loaded through a backbone; see `load_patches`."""
    return Patches(images, extractor.extract(images.train), extractor.extract(images.test))


def flatten(patches: np.ndarray) -> np.ndarray:
    """Patch vectors one below the other: shape (n, channels) from (..., channels)."""
    return patches.reshape(-1, patches.shape[-1])
