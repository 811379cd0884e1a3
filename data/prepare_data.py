"""Prepare the data sets that were downloaded, in the folder of this file."""

import argparse
import sys
from pathlib import Path

from patchcore_helpers.app.cli import main


def prepare(arguments: list[str] | None = None) -> int:
    """Prepare every data set whose path is given.

    Parameters
    ----------
    arguments : list of str, optional
        Words of the command line; those of this process by default.

    Returns
    -------
    int
        The exit status of the first data set that fails, or 0.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--mvtec-path", metavar="PATH", help="archive or folder of MVTec AD")
    add("--visa-path", metavar="PATH", help="archive or folder of VisA")
    add("--data-dir", default=Path(__file__).resolve().parent, metavar="DIR", help="this folder")
    args = parser.parse_args(arguments)
    if args.mvtec_path is None and args.visa_path is None:
        parser.exit(2, f"{parser.prog}: error: give --mvtec-path PATH, --visa-path PATH, or both\n")
    for dataset, source in (("mvtec_ad", args.mvtec_path), ("visa", args.visa_path)):
        if source is None:
            continue
        status = main(["prepare", dataset, "--source", source, "--data-dir", str(args.data_dir)])
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(prepare())
