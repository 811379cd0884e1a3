"""What the command writes on standard error."""

import sys

PROGRAM = "patchcore-course"


def print_message(text: str) -> None:
    """Print a message of the command on standard error, preceded by the command's name."""
    print(f"{PROGRAM}: {text}", file=sys.stderr)
