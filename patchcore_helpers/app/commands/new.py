"""`patchcore-course new`: fit on a folder of images and write a report."""

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
from patchcore_helpers.errors import one_line

if TYPE_CHECKING:
    from patchcore_helpers.core.patchcore import PatchCore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `patchcore-course new`."""
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="with good/ and bad/, or as MVTec AD")
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
    from patchcore_helpers.core.patchcore import PatchCore

    check_tuning_arguments(args)
    parameters = model_parameters(args)

    def make(parameters: dict[str, Any]) -> "PatchCore":
        return PatchCore(**parameters)

    def tuned_model(images: Sequence[Any]) -> "PatchCore":
        return make({**parameters, **tuned(args, images, make).parameters})

    report = write_report(
        args.folder,
        args.output,
        good=args.good,
        false_alarm_rate=args.false_alarm_rate,
        model=tuned_model if args.tune else make(parameters),
        seed=args.seed,
        pictures=args.pictures,
    )
    for note in report.notes:
        print(note, file=sys.stderr)
    print(one_line(report.page))
    print(report.images)
    print(report.results)
    return 0
