"""From the arguments of `patchcore-course run` to notebooks with checked parameters."""

import argparse
import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchcore_helpers.course.notebook import code_sources, find_notebooks, read_notebook
from patchcore_helpers.course.parameters import (
    declared_parameters,
    profile_file,
    read_parameter_file,
)
from patchcore_helpers.errors import InputError
from patchcore_helpers.files import sha256
from patchcore_helpers.fingerprint import imported_code_hash

if TYPE_CHECKING:
    from patchcore_helpers.course.engine import NotebookRun


class Job:
    """One notebook of a batch: what it declares, what it is given, and how it went.

    Attributes
    ----------
    path, stem, profile : Path, str, str
    declared : dict of str to Parameter
    parameters : dict
        Values for some of the declared parameters.
    failures : list of str
        One line each; a job with failures from the start is not executed.
    summary : dict or None
        Of its run, or of the earlier run that is kept.
    run : NotebookRun or None
        While it runs.
    """

    def __init__(self, path: Path, profile: str):
        self.path = path
        self.stem = path.stem
        self.profile = profile
        self.notebook = read_notebook(path)
        self.declared, self.failures = declared_parameters(self.notebook)
        self.parameters: dict[str, Any] = {}
        self.summary: dict[str, Any] | None = None
        self.run: NotebookRun | None = None

    def set(self, name: str, value: Any, source: str | Path, is_typed: bool = False) -> None:
        """Give a declared parameter its value.

        Parameters
        ----------
        name : str
        value : object
        source : str or Path
            Where the value comes from, for the error message.
        is_typed : bool
            Whether the value is text typed on the command line, to be read as YAML.

        Raises
        ------
        InputError
            If the value is not of the declared type.
        """
        parameter = self.declared[name]
        try:
            convert = parameter.parse if is_typed else parameter.convert
            self.parameters[name] = convert(value)
        except ValueError as error:
            raise InputError(f"{source}: {error}, as {self.stem} declares") from None

    def fingerprint(self) -> dict[str, str]:
        """Hashes of all that decides a run: profile, notebook, parameters, imported code."""
        sources = code_sources(self.notebook)
        parameters = json.dumps(self.parameters, sort_keys=True, default=str)
        return {
            "profile": self.profile,
            "notebook_sha256": sha256(self.path.read_bytes()),
            "code_sha256": sha256(*sources),
            "parameters_sha256": sha256(parameters),
            "package_sha256": imported_code_hash("\n".join(sources)),
        }


def plan(args: argparse.Namespace) -> list[Job]:
    """Turn the command's arguments into jobs; every parameter is checked before anything runs.

    Raises
    ------
    InputError
        If a notebook, a file or a parameter is invalid.
    """
    jobs = [Job(path, args.profile) for path in find_notebooks(args.notebooks)]
    runnable = [job for job in jobs if not job.failures]
    for job in runnable:
        file = profile_file(job.path, args.profile)
        for name, value in read_parameter_file(file).items() if file else ():
            _assign([job], name, value, str(file))

    changes = [
        (name, value, file, False)
        for file in args.file
        for name, value in read_parameter_file(file).items()
    ]
    if args.scheduler:
        changes.append(("scheduler", args.scheduler, f"--scheduler {args.scheduler}", True))
    changes += [(name, text, f"-p {name} {text}", True) for name, text in args.parameter]
    if changes and runnable:
        for job in runnable:
            job.profile += ", changed"
        for change in changes:
            _assign(runnable, *change)
    return jobs


def _assign(
    jobs: Sequence[Job], name: str, value: Any, source: str, is_typed: bool = False
) -> None:
    """Give a value to all jobs that declare the parameter; at least one has to."""
    if name == "output_dir":
        raise InputError(f"{source}: the runner chooses output_dir; use --output DIR")
    takers = [job for job in jobs if name in job.declared]
    if not takers:
        declared = sorted({name for job in jobs for name in job.declared})
        similar = difflib.get_close_matches(str(name), declared, 1)
        fix = f"did you mean {similar[0]}?" if similar else f"there are: {', '.join(declared)}"
        notebooks = ", ".join(job.stem for job in jobs)
        raise InputError(f"{source}: no parameter {name} in {notebooks}; {fix}")
    for job in takers:
        job.set(name, value, source, is_typed)
