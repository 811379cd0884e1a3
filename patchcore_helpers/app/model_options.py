"""PatchCore's settings as options of the command line."""

import argparse
import sys
from typing import Any


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
    add("--precision", metavar="float32|bfloat16")
    add("--engine", metavar="auto|openvino|torch", help="what runs the network")
    add("--device", metavar="auto|cpu|cuda|mps", help="where torch computes")


def model_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """PatchCore's parameters from the command line; those that were not typed are left out."""
    from patchcore_helpers.core.patchcore import PatchCore

    names = PatchCore().get_params()
    typed = {name: value for name, value in vars(args).items() if value is not None}
    parameters = {name: value for name, value in typed.items() if name in names}
    return {**parameters, "random_state": args.seed, "progress": sys.stderr.isatty()}
