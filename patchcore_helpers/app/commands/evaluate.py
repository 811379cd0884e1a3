"""`patchcore-course evaluate`: fit on a category's normal images, measure on its test images."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from patchcore_helpers.app.model_options import (
    add_model_arguments,
    add_tuning_arguments,
    check_tuning_arguments,
    model_parameters,
    tuned,
)
from patchcore_helpers.errors import InputError

if TYPE_CHECKING:
    from patchcore_helpers.core.detector import Detector
    from patchcore_helpers.data.category import Category


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `patchcore-course evaluate`."""
    add = parser.add_argument
    add("category", metavar="CATEGORY", help="elpv/mono, elpv/poly, or a folder")
    add("--data-dir", default="data", metavar="DIR", help="folder of data sets (data)")
    add("--seed", type=int, default=0, help="seed of the split and of the coreset (0)")
    add(
        "--split",
        choices=["random", "stretch"],
        default="random",
        help="stretch (ELPV only): five folds, each tested on a fifth of the files in their order, "
        "as stretches of files stand in for solar modules; image_auroc is the mean over the folds, "
        "n_test and the seconds are totals (random)",
    )
    add("--good", metavar="NAME", help="sub-folder of a folder's normal images")
    add(
        "--recipe",
        metavar="NAME",
        help="an idea since 2022, or several, such as five_soft_banks; patchcore-course list names "
        "them (PatchCore as published)",
    )
    add("--json", action="store_true", help="print one object on a single line")
    add("--no-cache", action="store_true", help="compute all features again")
    add_model_arguments(parser)
    add_tuning_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, and print the results on standard output."""
    refuse_mixed_options(args)
    if args.split == "stretch":
        return run_by_stretch(args)
    from patchcore_helpers.core.evaluation import defects_outside, evaluate, vanished_regions
    from patchcore_helpers.data.catalog import load_category

    category = load_category(args.category, data_dir=args.data_dir, seed=args.seed, good=args.good)
    parameters = model_parameters(args)

    def make(parameters: dict[str, Any]) -> "Detector":
        return detector_for(category, parameters, cache=not args.no_cache, recipe=args.recipe)

    tuning = tuned(args, category.train, make) if args.tune else None
    detector = make({**parameters, **tuning.parameters} if tuning else parameters)
    results, _ = evaluate(category, detector)
    if args.roi is not None:
        n_outside = defects_outside(category, detector)
        if n_outside:
            print(
                f"{n_outside} defective images have no defect in the region of interest, and count "
                "as defective",
                file=sys.stderr,
            )
    if tuning:
        results |= {"settings": chosen_settings(detector), "tune_seconds": round(tuning.seconds, 3)}
    unmasked = sum(not sample.has_mask for sample in category.test)
    if unmasked and results["pixel_auroc"] is not None:
        print(
            f"{unmasked} defective images have no mask and leave the pixel metrics", file=sys.stderr
        )
    if results["pixel_auroc"] is not None:
        vanished, regions = vanished_regions(category, detector.metric_size)
        if vanished:
            print(
                f"{vanished} of {regions} defective regions vanish where masks are shrunk to the "
                "image size, and leave au_pro",
                file=sys.stderr,
            )
    for reason, count in category.left_out.items():
        print(f"{count} images left out: {reason}", file=sys.stderr)
    print_results(results, as_json=args.json)
    return 0


def refuse_mixed_options(args: argparse.Namespace) -> None:
    """Raise an `InputError` for options of which one would be ignored."""
    if args.tune and args.recipe:
        raise InputError("--tune: cannot be combined with --recipe; leave one of them out")
    if args.tune and args.split != "random":
        raise InputError("--tune: cannot be combined with --split stretch; leave one of them out")
    check_tuning_arguments(args)


def chosen_settings(detector: "Detector") -> dict[str, Any]:
    """The settings that `--tune` chooses among, as they are in a detector."""
    from patchcore_helpers.core.patchcore import PatchCore
    from patchcore_helpers.core.strips import StripPatchCore

    if isinstance(detector, StripPatchCore):
        settings = detector.settings_
        own = {"sigma": settings.sigma}
    else:
        assert isinstance(detector, PatchCore)
        settings = detector
        own = {"image_size": settings.image_size, "image_score": settings.image_score}
    layers = list(detector.extractor_.backbone.layers)
    return {"backbone": settings.backbone, "layers": layers, **own}


def run_by_stretch(args: argparse.Namespace) -> int:
    """Measure on stretches of files that the training images are not from."""
    from patchcore_helpers.core.evaluation import evaluate_folds
    from patchcore_helpers.data.elpv import load_elpv_folds

    folds = load_elpv_folds(args.category, seed=args.seed)
    detector = detector_for(
        folds[0], model_parameters(args), cache=not args.no_cache, recipe=args.recipe
    )
    results, auroc, _ = evaluate_folds(folds, detector)
    print(
        f"image_auroc: mean over {len(folds)} stretches of files, which stand in for modules; 95 % "
        f"interval {auroc.low:.4f} to {auroc.high:.4f} for other images of the same stretches",
        file=sys.stderr,
    )
    print_results(results, as_json=args.json)
    return 0


def print_results(results: dict[str, Any], *, as_json: bool) -> None:
    """Print the results on standard output: one object on one line, or a line per key."""
    if as_json:
        print(json.dumps(results))
        return
    for name, value in results.items():
        print(f"{name:14} {value:.4f}" if isinstance(value, float) else f"{name:14} {value}")


def detector_for(
    category: "Category", parameters: dict[str, Any], *, cache: bool, recipe: str | None = None
) -> "Detector":
    """The detector that suits a category.

    Parameters
    ----------
    category : Category
        AITEX's strips of fabric are far longer than they are high: `StripPatchCore` stitches their
        maps from pieces, by default with the settings of notebook 7.
    parameters : dict
        Parameters of PatchCore; they override those settings.
    cache : bool
        Whether features are kept on disk; those of strips never are.
    recipe : str, optional
        One of `patchcore_helpers.core.recipes.RECIPES`; by default PatchCore as it is.

    Raises
    ------
    InputError
        If there is no such recipe, or if it is meant for strips.
    """
    from patchcore_helpers.core.patchcore import PatchCore
    from patchcore_helpers.core.recipes import make_detector
    from patchcore_helpers.core.region_of_interest import refuse_region
    from patchcore_helpers.core.strips import STRIP_SETTINGS, StripPatchCore

    if category.name.startswith("aitex/"):
        if recipe:
            raise InputError(f"--recipe {recipe}: not for strips of fabric; leave it out")
        refuse_region(parameters.get("roi"), "strips of fabric")
        return StripPatchCore(PatchCore(**{**STRIP_SETTINGS, **parameters}))
    model = PatchCore(cache=cache, **parameters)
    return make_detector(recipe, model) if recipe else model
