"""Woven fabrics drawn from a model of cloth, and defects planted on photographs.

Every defect comes with its exact mask. The picture is made with the defect and without, from the
same random numbers; the mask holds what differs by more than `LEVEL` grey levels, with gaps of up
to 4 pixels closed and specks dropped. Outside the mask the two pictures are equal, bit by bit, and
no pixel of the mask is further than 2 pixels from one that differs by more than `LEVEL`.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from .datasets import ELPV_LICENCE, Category, Sample, _load_elpv
from .errors import CourseError
from .files import sha256
from .images import read_image

LEVEL = 6  # grey levels
SPECK = 12  # pixels: a spot with fewer changed ones is undone
LEAST = 30  # pixels: the smallest mask of a defect
SENSOR_NOISE = 2.5  # grey levels, standard deviation
SMALLEST = 48  # pixels: the least height and width of cloth
VERSION = sha256(Path(__file__).read_bytes())  # other code may draw other pixels


@dataclass(frozen=True)
class Cloth:
    """One kind of woven fabric; lengths in pixels, tones in grey levels.

    Attributes
    ----------
    repeat, step, over : int
        The weave: where end i (of the warp, upright) and pick j (of the weft, level) cross, the end
        lies on top if ``(step * i + j) % repeat < over``.
    end_pitch, pick_pitch : float
        Distance between neighbouring ends, and between neighbouring picks.
    end_width, pick_width : float
        Thickness of the yarn as a share of its pitch; below 1 the ground shows between yarns.
    end_tone, pick_tone, ground : float
        Brightness of the two yarns where they face the camera, and of what is below the cloth.
    relief : float
        How much darker a yarn is where it dives below another one, as a share of its tone.
    slub : float
        Yarn irregularity: standard deviation of a yarn's thickness along it, as a share.
    streak : float
        Standard deviation of tone between yarns, as a share: the stripes of real cloth.
    fibre : float
        Standard deviation of tone by the fibres on a yarn, as a share.
    """

    repeat: int
    step: int
    over: int
    end_pitch: float
    pick_pitch: float
    end_width: float = 0.95
    pick_width: float = 0.95
    end_tone: float = 140
    pick_tone: float = 130
    ground: float = 35
    relief: float = 0.4
    slub: float = 0.05
    streak: float = 0.025
    fibre: float = 0.08


CLOTHS = {
    "plain": Cloth(2, 1, 1, 4.7, 3.7, end_tone=64, pick_tone=104, ground=38, fibre=0.11),
    "twill": Cloth(3, 2, 2, 3.2, 5.2, end_tone=160, pick_tone=98, ground=66),
    "satin": Cloth(5, 2, 1, 4.0, 3.4, end_tone=100, pick_tone=147, ground=62),
}


def _smooth(rng, shape, scale):
    """Smooth noise of about unit variance whose waves are some `scale` pixels long, float32."""
    coarse = rng.standard_normal([int(n / scale) + 3 for n in shape]).astype(np.float32)
    size = [int((n - 2) * scale) + 1 for n in coarse.shape]
    fine = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
    return 1.4 * np.asarray(fine)[: shape[0], : shape[1]]


def _along(rng, yarns, length, cloth):
    """Thickness and tone of each yarn along it, as shares, two arrays (yarns, length)."""
    wave = ndimage.gaussian_filter1d(
        rng.standard_normal((yarns, length), np.float32), 3, axis=1, mode="nearest"
    )
    wave *= 3.3 * cloth.slub  # the filter leaves a standard deviation of 1 / 3.3
    tone = cloth.streak * rng.standard_normal((yarns, 1), np.float32)
    return 1 + wave, 1 + tone + wave


def _round(across, width):
    """Height of a yarn's round back at `across` from its axis, and how far it covers (0 to 1)."""
    half = np.maximum(width / 2, 1e-3)
    back = np.sqrt(np.clip(1 - (across / half) ** 2, 0, 1))
    return back, np.clip((half - np.abs(across)) * 8 + 0.5, 0, 1)


def _weave(cloth, u, v, ends, picks, fibres, end_left, pick_left):
    """Brightness of the cloth at the yarn coordinates u (ends) and v (picks), float32."""
    i, j = np.floor(u).astype(np.int32), np.floor(v).astype(np.int32)
    s, t = u - i - 0.5, v - j - 0.5  # across the end, across the pick
    order = (np.arange(cloth.repeat) * cloth.step)[:, None] + np.arange(cloth.repeat)
    table = np.where(order % cloth.repeat < cloth.over, 1, -1).astype(np.float32)
    im, jm = i % cloth.repeat, j % cloth.repeat
    here = table[im, jm]

    def height(along, other):  # between two crossings a yarn bends from one level to the other
        share = 2 * along**2
        return here + share * (other - here)

    end_level = height(t, table[im, (jm + np.where(t < 0, -1, 1)) % cloth.repeat])
    pick_level = -height(s, table[(im + np.where(s < 0, -1, 1)) % cloth.repeat, jm])

    rows, columns = np.ogrid[: u.shape[0], : u.shape[1]]

    def yarn(width, across, level, tone):
        back, cover = _round(across, width)
        shade = (0.45 + 0.55 * back) * (1 - cloth.relief / 2 * (1 - level))
        return 0.5 * level + back - 4 * (1 - cover), cover, tone * shade

    rows, columns = np.ogrid[: u.shape[0], : u.shape[1]]
    end_width = cloth.end_width * end_left * ends[0][i, rows]
    pick_width = cloth.pick_width * pick_left * picks[0][j, columns]
    end_tone = cloth.end_tone * ends[1][i, rows] * fibres[0]
    pick_tone = cloth.pick_tone * picks[1][j, columns] * fibres[1]
    end_z, end_cover, end = yarn(end_width, s, end_level, end_tone)
    pick_z, pick_cover, pick = yarn(pick_width, t, pick_level, pick_tone)
    on_top = np.clip((end_z - pick_z) * 2 + 0.5, 0, 1)
    seen = pick + on_top * (end - pick)
    return cloth.ground + np.maximum(end_cover, pick_cover) * (seen - cloth.ground)


def _distance(rng, x, y, at, radius, ragged):
    """Distance from a place, 1 at the rim of a spot of about `radius` pixels with a ragged rim."""
    turn, flat = rng.uniform(0, np.pi), rng.uniform(0.6, 1)
    dx, dy = x - at[1], y - at[0]
    p, q = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    noise = _smooth(rng, x.shape, max(radius / 1.5, 2))
    return np.hypot(p, q / flat) / radius + ragged * noise


def _inside(rim, soft):
    """1 inside a spot, 0 outside, over a rim of relative softness `soft`."""
    return 1 / (1 + np.exp(np.clip((rim - 1) / soft, -30, 30)))


# A defect of a fabric: what is left of the ends' and picks' thickness, how the light changes, how
# far the cloth is pulled aside in pixels. x, y: pixel positions; i, j: ends and picks; at: its place.
def _broken_yarn(rng, x, y, i, j, at):
    """An end is missing for a length, and its two frayed tips catch the light."""
    half, left = rng.uniform(8, 70), rng.choice([0, 0.4, 0.6])
    gone = (i == i[at]) & (np.abs(y - at[0]) < half)
    glow = sum(np.exp(-((x - at[1]) ** 2 + (y - at[0] - end) ** 2) / 8) for end in (-half, half))
    return {"end": np.where(gone, left, 1), "shade": 1 + rng.uniform(0, 0.5) * glow}


def _missing_pick(rng, x, y, i, j, at):
    """A pick is left out, or thin, for a length; the ends sag into the gap, which is darker."""
    half, left = rng.uniform(15, 90), rng.choice([0, 0.3, 0.6])
    gone = (j == j[at]) & (np.abs(x - at[1]) < half)
    return {"pick": np.where(gone, left, 1), "shade": 1 - rng.uniform(0.1, 0.35) * gone}


def _knot(rng, x, y, i, j, at):
    """A lump pushes the yarns aside; it is lit from the upper left and throws a shadow."""
    radius, strength = rng.uniform(2, 5), rng.uniform(0.2, 0.6)
    dx, dy = x - at[1], y - at[0]
    bump = np.exp(-(dx**2 + dy**2) / (2 * radius**2))

    def spot(shift):
        return np.exp(-((dx - shift) ** 2 + (dy - shift) ** 2) / radius**2)

    shade = 1 + strength * (spot(-radius / 2) - 0.8 * spot(radius))
    return {"shift": (-0.6 * bump * dx, -0.6 * bump * dy), "shade": shade}


def _stain(rng, x, y, i, j, at):
    """Oil or dirt darkens a blob with a soft rim."""
    rim = _distance(rng, x, y, at, rng.uniform(5, 20), 0.2)
    return {"shade": 1 - rng.uniform(0.12, 0.4) * _inside(rim, rng.uniform(0.05, 0.3))}


def _hole(rng, x, y, i, j, at):
    """Both yarns are gone inside a ragged rim of loose fibres."""
    rim = _distance(rng, x, y, at, rng.uniform(3, 9), 0.25)
    left = np.clip((rim - 0.9) * 5, rng.choice([0, 0.3, 0.5]), 1)
    glow = rng.uniform(0, 0.3) * np.exp(-(((rim - 1.1) * 4) ** 2))
    return {"end": left, "pick": left, "shade": 1 + glow}


def _fold(rng, x, y, i, j, at):
    """A crease: the cloth is pulled together along a curve, lit on one flank, dark on the other."""
    turn, half, width = rng.uniform(0, np.pi), rng.uniform(20, 80), rng.uniform(1.5, 4)
    dx, dy = x - at[1], y - at[0]
    p, q = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    q = q + rng.uniform(-0.004, 0.004) * p**2
    there = np.exp(-((p / half) ** 4))
    pull = there * width * 0.6 * np.exp(-((q / width) ** 2)) * np.sign(q)
    flank = np.exp(-((q / width + 0.6) ** 2)) - np.exp(-((q / width - 0.6) ** 2))
    shade = 1 + rng.uniform(0.1, 0.5) * there * flank
    return {"shift": (-pull * np.sin(turn), pull * np.cos(turn)), "shade": shade}


FABRIC_DEFECTS = {
    "broken_yarn": _broken_yarn,
    "missing_pick": _missing_pick,
    "knot": _knot,
    "stain": _stain,
    "hole": _hole,
    "fold": _fold,
}


def _exact(before, draw):
    """Draw a defect until it shows; the image, equal to `before` outside the mask, and the mask.

    Parameters
    ----------
    before : uint8 array of shape (height, width)
    draw : function of an attempt's number, from 0, that returns the image with the defect
    """
    disc = np.hypot(*np.ogrid[-2:3, -2:3]) < 2.5
    for attempt in range(50):
        after = draw(attempt)
        changed = np.abs(after.astype(np.int16) - before) > LEVEL
        mask = ndimage.binary_closing(np.pad(changed, 2), disc)[2:-2, 2:-2]
        spots, count = ndimage.label(mask, np.ones((3, 3)))
        sizes = ndimage.sum_labels(changed, spots, np.arange(count + 1))
        mask &= (sizes >= SPECK)[spots]
        if mask.sum() >= LEAST:
            return np.where(mask, after, before), mask
    raise CourseError("no defect shows on this image; give one with more light and contrast")


def _known(what, name, names):
    if name not in names:
        raise CourseError(f"{what}={name!r}: choose one of {', '.join(names)}")


def _seeds(seed):
    numbers = np.atleast_1d(seed)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or (numbers < 0).any():
        raise CourseError(f"seed={seed!r}: give a whole number from 0, or several")
    return numbers.tolist()


def fabric(weave, height=256, width=256, seed=0, defect=None, margin=0, selvage=0):
    """A photograph of woven cloth, as a line camera over an inspection table takes it.

    Seeds differ as photographs of one cloth do: in the position and skew of the weave (under 1 %),
    its slow waves (about half a pixel), the yarns' thickness and tone, fibres, light (a few per
    cent, uneven), focus and sensor noise. A defect's place, size and strength come from the seed as
    well, from plain to hard to see; the cloth below it is the one without it.

    Parameters
    ----------
    weave : "plain", "twill" or "satin"
    height, width : int, pixels
    seed : int or sequence of int, from 0
    defect : str, optional
        One of `FABRIC_DEFECTS`: broken_yarn, missing_pick, knot, stain, hole, fold.
    margin : int, pixels
        Width of the strip on the left that the cloth does not reach; it is 255 throughout.
    selvage : int, pixels
        Width of the cloth's edge right of the margin: plain weave of ends standing closer, lighter.

    Returns
    -------
    image : uint8 array of shape (height, width)
    mask : bool array of shape (height, width)
        The exact defect; see the module.

    Raises
    ------
    CourseError
        For an unknown weave or defect, a bad seed, or less than 48 pixels of cloth.

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
    _known("defect", defect, [None, *FABRIC_DEFECTS] if defect is None else FABRIC_DEFECTS)
    seed = [list(CLOTHS).index(weave), *_seeds(seed)]
    if min(margin, selvage) < 0 or min(height, width - margin - selvage) < SMALLEST:
        raise CourseError(
            f"fabric of {height} rows, {width} columns, margin {margin}, selvage {selvage}: "
            f"leave at least {SMALLEST} rows and columns of cloth"
        )
    cloth, shape, edge = CLOTHS[weave], (height, width), margin + selvage
    rng = np.random.default_rng([*seed, 0])
    y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")

    # Where each pixel lies among the ends (u) and the picks (v): whole numbers part the yarns.
    (skew_x, skew_y), phase = rng.normal(0, 0.008, 2).tolist(), rng.uniform(0, 1, 2).tolist()
    per_x, per_y = (rng.normal(1, 0.004, 2) / (cloth.end_pitch, cloth.pick_pitch)).tolist()
    crowding = 0.35 * np.minimum(x - edge, 0)
    u = (x + crowding + skew_x * y + 0.4 * _smooth(rng, shape, 60)) * per_x + phase[0]
    v = (y + skew_y * x + 0.4 * _smooth(rng, shape, 60)) * per_y + phase[1]
    u, v = (w - np.floor(w.min()) + 2 * cloth.repeat for w in (u, v))

    ends = _along(rng, int(u.max()) + 2 * cloth.repeat, height, cloth)
    picks = _along(rng, int(v.max()) + 2 * cloth.repeat, width, cloth)
    fibres = [
        np.exp(
            1.9
            * cloth.fibre
            * ndimage.gaussian_filter1d(rng.standard_normal(shape, np.float32), 1, a)
        )
        for a in (0, 1)
    ]
    light = 1 + 0.025 * _smooth(rng, shape, 160) + rng.normal(0, 0.04) * (x / width - 0.5)
    outline = margin + 1.5 + _smooth(rng, (height, 1), 9)
    blur = rng.uniform(0.65, 0.8)
    noise = SENSOR_NOISE * rng.standard_normal(shape, np.float32)

    def photograph(end=1, pick=1, shade=1, shift=(0, 0)):
        at = u + shift[0] * per_x, v + shift[1] * per_y
        picture = _weave(cloth, *at, ends, picks, fibres, end, pick)
        if selvage:
            part = np.s_[:, : edge + 4]
            tight = replace(cloth, repeat=2, step=1, over=1, end_tone=1.12 * cloth.end_tone)
            cut = [np.broadcast_to(a, shape)[part] for a in (*at, *fibres, end, pick)]
            border = _weave(tight, *cut[:2], ends, picks, cut[2:4], *cut[4:])
            picture[part] += np.clip((edge - x[part]) / 4 + 0.5, 0, 1) * (border - picture[part])
        picture *= shade * light
        if margin:
            picture += np.clip(outline - x, 0, 1) * (255 - picture)
        picture = ndimage.gaussian_filter(picture, blur) + noise
        picture[:, :margin] = 255
        return np.clip(np.rint(picture), 0, 255).astype(np.uint8)

    def faulty(attempt):
        own = np.random.default_rng([*seed, 1, attempt])
        at = own.integers((14, margin + 14), (height - 14, width - 14))
        yarns = u.astype(np.int32), v.astype(np.int32)
        return photograph(**FABRIC_DEFECTS[defect](own, x, y, *yarns, tuple(at.tolist())))

    image = photograph()
    return _exact(image, faulty) if defect else (image, np.zeros(shape, bool))


def _scar(rng, image, x, y, donor):
    """A thin curved dark line with soft edges."""
    start, turn, bend = rng.uniform(0.15, 0.85, 2), rng.uniform(0, 2 * np.pi), rng.uniform(-1, 1)
    step = np.linspace(0, rng.uniform(0.15, 0.5), 40)[:, None]
    angle = turn + 4 * bend * step
    curve = (start + step * np.hstack([np.cos(angle), np.sin(angle)])) * image.shape[::-1]
    line = Image.new("L", image.shape[::-1])
    ImageDraw.Draw(line).line([tuple(p) for p in curve.tolist()], 255, int(rng.integers(1, 4)))
    soft = ndimage.gaussian_filter(np.asarray(line, np.float32), rng.uniform(0.6, 1.5))
    return image - rng.uniform(15, 60) * soft / soft.max()


def _blot(rng, image, x, y, donor):
    """A dark blob with a soft rim."""
    at = rng.uniform(0.1, 0.9, 2) * image.shape
    rim = _distance(rng, x, y, at, rng.uniform(6, 22), 0.2)
    return image * (1 - rng.uniform(0.1, 0.45) * _inside(rim, rng.uniform(0.1, 0.35)))


def _paste(rng, image, x, y, donor):
    """A patch from elsewhere, of the donor or the image itself, blended at its edge."""
    height, width = size = rng.integers(14, 50, 2)
    (y0, x0), (y1, x1) = (rng.integers(0, np.array(image.shape) - size) for _ in range(2))
    ramp = [np.clip(np.minimum(np.arange(n) + 1, n - np.arange(n)) / 4, 0, 1) for n in size]
    out = image.copy()
    place = out[y1 : y1 + height, x1 : x1 + width]
    place += np.outer(*ramp) * (donor[y0 : y0 + height, x0 : x0 + width] - place)
    return out


PLANTED_DEFECTS = {"scar": _scar, "stain": _blot, "cut_and_paste": _paste}


def planted(image, defect, seed=0, donor=None):
    """Plant one defect on a photograph of a normal product.

    Parameters
    ----------
    image : uint8 array of shape (height, width), at least 64 pixels a side
    defect : "scar", "stain" or "cut_and_paste"
    seed : int or sequence of int, from 0
        Drives the defect's place, size and strength.
    donor : uint8 array of the same shape, optional
        Where a patch is cut from; the image itself by default.

    Returns
    -------
    image : uint8 array of shape (height, width)
    mask : bool array of shape (height, width)
        The exact defect; see the module.

    Raises
    ------
    CourseError
        For an unknown defect, a small image, a donor of another shape, or an image too flat or dark
        for the defect to show.

    Notes
    -----
    Cut-and-paste after Li et al. 2021, arXiv 2104.04015, who train on such images.
    """
    _known("defect", defect, PLANTED_DEFECTS)
    donor = image if donor is None else donor
    if image.ndim != 2 or min(image.shape) < 64 or donor.shape != image.shape:
        raise CourseError(
            f"image of shape {image.shape}, donor of shape {donor.shape}: "
            "give two of the same (height, width), at least 64 each"
        )
    grey, other = image.astype(np.float32), donor.astype(np.float32)
    y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in image.shape), indexing="ij")

    def draw(attempt):
        rng = np.random.default_rng([*_seeds(seed), attempt])
        drawn = PLANTED_DEFECTS[defect](rng, grey, x, y, other)
        return np.clip(np.rint(drawn), 0, 255).astype(np.uint8)

    return _exact(image, draw)


@lru_cache(maxsize=128)
def _draw(recipe):
    maker, *values = recipe
    if maker == "fabric":
        image, mask = fabric(*values)
    else:
        path, donor, *values = values
        image, mask = planted(_grey(path), *values, donor=_grey(donor))
    image.flags.writeable = mask.flags.writeable = False
    return image, mask


def _grey(path):
    return np.asarray(read_image(path).convert("L"))


@dataclass(frozen=True)
class DrawnSample(Sample):
    """A sample that is drawn when it is read, and always has a mask.

    Attributes
    ----------
    image : Path
        Names the sample. No such file exists for a fabric; for a planted defect it is the
        photograph below it.
    recipe : tuple
        ``("fabric", ...)`` with the arguments of `fabric`, or ``("planted", path, donor's path,
        defect, seed)``.
    """

    recipe: tuple = ()

    @property
    def has_mask(self):
        """True: the defect is known exactly."""
        return True

    def read(self):
        """The image as RGB (PIL)."""
        return read_image(_draw(self.recipe)[0])

    def mask(self):
        """The exact defect, bool (height, width)."""
        return _draw(self.recipe)[1]

    def fingerprint(self):
        """What the pixels depend on, hashed: this module, the recipe, the files it names."""
        parts = [p.read_bytes() if isinstance(p, Path) else repr(p) for p in self.recipe]
        return sha256(VERSION, *parts)


def _load_fabric(name, seed):
    """60 training images, 40 good and 6 x 10 defective test images, 40 for calibration."""
    weave = name.split("/")[1]

    def drawn(role, kind, count):
        return [
            DrawnSample(
                Path(name, f"{role}_{n:03}.png"),
                int(kind != "good"),
                kind,
                recipe=("fabric", weave, 256, 256, (seed, *role.encode(), n))
                + ((kind,) if kind != "good" else ()),
            )
            for n in range(count)
        ]

    test = drawn("test", "good", 40)
    for kind in FABRIC_DEFECTS:
        test += drawn(kind, kind, 10)
    train, calibration = drawn("train", "good", 60), drawn("calibration", "good", 40)
    licence = "rendered by this package, MIT"
    return Category(name, train, test, calibration, licence=licence)


def _load_planted(name, seed):
    """The solar cells' split; of the normal test images 60 as they are, 60 with a defect planted.

    Patches are cut from the same image or from another normal test image by turns.
    """
    cells = _load_elpv(name.replace("elpv_planted", "elpv"), seed)
    paths = [sample.image for sample in cells.test if sample.label == 0]
    test = [Sample(path) for path in paths[:60]]
    for n, path in enumerate(paths[60:120]):
        kind = list(PLANTED_DEFECTS)[n // 20]
        donor = path if n % 2 else paths[120 + n]
        recipe = ("planted", path, donor, kind, (seed, n))
        test.append(DrawnSample(path, 1, kind, recipe=recipe))
    licence = f"{ELPV_LICENCE}, with planted defects"
    return replace(cells, name=name, test=test, left_out={}, licence=licence)


RENDERED = {f"fabric/{weave}": _load_fabric for weave in CLOTHS} | {
    f"elpv_planted/{kind}": _load_planted for kind in ("mono", "poly")
}
