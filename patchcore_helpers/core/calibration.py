"""The calibration images that a threshold comes from: which they were, and their scores."""

from dataclasses import dataclass

import numpy as np

from patchcore_helpers.core.known_images import KnownImages
from patchcore_helpers.core.threshold import conformal_threshold


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores of normal images that are not in the memory bank, and the threshold from them.

    Attributes
    ----------
    scores : float32 array of shape (n,)
    images : KnownImages
        In the order of their scores.
    false_alarm_rate : float in (0, 1)
        What was promised.
    """

    scores: np.ndarray
    images: KnownImages
    false_alarm_rate: float

    @property
    def threshold(self) -> float:
        """The `conformal_threshold` of these scores.

        Raises
        ------
        InputError
            If they are too few for the rate.
        """
        return conformal_threshold(self.scores, self.false_alarm_rate)

    def false_alarms(self, threshold: float) -> int:
        """How many of these normal images exceed a threshold."""
        return int((self.scores > threshold).sum())
