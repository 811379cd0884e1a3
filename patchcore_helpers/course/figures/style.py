"""One style for every figure of the course."""

import matplotlib
from cycler import cycler
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullLocator

from patchcore_helpers.course.heat import HEAT

# Okabe and Ito, "Color Universal Design" (2008): told apart with any kind of color vision.
BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"

NORMAL = BLUE
DEFECT = VERMILION
THRESHOLD = BLACK

STYLE = {
    "axes.prop_cycle": cycler(color=[BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, BLACK, YELLOW]),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",  # readable in a dark theme too
    "figure.figsize": (9, 3.4),  # inches; 900 pixels fit a notebook's column
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "savefig.facecolor": "white",
    "font.size": 11,
    "image.cmap": HEAT,
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "lines.linewidth": 2,
}


def use_style() -> None:
    """Make `STYLE` the default of every figure drawn from now on.

    Examples
    --------
    >>> use_style()
    >>> matplotlib.rcParams["figure.dpi"]
    100.0
    """
    matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]


def log_scale(axis: Axis, labels: tuple[int, ...] = (1, 2, 5)) -> None:
    """Make an axis logarithmic, with plain numbers on it.

    Parameters
    ----------
    axis : matplotlib axis
        Such as ``ax.xaxis`` or ``colorbar.ax.yaxis``.
    labels : tuple of int
        Multiples of the powers of ten that are labeled.
    """
    set_scale = axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale
    set_scale("log")
    axis.set_major_locator(LogLocator(subs=labels))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")
