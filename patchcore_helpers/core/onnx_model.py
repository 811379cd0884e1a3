"""An exported model, run by ONNX Runtime. Needs no torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchcore_helpers.core.anomaly_result import AnomalyResult
from patchcore_helpers.core.items import read_item
from patchcore_helpers.core.onnx_file import (
    IMAGE,
    OUTPUTS,
    ExportedFile,
    ExportedSettings,
    read_exported,
)
from patchcore_helpers.errors import InputError, error_line

ERRORS_ONLY = 3  # of ONNX Runtime's levels of messages


@dataclass(frozen=True)
class MappedResult(AnomalyResult):
    """An `AnomalyResult` that brings along what the graph has computed besides.

    Attributes
    ----------
    maps : float32 array of shape (n, height, width)
        Anomaly maps.
    nearest_rows : int64 array of shape (n, rows, columns)
        For each patch, the nearest row of the memory bank.
    """

    maps: np.ndarray | None = None
    nearest_rows: np.ndarray | None = None

    def select(self, indices: Sequence[int]) -> "MappedResult":
        """The results of these images, in this order."""
        assert self.maps is not None and self.nearest_rows is not None
        plain = super().select(indices)
        kept = [int(index) for index in indices]
        return MappedResult(
            plain.scores,
            plain.patch_scores,
            maps=self.maps[kept],
            nearest_rows=self.nearest_rows[kept],
        )


class ExportedModel:
    """What `PatchCore.export` wrote, ready to judge images one by one.

    Parameters
    ----------
    file : ExportedFile
        From `read_exported`; see `load`.
    path : path
        What messages name.

    Attributes
    ----------
    settings : ExportedSettings
    threshold_ : float
        Only where the model was calibrated, as in `PatchCore`.
    """

    def __init__(self, file: ExportedFile, path: str | Path = "model") -> None:
        self.settings: ExportedSettings = file.settings
        self.image_score = file.settings.image_score
        if file.settings.threshold is not None:
            self.threshold_ = file.settings.threshold
        self._session = _start(file.content, path)

    @classmethod
    def load(cls, path: str | Path) -> "ExportedModel":
        """Read and check a file; see `patchcore_helpers.core.onnx_file`.

        Raises
        ------
        InputError
            If it is missing, damaged or not an exported model.
        """
        return cls(read_exported(path), path)

    def detect_batches(self, images: Sequence[Any]) -> Iterator[MappedResult]:
        """Score images one by one, in memory that does not grow with their number.

        Parameters
        ----------
        images : sequence of samples, paths, PIL images or uint8 arrays
        """
        for image in images:
            pixels = np.asarray(read_item(image))
            outputs = self._session.run(list(OUTPUTS), {IMAGE: pixels[None]})
            score, patch_scores, nearest_rows, maps = outputs
            yield MappedResult(score, patch_scores, maps=maps, nearest_rows=nearest_rows)

    def to_maps(self, result: MappedResult) -> np.ndarray:
        """Anomaly maps at image size, float32 array of shape (n, height, width)."""
        assert result.maps is not None
        return result.maps


def _start(content: bytes, path: str | Path) -> Any:
    """A session of ONNX Runtime; it is given the bytes, and so no folder to look for others."""
    onnxruntime = import_runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it raises many kinds
        reason = error_line(error)[:200]
        raise InputError(
            f"{path}: ONNX Runtime cannot run it ({reason}); export it again"
        ) from None


def import_runtime() -> Any:
    """The package onnxruntime, or one line that says how to install it."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            "exported models: ONNX Runtime, which runs them, is missing; "
            "install it: pip install onnx onnxruntime"
        ) from None
    return onnxruntime
