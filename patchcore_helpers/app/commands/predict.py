"""`patchcore-course predict`: judge images by a memory bank or an exported model."""

import argparse
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchcore_helpers.app.console import print_message
from patchcore_helpers.errors import InputError, one_line

if TYPE_CHECKING:
    from patchcore_helpers.app.verdicts import Model, Verdict
    from patchcore_helpers.core.patchcore import PatchCore
    from patchcore_helpers.core.products import ProductBank

STANDARD_INPUT = "-"
DEFAULT_RATE = 0.05  # of false alarms
PIPE_BYTES = 65536  # that are read from a pipe at a time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `patchcore-course predict`."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="bank.safetensors of a report, or an exported model.onnx")
    add(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="or a folder: all images below it; or -: paths from standard input, one a line",
    )
    add(
        "--product",
        metavar="NAME",
        help="judge all images as this product of a bank of several (each image's is recognized)",
    )
    add("--output", metavar="DIR", help="also write heat maps and scores.csv there")
    add("--json", action="store_true", help="print one object per line")
    add("--threshold", type=float, metavar="SCORE", help="alarm above this score (the model's)")
    add(
        "--normal",
        metavar="FOLDER",
        help="normal images that the model was not fitted on: their scores set the threshold",
    )
    add(
        "--false-alarm-rate",
        type=float,
        metavar="SHARE",
        help=f"of normal images, with --normal ({DEFAULT_RATE})",
    )
    add(
        "--follow",
        action="store_true",
        help="judge the images of one folder, and those that arrive, until Ctrl-C",
    )
    add("--log", metavar="FILE", help="where --follow keeps one object a line, one an image")
    add(
        "--idle",
        type=float,
        metavar="SECONDS",
        help="end --follow when nothing has arrived for so long",
    )
    add("--weights", metavar="FILE", help="the custom checkpoint, if the bank was made with one")
    add("--engine", metavar="auto|openvino|torch", help="what runs a bank's network (auto)")
    add("--device", metavar="auto|cpu|cuda|mps", help="where torch computes (auto)")


def run(args: argparse.Namespace) -> int:
    """Print a line per image as soon as it is judged.

    Returns
    -------
    int
        1 if an image could not be read: it gets a line on standard error, the others are judged.
    """
    _check_arguments(args)
    model = load_model(args.model, args.weights, engine=args.engine, device=args.device)
    if args.product is not None:
        model = bank_of_products(model, args.model).only(args.product)
    set_threshold(model, args)
    if args.follow:
        return _follow(model, args)
    return _judge(model, args)


def _check_arguments(args: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    if args.threshold is not None and not math.isfinite(args.threshold):
        raise InputError(f"--threshold {args.threshold}: give a finite number")
    if args.threshold is not None and args.normal:
        raise InputError("--threshold: --normal sets it; leave one of the two out")
    if args.false_alarm_rate is not None and not args.normal:
        raise InputError(
            "--false-alarm-rate: needs normal images that the model was not fitted on; "
            "name their folder: --normal FOLDER"
        )
    if args.follow != bool(args.log):
        raise InputError("--follow, --log: belong together; give both or none")
    if args.follow and len(args.images) > 1:
        raise InputError(f"--follow: watches one folder, not {len(args.images)} paths; name one")
    if args.follow and args.output:
        raise InputError("--output: not with --follow, which keeps its verdicts in --log")
    if args.idle is not None and not (args.follow and 0 <= args.idle < math.inf):
        raise InputError(f"--idle {args.idle}: give seconds, from 0, with --follow")


def _judge(model: "Model", args: argparse.Namespace) -> int:
    from patchcore_helpers.app.verdicts import Unreadable, judge, verdict_folder
    from patchcore_helpers.files import ensure_outside

    batches = image_batches(args.images)
    if args.output:
        for source in filter(Path.is_dir, map(Path, args.images)):
            ensure_outside(args.output, source)
    number = unreadable = 0
    with verdict_folder(args.output, model) if args.output else nullcontext() as folder:
        for verdict in (verdict for paths in batches for verdict in judge(model, paths)):
            number += 1
            if isinstance(verdict, Unreadable):
                print_message(one_line(verdict.error))
                unreadable += 1
                continue
            print(as_json(verdict) if args.json else as_text(verdict), flush=True)
            if folder:
                folder.add(number, verdict)
    if unreadable:
        print_message(f"{unreadable} of {number} images were not read")
    return 1 if unreadable else 0


def _follow(model: "Model", args: argparse.Namespace) -> int:
    from patchcore_helpers.app.follow import VerdictLog, follow
    from patchcore_helpers.app.verdicts import Unreadable, has_products
    from patchcore_helpers.files import ensure_outside, sha256

    (folder,) = args.images
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder; --follow watches one, so make it first")
    ensure_outside(args.log, folder)
    provenance: dict[str, Any] = {"model": sha256(Path(args.model).read_bytes())}
    if not has_products(model):  # else a verdict has the threshold of its product
        provenance = {"threshold": getattr(model, "threshold_", None), **provenance}
    unreadable = 0
    with VerdictLog(args.log) as log:
        verdicts = follow(model, folder, log, idle=args.idle, provenance=provenance)
        for verdict, line in verdicts:
            if isinstance(verdict, Unreadable):
                print_message(one_line(verdict.error))
                unreadable += 1
            else:
                print(line if args.json else as_text(verdict), flush=True)
    return 1 if unreadable else 0


def image_batches(names: list[str]) -> Iterator[list[Path]]:
    """The images that a user names, in one batch; those of standard input as they come in.

    Raises
    ------
    InputError
        For a folder without images; at once, if it is not named on standard input.
    """
    from patchcore_helpers.app.verdicts import image_paths

    if STANDARD_INPUT not in names:
        return iter([list(image_paths(names))])
    if len(names) > 1:
        raise InputError("-: stands alone; name all images on standard input, or none")
    lines = lines_as_they_come(sys.stdin.fileno())
    return (list(image_paths(map(os.fsdecode, batch))) for batch in lines)


def lines_as_they_come(descriptor: int) -> Iterator[list[bytes]]:
    """The lines of a pipe or a file, those that have arrived together in one list; no empty ones.

    Parameters
    ----------
    descriptor : int
        Of an open file.
    """
    rest = b""
    while chunk := os.read(descriptor, PIPE_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        yield [line for line in lines if line]
    if rest:
        yield [rest]


def load_model(
    path: str, weights: str | None, *, engine: str | None, device: str | None
) -> "Model":
    """The model in a file: an exported one if its name ends in .onnx, else a memory bank.

    An exported model is loaded without torch.
    """
    if Path(path).suffix.lower() != ".onnx":
        return load_bank(path, weights, engine=engine or "auto", device=device or "auto")
    from patchcore_helpers.core.onnx_model import ExportedModel

    given = {"--weights": weights, "--engine": engine, "--device": device}
    for name, value in given.items():
        if value is not None:
            raise InputError(f"{name}: is for memory banks, not for {path}; leave it out")
    return ExportedModel.load(path)


def load_bank(path: str, weights: str | None, **options: str) -> "PatchCore | ProductBank":
    """The model that a memory bank belongs to, with a line if other versions have made it.

    `options` are engine and device, as `PatchCore.load` takes them.
    """
    from patchcore_helpers.core import products
    from patchcore_helpers.core.bank_file import BankVersionWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", BankVersionWarning)
        model = products.load_model(path, weights, **options)
    for warning in caught:
        print_message(f"warning: {warning.message}")
    return model


def bank_of_products(model: Any, path: str) -> "ProductBank":
    """The model itself; refused, because of --product, if it is of one product.

    `path` is for the message.
    """
    from patchcore_helpers.app.verdicts import has_products

    if not has_products(model):
        raise InputError(f"--product: {path} holds one product, without a name; leave it out")
    return model


def model_of_product(model: Any, product: str | None, path: str) -> "PatchCore":
    """The model of one product: the named one, or the only one.

    `path` is for messages.
    """
    from patchcore_helpers.app.verdicts import has_products

    if product is not None:
        return bank_of_products(model, path).of(product)
    if not has_products(model):
        return model
    if len(model.products) > 1:
        raise InputError(
            f"{path}: holds several products ({', '.join(model.products)}); "
            "name one: --product NAME"
        )
    return model.of(model.products[0])


def set_threshold(model: Any, args: argparse.Namespace) -> None:
    """Give the model the threshold that is asked for, if one is; say which, on standard error."""
    if args.threshold is None and not args.normal:
        return
    model = model_of_product(model, None, args.model)
    if args.threshold is not None:
        model.threshold_ = args.threshold
        return
    import numpy as np

    from patchcore_helpers.app.verdicts import Unreadable, image_paths, judge
    from patchcore_helpers.core.threshold import conformal_threshold, false_alarm_interval

    if not Path(args.normal).is_dir():
        raise InputError(f"{args.normal}: no such folder; name one of normal images: --normal")
    rate = DEFAULT_RATE if args.false_alarm_rate is None else args.false_alarm_rate
    false_alarm_interval(10**6, rate)  # refuses what is no rate before anything is scored
    verdicts = list(judge(model, list(image_paths([args.normal]))))
    for verdict in verdicts:
        if isinstance(verdict, Unreadable):
            raise verdict.error
    scores = [verdict.score for verdict in verdicts if not isinstance(verdict, Unreadable)]
    model.threshold_ = conformal_threshold(np.array(scores), rate)
    expected = false_alarm_interval(len(scores), rate)
    print_message(
        f"threshold {model.threshold_:.6g}, from {len(scores)} normal images: it lets "
        f"{expected.mean:.1%} of normal images alarm, on average; this one, with a confidence of "
        f"95 %, from {expected.low:.1%} to {expected.high:.1%}"
    )


def as_text(verdict: "Verdict") -> str:
    """Score, verdict, product if there are several, and path, separated by tabs.

    The verdict is "-" where the model has no threshold.
    """
    words = [f"{verdict.score:.6g}", verdict.word or "-"]
    if verdict.product is not None:
        words.append(verdict.product)
    return "\t".join([*words, one_line(verdict.path)])


def as_json(verdict: "Verdict") -> str:
    """The same as a JSON object, and the regions; null where the model has no threshold."""
    return json.dumps(verdict.as_object())
