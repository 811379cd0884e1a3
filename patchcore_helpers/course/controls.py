"""Interactive figures: move a slider, see the picture change."""

import gc
import io
from base64 import b64encode
from collections import namedtuple
from decimal import Decimal
from html import escape
from time import perf_counter as clock

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg

from patchcore_helpers.errors import InputError

# In the colors of the page, so that a dark theme can be read as well.
_MESSAGE = '<p role="alert" style="border-left: 6px solid #c00; padding: 6px"><b>{}</b></p>'
# HTML, not an Image widget: that one has no alternative text, and is stretched to the page's width.
_PICTURE = '<img alt="{}" src="data:image/png;base64,{}" decoding="sync" style="max-width: 100%">'
Timings = namedtuple("Timings", ["compute", "render"])  # seconds in `draw`, and figure to PNG


class Explorer:
    """An interactive figure, made by `explore`; the last line of a cell shows it.

    Attributes
    ----------
    controls : dict of str to ipywidgets.Widget
        One per argument of the drawing function; setting its `.value` draws at once.
    picture, timings : bytes, Timings
        The PNG on show, and how long it took.
    """

    def __init__(self, draw, controls, alt):
        self.controls, self._draw, self._alt = controls, draw, alt
        self._places = {}  # where the axes of a figure with so many axes stand
        self._shown = ipywidgets.HTML()  # the picture, or what went wrong
        self._box = ipywidgets.VBox([*controls.values(), self._shown])
        self._update()
        for control in controls.values():
            control.observe(self._update, names="value")

    def _update(self, _change=None):
        gc.disable()  # a full collection, beside torch, takes longer than several pictures
        try:
            values = {name: control.value for name, control in self.controls.items()}
            self.picture, self.timings = _picture(self._draw, values, self._places)
        except Exception as error:
            # Raised as well as shown: a page can only show it, a batch run must stop on it.
            self._shown.value = _MESSAGE.format(escape(f"{type(error).__name__}: {error}"))
            raise
        finally:
            gc.collect(0)  # the closed figure, while it is young
            gc.enable()
        self._encoded = b64encode(self.picture).decode()
        self._shown.value = _PICTURE.format(escape(self._alt), self._encoded)

    def _repr_mimebundle_(self, **_):
        """Widget for a page with a kernel, picture for every other reader."""
        image = _PICTURE.format(escape(self._alt), self._encoded)
        static = {"text/html": image, "image/png": self._encoded, "text/plain": self._alt}
        return self._box._repr_mimebundle_() | static, {"image/png": {"alt": self._alt}}


def explore(draw, *, alt, start=None, labels=None, **controls):
    """Make a figure with sliders and drop-downs that redraw it.

    It is drawn once straight away, so that the executed notebook holds a real picture. A page
    sends a slider's next value only when the last one has been drawn.

    Parameters
    ----------
    draw : callable
        Takes one keyword argument per control and returns a matplotlib `Figure`.
    alt : str
        What the picture shows, for readers who do not see it.
    start : dict, optional
        First value of some controls; else the middle of a slider, the first of the options.
    labels : dict, optional
        Text beside some controls; else their names.
    **controls : tuple, list or ipywidgets.Widget
        ``(low, high, step)`` or ``(low, high)`` makes a slider, of integers if all are integers;
        a list of options, or of (label, value) pairs, a drop-down.

    Returns
    -------
    Explorer

    Raises
    ------
    InputError
        On a control that cannot be made, or if `draw` returns no figure. Its errors pass through.

    Examples
    --------
    >>> def draw(power):
    ...     figure = plt.figure()
    ...     figure.add_subplot().plot([x**power for x in range(10)])
    ...     return figure
    >>> demo = explore(draw, alt="A curve, x to the power.", power=(1, 3))
    >>> demo.controls["power"].value = 3
    """
    start, labels = start or {}, labels or {}
    for name in {*start, *labels} - {*controls}:
        raise InputError(f"explore: no control {name!r}; there are {', '.join(controls)}")
    return Explorer(draw, {k: _control(k, v, start, labels) for k, v in controls.items()}, alt)


def _control(name, spec, start, labels):
    look = dict.fromkeys(("description", "tooltip"), labels.get(name, name.replace("_", " ")))
    look |= {"layout": {"width": "36em"}, "style": {"description_width": "initial"}}
    match spec:
        case ipywidgets.Widget():
            control = spec
        case [_, *_] if isinstance(spec, list):
            control = ipywidgets.Dropdown(options=spec, **look)
        case (low, high, *step) if len(step) < 2 and low < high:
            control = _slider(look, low, high, *step)
        case _:
            raise InputError(f"explore: {name}={spec!r}: give (low, high, step) or a list")
    control.value = value = start.get(name, control.value)
    if control.value != value:
        raise InputError(f"explore: start of {name!r}, {value}, is outside {spec}")
    return control


def _slider(look, low, high, step=None):
    whole = all(isinstance(number, int) for number in (low, high, step or 1))
    step = step or (1 if whole else (high - low) / 100)
    look |= {"value": low + step * round((high - low) / step / 2), "min": low, "max": high}
    if whole:
        return ipywidgets.IntSlider(step=step, **look)
    decimals = max(0, -Decimal(f"{step:.3g}").normalize().as_tuple().exponent)
    return ipywidgets.FloatSlider(step=step, readout_format=f".{decimals}f", **look)


def _keep_layout(figure, places):
    """Lay out the first figure of its kind; later ones take its places, at half the time.

    The axes then stand still while a slider moves.
    """
    kind = tuple(figure.get_size_inches()), len(figure.axes)
    if kind in places:
        figure.set_layout_engine("none")
        for axes, place in zip(figure.axes, places[kind], strict=True):
            axes.set_position(place, which="original")
        return
    figure.draw_without_rendering()
    places[kind] = [axes.get_position(original=True) for axes in figure.axes]


def _picture(draw, values, places):
    begin, open_before = clock(), set(plt.get_fignums())
    try:
        figure = draw(**values)
        drawn, buffer = clock(), io.BytesIO()
        if not isinstance(figure, plt.Figure):
            raise InputError("explore: the drawing function must end with `return figure`")
        canvas = FigureCanvasAgg(figure)
        if figure.get_layout_engine() is not None:
            _keep_layout(figure, places)
        canvas.print_png(buffer, pil_kwargs={"compress_level": 1})
    finally:
        for number in set(plt.get_fignums()) - open_before:
            plt.close(number)
    return buffer.getvalue(), Timings(drawn - begin, clock() - drawn)
