"""`patchcore-course list`: the categories, backbones and recipes that are known by name."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`patchcore-course list` has no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print them."""
    from patchcore_helpers.core.backbones import REGISTRY
    from patchcore_helpers.core.recipes import RECIPES
    from patchcore_helpers.data.catalog import category_names

    print("categories (or a folder of images):")
    for name in category_names():
        print(f"  {name}")
    print("backbones (or any timm model name):")
    for name, spec in REGISTRY.items():
        source = f"package {spec.package}" if spec.package else "hub"
        print(f"  {name:20} {spec.timm_name:34} weights: {source}, {spec.license}")
    print("recipes (evaluate --recipe):")
    for name, recipe in RECIPES.items():
        print(f"  {name:20} {recipe.description}")
    return 0
