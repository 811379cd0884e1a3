"""Interactive figures that a page computes by itself, because they have too many states to draw.

Each is given to `explore(..., page=...)`. What it hands to the page are numbers; the page's own
script, `web/controls.js`, makes the picture of them. Tests compare that picture with the one that
the drawing function makes in JupyterLab.
"""

from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from patchcore_helpers.course.page_states import Positions, packed, states

# Draws a figure: of a drawing function and its values; returns the picture, with `png`, `titles`.
Draw = Callable[[Callable[..., Figure], Mapping[str, Any]], Any]


class PageView(ABC):
    """A figure that a page can compute."""

    @abstractmethod
    def content(
        self,
        everything: Sequence[Positions],
        draw: Draw,
        picture: bytes,
    ) -> dict[str, Any]:
        """What the page needs, as JSON.

        Parameters
        ----------
        everything : sequence of Positions
            Of all controls.
        draw : callable
            See `Draw`.
        picture : bytes
            The PNG on show, of the first state.
        """


@dataclass(frozen=True)
class AlarmView(PageView):
    """What a threshold does on a production line: the figure `threshold_view`.

    Parameters
    ----------
    labels : array of 0 and 1, shape (n,)
    scores : array of float, shape (n,)
    threshold, per_thousand, cost_of_miss : str
        The names of the controls: the threshold, defective parts in 1,000, and how many false
        alarms a missed defect costs.
    """

    labels: np.ndarray
    scores: np.ndarray
    threshold: str = "threshold"
    per_thousand: str = "defective_in_1000"
    cost_of_miss: str = "cost_of_miss"

    def content(
        self, everything: Sequence[Positions], draw: Draw, picture: bytes
    ) -> dict[str, Any]:
        labels, scores = np.asarray(self.labels), np.asarray(self.scores, dtype=float)
        good, defective = (np.sort(scores[labels == label]).tolist() for label in (0, 1))
        return {
            "view": "alarms",
            "pictures": packed([picture])[0],  # for readers without scripts
            "good": good,
            "defective": defective,
            "names": [self.threshold, self.per_thousand, self.cost_of_miss],
            "values": {p.name: [float(value) for value in p.values] for p in everything},
        }


@dataclass(frozen=True)
class BoxView(PageView):
    """Boxes over a picture; those whose level is above a slider's value are drawn.

    Parameters
    ----------
    draw : callable
        Of all values but the slider's; returns a figure without boxes, whose first axes show the
        picture that the boxes are on.
    boxes : callable
        Of the same values; returns boxes (left, top, right, bottom) in pixels of the image on the
        first axes, shape (n, 4), and their levels, shape (n,).
    threshold : str
        The name of the slider.
    noun : str
        What is boxed, in the plural.
    """

    draw: Callable[..., Figure]
    boxes: Callable[..., tuple[np.ndarray, np.ndarray]]
    threshold: str = "threshold"
    noun: str = "tiles"

    def content(
        self, everything: Sequence[Positions], draw: Draw, picture: bytes
    ) -> dict[str, Any]:
        others = [p for p in everything if p.name != self.threshold]
        (slider,) = (p for p in everything if p.name == self.threshold)
        pictures = []
        layers = []
        words = []
        for values, said in states(others):
            axes: list[Axes] = []

            def draw_and_keep(axes: list[Axes] = axes, **chosen: Any) -> Figure:
                figure = self.draw(**chosen)
                axes.append(figure.axes[0])
                return figure

            drawn = draw(draw_and_keep, values)
            pictures.append(drawn.png)
            words.append(f"{said}. {drawn.titles}".strip())
            layers.append(_in_shares(axes[0], *self.boxes(**values)))
        addresses, frames = packed(pictures)
        return {
            "view": "boxes",
            "pictures": addresses,
            "frames": frames,
            "words": words,
            "layers": layers,
            "threshold": self.threshold,
            "levels": [float(value) for value in slider.values],
            "noun": self.noun,
        }


def heat_states(
    alt: str,
    pictures: Sequence[bytes],
    names: Sequence[str],
    words: Sequence[str],
    maps: np.ndarray,
    scores: np.ndarray,
    threshold: float,
) -> dict[str, Any]:
    """Photographs with their anomaly maps, and a threshold that a page applies to the maps.

    Not for `explore`, which starts from a drawing function; the front page of the site shows it.

    Parameters
    ----------
    alt : str
    pictures : sequence of bytes
        Square PNG files.
    names, words : sequences of str
        To choose from, and the sentence about each picture.
    maps : float array of shape (n, side, side)
    scores : float array of shape (n,)
        The image scores; an image raises an alarm if its score is above the threshold.
    threshold : float
        The first position of the slider.

    Returns
    -------
    dict
        As `Explorer.states_for_page` returns it. The maps are rounded to 256 levels.
    """
    low, high = float(maps.min()), float(max(maps.max(), scores.max()))
    levels = np.unique(np.append(np.linspace(low, high, 60), threshold))
    start = int(np.searchsorted(levels, threshold))
    eight_bits = np.round(255 * (maps - low) / (high - low)).astype(np.uint8)
    texts = [f"{level:.1f}" for level in levels]
    image = Positions("image", "solar cell", False, list(names), list(names), 0, len(names))
    slider = Positions("threshold", "threshold", True, levels.tolist(), texts, start, len(levels))
    addresses, which = packed(pictures)
    return {
        "view": "heat",
        "alt": alt,
        "controls": [image.as_json(), slider.as_json()],
        "is_thinned": False,
        "pictures": [addresses[i] for i in which],
        "frames": list(range(len(pictures))),
        "words": list(words),
        "threshold": "threshold",
        "maps": [b64encode(part.tobytes()).decode() for part in eight_bits],
        "side": maps.shape[-1],
        "scale": [low, high],
        "scores": [float(score) for score in scores],
        "levels": levels.tolist(),
    }


def _in_shares(axes: Axes, boxes: np.ndarray, levels: np.ndarray) -> list[list[float]]:
    """Boxes as (left, top, width, height, level), in shares of the picture's width and height."""
    width, height = axes.figure.bbox.size
    rows = []
    for (left, top, right, bottom), level in zip(boxes, levels, strict=True):
        # A pixel of an image is centered on its number: its edges are half a unit away.
        corners = axes.transData.transform([(left - 0.5, top - 0.5), (right - 0.5, bottom - 0.5)])
        (x0, y0), (x1, y1) = corners / (width, height)
        x, y = min(x0, x1), 1 - max(y0, y1)
        shares = [round(float(s), 5) for s in (x, y, abs(x1 - x0), abs(y1 - y0))]
        rows.append([*shares, float(level)])
    return rows
