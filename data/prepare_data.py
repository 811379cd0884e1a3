"""Prepare the data sets that were downloaded, in the folder of this file."""

import argparse
import sys
from pathlib import Path

from patchcore_helpers.app.cli import main


def prepare(arguments=None):
    """Prepare each data set given; returns the exit status of the first that fails, or 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--mvtec-path", metavar="PATH", help="archive or folder of MVTec AD")
    add("--visa-path", metavar="PATH", help="archive or folder of VisA")
    add("--data-dir", default=Path(__file__).resolve().parent, metavar="DIR", help="this folder")
    args = parser.parse_args(arguments)
    sources = {"mvtec_ad": args.mvtec_path, "visa": args.visa_path}
    given = {name: source for name, source in sources.items() if source is not None}
    if not given:
        parser.exit(2, f"{parser.prog}: error: give --mvtec-path PATH, --visa-path PATH, or both\n")
    for name, source in given.items():
        status = main(["prepare", name, "--source", source, "--data-dir", str(args.data_dir)])
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(prepare())
