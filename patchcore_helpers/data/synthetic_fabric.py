"""Woven fabrics, drawn from a model of cloth, and the six defects they may have.

The weave is a grid of yarns: *ends* of the warp, upright in the image, and *picks* of the weft,
level. At each crossing the weave says which of the two lies on top (`Cloth`). Every pixel has a
position among the ends and one among the picks (`YarnPixels`); from these follow the height and
the shade of both yarns there, and the higher one is seen (`_weave`). A photograph adds what a
camera sees besides the cloth: light, focus, noise and the table (`Scene`). A defect changes the
yarns' thickness, shifts or shades the cloth (`DefectEffect`), before the photograph is taken.

Every defect comes in two strengths (`STRENGTHS`): "clear", which a person sees, and "faint", of
which a person finds perhaps one in three.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from patchcore_helpers.data.drawing import (
    Array,
    Seed,
    check_choice,
    draw_spot,
    draw_until_visible,
    pixel_grid,
    seed_numbers,
    smooth_noise,
    to_uint8,
    turn_randomly,
)
from patchcore_helpers.errors import InputError

SENSOR_NOISE = 2.5  # gray levels, standard deviation
MIN_CLOTH = 48  # pixels: the smallest height and width of cloth
DEFECT_BORDER = 14  # pixels between the center of a defect and the border of the cloth
SPARE_YARNS = 6  # yarns beyond the image, by which a defect may shift the cloth


@dataclass(frozen=True)
class Cloth:
    """One kind of woven fabric; lengths in pixels, tones in gray levels.

    Attributes
    ----------
    repeat, step, over : int
        The weave: where end i and pick j cross, the end lies on top if
        ``(step * i + j) % repeat < over``.
    end_pitch, pick_pitch : float
        Distance between neighboring ends, and between neighboring picks.
    end_tone, pick_tone, ground : float
        Brightness of the two yarns where they face the camera, and of what is below the cloth.
    width : float
        Thickness of a yarn as a share of its pitch; below 1 the ground shows between yarns.
    relief : float
        How much darker a yarn is where it dives below another one, as a share of its tone.
    slub : float
        Yarn irregularity: standard deviation of thickness and tone along a yarn, as a share.
    streak : float
        Standard deviation of tone between yarns, as a share: the stripes of real cloth.
    fiber : float
        Standard deviation of tone by the fibers on a yarn, as a share.
    """

    repeat: int
    step: int
    over: int
    end_pitch: float
    pick_pitch: float
    end_tone: float
    pick_tone: float
    ground: float
    width: float = 0.95
    relief: float = 0.4
    slub: float = 0.05
    streak: float = 0.025
    fiber: float = 0.08

    def levels(self) -> Array:
        """One repeat of the weave, float32 (ends, picks): 1 where the end is on top, else -1."""
        ends = np.arange(self.repeat)[:, None]
        picks = np.arange(self.repeat)
        end_on_top = (self.step * ends + picks) % self.repeat < self.over
        return np.where(end_on_top, 1, -1).astype(np.float32)

    def selvage(self) -> "Cloth":
        """The edge of this cloth: the same yarns in plain weave, with lighter ends."""
        return replace(self, repeat=2, step=1, over=1, end_tone=1.25 * self.end_tone)


CLOTHS = {
    "plain": Cloth(
        repeat=2,
        step=1,
        over=1,
        end_pitch=4.7,
        pick_pitch=3.7,
        end_tone=64,
        pick_tone=104,
        ground=38,
        fiber=0.11,
    ),
    "twill": Cloth(
        repeat=3,
        step=2,
        over=2,
        end_pitch=3.2,
        pick_pitch=5.2,
        end_tone=160,
        pick_tone=98,
        ground=66,
    ),
    "satin": Cloth(
        repeat=5,
        step=2,
        over=1,
        end_pitch=4.0,
        pick_pitch=3.4,
        end_tone=100,
        pick_tone=147,
        ground=62,
    ),
}


# Yarns


@dataclass(frozen=True)
class YarnPixels:
    """The yarns of one direction as the pixels see them; arrays of shape (height, width).

    Attributes
    ----------
    position : float32
        The number of the yarn, plus how far across it the pixel is, from 0 to 1.
    thickness, tone : float
        Of the yarn at this pixel, around 1.
    fibers : float
        Brightness of the fibers, around 1.
    """

    position: Array
    thickness: Array
    tone: Array
    fibers: Array

    @property
    def yarn(self) -> NDArray[np.int32]:
        """The number of the yarn at each pixel."""
        return np.floor(self.position).astype(np.int32)

    @property
    def across(self) -> Array:
        """How far from the middle of the yarn the pixel is, in pitches, from -0.5 to 0.5."""
        return self.position - np.floor(self.position) - np.float32(0.5)  # stays in float32

    def left_columns(self, count: int) -> "YarnPixels":
        """The first `count` columns of the image."""
        return YarnPixels(
            self.position[:, :count],
            self.thickness[:, :count],
            self.tone[:, :count],
            self.fibers[:, :count],
        )


@dataclass(frozen=True)
class Yarns:
    """All yarns of one direction, the ends or the picks, and where the pixels are among them.

    Attributes
    ----------
    position : float32 array of shape (height, width)
        See `YarnPixels`, for cloth without a defect.
    per_pixel : float
        Yarns per pixel.
    along : int array, (height, 1) for ends, (1, width) for picks
        The pixel along the yarn.
    thickness, tone : float32 arrays of shape (yarns, length)
        Of each yarn along its length, around 1.
    fibers : float32 array of shape (height, width)
        Brightness of the fibers, around 1.
    """

    position: Array
    per_pixel: float
    along: Array
    thickness: Array
    tone: Array
    fibers: Array

    def seen(self, shift: Array | float, remaining: Array | float) -> YarnPixels:
        """The yarns with a defect: shifted by some pixels, and with a share of their thickness."""
        position = self.position + np.float32(shift) * np.float32(self.per_pixel)
        yarn = np.floor(position).astype(np.int32)
        thickness = np.float32(remaining) * self.thickness[yarn, self.along]
        return YarnPixels(position, thickness, self.tone[yarn, self.along], self.fibers)


class _Surface(NamedTuple):
    """One set of yarns at every pixel: how high it lies, the share it covers, its brightness."""

    height: Array
    cover: Array
    brightness: Array


def _round_yarn(
    cloth: Cloth,
    across: Array,
    along: Array,
    levels: tuple[Array, Array],
    thickness: Array,
    tone: Array,
) -> _Surface:
    """A round yarn that bends from crossing to crossing.

    Parameters
    ----------
    cloth : Cloth
    across, along : float arrays of shape (height, width)
        Where the pixel is from the middle of the yarn, and from the middle of the crossing along
        the yarn; in pitches, from -0.5 to 0.5.
    levels : (array, array), 1 on top, -1 below
        Of the yarn at this crossing and at the nearest one beyond it.
    thickness, tone : float arrays of shape (height, width)
        See `YarnPixels`; the tone in gray levels.
    """
    level, next_level = levels
    bent = level + 2 * along**2 * (next_level - level)
    radius = np.maximum(cloth.width * thickness / 2, 1e-3)
    roundness = np.sqrt(np.clip(1 - (across / radius) ** 2, 0, 1))
    cover = np.clip((radius - np.abs(across)) * 8 + 0.5, 0, 1)
    shade = (0.45 + 0.55 * roundness) * (1 - cloth.relief / 2 * (1 - bent))
    height = 0.5 * bent + roundness - 4 * (1 - cover)
    return _Surface(height, cover, tone * shade)


def _weave(cloth: Cloth, ends: YarnPixels, picks: YarnPixels) -> Array:
    """The brightness of the cloth at every pixel, gray levels, of shape (height, width)."""
    levels = cloth.levels()
    end = ends.yarn % cloth.repeat
    pick = picks.yarn % cloth.repeat
    across_end = ends.across
    across_pick = picks.across
    # The crossing that a pixel is nearest to beyond its own, along the end and along the pick.
    next_pick = (pick + np.where(across_pick < 0, -1, 1)) % cloth.repeat
    next_end = (end + np.where(across_end < 0, -1, 1)) % cloth.repeat
    end_levels = levels[end, pick], levels[end, next_pick]
    pick_levels = -levels[end, pick], -levels[next_end, pick]

    end_tone = cloth.end_tone * ends.tone * ends.fibers
    pick_tone = cloth.pick_tone * picks.tone * picks.fibers
    warp = _round_yarn(cloth, across_end, across_pick, end_levels, ends.thickness, end_tone)
    weft = _round_yarn(cloth, across_pick, across_end, pick_levels, picks.thickness, pick_tone)
    warp_on_top = np.clip((warp.height - weft.height) * 2 + 0.5, 0, 1)
    yarns = weft.brightness + warp_on_top * (warp.brightness - weft.brightness)
    return cloth.ground + np.maximum(warp.cover, weft.cover) * (yarns - cloth.ground)


# Defects


@dataclass(frozen=True)
class DefectEffect:
    """What a defect does to the cloth; numbers, or arrays of shape (height, width).

    Attributes
    ----------
    end_thickness, pick_thickness : float
        The share of the yarns' thickness that remains.
    shade : float
        A factor of the brightness.
    shift_x, shift_y : float, pixels
        How far the cloth is shifted to the left and up.
    """

    end_thickness: Array | float = 1
    pick_thickness: Array | float = 1
    shade: Array | float = 1
    shift_x: Array | float = 0
    shift_y: Array | float = 0


@dataclass(frozen=True)
class DefectSite:
    """The cloth around a defect; arrays of shape (height, width).

    Attributes
    ----------
    x, y : float32, pixels
    end, pick : int32
        The number of the end and of the pick at each pixel.
    center : (row, column), pixels
    """

    x: Array
    y: Array
    end: NDArray[np.int32]
    pick: NDArray[np.int32]
    center: tuple[int, int]

    @property
    def dx(self) -> Array:
        """Pixels to the right of the center."""
        return self.x - self.center[1]

    @property
    def dy(self) -> Array:
        """Pixels below the center."""
        return self.y - self.center[0]


# A range from which a size or a strength is drawn evenly.
Range = tuple[float, float]


@dataclass(frozen=True)
class DefectStrength:
    """The ranges from which the sizes and the strengths of defects are drawn; lengths in pixels.

    Attributes
    ----------
    yarns : int
        Neighboring yarns that are missing at once.
    end_half_length, pick_half_length : Range
        Half the length of the gap that they leave.
    end_remaining, pick_remaining : tuple of float
        The share of their thickness that remains; one of these.
    gap_darkness, tip_brightness : Range
        By how much the gap is darker and its frayed tips brighter, as shares.
    knot_radius, knot_relief : Range
        The relief is how much brighter the lit side is, as a share.
    stain_radius, stain_darkness : Range
    bleached : float
        The share of stains that are brighter than the cloth, not darker.
    hole_radius : Range
    hole_remaining : tuple of float
        The share of the yarns' thickness that remains; one of these.
    fold_width, fold_half_length, fold_relief : Range
    """

    yarns: int
    end_half_length: Range
    end_remaining: tuple[float, ...]
    pick_half_length: Range
    pick_remaining: tuple[float, ...]
    gap_darkness: Range
    tip_brightness: Range
    knot_radius: Range
    knot_relief: Range
    stain_radius: Range
    stain_darkness: Range
    bleached: float
    hole_radius: Range
    hole_remaining: tuple[float, ...]
    fold_width: Range
    fold_half_length: Range
    fold_relief: Range


STRENGTHS = {
    "clear": DefectStrength(
        yarns=1,
        end_half_length=(25, 90),
        end_remaining=(0,),
        pick_half_length=(25, 90),
        pick_remaining=(0,),
        gap_darkness=(0.2, 0.45),
        tip_brightness=(0.4, 0.9),
        knot_radius=(3.5, 7),
        knot_relief=(0.4, 0.75),
        stain_radius=(9, 22),
        stain_darkness=(0.2, 0.4),
        bleached=0.4,
        hole_radius=(4, 10),
        hole_remaining=(0, 0.3),
        fold_width=(2, 5),
        fold_half_length=(30, 90),
        fold_relief=(0.25, 0.55),
    ),
    "faint": DefectStrength(
        yarns=1,
        end_half_length=(10, 80),
        end_remaining=(0, 0.3, 0.5),
        pick_half_length=(8, 80),
        pick_remaining=(0, 0.3, 0.6),
        gap_darkness=(0, 0.3),
        tip_brightness=(0, 0.5),
        knot_radius=(2, 5),
        knot_relief=(0.2, 0.6),
        stain_radius=(5, 20),
        stain_darkness=(0.12, 0.4),
        bleached=0,
        hole_radius=(3, 9),
        hole_remaining=(0, 0.3, 0.5),
        fold_width=(1.5, 4),
        fold_half_length=(20, 80),
        fold_relief=(0.1, 0.5),
    ),
}


def _is_missing(yarn: NDArray[np.int32], center: tuple[int, int], count: int) -> Array:
    """Where the yarn at the center is, or one of the `count - 1` that follow it."""
    after = yarn - yarn[center]
    return (after >= 0) & (after < count)


def _broken_yarn(
    rng: np.random.Generator, site: DefectSite, strength: DefectStrength
) -> DefectEffect:
    """An end is missing, or thin, for a length, and its two frayed tips catch the light."""
    half_length = rng.uniform(*strength.end_half_length)
    remaining = rng.choice(strength.end_remaining)
    missing = _is_missing(site.end, site.center, strength.yarns)
    gap = missing & (np.abs(site.dy) < half_length)
    upper_tip = np.exp(-(site.dx**2 + (site.dy + half_length) ** 2) / 8)
    lower_tip = np.exp(-(site.dx**2 + (site.dy - half_length) ** 2) / 8)
    darkness = rng.uniform(*strength.gap_darkness)
    brightness = rng.uniform(*strength.tip_brightness)
    shade = 1 - darkness * gap + brightness * (upper_tip + lower_tip)
    return DefectEffect(end_thickness=np.where(gap, remaining, 1), shade=shade)


def _missing_pick(
    rng: np.random.Generator, site: DefectSite, strength: DefectStrength
) -> DefectEffect:
    """A pick is left out, or thin, for a length; the ends sag into the gap, which is darker."""
    half_length = rng.uniform(*strength.pick_half_length)
    remaining = rng.choice(strength.pick_remaining)
    missing = _is_missing(site.pick, site.center, strength.yarns)
    gap = missing & (np.abs(site.dx) < half_length)
    shade = 1 - rng.uniform(*strength.gap_darkness) * gap
    return DefectEffect(pick_thickness=np.where(gap, remaining, 1), shade=shade)


def _knot(rng: np.random.Generator, site: DefectSite, strength: DefectStrength) -> DefectEffect:
    """A lump pushes the yarns aside; it is lit from the upper left and throws a shadow."""
    radius = rng.uniform(*strength.knot_radius)
    relief = rng.uniform(*strength.knot_relief)

    def bump(offset: float, width: float) -> Array:
        """A Gaussian, `offset` radii to the lower right of the center."""
        squared = (site.dx - offset * radius) ** 2 + (site.dy - offset * radius) ** 2
        return np.exp(-squared / (width * radius**2))

    lump = bump(0, 2)
    highlight = bump(-0.5, 1)
    shadow = bump(1, 1)
    return DefectEffect(
        shade=1 + relief * (highlight - 0.8 * shadow),
        shift_x=-0.6 * lump * site.dx,
        shift_y=-0.6 * lump * site.dy,
    )


def _stain(rng: np.random.Generator, site: DefectSite, strength: DefectStrength) -> DefectEffect:
    """Oil or dirt darkens a blob with a soft rim, or bleach brightens it."""
    radius = rng.uniform(*strength.stain_radius)
    softness = rng.uniform(0.05, 0.3)
    spot = draw_spot(rng, site.x, site.y, site.center, radius, softness)
    darkness = rng.uniform(*strength.stain_darkness)
    if strength.bleached and rng.uniform() < strength.bleached:
        darkness = -darkness
    return DefectEffect(shade=1 - darkness * spot)


def _hole(rng: np.random.Generator, site: DefectSite, strength: DefectStrength) -> DefectEffect:
    """Both yarns are gone, or worn thin, inside a ragged rim of loose fibers."""
    radius = rng.uniform(*strength.hole_radius)
    spot = draw_spot(rng, site.x, site.y, site.center, radius, softness=0.05)
    remaining = 1 - (1 - rng.choice(strength.hole_remaining)) * spot
    shade = 1 + rng.uniform(0, 1) * spot * (1 - spot)
    return DefectEffect(end_thickness=remaining, pick_thickness=remaining, shade=shade)


def _fold(rng: np.random.Generator, site: DefectSite, strength: DefectStrength) -> DefectEffect:
    """A crease: the cloth is pulled together along a curve, lit on one flank, dark on the other."""
    turned = turn_randomly(rng, site.x, site.y, site.center)
    width = rng.uniform(*strength.fold_width)
    across = turned.across + rng.uniform(-0.004, 0.004) * turned.along**2
    extent = np.exp(-((turned.along / rng.uniform(*strength.fold_half_length)) ** 4))
    pull = extent * width * 0.6 * np.exp(-((across / width) ** 2)) * np.sign(across)
    lit_flank = np.exp(-((across / width + 0.6) ** 2))
    dark_flank = np.exp(-((across / width - 0.6) ** 2))
    return DefectEffect(
        shade=1 + rng.uniform(*strength.fold_relief) * extent * (lit_flank - dark_flank),
        shift_x=-pull * turned.sin,
        shift_y=pull * turned.cos,
    )


DrawDefect = Callable[[np.random.Generator, DefectSite, DefectStrength], DefectEffect]

FABRIC_DEFECTS: dict[str, DrawDefect] = {
    "broken_yarn": _broken_yarn,
    "missing_pick": _missing_pick,
    "knot": _knot,
    "stain": _stain,
    "hole": _hole,
    "fold": _fold,
}


# The photograph


@dataclass(frozen=True)
class Scene:
    """What a line camera over an inspection table sees; a defect is added when it is photographed.

    Attributes
    ----------
    cloth : Cloth
    x, y : float32 arrays of shape (height, width), pixels
    ends, picks : Yarns
    margin : int, pixels
        Width of the white strip on the left that the cloth does not reach.
    selvage : int, pixels
        Width of the cloth's edge right of the margin.
    light : float array of shape (height, width)
        A factor of the brightness.
    outline : float array of shape (height, 1), pixels
        How far the ragged edge of the margin reaches.
    noise : float array of shape (height, width), gray levels
    blur : float, pixels
        Standard deviation of the Gaussian by which the lens blurs.
    """

    cloth: Cloth
    x: Array
    y: Array
    ends: Yarns
    picks: Yarns
    margin: int
    selvage: int
    light: Array
    outline: Array
    noise: Array
    blur: float

    def photograph(self, defect: DefectEffect | None = None) -> Array:
        """The photograph, gray levels in floating point, of shape (height, width)."""
        defect = defect or DefectEffect()
        ends = self.ends.seen(defect.shift_x, defect.end_thickness)
        picks = self.picks.seen(defect.shift_y, defect.pick_thickness)
        image = _weave(self.cloth, ends, picks)
        if self.selvage:
            self._add_selvage(image, ends, picks)
        image *= defect.shade * self.light
        if self.margin:
            image += np.clip(self.outline - self.x, 0, 1) * (255 - image)
        image = ndimage.gaussian_filter(image, self.blur) + self.noise
        image[:, : self.margin] = 255
        return image

    def lit_by(self, light: Array) -> "Scene":
        """The scene in further light: a factor that broadcasts to (height, width)."""
        return replace(self, light=self.light * light)

    def _add_selvage(self, image: Array, ends: YarnPixels, picks: YarnPixels) -> None:
        """Draw the cloth's edge over the image; over 4 pixels it turns into the cloth."""
        edge = self.margin + self.selvage
        width = edge + 4
        selvage = _weave(self.cloth.selvage(), ends.left_columns(width), picks.left_columns(width))
        share = np.clip((edge - self.x[:, :width]) / 4 + 0.5, 0, 1)
        image[:, :width] += share * (selvage - image[:, :width])

    def site(self, center: tuple[int, int]) -> DefectSite:
        """The cloth around a defect at (row, column)."""
        end = self.ends.position.astype(np.int32)
        pick = self.picks.position.astype(np.int32)
        return DefectSite(self.x, self.y, end, pick, center)


def _draw_positions(
    rng: np.random.Generator, cloth: Cloth, x: Array, y: Array, edge: int
) -> tuple[tuple[Array, float], tuple[Array, float]]:
    """Where each pixel is among the ends and the picks, and how many there are per pixel.

    The weave is a little skew and stretched, and waves slowly. Left of column `edge`, in the
    selvage, the ends are closer together.
    """
    skew_x, skew_y, stretch_x, stretch_y = rng.normal([0, 0, 1, 1], [0.008, 0.008, 0.004, 0.004])
    ends_per_pixel = float(stretch_x / cloth.end_pitch)
    picks_per_pixel = float(stretch_y / cloth.pick_pitch)
    end_wave = 0.4 * smooth_noise(rng, x.shape, 60)
    across_ends = x + float(skew_x) * y + end_wave + 0.35 * np.minimum(x - edge, 0)
    pick_wave = 0.4 * smooth_noise(rng, x.shape, 60)
    across_picks = y + float(skew_y) * x + pick_wave
    among_ends = across_ends * ends_per_pixel + rng.uniform(0, 1)
    among_picks = across_picks * picks_per_pixel + rng.uniform(0, 1)
    among_ends = among_ends - np.floor(among_ends.min()) + SPARE_YARNS
    among_picks = among_picks - np.floor(among_picks.min()) + SPARE_YARNS
    return (among_ends, ends_per_pixel), (among_picks, picks_per_pixel)


def _draw_irregularity(
    rng: np.random.Generator, cloth: Cloth, position: Array, length: int
) -> tuple[Array, Array]:
    """Thickness and tone of each yarn along it, around 1, two arrays of shape (yarns, length)."""
    n_yarns = int(position.max()) + SPARE_YARNS + 1
    slub = rng.standard_normal((n_yarns, length), np.float32)
    slub = ndimage.gaussian_filter1d(slub, 3)
    slub *= 3.3 * cloth.slub  # the filter leaves a standard deviation of 1 / 3.3
    streak = cloth.streak * rng.standard_normal((n_yarns, 1), np.float32)
    return 1 + slub, 1 + slub + streak


def _draw_fibers(
    rng: np.random.Generator, cloth: Cloth, shape: tuple[int, int]
) -> tuple[Array, Array]:
    """Brightness of the fibers on the ends and on the picks, around 1."""
    grain = rng.standard_normal((2, *shape), np.float32)
    # Fibers lie along their yarn; the filter leaves a standard deviation of 1 / 1.9.
    on_ends = ndimage.gaussian_filter1d(grain[0], 1, axis=0)
    on_picks = ndimage.gaussian_filter1d(grain[1], 1, axis=1)
    return np.exp(1.9 * cloth.fiber * on_ends), np.exp(1.9 * cloth.fiber * on_picks)


def draw_scene(
    rng: np.random.Generator, cloth: Cloth, shape: tuple[int, int], margin: int, selvage: int
) -> Scene:
    """Draw a scene. The order of the random numbers is part of what a seed means."""
    height, width = shape
    x, y = pixel_grid(shape)
    (among_ends, ends_per_pixel), (among_picks, picks_per_pixel) = _draw_positions(
        rng, cloth, x, y, margin + selvage
    )
    end_thickness, end_tone = _draw_irregularity(rng, cloth, among_ends, height)
    pick_thickness, pick_tone = _draw_irregularity(rng, cloth, among_picks, width)
    end_fibers, pick_fibers = _draw_fibers(rng, cloth, shape)
    rows, columns = np.ogrid[:height, :width]
    ends = Yarns(among_ends, ends_per_pixel, rows, end_thickness, end_tone, end_fibers)
    picks = Yarns(among_picks, picks_per_pixel, columns, pick_thickness, pick_tone, pick_fibers)

    light = 1 + 0.025 * smooth_noise(rng, shape, max(shape) / 1.6)
    light += rng.normal(0, 0.04) * (x / width - 0.5)
    outline = margin + 1.5 + 0.8 * smooth_noise(rng, (height, 1), 12)
    noise = SENSOR_NOISE * rng.standard_normal(shape, np.float32)
    blur = rng.uniform(0.65, 0.8)
    return Scene(cloth, x, y, ends, picks, margin, selvage, light, outline, noise, blur)


def check_cloth_size(height: int, width: int, margin: int, selvage: int) -> None:
    """Raise an `InputError` if less than `MIN_CLOTH` rows or columns of cloth are left."""
    if min(margin, selvage) < 0 or min(height, width - margin - selvage) < MIN_CLOTH:
        raise InputError(
            f"fabric of {height} rows, {width} columns, margin {margin}, selvage {selvage}: "
            f"leave at least {MIN_CLOTH} rows and columns of cloth"
        )


def fabric(
    weave: str,
    height: int = 256,
    width: int = 256,
    seed: Seed = 0,
    defect: str | None = None,
    margin: int = 0,
    selvage: int = 0,
    strength: str = "clear",
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw a photograph of woven cloth, as a line camera over an inspection table takes it.

    Seeds differ as photographs of one cloth do: in the position and skew of the weave (under 2 %),
    its slow waves (about half a pixel), the yarns' thickness and tone, fibers, light (a few per
    cent, uneven), focus and sensor noise. The position, size and strength of a defect come from the
    seed as well; the cloth below it is the one without it.

    Parameters
    ----------
    weave : "plain", "twill" or "satin"
        See `CLOTHS`.
    height, width : int, pixels
    seed : int or sequence of int, from 0
    defect : str, optional
        One of `FABRIC_DEFECTS`: broken_yarn, missing_pick, knot, stain, hole, fold.
    margin : int, pixels
        Width of the strip on the left that the cloth does not reach; it is 255 throughout.
    selvage : int, pixels
        Width of the cloth's edge right of the margin: plain weave of lighter ends, closer together.
    strength : "clear" or "faint"
        How well a person sees the defect, see `STRENGTHS`.

    Returns
    -------
    image : uint8 array of shape (height, width)
    mask : bool array of shape (height, width)
        The exact defect, see `patchcore_helpers.data.drawing`.

    Raises
    ------
    InputError
        For an unknown weave, defect or strength, a bad seed, or less than 48 rows or columns of
        cloth.

    Examples
    --------
    >>> image, mask = fabric("twill", 128, 256, seed=3, defect="knot")
    >>> good, no_defect = fabric("twill", 128, 256, seed=3)
    >>> image.shape, bool(mask.any()), bool(no_defect.any())
    ((128, 256), True, False)
    >>> bool((image == good)[~mask].all())
    True
    """
    check_choice("weave", weave, CLOTHS)
    check_choice("strength", strength, STRENGTHS)
    if defect is not None:
        check_choice("defect", defect, FABRIC_DEFECTS)
    check_cloth_size(height, width, margin, selvage)
    seeds = [list(CLOTHS).index(weave), *seed_numbers(seed)]
    rng = np.random.default_rng([*seeds, 0])
    scene = draw_scene(rng, CLOTHS[weave], (height, width), margin, selvage)
    image = to_uint8(scene.photograph())
    if defect is None:
        return image, np.zeros((height, width), bool)
    draw_effect = FABRIC_DEFECTS[defect]

    def draw(attempt: int) -> Array:
        rng = np.random.default_rng([*seeds, 1, attempt])
        row, column = rng.integers(
            (DEFECT_BORDER, margin + DEFECT_BORDER),
            (height - DEFECT_BORDER, width - DEFECT_BORDER),
        ).tolist()
        return scene.photograph(draw_effect(rng, scene.site((row, column)), STRENGTHS[strength]))

    return draw_until_visible(image, draw)
