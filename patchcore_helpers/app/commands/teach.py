"""`patchcore-course teach`: extend a memory bank, or ask it why it has missed a defect."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from patchcore_helpers.app.console import print_message
from patchcore_helpers.app.model_options import add_loading_arguments
from patchcore_helpers.errors import InputError, one_line

if TYPE_CHECKING:
    from patchcore_helpers.app.teach import Missed, Teaching
    from patchcore_helpers.core.excuses import Excuse

MOST_EXCUSES = 5  # that are printed as text, of an image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `patchcore-course teach`."""
    add = parser.add_argument
    add("bank", metavar="BANK", help="bank.safetensors of a report")
    add(
        "--normal",
        metavar="FOLDER",
        help="new normal images: they extend the bank, but for a fifth, held out for the threshold",
    )
    add(
        "--missed",
        metavar="FOLDER",
        help="defective images: shows which rows of the bank, of which images, excuse them",
    )
    add("--remove", action="store_true", help="remove these rows from the bank")
    add(
        "--calibration",
        metavar="FOLDER",
        help="where the bank's calibration images are, to score them again: known by their content",
    )
    add("--product", metavar="NAME", help="which one is taught, of a bank of several products")
    add("--output", metavar="NEW_BANK", help="the new bank file (BANK is replaced)")
    add("--false-alarm-rate", type=float, metavar="SHARE", help="of the new threshold (BANK's)")
    add("--seed", type=int, default=0, help="seed of the choice of held-out images (0)")
    add("--json", action="store_true", help="print one object on a single line")
    add_loading_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the new bank; print what has changed."""
    _check_arguments(args)
    from patchcore_helpers.app.commands.predict import load_bank, model_of_product
    from patchcore_helpers.app.teach import as_object, images_below, refuse_unteachable, teach

    normal = images_below(args.normal, "--normal")
    missed = images_below(args.missed, "--missed")
    calibration = images_below(args.calibration, "--calibration")
    bank = load_bank(args.bank, args.weights, engine=args.engine, device=args.device)
    model = model_of_product(bank, args.product, args.bank)
    refuse_unteachable(args.bank, model)
    teaching = teach(
        model,
        normal,
        missed,
        remove=args.remove,
        calibration=calibration,
        false_alarm_rate=args.false_alarm_rate,
        seed=args.seed,
    )
    if teaching.has_changed:
        bank.save(args.output or args.bank)
    _say_what_to_know(teaching, args)
    if args.json:
        print(json.dumps(as_object(teaching)))
    else:
        print_changes(teaching)
    return 0


def _check_arguments(args: argparse.Namespace) -> None:
    """Refuse options that do not go together, and a place that cannot be written to."""
    from patchcore_helpers.core.threshold import false_alarm_interval

    if not (args.normal or args.missed):
        raise InputError("--normal, --missed: give a folder of images with at least one of them")
    if args.remove and not args.missed:
        raise InputError("--remove: removes what excuses defects; name them: --missed FOLDER")
    changes_bank = args.normal or args.remove
    for option in ("output", "calibration", "false_alarm_rate"):
        if getattr(args, option) is not None and not changes_bank:
            raise InputError(
                f"--{option.replace('_', '-')}: the bank does not change; "
                "add --normal FOLDER or --remove"
            )
    if args.false_alarm_rate is not None:
        false_alarm_interval(10**6, args.false_alarm_rate)  # refuses what is no rate
    if args.output is not None:
        output = Path(args.output)
        if output.is_dir() or not output.parent.is_dir():
            raise InputError(f"--output {output}: name a file in a folder that is there")


def _say_what_to_know(teaching: "Teaching", args: argparse.Namespace) -> None:
    """Lines on standard error: where the bank is, and what the threshold rests on."""
    if not teaching.has_changed:
        print_message("the bank has not changed; nothing was written")
        return
    print_message(f"written: {one_line(args.output or args.bank)}")
    if teaching.n_known:
        print_message(f"{teaching.n_known} normal images were known to the bank and left out")
    if teaching.n_kept:
        print_message(
            f"{teaching.n_kept} calibration images keep the scores of the earlier bank, which are "
            "at least as high: the threshold keeps its promise, but may be higher than need be; "
            "name their folder to score them again: --calibration FOLDER"
        )
    n_left_out = teaching.before.calibration_images - teaching.n_rescored - teaching.n_kept
    if n_left_out:
        print_message(
            f"{n_left_out} calibration images were not found and left out: their scores are not "
            "those of the new bank"
        )


def print_changes(teaching: "Teaching") -> None:
    """What has changed, a line each; then the missed images and what excuses them."""
    before, after = teaching.before, teaching.after
    changes = {
        "rows": (before.rows, after.rows),
        "threshold": (f"{before.threshold:.6g}", f"{after.threshold:.6g}"),
        "false alarms": (
            f"{before.false_alarms} of {before.calibration_images} calibration images",
            f"{after.false_alarms} of {after.calibration_images}",
        ),
        "of those held out": (
            f"{before.held_out_alarms} of {teaching.n_held_out}",
            f"{after.held_out_alarms} of {teaching.n_held_out}",
        ),
    }
    print(f"{'normal images':18} {teaching.n_taught} taught, {teaching.n_held_out} held out")
    print(f"{'rows removed':18} {teaching.rows_removed}")
    for name, (earlier, later) in changes.items():
        print(f"{name:18} {earlier} -> {later}")
    for missed in teaching.missed:
        print_missed(missed)


def print_missed(missed: "Missed") -> None:
    """A missed image before and after, and the rows that excused most of its patches."""
    before = f"{missed.score_before:.6g} {missed.verdict_before}"
    after = f"{missed.score_after:.6g} {missed.verdict_after}"
    print(f"{one_line(missed.path)}: {before} -> {after}")
    for excuse in missed.excuses[:MOST_EXCUSES]:
        print(f"  {in_words(excuse)}")
    n_more = len(missed.excuses) - MOST_EXCUSES
    if n_more > 0:
        print(f"  and {n_more} rows more")


def in_words(excuse: "Excuse") -> str:
    """An excuse on a line."""
    image = excuse.name or f"image {excuse.image}"
    row, column = excuse.place
    return (
        f"row {excuse.row} excuses {excuse.n_patches} patches, nearest at {excuse.distance:.6g}: "
        f"{image}, patch in row {row}, column {column}"
    )
