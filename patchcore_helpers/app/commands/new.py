"""`patchcore-course new`: fit on a folder of images, or of products, and write a report."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from patchcore_helpers.app.model_options import (
    add_model_arguments,
    add_tuning_arguments,
    check_tuning_arguments,
    model_parameters,
    tuned,
)
from patchcore_helpers.errors import InputError, one_line

if TYPE_CHECKING:
    from patchcore_helpers.core.patchcore import PatchCore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `patchcore-course new`."""
    add = parser.add_argument
    add(
        "folder",
        metavar="FOLDER",
        help="with good/ and bad/, or as MVTec AD; or with such a folder for each product: FOLDER "
        "is one product if it holds good/ (or ok/, normal/, what --good names) or train/, test/ or "
        "ground_truth/; if it does not and a folder in it does, each folder in it is a product",
    )
    add("--good", metavar="NAME", help="the sub-folder of the normal images, or .")
    add("--output", metavar="DIR", help="folder of the report (./FOLDER_report)")
    add("--false-alarm-rate", type=float, default=0.05, metavar="0.05")
    add("--seed", type=int, default=0, help="seed of the split and of the coreset (0)")
    add("--pictures", type=int, default=60, metavar="60", help="largest number of heat maps")
    add_model_arguments(parser)
    add_tuning_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the report; print its page, the images and the results, each on a line."""
    from patchcore_helpers.app.report import write_report
    from patchcore_helpers.core.image_shape import size_in_shape
    from patchcore_helpers.core.patchcore import PatchCore
    from patchcore_helpers.data.folder import product_folders

    check_tuning_arguments(args)
    if product_folders(args.folder, good=args.good):
        return _run_products(args)
    parameters = model_parameters(args)

    def make(parameters: dict[str, Any]) -> "PatchCore":
        return PatchCore(**parameters)

    def chosen_model(images: Sequence[Any]) -> "PatchCore":
        if args.tune:
            return make({**parameters, **tuned(args, images, make).parameters})
        if "image_size" in parameters:
            return make(parameters)
        size = size_in_shape(images)
        if not isinstance(size, int):
            note = f"image size {size[0]}x{size[1]}, in the shape of the images"
            print(f"{note}; --image-size 256 squeezes them into a square", file=sys.stderr)
        return make({**parameters, "image_size": size})

    report = write_report(
        args.folder,
        args.output,
        good=args.good,
        false_alarm_rate=args.false_alarm_rate,
        model=chosen_model,
        seed=args.seed,
        pictures=args.pictures,
    )
    for note in report.notes:
        print(note, file=sys.stderr)
    print(one_line(report.page))
    print(report.images)
    print(report.results)
    return 0


def _run_products(args: argparse.Namespace) -> int:
    """The same for several products: a page of all, and the images and results of each."""
    from patchcore_helpers.app.products import write_products
    from patchcore_helpers.core.patchcore import PatchCore

    if args.tune:
        raise InputError(
            "--tune: chooses settings for one product, and several in one bank share theirs; "
            "leave it out, or give one product's folder"
        )
    parameters = model_parameters(args)
    report = write_products(
        args.folder,
        args.output,
        make=lambda: PatchCore(**parameters),
        good=args.good,
        false_alarm_rate=args.false_alarm_rate,
        seed=args.seed,
        pictures=args.pictures,
    )
    for note in report.notes:
        print(note, file=sys.stderr)
    for product, one in report.reports.items():
        for note in one.notes:
            print(f"{product}: {note}", file=sys.stderr)
    print(one_line(report.page))
    for product, one in report.reports.items():
        print(f"{product}: {one.images}; {one.results}")
    print(f"recognized: {report.n_recognized} of {report.n_test} test images as their product")
    return 0
