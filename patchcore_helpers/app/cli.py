"""The command `patchcore-course`.

Each sub-command is a module of `patchcore_helpers.app.commands` with two functions:
``add_arguments(parser)`` declares its arguments, ``run(args)`` does the work and returns the exit
status. To add a sub-command, write the module and name it in `COMMANDS`.
"""

import argparse
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from patchcore_helpers.app.console import PROGRAM, print_message
from patchcore_helpers.errors import InputError, one_line

BAD_INPUT = 2  # as argparse
STOPPED = 130  # as a shell reports Ctrl-C: 128 + SIGINT
CLOSED_PIPE = 141  # as a shell reports a closed pipe: 128 + SIGPIPE

COMMANDS = {
    "run": "run notebooks of the course, strictly",
    "prepare": "bring a downloaded data set into the data folder",
    "evaluate": "fit and measure PatchCore on a category",
    "new": "fit on a folder of images and write a report",
    "predict": "judge images by a saved memory bank",
    "teach": "extend a memory bank by new normal images, or ask it why it missed a defect",
    "export": "write a memory bank as one ONNX graph",
    "fetch-weights": "bring weights into the hub's cache",
    "cache": "show or empty the cache of features and weights",
    "doctor": "say whether this machine can do it, and what is slow",
    "list": "list known categories, backbones and recipes",
}


class Parser(argparse.ArgumentParser):
    """Reports what is wrong with the arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class CommandParser(Parser):
    """The parser of one sub-command, whose module is imported when the sub-command is chosen.

    The modules of all sub-commands together take half a second to import, which `--help` and a
    mistyped name should not wait for.
    """

    module: str | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.module:
            command = importlib.import_module(self.module)
            command.add_arguments(self)
            self.set_defaults(run=command.run)
            self.module = None
        return super().parse_known_args(args, namespace)


def build_parser() -> Parser:
    """The parser of the command; ``run`` of what it parses is the function of the sub-command."""
    parser = Parser(prog=PROGRAM, description="PatchCore, hands on.")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=CommandParser
    )
    for name, description in COMMANDS.items():
        command = commands.add_parser(name, help=description)
        command.module = f"patchcore_helpers.app.commands.{name.replace('-', '_')}"
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process by default.

    Returns
    -------
    int
        The exit status: 0 done, 1 done in part, 2 bad input, 130 stopped by Ctrl-C, 141 output no
        longer read.
    """
    args = build_parser().parse_args(arguments)
    _set_up_output()
    try:
        status = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        _discard_output()
        return CLOSED_PIPE
    except InputError as error:
        print_message(f"error: {one_line(error)}")
        return BAD_INPUT
    except OSError as error:  # such as a full disk, or a folder that has been removed
        _flush_or_discard_output()
        path = one_line(error.filename or "the output")
        print_message(f"error: {path}: {error.strerror}; choose another place")
        return BAD_INPUT
    except KeyboardInterrupt:
        print_message("stopped")
        return STOPPED


def _set_up_output() -> None:
    """Warnings on one line each, and file names printed whatever the terminal's encoding."""
    warnings.filterwarnings("ignore", module="PIL")
    warnings.formatwarning = lambda text, *_: f"{PROGRAM}: warning: {one_line(text)}\n"
    if isinstance(sys.stdout, io.TextIOWrapper):  # not where a test or a tool has replaced it
        sys.stdout.reconfigure(errors="backslashreplace")


def _flush_or_discard_output() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()


def _discard_output() -> None:
    """Send what standard output still holds nowhere, so that Python's exit cannot fail on it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
