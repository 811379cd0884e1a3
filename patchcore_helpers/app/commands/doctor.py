"""`patchcore-course doctor`: can this machine do it, and what is slow, and why."""

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `patchcore-course doctor`."""
    parser.add_argument("--json", action="store_true", help="print one object, on a single line")


def run(args: argparse.Namespace) -> int:
    """Print a line for everything that was looked at, and one more where something helps."""
    from patchcore_helpers.app.doctor import GOOD, examine

    findings = examine()
    if args.json:
        print(json.dumps({"findings": [finding.as_dict() for finding in findings]}))
        return 0
    for finding in findings:
        print(f"{finding.verdict:8}{finding.what}: {finding.value}")
        if finding.advice:
            print(f"{'':8}-> {finding.advice}")
    n_others = sum(finding.verdict != GOOD for finding in findings)
    print(f"{len(findings)} things looked at, {n_others} of them worth a look")
    return 0
