"""`patchcore-course predict`: judge images by a saved memory bank."""

import argparse
import json
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from patchcore_helpers.app.console import print_message
from patchcore_helpers.errors import one_line

if TYPE_CHECKING:
    from patchcore_helpers.app.verdicts import Verdict
    from patchcore_helpers.core.patchcore import PatchCore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `patchcore-course predict`."""
    add = parser.add_argument
    add("bank", metavar="BANK", help="bank.safetensors of a report")
    add("images", nargs="+", metavar="IMAGE", help="or a folder: all images below it")
    add("--output", metavar="DIR", help="also write heat maps and scores.csv there")
    add("--json", action="store_true", help="print one object per line")
    add("--weights", metavar="FILE", help="the custom checkpoint, if the bank was made with one")
    add("--engine", default="auto", metavar="auto|openvino|torch", help="what runs the network")
    add("--device", default="auto", metavar="auto|cpu|cuda|mps", help="where torch computes")


def run(args: argparse.Namespace) -> int:
    """Print a line per image as soon as it is judged.

    Returns
    -------
    int
        1 if an image could not be read: it gets a line on standard error, the others are judged.
    """
    from patchcore_helpers.app.verdicts import Unreadable, image_paths, judge, verdict_folder
    from patchcore_helpers.files import ensure_outside

    model = load_bank(args.bank, args.weights, engine=args.engine, device=args.device)
    paths = list(image_paths(args.images))
    if args.output:
        for source in filter(Path.is_dir, map(Path, args.images)):
            ensure_outside(args.output, source)
    unreadable = 0
    with verdict_folder(args.output, model) if args.output else nullcontext() as folder:
        for number, verdict in enumerate(judge(model, paths), 1):
            if isinstance(verdict, Unreadable):
                print_message(one_line(verdict.error))
                unreadable += 1
                continue
            print(as_json(verdict) if args.json else as_text(verdict), flush=True)
            if folder:
                folder.add(number, verdict)
    if unreadable:
        print_message(f"{unreadable} of {len(paths)} images were not read")
    return 1 if unreadable else 0


def load_bank(path: str, weights: str | None, **options: str) -> "PatchCore":
    """The model that a memory bank belongs to, with a line if other versions have made it.

    `options` are engine and device, as `PatchCore.load` takes them.
    """
    from patchcore_helpers.core.bank_file import BankVersionWarning
    from patchcore_helpers.core.patchcore import PatchCore

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", BankVersionWarning)
        model = PatchCore.load(path, weights, **options)
    for warning in caught:
        print_message(f"warning: {warning.message}")
    return model


def as_text(verdict: "Verdict") -> str:
    """Score, verdict and path, separated by tabs; "-" where the bank has no threshold."""
    return f"{verdict.score:.6g}\t{verdict.word or '-'}\t{one_line(verdict.path)}"


def as_json(verdict: "Verdict") -> str:
    """The same as a JSON object; null where the bank has no threshold."""
    return json.dumps({"path": str(verdict.path), "score": verdict.score, "verdict": verdict.word})
