"""Woven fabrics drawn from a model of cloth, and defects planted on photographs.

Every defect comes with its exact mask. The picture is made with the defect and without, from the
same random numbers; the mask holds what differs by more than `LEVEL` gray levels, with gaps of up
to 4 pixels closed and specks dropped. Outside the mask the two pictures are equal, bit by bit, and
no pixel of the mask is further than 2 pixels from one that differs by more than `LEVEL`.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from tqdm.auto import tqdm

from patchcore_helpers.data.aitex import FABRICS
from patchcore_helpers.data.category import Category, Sample
from patchcore_helpers.data.credits import ELPV_LICENSE
from patchcore_helpers.data.elpv import load_elpv
from patchcore_helpers.data.images import read_image
from patchcore_helpers.errors import InputError, translate_os_errors
from patchcore_helpers.files import sha256

LEVEL = 6  # gray levels
SPECK = 12  # pixels: a spot with fewer changed ones is undone
LEAST = 30  # pixels: the smallest mask of a defect
SENSOR_NOISE = 2.5  # gray levels, standard deviation
SMALLEST = 48  # pixels: the least height and width of cloth
VERSION = sha256(Path(__file__).read_bytes())  # other code may draw other pixels


@dataclass(frozen=True)
class Cloth:
    """One kind of woven fabric; lengths in pixels, tones in gray levels.

    Attributes
    ----------
    repeat, step, over : int
        The weave: where end i (of the warp, upright) and pick j (of the weft, level) cross, the end
        lies on top if ``(step * i + j) % repeat < over``.
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


CLOTHS = {
    "plain": Cloth(2, 1, 1, 4.7, 3.7, 64, 104, ground=38, fiber=0.11),
    "twill": Cloth(3, 2, 2, 3.2, 5.2, 160, 98, ground=66),
    "satin": Cloth(5, 2, 1, 4.0, 3.4, 100, 147, ground=62),
}


def _smooth(rng, shape, scale):
    """Smooth noise of about unit variance whose waves are some `scale` pixels long, float32."""
    coarse = rng.standard_normal([int(n / scale) + 3 for n in shape], np.float32)
    size = [int((n - 2) * scale) + 1 for n in coarse.shape]
    fine = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
    return 1.4 * np.asarray(fine)[: shape[0], : shape[1]]


def _irregular(rng, yarns, length, cloth):
    """Thickness and tone of each yarn along it, around 1, two arrays of shape (yarns, length)."""
    wave = ndimage.gaussian_filter1d(rng.standard_normal((yarns, length), np.float32), 3)
    wave *= 3.3 * cloth.slub  # the filter leaves a standard deviation of 1 / 3.3
    return 1 + wave, 1 + wave + cloth.streak * rng.standard_normal((yarns, 1), np.float32)


def _weave(cloth, u, v, ends, picks, fibers, end_left, pick_left):
    """Brightness of the cloth, float32; u, v: each pixel's place among the ends and the picks."""
    i, j = np.floor(u).astype(np.int32), np.floor(v).astype(np.int32)
    order = (np.arange(cloth.repeat) * cloth.step)[:, None] + np.arange(cloth.repeat)
    level = np.where(order % cloth.repeat < cloth.over, 1, -1).astype(np.float32)
    im, jm = i % cloth.repeat, j % cloth.repeat
    here = level[im, jm]

    def yarn(across, along, here, beyond, width, tone):
        """Height, cover and brightness of a round yarn that bends from crossing to crossing."""
        bent = here + 2 * along**2 * (beyond - here)
        half = np.maximum(cloth.width * width / 2, 1e-3)
        back = np.sqrt(np.clip(1 - (across / half) ** 2, 0, 1))
        cover = np.clip((half - np.abs(across)) * 8 + 0.5, 0, 1)
        shade = (0.45 + 0.55 * back) * (1 - cloth.relief / 2 * (1 - bent))
        return 0.5 * bent + back - 4 * (1 - cover), cover, tone * shade

    s, t = u - i - 0.5, v - j - 0.5  # across the end, across the pick
    beyond = level[im, (jm + np.where(t < 0, -1, 1)) % cloth.repeat]
    beside = level[(im + np.where(s < 0, -1, 1)) % cloth.repeat, jm]
    rows, columns = np.ogrid[: u.shape[0], : u.shape[1]]
    end_width, end_tone = (part[i, rows] for part in ends)
    pick_width, pick_tone = (part[j, columns] for part in picks)
    end_z, end_cover, end = yarn(
        s, t, here, beyond, end_left * end_width, cloth.end_tone * end_tone * fibers[0]
    )
    pick_z, pick_cover, pick = yarn(
        t, s, -here, -beside, pick_left * pick_width, cloth.pick_tone * pick_tone * fibers[1]
    )
    seen = pick + np.clip((end_z - pick_z) * 2 + 0.5, 0, 1) * (end - pick)
    return cloth.ground + np.maximum(end_cover, pick_cover) * (seen - cloth.ground)


def _turned(rng, x, y, at):
    """Coordinates around a place, along and across a random direction, and that direction."""
    turn = rng.uniform(0, np.pi)
    cos, sin, dx, dy = np.cos(turn).item(), np.sin(turn).item(), x - at[1], y - at[0]
    return dx * cos + dy * sin, dy * cos - dx * sin, cos, sin


def _spot(rng, x, y, at, radius, soft):
    """1 inside a spot of about `radius` pixels with a ragged rim of softness `soft`, 0 outside."""
    p, q, _, _ = _turned(rng, x, y, at)
    rim = np.hypot(p, q / rng.uniform(0.6, 1)) / radius
    rim += 0.2 * _smooth(rng, x.shape, max(radius / 1.5, 2))
    return 1 / (1 + np.exp(np.clip((rim - 1) / soft, -30, 30)))


# A defect of a fabric says how much of the ends' and picks' thickness is left, how the shade
# changes, and how far the cloth is shifted (right, down). x, y: pixels; i, j: ends and picks.
def _broken_yarn(rng, x, y, i, j, at):
    """An end is missing, or thin, for a length, and its two frayed tips catch the light."""
    half, left = rng.uniform(10, 80), rng.choice([0, 0.3, 0.5])
    gone = (i == i[at]) & (np.abs(y - at[0]) < half)
    tips = sum(np.exp(-((x - at[1]) ** 2 + (y - at[0] - end) ** 2) / 8) for end in (-half, half))
    shade = 1 - rng.uniform(0, 0.3) * gone + rng.uniform(0, 0.5) * tips
    return {"end": np.where(gone, left, 1), "shade": shade}


def _missing_pick(rng, x, y, i, j, at):
    """A pick is left out, or thin, for a length; the ends sag into the gap, which is darker."""
    half, left = rng.uniform(8, 80), rng.choice([0, 0.3, 0.6])
    gone = (j == j[at]) & (np.abs(x - at[1]) < half)
    return {"pick": np.where(gone, left, 1), "shade": 1 - rng.uniform(0, 0.3) * gone}


def _knot(rng, x, y, i, j, at):
    """A lump pushes the yarns aside; it is lit from the upper left and throws a shadow."""
    radius, strength = rng.uniform(2, 5), rng.uniform(0.2, 0.6)
    dx, dy = x - at[1], y - at[0]
    lump, lit, shadow = (
        np.exp(-((dx - k * radius) ** 2 + (dy - k * radius) ** 2) / (n * radius**2))
        for k, n in ((0, 2), (-0.5, 1), (1, 1))
    )
    shade = 1 + strength * (lit - 0.8 * shadow)
    return {"shift": (-0.6 * lump * dx, -0.6 * lump * dy), "shade": shade}


def _stain(rng, x, y, i, j, at):
    """Oil or dirt darkens a blob with a soft rim."""
    spot = _spot(rng, x, y, at, rng.uniform(5, 20), rng.uniform(0.05, 0.3))
    return {"shade": 1 - rng.uniform(0.12, 0.4) * spot}


def _hole(rng, x, y, i, j, at):
    """Both yarns are gone, or worn thin, inside a ragged rim of loose fibers."""
    spot = _spot(rng, x, y, at, rng.uniform(3, 9), 0.05)
    left = 1 - rng.choice([1, 0.7, 0.5]) * spot
    return {"end": left, "pick": left, "shade": 1 + rng.uniform(0, 1) * spot * (1 - spot)}


def _fold(rng, x, y, i, j, at):
    """A crease: the cloth is pulled together along a curve, lit on one flank, dark on the other."""
    (p, q, cos, sin), width = _turned(rng, x, y, at), rng.uniform(1.5, 4)
    q = q + rng.uniform(-0.004, 0.004) * p**2
    there = np.exp(-((p / rng.uniform(20, 80)) ** 4))
    pull = there * width * 0.6 * np.exp(-((q / width) ** 2)) * np.sign(q)
    flanks = np.exp(-((q / width + 0.6) ** 2)) - np.exp(-((q / width - 0.6) ** 2))
    shade = 1 + rng.uniform(0.1, 0.5) * there * flanks
    return {"shift": (-pull * sin, pull * cos), "shade": shade}


FABRIC_DEFECTS = (_broken_yarn, _missing_pick, _knot, _stain, _hole, _fold)
FABRIC_DEFECTS = {function.__name__[1:]: function for function in FABRIC_DEFECTS}


def _exact(before, draw):
    """Draw a defect until it shows: the image, equal to `before` outside the mask, and the mask.

    Parameters
    ----------
    before : uint8 array of shape (height, width)
    draw : function of an attempt's number, from 0, that returns the image with the defect
    """
    disc = np.hypot(*np.ogrid[-2:3, -2:3]) < 2.5
    for attempt in range(50):
        after = np.clip(np.rint(draw(attempt)), 0, 255).astype(np.uint8)
        changed = np.abs(after.astype(np.int16) - before) > LEVEL
        mask = ndimage.binary_closing(np.pad(changed, 2), disc)[2:-2, 2:-2]
        spots, count = ndimage.label(mask, np.ones((3, 3)))
        mask &= (ndimage.sum_labels(changed, spots, np.arange(count + 1)) >= SPECK)[spots]
        if mask.sum() >= LEAST:
            return np.where(mask, after, before), mask
    raise InputError("no defect shows on this image; give one with more light and contrast")


def _known(what, name, names):
    if name not in names:
        raise InputError(f"{what}={name!r}: choose one of {', '.join(names)}")


def _seeds(seed):
    numbers = np.atleast_1d(seed)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or (numbers < 0).any():
        raise InputError(f"seed={seed!r}: give a whole number from 0, or several")
    return numbers.tolist()


def _pixels(shape):
    return np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")


def fabric(weave, height=256, width=256, seed=0, defect=None, margin=0, selvage=0):
    """A photograph of woven cloth, as a line camera over an inspection table takes it.

    Seeds differ as photographs of one cloth do: in the position and skew of the weave (under 2 %),
    its slow waves (about half a pixel), the yarns' thickness and tone, fibers, light (a few per
    cent, uneven), focus and sensor noise. A defect's place, size and strength come from the seed as
    well, from easy to hard to see; the cloth below it is the one without it.

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

    Returns
    -------
    image : uint8 array of shape (height, width)
    mask : bool array of shape (height, width)
        The exact defect: what the image shows otherwise than without it, by more than `LEVEL`.

    Raises
    ------
    InputError
        For an unknown weave or defect, a bad seed, or less than 48 rows or columns of cloth.

    Examples
    --------
    >>> image, mask = fabric("twill", 128, 256, seed=3, defect="knot")
    >>> good, none = fabric("twill", 128, 256, seed=3)
    >>> image.shape, bool(mask.any()), bool(none.any())
    ((128, 256), True, False)
    >>> bool((image == good)[~mask].all())
    True
    """
    _known("weave", weave, CLOTHS)
    if defect is not None:
        _known("defect", defect, FABRIC_DEFECTS)
    if min(margin, selvage) < 0 or min(height, width - margin - selvage) < SMALLEST:
        raise InputError(
            f"fabric of {height} rows, {width} columns, margin {margin}, selvage {selvage}: "
            f"leave at least {SMALLEST} rows and columns of cloth"
        )
    cloth, shape, edge = CLOTHS[weave], (height, width), margin + selvage
    seed = [list(CLOTHS).index(weave), *_seeds(seed)]
    rng, (y, x) = np.random.default_rng([*seed, 0]), _pixels(shape)

    skew_x, skew_y, stretch_x, stretch_y = rng.normal([0, 0, 1, 1], [0.008, 0.008, 0.004, 0.004])
    per_x, per_y = float(stretch_x / cloth.end_pitch), float(stretch_y / cloth.pick_pitch)
    u = x + float(skew_x) * y + 0.4 * _smooth(rng, shape, 60) + 0.35 * np.minimum(x - edge, 0)
    v = y + float(skew_y) * x + 0.4 * _smooth(rng, shape, 60)
    u, v = u * per_x + rng.uniform(0, 1), v * per_y + rng.uniform(0, 1)
    u, v = (w - np.floor(w.min()) + 6 for w in (u, v))  # a defect may shift the cloth by 6 yarns

    ends = _irregular(rng, int(u.max()) + 7, height, cloth)
    picks = _irregular(rng, int(v.max()) + 7, width, cloth)
    grain = rng.standard_normal((2, *shape), np.float32)
    grain = [ndimage.gaussian_filter1d(part, 1, axis) for axis, part in enumerate(grain)]
    fibers = [np.exp(1.9 * cloth.fiber * part) for part in grain]
    light = 1 + 0.025 * _smooth(rng, shape, max(shape) / 1.6)
    light += rng.normal(0, 0.04) * (x / width - 0.5)
    outline = margin + 1.5 + 0.8 * _smooth(rng, (height, 1), 12)
    noise = SENSOR_NOISE * rng.standard_normal(shape, np.float32)
    blur = rng.uniform(0.65, 0.8)

    def photograph(end=1, pick=1, shade=1, shift=(0, 0)):
        at = u + shift[0] * per_x, v + shift[1] * per_y
        picture = _weave(cloth, *at, ends, picks, fibers, end, pick)
        if selvage:
            part = np.s_[:, : edge + 4]
            border = replace(cloth, repeat=2, step=1, over=1, end_tone=1.25 * cloth.end_tone)
            whole = (*at, *fibers, end, pick)
            u_, v_, warp, weft, end, pick = (np.broadcast_to(a, shape)[part] for a in whole)
            border = _weave(border, u_, v_, ends, picks, (warp, weft), end, pick)
            picture[part] += np.clip((edge - x[part]) / 4 + 0.5, 0, 1) * (border - picture[part])
        picture *= shade * light
        if margin:
            picture += np.clip(outline - x, 0, 1) * (255 - picture)
        picture = ndimage.gaussian_filter(picture, blur) + noise
        picture[:, :margin] = 255
        return picture

    def faulty(attempt):
        own = np.random.default_rng([*seed, 1, attempt])
        at = tuple(own.integers((14, margin + 14), (height - 14, width - 14)).tolist())
        i, j = u.astype(np.int32), v.astype(np.int32)
        return photograph(**FABRIC_DEFECTS[defect](own, x, y, i, j, at))

    image = np.clip(np.rint(photograph()), 0, 255).astype(np.uint8)
    return _exact(image, faulty) if defect else (image, np.zeros(shape, bool))


# Fabrics of AITEX that are rendered: weave, width of the margin and of the selvage as shares of the
# strip; and the code of each defect there, of which a hole has none and takes that of a weft crack.
STRIPS = {"00": ("plain", 0.29, 0.01), "01": ("twill", 0.1, 0.006), "04": ("satin", 0, 0)}
CODES = dict(zip(FABRIC_DEFECTS, ("006", "010", "027", "029", "036", "023"), strict=True))


def render_aitex(
    folder, seed=0, fabrics=("00", "04"), clean=20, defective=6, size=(256, 4096), progress=False
):
    """Write rendered strips in the layout, names and mask conventions of AITEX.

    Parameters
    ----------
    folder : path
        It is made if need be, with ``aitex/`` below it: it is then a `data_dir`.
    seed : int from 0
    fabrics : sequence of str
        Some of `STRIPS`.
    clean, defective : int
        Strips of each fabric; the defects take turns.
    size : (height, width), pixels
    progress : bool

    Returns
    -------
    Path
        `folder`, in which ``load_category("aitex/00", data_dir=folder)`` finds the first fabric.

    Raises
    ------
    InputError
        For an unknown fabric, a bad seed, or a folder that cannot be written.
    """
    root, number = Path(folder) / "aitex", 0
    jobs: list = []
    for name in fabrics:
        _known("fabrics", name, STRIPS)
        jobs += [(name, f"{n + 1:04}_000_{name}", None, n) for n in range(clean)]
        for n in range(defective):
            number, kind = number + 1, list(CODES)[n % len(CODES)]
            jobs.append((name, f"{number:04}_{CODES[kind]}_{name}", kind, n))
    with translate_os_errors(folder, "choose another folder"):
        for part in ("Defect_images", "Mask_images"):
            (root / part).mkdir(parents=True, exist_ok=True)
        for name, stem, kind, n in tqdm(jobs, "rendering", unit=" strips", disable=not progress):
            weave, *shares = STRIPS[name]
            numbers = (*_seeds(seed), int(name), int(kind is not None), n)
            wider = 1 + 0.1 * np.random.default_rng(numbers).uniform(-1, 1)
            margin, selvage = (round(wider * share * size[1]) for share in shares)
            image, mask = fabric(weave, size[0], size[1], numbers, kind, margin, selvage)
            place = root / "Defect_images" if kind else root / "NODefect_images" / FABRICS[name]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{stem}.png")
            if kind:
                mask = Image.fromarray(np.uint8(255) * mask)
                mask.save(root / "Mask_images" / f"{stem}_mask.png")
    return Path(folder)


def _plant_scar(rng, image, donor, x, y):
    """A thin curved dark line with soft edges."""
    start, turn, bend = rng.uniform(0.15, 0.85, 2), rng.uniform(0, 2 * np.pi), rng.uniform(-4, 4)
    step = np.linspace(0, rng.uniform(0.1, 0.5), 40)[:, None]
    turn = turn + bend * step
    curve = (start + step * np.hstack([np.cos(turn), np.sin(turn)])) * image.shape[::-1]
    line = Image.new("L", image.shape[::-1])
    ImageDraw.Draw(line).line([tuple(p) for p in curve.tolist()], 255, int(rng.integers(1, 4)))
    line = ndimage.gaussian_filter(np.asarray(line, np.float32), rng.uniform(0.6, 1.5))
    return image - rng.uniform(10, 45) * line / max(line.max(), 1)


def _plant_stain(rng, image, donor, x, y):
    """A dark blob with a soft rim."""
    at = rng.uniform(0.1, 0.9, 2) * image.shape
    spot = _spot(rng, x, y, at.tolist(), rng.uniform(6, 22), rng.uniform(0.1, 0.3))
    return image * (1 - rng.uniform(0.12, 0.5) * spot)


def _plant_patch(rng, image, donor, x, y):
    """A rectangle from another place, of the donor, blended at its edge."""
    size = rng.integers(14, 50, 2)
    source, target = (
        np.s_[y0 : y0 + size[0], x0 : x0 + size[1]]
        for y0, x0 in rng.integers(0, np.array(image.shape) - size, (2, 2))
    )
    ramp = [np.clip(np.minimum(np.arange(n) + 1, n - np.arange(n)) / 4, 0, 1) for n in size]
    out = image.copy()
    out[target] += np.outer(*ramp) * (donor[source] - out[target])
    return out


PLANTED_DEFECTS = {"scar": _plant_scar, "stain": _plant_stain, "cut_and_paste": _plant_patch}


def planted(image, defect, seed=0, donor=None):
    """Plant one defect on a photograph of a normal product.

    Parameters
    ----------
    image : uint8 array of shape (height, width), at least 64 pixels a side
    defect : "scar", "stain" or "cut_and_paste"
    seed : int or sequence of int, from 0
        Drives the defect's place, size and strength.
    donor : uint8 array of the same shape, optional
        What a patch is cut from; the image itself by default.

    Returns
    -------
    image : uint8 array of shape (height, width)
    mask : bool array of shape (height, width)
        The exact defect: what was changed by more than `LEVEL`.

    Raises
    ------
    InputError
        For an unknown defect, a bad seed, unfit images, or one on which no defect shows.

    Notes
    -----
    Cut-and-paste is that of Li et al. 2021, arXiv 2104.04015, who train on such images.
    """
    _known("defect", defect, PLANTED_DEFECTS)
    donor, seed = image if donor is None else donor, _seeds(seed)
    if image.ndim != 2 or min(image.shape) < 64 or donor.shape != image.shape:
        raise InputError(
            f"image of shape {image.shape}, donor of shape {donor.shape}: "
            "give two of the same (height, width), at least 64 each"
        )
    parts = image.astype(np.float32), donor.astype(np.float32), *_pixels(image.shape)[::-1]
    draw = PLANTED_DEFECTS[defect]
    return _exact(image, lambda n: draw(np.random.default_rng([*seed, n]), *parts))


@lru_cache(maxsize=128)
def _drawn(recipe):
    maker, *given = recipe
    if maker == "planted":
        base, donor = (np.asarray(read_image(path).convert("L")) for path in given[:2])
        defect, seed = given[2:]
        return planted(base, defect, seed, donor)
    return fabric(*given)


@dataclass(frozen=True)
class DrawnSample(Sample):
    """A sample that is drawn when it is read, and whose defect is known exactly.

    Attributes
    ----------
    image : Path
        Names the sample: no file for a fabric, the photograph below a planted defect.
    recipe : tuple
        ``("fabric", ...)`` and the arguments of `fabric`, or ``("planted", path, donor's path,
        defect, seed)``.
    """

    recipe: tuple = ()
    has_mask = True

    def read(self):
        """The image as RGB (PIL)."""
        return read_image(_drawn(self.recipe)[0])

    def mask(self):
        """The true defect pixels, bool (height, width)."""
        return _drawn(self.recipe)[1].copy()

    def fingerprint(self):
        """A hash of all that the pixels depend on: this module, the recipe, the files it names."""
        parts = (p.read_bytes() if isinstance(p, Path) else repr(p) for p in self.recipe)
        return sha256(VERSION, *parts)


def _load_fabric(name, seed):
    """60 training images, 40 good and 10 of each defect to test, 40 for calibration."""

    def drawn(role, count, kind="good"):
        defect, samples = None if kind == "good" else kind, []
        for n in range(count):
            recipe = ("fabric", name.split("/")[1], 256, 256, (seed, *role.encode(), n), defect)
            path, label = Path(name, role, f"{n:03}.png"), int(kind != "good")
            samples.append(DrawnSample(path, label, kind, recipe=recipe))
        return samples

    test = drawn("test", 40) + [s for kind in FABRIC_DEFECTS for s in drawn(kind, 10, kind)]
    train, calibration = drawn("train", 60), drawn("calibration", 40)
    return Category(name, train, test, calibration, license="rendered by this package, MIT")


def _load_planted(name, seed):
    """The split of ELPV; of its normal test images 60 untouched, 60 with one planted defect each.

    Patches come from the image itself and from another normal test image by turns.
    """
    cells = load_elpv(name.replace("elpv_planted", "elpv"), seed)
    paths = [sample.image for sample in cells.test if sample.label == 0]
    test, seeds = [Sample(path) for path in paths[:60]], (seed, *name.encode())
    for n, path in enumerate(paths[60:120]):
        kind, donor = list(PLANTED_DEFECTS)[n // 20], paths[120 + n] if n % 2 else path
        test.append(DrawnSample(path, 1, kind, recipe=("planted", path, donor, kind, (*seeds, n))))
    license = f"{ELPV_LICENSE}, with planted defects"
    return replace(cells, name=name, test=test, left_out={}, license=license)


RENDERED = {f"fabric/{weave}": _load_fabric for weave in CLOTHS} | {
    f"elpv_planted/{kind}": _load_planted for kind in ("mono", "poly")
}
