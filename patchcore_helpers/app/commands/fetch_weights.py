"""`patchcore-course fetch-weights`: find or download weights, and check that they load."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `patchcore-course fetch-weights`."""
    parser.add_argument("backbones", nargs="+", metavar="BACKBONE")


def run(args: argparse.Namespace) -> int:
    """Load each backbone; print the source and the hash of its weights."""
    from patchcore_helpers.core.backbones import find_spec, load_backbone

    for name in args.backbones:  # a mistyped name is refused before the first download
        find_spec(name)
    for name in args.backbones:
        backbone = load_backbone(name)
        print(f"{name}: {backbone.source}, SHA-256 {backbone.weights_hash}")
    return 0
