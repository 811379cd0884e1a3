"""The `patchcore-course` command."""

import argparse
import importlib
import json
import os
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

from patchcore_helpers.errors import InputError, one_line


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the command's words."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def image_size(text):
    """An image size from the command line: 256, or 128x512 (height x width)."""
    parts = [int(part) for part in text.lower().split("x")]
    return parts[0] if len(parts) == 1 else tuple(parts)


def layer_list(text):
    """Layers from the command line: 2,3."""
    return tuple(int(part) for part in text.split(","))


def add_model_arguments(parser):
    """The settings of PatchCore that a command takes; else its defaults hold."""
    add = parser.add_argument
    add("--backbone", metavar="NAME", help="see patchcore-course list")
    add("--layers", type=layer_list, metavar="2,3", help="stages of a CNN, blocks of a ViT")
    add("--weights", metavar="FILE", help="a checkpoint of your own, or 'random'")
    add("--image-size", type=image_size, metavar="256", help="pixels per side, or HEIGHTxWIDTH")
    add("--aggregation", metavar="concat|paper")
    add("--coreset-ratio", type=float, metavar="0.01")
    add("--sampler", metavar="k_center|random")
    add("--n-neighbors", type=int, metavar="1")
    add("--image-score", metavar="max|mean|top1_percent|reweighted")
    add("--metric", metavar="l2|cosine")
    add("--precision", metavar="auto|float32|bfloat16")


def model_from(args, **more):
    """A PatchCore with these settings, and those given on the command line before them."""
    from patchcore_helpers.core.patchcore import PatchCore

    known = PatchCore._get_param_names()
    given = {k: v for k, v in vars(args).items() if k in known and v is not None}
    return PatchCore(**{**more, **given}, progress=sys.stderr.isatty())


def evaluate(args):
    """Fit on a category's normal images and measure on its test images."""
    from patchcore_helpers.core.evaluation import evaluate
    from patchcore_helpers.data.catalog import load_category

    where = {"data_dir": args.data_dir, "seed": args.seed, "good": args.good}
    category = load_category(args.category, **where)
    if category.name.startswith("aitex/"):
        from patchcore_helpers.core.strips import STRIP_SETTINGS, StripPatchCore

        model = StripPatchCore(model_from(args, random_state=args.seed, **STRIP_SETTINGS))
    else:
        model = model_from(args, random_state=args.seed, cache=not args.no_cache)
    results, _ = evaluate(category, model)
    unmasked = sum(not sample.has_mask for sample in category.test)
    if unmasked and results["pixel_auroc"] is not None:
        print(
            f"{unmasked} defective images have no mask and leave the pixel metrics", file=sys.stderr
        )
    for reason, count in category.left_out.items():
        print(f"{count} images left out: {reason}", file=sys.stderr)
    if args.json:
        print(json.dumps(results))
    else:
        for name, value in results.items():
            print(f"{name:14} {value:.4f}" if isinstance(value, float) else f"{name:14} {value}")
    return 0


def new(args):
    """Fit on a folder of images and write a report beside it."""
    from patchcore_helpers.app.report import new_report

    given = {k: getattr(args, k) for k in ("good", "false_alarm_rate", "seed", "pictures")}
    model = model_from(args, random_state=args.seed)
    page, summary, notes = new_report(args.folder, args.output, model=model, **given)
    for note in notes:
        print(note, file=sys.stderr)
    print(one_line(page), *summary, sep="\n")
    return 0


def predict(args):
    """Judge images by a saved memory bank; 1 if some could not be read."""
    from patchcore_helpers.app.report import find_images, print_verdicts
    from patchcore_helpers.core.patchcore import PatchCore
    from patchcore_helpers.files import atomic_directory, ensure_outside

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PatchCore.load(args.bank, args.weights)
    for warning in caught:
        if str(warning.message).startswith(args.bank):
            print(f"patchcore-course: warning: {warning.message}", file=sys.stderr)
    paths = list(find_images(args.images))
    for name in args.images if args.output else ():
        if Path(name).is_dir():
            ensure_outside(args.output, name)
    with atomic_directory(args.output) if args.output else nullcontext() as output:
        bad = print_verdicts(model, paths, args.json, output)
    if bad:
        print(f"patchcore-course: {bad} of {len(paths)} images were not read", file=sys.stderr)
    return 1 if bad else 0


def list_known(args):
    """Print the categories and backbones that are known by name."""
    from patchcore_helpers.core.backbones import REGISTRY
    from patchcore_helpers.data.catalog import category_names

    print("categories (or a folder of images):")
    for name in category_names():
        print(f"  {name}")
    print("backbones (or any timm model name):")
    for name, recipe in REGISTRY.items():
        where = f"package {recipe.package}" if recipe.package else "hub"
        print(f"  {name:20} {recipe.timm_name:34} weights: {where}, {recipe.license}")
    return 0


def fetch_weights(args):
    """Find or download each backbone's weights, and check that they load."""
    from patchcore_helpers.core.backbones import find_spec, load_backbone

    for name in args.backbones:
        find_spec(name)
    for name in args.backbones:
        backbone = load_backbone(name)
        print(f"{name}: {backbone.source}, SHA-256 {backbone.weights_hash}")
    return 0


def cache(args):
    """Say what the cache holds, or empty it."""
    from patchcore_helpers.core.feature_cache import FeatureCache
    from patchcore_helpers.files import cache_folder

    features = FeatureCache()
    weights = sorted(cache_folder("weights").glob("*.safetensors"))
    for name, files in (("features", features.files()), ("weights", weights)):
        size = sum(path.stat().st_size for path in files) / 1e6
        print(f"{name:8} {len(files):5} files {size:9.1f} MB  {cache_folder(name)}")
    if args.action == "clear":
        features.clear()
        for path in weights:
            path.unlink(missing_ok=True)
        print("cleared")
    return 0


def build_parser(arguments=()):
    """The parser of the command and its sub-commands, as far as these arguments need it."""
    parser = Parser(prog="patchcore-course", description="PatchCore, hands on.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for name, module, text in (
        ("run", "course.runner", "run notebooks of the course, strictly"),
        ("prepare", "data.prepare", "bring a downloaded data set into the data folder"),
    ):
        sub = commands.add_parser(name, help=text)
        if name in arguments[:1]:  # their modules take seconds to import
            tool = importlib.import_module(f"patchcore_helpers.{module}")
            tool.add_arguments(sub)
            sub.set_defaults(function=tool.command)

    one = commands.add_parser("evaluate", help="fit and measure PatchCore on a category")
    one.add_argument("category", metavar="CATEGORY", help="elpv/mono, elpv/poly, or a folder")
    one.add_argument("--data-dir", default="data", metavar="DIR", help="folder of data sets (data)")
    one.add_argument("--seed", type=int, default=0, help="of the split and the coreset (0)")
    one.add_argument("--good", metavar="NAME", help="sub-folder of a folder's normal images")
    one.add_argument("--json", action="store_true", help="print one object on a single line")
    one.add_argument("--no-cache", action="store_true", help="compute all features anew")
    add_model_arguments(one)
    one.set_defaults(function=evaluate)

    own = commands.add_parser("new", help="fit on a folder of images and write a report")
    own.add_argument("folder", metavar="FOLDER", help="with good/ and bad/, or as MVTec AD")
    own.add_argument("--good", metavar="NAME", help="the sub-folder of the normal images, or .")
    own.add_argument("--output", metavar="DIR", help="of the report (./FOLDER_report)")
    own.add_argument("--false-alarm-rate", type=float, default=0.05, metavar="0.05")
    own.add_argument("--seed", type=int, default=0, help="of the split and the coreset (0)")
    own.add_argument("--pictures", type=int, default=60, metavar="60", help="heat maps at most")
    add_model_arguments(own)
    own.set_defaults(function=new)

    judge = commands.add_parser("predict", help="judge images by a saved memory bank")
    judge.add_argument("bank", metavar="BANK", help="bank.safetensors of a report")
    judge.add_argument("images", nargs="+", metavar="IMAGE", help="or a folder: all below it")
    judge.add_argument("--output", metavar="DIR", help="also write heat maps and scores.csv there")
    judge.add_argument("--json", action="store_true", help="print one object a line")
    judge.add_argument("--weights", metavar="FILE", help="your own, if the bank was made with them")
    judge.set_defaults(function=predict)

    fetch = commands.add_parser("fetch-weights", help="bring weights into the hub's cache")
    fetch.add_argument("backbones", nargs="+", metavar="BACKBONE")
    fetch.set_defaults(function=fetch_weights)

    kept = commands.add_parser("cache", help="show or empty the cache of features and weights")
    kept.add_argument("action", choices=("info", "clear"))
    kept.set_defaults(function=cache)

    known = commands.add_parser("list", help="list known categories and backbones")
    known.set_defaults(function=list_known)
    return parser


def main(arguments=None):
    """Run the command; returns the exit status: 0 done, 1 in part, 2 bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = build_parser(arguments).parse_args(arguments)
    warnings.filterwarnings("ignore", module="PIL")
    warnings.formatwarning = lambda text, *_: f"patchcore-course: warning: {one_line(text)}\n"
    sys.stdout.reconfigure(errors="backslashreplace")  # for names of files in no encoding
    try:
        status = args.function(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read it, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except InputError as error:
        print(f"patchcore-course: error: {one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, say, or a folder that is gone
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        reason = f"{one_line(error.filename or 'the output')}: {error.strerror}"
        print(f"patchcore-course: error: {reason}; choose another place", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("patchcore-course: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
