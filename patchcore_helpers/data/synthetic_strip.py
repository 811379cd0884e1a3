"""Strips of woven cloth as AITEX shows them: their edge, their light, and the defects they have.

A strip is drawn as a square of cloth is (`synthetic_fabric`), with what the photographs of AITEX
show besides. The cloth begins with its *selvage*, a firm edge of about 50 pixels. The lamp lights
every strip of a fabric alike, brighter at one end. And each fabric has defects of its own kinds.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchcore_helpers.data.drawing import (
    Array,
    Seed,
    check_choice,
    draw_spot,
    draw_until_visible,
    seed_numbers,
    smooth_noise,
    to_uint8,
    turn_randomly,
)
from patchcore_helpers.data.synthetic_fabric import (
    CLOTHS,
    DEFECT_BORDER,
    Cloth,
    DefectEffect,
    DefectSite,
    Scene,
    check_cloth_size,
    draw_scene,
)

# Defects


def _broken_end(rng: np.random.Generator, site: DefectSite) -> DefectEffect:
    """A warp yarn is broken; its neighbors leave a dark line that winds from top to bottom."""
    winding = rng.uniform(1, 12) * smooth_noise(rng, (site.x.shape[0], 1), 90)
    line = np.exp(-(((site.dx - winding) / rng.uniform(1.6, 2.8)) ** 2))
    along = np.clip(0.75 + 0.5 * smooth_noise(rng, (site.x.shape[0], 1), 8), 0, 1.3)
    length = np.abs(site.dy) < rng.uniform(40, 200)
    return DefectEffect(shade=1 - rng.uniform(0.35, 0.6) * line * along * length)


def _cut_selvage(rng: np.random.Generator, site: DefectSite) -> DefectEffect:
    """A slack weft yarn at the edge of the cloth: a long and faint level line."""
    slope = rng.uniform(-0.08, 0.08)
    line = np.exp(-(((site.dy - slope * site.dx) / rng.uniform(1.8, 3)) ** 2))
    length = np.abs(site.dx) < rng.uniform(20, 75)
    return DefectEffect(shade=1 - rng.uniform(0.14, 0.3) * line * length)


def _nep(rng: np.random.Generator, site: DefectSite) -> DefectEffect:
    """A tangle of fibers in a warp yarn: a small dark spot, longer than it is wide."""
    width = rng.uniform(2, 4)
    height = width * rng.uniform(1, 4)
    spot = np.exp(-((site.dx / width) ** 2) - (site.dy / height) ** 2)
    return DefectEffect(shade=1 - rng.uniform(0.4, 0.65) * spot)


def _fuzzyball(rng: np.random.Generator, site: DefectSite) -> DefectEffect:
    """A ball of loose fibers: a very small and very dark spot."""
    radius = rng.uniform(3.5, 6)
    spot = draw_spot(rng, site.x, site.y, site.center, radius, softness=0.25)
    return DefectEffect(shade=1 - rng.uniform(0.55, 0.85) * spot)


def _crease(rng: np.random.Generator, site: DefectSite) -> DefectEffect:
    """A fold across the whole strip, lit on one flank and dark on the other."""
    slope = rng.uniform(0.1, 0.35) * rng.choice([-1, 1])
    across = (site.dx - slope * site.dy) / rng.uniform(1.5, 2.5)
    dark_flank = np.exp(-((across - 0.6) ** 2))
    lit_flank = np.exp(-((across + 0.6) ** 2))
    return DefectEffect(shade=1 - rng.uniform(0.25, 0.45) * (dark_flank - 0.5 * lit_flank))


def _broken_yarn(rng: np.random.Generator, site: DefectSite) -> DefectEffect:
    """A loose yarn lies on the cloth in a long curve and throws a shadow."""
    turned = turn_randomly(rng, site.x, site.y, site.center)
    bend = rng.uniform(-0.003, 0.003) * turned.along**2
    across = (turned.across + bend) / rng.uniform(2, 3.5)
    extent = np.abs(turned.along) < rng.uniform(60, 130)
    lit_flank = np.exp(-((across + 0.6) ** 2))
    dark_flank = np.exp(-((across - 0.6) ** 2))
    return DefectEffect(shade=1 + rng.uniform(0.2, 0.4) * extent * (lit_flank - dark_flank))


def _contamination(rng: np.random.Generator, site: DefectSite) -> DefectEffect:
    """Lint lies on the cloth: a pale spot with a ragged rim."""
    radius = rng.uniform(6, 12)
    spot = draw_spot(rng, site.x, site.y, site.center, radius, softness=0.3)
    return DefectEffect(shade=1 + rng.uniform(0.35, 0.6) * spot)


class StripDefect(NamedTuple):
    """A kind of defect: its code in the names of AITEX's files, how it is drawn, and where.

    Attributes
    ----------
    code : str
    draw : callable
        (random numbers, site) -> effect.
    in_selvage : bool
        Whether it lies at the edge where the cloth begins, and not anywhere.
    """

    code: str
    draw: Callable[[np.random.Generator, DefectSite], DefectEffect]
    in_selvage: bool = False


SELVAGE_REACH = 100  # pixels right of the margin: how far defects of the selvage begin

STRIP_DEFECTS = {
    "broken end": StripDefect("002", _broken_end),
    "broken yarn": StripDefect("006", _broken_yarn),
    "fuzzyball": StripDefect("019", _fuzzyball),
    "cut selvage": StripDefect("022", _cut_selvage, in_selvage=True),
    "crease": StripDefect("023", _crease),
    "contamination": StripDefect("029", _contamination),
    "nep": StripDefect("030", _nep),
}


# Strips


@dataclass(frozen=True)
class StripModel:
    """How a fabric of AITEX is drawn.

    Attributes
    ----------
    cloth : Cloth
    margin : float
        Width of the white margin left of the cloth, as a share of the strip.
    selvage : int, pixels
        Width of the cloth's edge.
    light : (float, float, float)
        The light at the left end of the cloth, in its middle, and at its right end, as measured on
        clean strips of the fabric; around 1, and the same for all of its strips.
    defects : tuple of str
        The kinds of `STRIP_DEFECTS` that take turns, about as often as in the fabric.
    """

    cloth: Cloth
    margin: float
    selvage: int
    light: tuple[float, float, float]
    defects: tuple[str, ...]

    def light_along(self, width: int, margin: int) -> Array:
        """The light at every column, float array of shape (1, width)."""
        position = np.linspace(0, 1, width - margin)
        curve = np.polyfit([0, 0.5, 1], self.light, deg=2)
        light = np.ones((1, width), np.float32)
        light[0, margin:] = np.polyval(curve, position)
        return light


STRIP_MODELS = {
    "00": StripModel(
        CLOTHS["plain"],
        margin=0.29,
        selvage=50,
        light=(0.93, 0.97, 1.2),
        defects=("broken end", "cut selvage"),
    ),
    "01": StripModel(
        replace(CLOTHS["twill"], end_tone=138, ground=78),
        margin=0.1,
        selvage=12,
        light=(0.99, 1.01, 0.98),
        defects=("broken end", "nep", "crease", "broken end", "nep", "fuzzyball"),
    ),
    "04": StripModel(
        CLOTHS["satin"],
        margin=0,
        selvage=50,
        light=(0.98, 0.96, 1.16),
        defects=("fuzzyball", "nep", "fuzzyball", "broken yarn", "fuzzyball", "contamination"),
    ),
}
MARGIN_SPREAD = 0.1  # the share by which the margin's width varies from strip to strip


def strip(
    fabric: str, height: int = 256, width: int = 4096, seed: Seed = 0, defect: str | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw a strip of one of AITEX's fabrics.

    Parameters
    ----------
    fabric : str
        One of `STRIP_MODELS`.
    height, width : int, pixels
    seed : int or sequence of int, from 0
        Seeds differ as strips of one fabric do, also in the width of the margin.
    defect : str, optional
        One of `STRIP_DEFECTS`; the cloth below it is the one without it.

    Returns
    -------
    image : uint8 array of shape (height, width)
    mask : bool array of shape (height, width)
        The exact defect, see `patchcore_helpers.data.drawing`.

    Raises
    ------
    InputError
        For an unknown fabric or defect, a bad seed, or less than 48 rows or columns of cloth.

    Examples
    --------
    >>> image, mask = strip("00", 64, 512, seed=3, defect="cut selvage")
    >>> image.shape, bool(mask.any()), bool((image[:, :120] == 255).all())
    ((64, 512), True, True)
    """
    check_choice("fabric", fabric, STRIP_MODELS)
    if defect is not None:
        check_choice("defect", defect, STRIP_DEFECTS)
    model = STRIP_MODELS[fabric]
    seeds = [int(fabric), *seed_numbers(seed)]
    rng = np.random.default_rng([*seeds, 0])
    margin = round((1 + MARGIN_SPREAD * rng.uniform(-1, 1)) * model.margin * width)
    check_cloth_size(height, width, margin, model.selvage)
    scene = draw_scene(rng, model.cloth, (height, width), margin, model.selvage)
    scene = scene.lit_by(model.light_along(width, margin))
    image = to_uint8(scene.photograph())
    if defect is None:
        return image, np.zeros((height, width), bool)

    def draw(attempt: int) -> Array:
        rng = np.random.default_rng([*seeds, 1, attempt])
        return _draw_defect(rng, scene, STRIP_DEFECTS[defect])

    return draw_until_visible(image, draw)


def _draw_defect(rng: np.random.Generator, scene: Scene, defect: StripDefect) -> Array:
    """The photograph with the defect somewhere on the cloth, or in its selvage."""
    height, width = scene.x.shape
    first = scene.margin + DEFECT_BORDER
    last = width - DEFECT_BORDER
    if defect.in_selvage:
        last = min(last, scene.margin + SELVAGE_REACH)
    row = int(rng.integers(DEFECT_BORDER, height - DEFECT_BORDER))
    column = int(rng.integers(first, last))
    return scene.photograph(defect.draw(rng, scene.site((row, column))))
