"""`patchcore-course export`: a memory bank as one ONNX graph, compared before it is written."""

import argparse

from patchcore_helpers.app.model_options import add_loading_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `patchcore-course export`."""
    add = parser.add_argument
    add("bank", metavar="BANK", help="bank.safetensors of a report")
    add("--output", required=True, metavar="FILE", help="such as model.onnx")
    add(
        "--images",
        nargs="+",
        metavar="IMAGE",
        help="where the graph is compared with the bank, or a folder (eight solar cells)",
    )
    add("--product", metavar="NAME", help="which one, of a bank of several products")
    add_loading_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the graph; print how far it is from the bank, at most."""
    from patchcore_helpers.app.commands.predict import load_bank, model_of_product
    from patchcore_helpers.app.verdicts import image_paths
    from patchcore_helpers.errors import one_line

    bank = load_bank(args.bank, args.weights, engine=args.engine, device=args.device)
    model = model_of_product(bank, args.product, args.bank)
    images = list(image_paths(args.images)) if args.images else None
    agreement = model.export(args.output, images)
    print(f"{one_line(args.output)}: {agreement}")
    return 0
