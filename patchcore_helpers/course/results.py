"""What a run of a notebook leaves in its folder, and whether that still holds."""

import contextlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MADE_BY = "patchcore-course run"
LIBRARIES = ("torch", "torchvision", "timm", "faiss-cpu", "scikit-learn", "numpy", "papermill")


def versions() -> dict[str, str | None]:
    """Versions of Python and of the libraries that decide the results; None where one is absent."""
    installed: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        installed[name] = None
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The `summary.json` that a run left in a folder, or None if there is none."""
    try:
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        return summary if summary["made_by"] == MADE_BY else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def file_sizes(folder: Path) -> dict[str, int]:
    """Size in bytes of every file in a folder and below, by its path relative to the folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def still_valid(folder: Path, fingerprint: Mapping[str, str]) -> dict[str, Any] | None:
    """The summary of an earlier run that need not be repeated, or None.

    The run has to have passed with the same fingerprint, and all files that it left have to be
    there in their size.
    """
    summary = read_summary(folder)
    if summary is None or summary.get("status") != "passed":
        return None
    if any(summary.get(name) != value for name, value in fingerprint.items()):
        return None
    sizes = file_sizes(folder)
    if any(sizes.get(name) != size for name, size in summary["files"].items()):
        return None
    return summary
