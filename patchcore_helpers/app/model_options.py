"""PatchCore's settings as options of the command line."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from patchcore_helpers.errors import InputError

if TYPE_CHECKING:
    from patchcore_helpers.core.detector import Detector
    from patchcore_helpers.core.tuning import Tuning


def image_size(text: str) -> int | tuple[int, ...]:
    """An image size as typed: 256, or 128x512 (height x width).

    >>> image_size("256"), image_size("128x512")
    (256, (128, 512))
    """
    sides = tuple(int(side) for side in text.lower().split("x"))
    return sides[0] if len(sides) == 1 else sides


def layer_list(text: str) -> tuple[int, ...]:
    """Layers as typed, separated by commas.

    >>> layer_list("2,3")
    (2, 3)
    """
    return tuple(int(layer) for layer in text.split(","))


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that set PatchCore's parameters of the same names."""
    add = parser.add_argument
    add("--backbone", metavar="NAME", help="see patchcore-course list")
    add("--layers", type=layer_list, metavar="2,3", help="stages of a CNN, blocks of a ViT")
    add("--weights", metavar="FILE", help="a custom checkpoint, or 'random'")
    add("--image-size", type=image_size, metavar="256", help="pixels per side, or HEIGHTxWIDTH")
    add("--aggregation", metavar="concat|paper")
    add("--coreset-ratio", type=float, metavar="0.01")
    add("--sampler", metavar="k_center|random")
    add("--n-neighbors", type=int, metavar="1")
    add("--image-score", metavar="max|mean|top1_percent|reweighted")
    add("--metric", metavar="l2|cosine")
    add(
        "--roi",
        metavar="MASK",
        help="an image file of the images' size, white where they are inspected, black elsewhere",
    )
    add("--precision", metavar="float32|bfloat16")
    add("--engine", metavar="auto|openvino|torch", help="what runs the network")
    add("--device", metavar="auto|cpu|cuda|mps", help="where torch computes")


def add_loading_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options with which a memory bank's file is read."""
    add = parser.add_argument
    add("--weights", metavar="FILE", help="the custom checkpoint, if the bank was made with one")
    add("--engine", default="auto", metavar="auto|openvino|torch", help="what runs the network")
    add("--device", default="auto", metavar="auto|cpu|cuda|mps", help="where torch computes")


def model_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """PatchCore's parameters from the command line; those that were not typed are left out."""
    from patchcore_helpers.core.patchcore import PatchCore

    names = PatchCore().get_params()
    typed = {name: value for name, value in vars(args).items() if value is not None}
    parameters = {name: value for name, value in typed.items() if name in names}
    return {**parameters, "random_state": args.seed, "progress": sys.stderr.isatty()}


def add_tuning_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose settings by planted defects."""
    add = parser.add_argument
    add(
        "--tune",
        action="store_true",
        help="choose image size, layers, backbone and score by what finds defects planted in "
        "training images, if it is shown to find more than the default; options that are typed "
        "stay",
    )
    add(
        "--tune-minutes",
        type=float,
        metavar="10",
        help="begin no candidate that would end later (10)",
    )


def check_tuning_arguments(args: argparse.Namespace) -> None:
    """Raise an `InputError` for options of the search that would have no effect, or a wrong one."""
    if args.tune and args.roi is not None:
        raise InputError(
            "--tune: plants defects outside the region of interest, too; leave it or --roi out"
        )
    if args.tune_minutes is not None and not args.tune:
        raise InputError("--tune-minutes: has no effect without --tune; add it")


def tuned(
    args: argparse.Namespace, images: Sequence[Any], make: Callable[[dict[str, Any]], "Detector"]
) -> "Tuning":
    """What `tune` chooses beside the options that were typed; the trials go to standard error.

    Parameters
    ----------
    args : Namespace
    images : sequence of samples
        The training images.
    make : callable
        From parameters of PatchCore to a detector.
    """
    from patchcore_helpers.core.strips import StripPatchCore
    from patchcore_helpers.core.tuning import (
        CANDIDATES,
        MINUTES,
        STRIP_CANDIDATES,
        tune,
        without,
    )

    typed = model_parameters(args)
    is_strip = isinstance(make(typed), StripPatchCore)
    tuning = tune(
        images,
        lambda parameters: make({**typed, **parameters}),
        without(STRIP_CANDIDATES if is_strip else CANDIDATES, typed),
        minutes=MINUTES if args.tune_minutes is None else args.tune_minutes,
        random_state=args.seed,
    )
    for row in tuning.table.itertuples():
        ahead = f"({row.ahead:+.4f}, at least {row.low:+.4f})"  # than the default, 95 %
        print(
            f"planted defects: AUROC {row.auroc:.4f} {ahead} {in_words(row.parameters)}",
            file=sys.stderr,
        )
    for parameters in tuning.not_tried:
        print(f"not tried: {in_words(parameters)}", file=sys.stderr)
    print(
        f"chosen in {tuning.seconds:.0f} s: {in_words(tuning.parameters)}",
        file=sys.stderr,
    )
    return tuning


def in_words(parameters: dict[str, Any]) -> str:
    """Parameters on a line.

    >>> in_words({"layers": (3,), "image_score": "mean"}), in_words({})
    ('layers [3], image_score "mean"', 'default')
    """
    words = [f"{name} {json.dumps(value)}" for name, value in parameters.items()]
    return ", ".join(words) or "default"
