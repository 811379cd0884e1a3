"""Interactive figures: move a slider, see the picture change.

`ipywidgets.interact` is not used: it hides errors of the drawing function from a batch run, shows
readers without a kernel no picture, and gives pictures no alternative text.
"""

import gc
import io
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from html import escape
from time import perf_counter as clock
from typing import Any, NamedTuple

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from patchcore_helpers.course import page_states
from patchcore_helpers.course.page_views import PageView
from patchcore_helpers.errors import InputError

# In the colors of the page, so that it can be read in a dark theme as well.
_MESSAGE = '<p role="alert" style="border-left: 6px solid #c00; padding: 6px"><b>{}</b></p>'
# HTML, not an Image widget, which has no alternative text and is stretched to the page's width.
_PICTURE = '<img alt="{}" src="data:image/png;base64,{}" decoding="sync" style="max-width: 100%">'

# The kind of a figure, its size and number of axes, and where the axes of such a figure are.
Layouts = dict[tuple, list]


# Which positions of its controls a page has, by name; or an object of `page_views`, with which the
# page computes its picture.
PageStates = Mapping[str, Sequence[Any]] | PageView


class Timings(NamedTuple):
    """Seconds that a picture took: in the drawing function, and from the figure to PNG."""

    compute: float
    render: float


class Picture(NamedTuple):
    """A figure that was drawn: its PNG, how long that took, and what it says above its panels."""

    png: bytes
    timings: Timings
    titles: str


class Explorer:
    """An interactive figure, made by `explore`; the last line of a cell shows it.

    Attributes
    ----------
    controls : dict of str to ipywidgets.Widget
        One for each argument of the drawing function; setting its `.value` draws at once.
    picture : bytes
        The PNG on show.
    timings : Timings
        How long it took.
    box : ipywidgets.VBox
        The widget that holds the controls and the picture.
    """

    def __init__(
        self,
        draw: Callable[..., Figure],
        controls: Mapping[str, Any],
        alt: str,
        page: PageStates | None = None,
    ):
        self.controls = dict(controls)
        self._draw = draw
        self._alt = alt
        self._page = page or {}
        self._layouts: Layouts = {}
        self._shown = ipywidgets.HTML()  # the picture, or what went wrong
        self.box = ipywidgets.VBox([*self.controls.values(), self._shown])
        self._update()
        for control in self.controls.values():
            control.observe(self._update, names="value")

    def _update(self, _change: object = None) -> None:
        try:
            with _no_full_collection():
                values = {name: control.value for name, control in self.controls.items()}
                drawn = _picture(self._draw, values, self._layouts)
                self.picture, self.timings = drawn.png, drawn.timings
        except Exception as error:
            # Raised as well as shown: a page can only show it, a batch run must stop on it.
            self._shown.value = _MESSAGE.format(escape(f"{type(error).__name__}: {error}"))
            raise
        self._shown.value = self._image_tag()

    def _image_tag(self) -> str:
        return _PICTURE.format(escape(self._alt), b64encode(self.picture).decode())

    def _repr_mimebundle_(self, **_: object) -> tuple[dict, dict]:
        """Widget for a page with a kernel, picture for every other reader.

        Where a page will be made of the notebook, also the states that the page can show.
        """
        static: dict[str, Any] = {
            "text/html": self._image_tag(),
            "image/png": b64encode(self.picture).decode(),
            "text/plain": self._alt,
        }
        if page_states.are_wanted():
            static[page_states.STATES] = self.states_for_page()
        return self.box._repr_mimebundle_() | static, {"image/png": {"alt": self._alt}}

    def states_for_page(self) -> dict[str, Any]:
        """What a page needs to show this figure without a kernel, as JSON.

        Either a picture and its words for every state that the page has, or the numbers with which
        it computes them; see `page_controls`.
        """
        if isinstance(self._page, PageView):
            everything = page_states.positions_for_page(
                self.controls, {name: self._all_values(name) for name in self.controls}
            )
            content = self._page.content(everything, self._draw_for_page, self.picture)
        else:
            everything = page_states.positions_for_page(self.controls, self._page)
            content = self._frames(everything)
        start = [positions.as_json() for positions in everything]
        return {
            "alt": self._alt,
            "controls": start,
            "is_thinned": _is_thinned(everything),
        } | content

    def _all_values(self, name: str) -> list[Any]:
        return page_states.Positions.of(name, self.controls[name]).values

    def _draw_for_page(self, draw: Callable[..., Figure], values: Mapping[str, Any]) -> Picture:
        with _no_full_collection():
            return _picture(draw, values, self._layouts)

    def _frames(self, everything: Sequence[page_states.Positions]) -> dict[str, Any]:
        """A picture and its words for every state."""
        pictures = []
        words = []
        for values, said in page_states.states(everything):
            drawn = self._draw_for_page(self._draw, values)
            pictures.append(drawn.png)
            words.append(f"{said}. {drawn.titles}".strip())
        addresses, frames = page_states.packed(pictures)
        return {"view": "frames", "pictures": addresses, "frames": frames, "words": words}


def _is_thinned(everything: Sequence[page_states.Positions]) -> bool:
    return any(len(positions.values) < positions.n_live for positions in everything)


def explore(
    draw: Callable[..., Figure],
    *,
    alt: str,
    start: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    page: PageStates | None = None,
    **controls: Any,
) -> Explorer:
    """Make a figure with sliders and drop-downs that redraw it.

    It is drawn once immediately, so that the executed notebook holds a real picture. A page sends a
    slider's next value only when the last one has been drawn.

    Parameters
    ----------
    draw : callable
        Takes one keyword argument for each control and returns a matplotlib `Figure`.
    alt : str
        What the picture shows, for readers who do not see it.
    start : dict, optional
        First values of controls; by default the middle of a slider, the first of the options.
    labels : dict, optional
        Texts beside controls; by default their names.
    page : dict of str to sequence, or PageView, optional
        For pages without a kernel, which `patchcore-course run` and `make site` write; JupyterLab
        does not look at it. The values of controls that a page has: each state is drawn beforehand.
        By default, all if they are few, else evenly spread ones. Or an object of `page_views`, for
        a page that computes its picture from numbers.
    **controls : tuple, list or ipywidgets.Widget
        ``(low, high, step)`` or ``(low, high)`` makes a slider, of integers if all are integers;
        a list of options, or of (label, value) pairs, a drop-down.

    Returns
    -------
    Explorer

    Raises
    ------
    InputError
        If a control cannot be made, or if `draw` returns no figure. Its errors pass through.

    Examples
    --------
    >>> def draw(power):
    ...     figure = plt.figure()
    ...     figure.add_subplot().plot([x**power for x in range(10)])
    ...     return figure
    >>> demo = explore(draw, alt="A curve, x to the power.", power=(1, 3))
    >>> demo.controls["power"].value = 3
    """
    start = start or {}
    labels = labels or {}
    for name in {*start, *labels} - {*controls}:
        raise InputError(f"explore: no control {name!r}; there are {', '.join(controls)}")
    widgets = {}
    for name, spec in controls.items():
        widget = _control(name, spec, labels.get(name, name.replace("_", " ")))
        value = start.get(name, widget.value)
        widget.value = value
        if widget.value != value:
            raise InputError(f"explore: start of {name!r}, {value}, is outside {spec}")
        widgets[name] = widget
    return Explorer(draw, widgets, alt, page)


def _control(name: str, spec: Any, label: str) -> Any:
    """The widget for one argument of the drawing function."""
    if isinstance(spec, ipywidgets.Widget):
        return spec
    appearance = {
        "description": label,
        "tooltip": label,
        "layout": {"width": "36em"},
        "style": {"description_width": "initial"},
    }
    match spec:
        case [_, *_] if isinstance(spec, list):
            return ipywidgets.Dropdown(options=spec, **appearance)
        case (low, high, *step) if len(step) < 2 and low < high:
            return _slider(appearance, low, high, *step)
    raise InputError(f"explore: {name}={spec!r}: give (low, high, step) or a list")


def _slider(appearance: dict, low: float, high: float, step: float | None = None) -> Any:
    """A slider of integers, or of decimals with as many places as the step has."""
    are_integers = all(isinstance(number, int) for number in (low, high, step or 1))
    if not step:
        step = 1 if are_integers else (high - low) / 100
    middle = low + step * round((high - low) / step / 2)
    limits = {"value": middle, "min": low, "max": high, "step": step}
    if are_integers:
        return ipywidgets.IntSlider(**limits, **appearance)
    exponent = int(Decimal(f"{step:.3g}").normalize().as_tuple().exponent)
    decimals = max(0, -exponent)
    return ipywidgets.FloatSlider(readout_format=f".{decimals}f", **limits, **appearance)


@contextmanager
def _no_full_collection() -> Iterator[None]:
    """Keep the garbage collector from a full collection while a slider moves.

    Beside torch, a full collection takes 0.3 s, several times as long as a picture, and figures
    would cause one for every 25 pictures. The closed figure is collected at once, while it is
    young.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.collect(0)
        gc.enable()


def _picture(draw: Callable[..., Figure], values: Mapping[str, Any], layouts: Layouts) -> Picture:
    """Draw a figure as PNG, and close it with all others that the drawing function has opened."""
    begin = clock()
    open_before = set(plt.get_fignums())
    try:
        figure = draw(**values)
        drawn = clock()
        if not isinstance(figure, Figure):
            raise InputError("explore: the drawing function must end with `return figure`")
        canvas = FigureCanvasAgg(figure)
        if figure.get_layout_engine() is not None:
            _keep_layout(figure, layouts)
        buffer = io.BytesIO()
        canvas.print_png(buffer, pil_kwargs={"compress_level": 1})
        titles = page_states.titles(figure)
    finally:
        for number in set(plt.get_fignums()) - open_before:
            plt.close(number)
    return Picture(buffer.getvalue(), Timings(drawn - begin, clock() - drawn), titles)


def _keep_layout(figure: Figure, layouts: Layouts) -> None:
    """Lay out the first figure of its kind; later ones take over its layout, at half the time.

    The axes then do not move while a slider moves.
    """
    kind = (*figure.get_size_inches(), len(figure.axes))
    if kind not in layouts:
        figure.draw_without_rendering()
        layouts[kind] = [axes.get_position(original=True) for axes in figure.axes]
        return
    figure.set_layout_engine("none")
    for axes, position in zip(figure.axes, layouts[kind], strict=True):
        axes.set_position(position, which="original")
