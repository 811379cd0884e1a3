"""What an interactive figure leaves behind for a page that has no kernel.

A page cannot call a drawing function. So a batch run draws the states that a page can show, and
keeps them beside the picture: all states of a small figure, evenly spread ones of a larger one.
JupyterLab has no use for them, so nothing of this happens there.
"""

import io
import os
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from patchcore_helpers.errors import InputError

# The MIME type of what is left behind; `page_controls` makes HTML of it.
STATES = "application/vnd.patchcore.states+json"
FOR_PAGES = "PATCHCORE_FOR_PAGES"  # environment variable: 1 where a page is made of the notebook
# A picture takes about a tenth of a second, so this many are a few seconds of a run.
MAX_STATES = 24
MAX_BYTES = 1_000_000  # of one figure with all its states
QUALITIES = (90, 75, 50, 25)  # of WebP, tried in turn until the states fit


def are_wanted() -> bool:
    """Whether a page without a kernel will be made of this notebook."""
    return os.environ.get(FOR_PAGES) == "1"


@dataclass(frozen=True)
class Positions:
    """The positions of one control that a page has.

    Attributes
    ----------
    name, label : str
        The argument of the drawing function, and the text beside the control.
    is_slider : bool
        Else a list to choose from.
    values : list
        What the drawing function gets.
    texts : list of str
        What a reader sees.
    start : int
        Index of the first position.
    n_live : int
        Number of positions in JupyterLab.
    """

    name: str
    label: str
    is_slider: bool
    values: list[Any]
    texts: list[str]
    start: int
    n_live: int

    @classmethod
    def of(cls, name: str, control: Any) -> "Positions":
        """All positions of a control of ipywidgets."""
        label = control.description or name
        is_slider = hasattr(control, "step")
        if is_slider:
            count = round((control.max - control.min) / control.step) + 1
            # Three steps of 0.1 are not 0.3 exactly.
            values = [round(control.min + i * control.step, 10) for i in range(count)]
            start = round((control.value - control.min) / control.step)
            values[start] = control.value
            texts = [format(value, control.readout_format) for value in values]
        elif isinstance(control, ipywidgets.Checkbox | ipywidgets.ToggleButton):
            values, texts = [False, True], ["off", "on"]
            start = int(control.value)
        elif hasattr(control, "options"):
            pairs = [o if isinstance(o, tuple) else (str(o), o) for o in control.options]
            texts, values = [text for text, _ in pairs], [value for _, value in pairs]
            start = control.index or 0
        else:
            raise InputError(f"explore: {name}: a page cannot show a {type(control).__name__}")
        return cls(name, label, is_slider, values, texts, start, len(values))

    def thinned(self, count: int) -> "Positions":
        """So many positions, evenly spread, with both ends and the start among them.

        >>> all_of_them = Positions("n", "n", True, list(range(10)), list("0123456789"), 4, 10)
        >>> all_of_them.thinned(4).values
        [0, 4, 6, 9]
        """
        if count >= len(self.values):
            return self
        kept = np.linspace(0, len(self.values) - 1, max(count, 2)).round().astype(int)
        nearest = int(np.abs(kept - self.start).argmin())
        kept[nearest] = self.start
        return self.chosen([int(i) for i in kept], nearest)

    def among(self, wanted: Sequence[Any]) -> "Positions":
        """The positions with these values, and the start."""
        for value in wanted:
            if value not in self.values:
                raise InputError(f"explore: page: {self.name} has no position {value!r}")
        indices = [i for i, v in enumerate(self.values) if v in wanted or i == self.start]
        return self.chosen(indices, indices.index(self.start))

    def chosen(self, indices: Sequence[int], start: int) -> "Positions":
        """The positions with these indices."""
        values = [self.values[i] for i in indices]
        texts = [self.texts[i] for i in indices]
        return Positions(self.name, self.label, self.is_slider, values, texts, start, self.n_live)

    def as_json(self) -> dict[str, Any]:
        """What a page needs to know."""
        return {
            "name": self.name,
            "label": self.label,
            "is_slider": self.is_slider,
            "texts": self.texts,
            "start": self.start,
            "n_live": self.n_live,
        }


def fewer(sizes: Sequence[int], are_sliders: Sequence[bool], budget: int) -> list[int]:
    """How many positions each control keeps, so that there are at most so many states.

    Every control keeps two. Then lists grow before sliders do, as a reader can guess what lies
    between two positions of a slider, and among equals the one with the fewest positions.

    >>> fewer([20], [True], 24)
    [20]
    >>> fewer([3, 100], [False, True], 24)
    [3, 8]
    """
    counts = [min(size, 2) for size in sizes]
    while True:
        growing = [
            (are_sliders[i], count, i)
            for i, count in enumerate(counts)
            if count < sizes[i] and prod(counts) // count * (count + 1) <= budget
        ]
        if not growing:
            return counts
        counts[min(growing)[2]] += 1


def positions_for_page(
    controls: Mapping[str, Any], wanted: Mapping[str, Sequence[Any]]
) -> list[Positions]:
    """The positions of every control that a page has.

    Parameters
    ----------
    controls : dict of str to ipywidgets.Widget
    wanted : dict of str to sequence
        Values of controls that a page has; the others are thinned.
    """
    for name in wanted.keys() - controls.keys():
        raise InputError(f"explore: page: no control {name!r}; there are {', '.join(controls)}")
    everything = [Positions.of(name, control) for name, control in controls.items()]
    picked = [p.among(wanted[p.name]) if p.name in wanted else p for p in everything]
    free = [p for p in picked if p.name not in wanted]
    budget = MAX_STATES // prod(len(p.values) for p in picked if p.name in wanted)
    counts = fewer([len(p.values) for p in free], [p.is_slider for p in free], max(budget, 1))
    kept = {p.name: count for p, count in zip(free, counts, strict=True)}
    return [p.thinned(kept.get(p.name, len(p.values))) for p in picked]


def states(positions: Sequence[Positions]) -> Iterator[tuple[dict[str, Any], str]]:
    """Every state, the last control moving fastest: its values, and the positions in words."""
    for indices in product(*(range(len(p.values)) for p in positions)):
        chosen = list(zip(positions, indices, strict=True))
        values = {p.name: p.values[i] for p, i in chosen}
        yield values, ", ".join(f"{p.label}: {p.texts[i]}" for p, i in chosen)


def titles(figure: Figure) -> str:
    """What a figure says above its panels, in one line: the words that follow a control."""
    said = [figure.get_suptitle()]
    for axes in figure.axes:
        said += [axes.get_title(loc) for loc in ("left", "center", "right")]
    lines = [" ".join(text.split()) for text in said if text.strip()]
    return "; ".join(dict.fromkeys(lines))


def packed(pictures: Sequence[bytes]) -> tuple[list[str], list[int]]:
    """Make PNG files small.

    Returns
    -------
    addresses : list of str
        Data URIs of the pictures, each once.
    which : list of int
        The index of each picture's address.

    Raises
    ------
    InputError
        If they stay too large for a page.
    """
    different = list(dict.fromkeys(pictures))
    which = [different.index(picture) for picture in pictures]
    for quality in QUALITIES:
        addresses = [smaller(picture, quality)[0] for picture in different]
        size = sum(map(len, addresses))
        if size < MAX_BYTES:
            return addresses, which
    raise InputError(
        f"explore: {len(different)} pictures take {size / 1e6:.1f} MB, more than a page may; "
        "give the page fewer positions (page=) or draw a smaller figure"
    )


def smaller(png: bytes, quality: int) -> tuple[str, tuple[int, int]]:
    """A PNG as the data URI of a WebP, and its width and height in pixels."""
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.save(buffer, "WEBP", quality=quality, method=2)
    return f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode()}", picture.size
