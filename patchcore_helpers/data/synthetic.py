"""Categories and strips that are drawn: woven fabrics, and solar cells with planted defects."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from patchcore_helpers.data import drawing, planted, synthetic_fabric, synthetic_strip
from patchcore_helpers.data.aitex import CLEAN, DEFECTIVE, FABRICS, HEIGHT, MASKS, WIDTH
from patchcore_helpers.data.category import Category, LabeledImage, Sample
from patchcore_helpers.data.credits import ELPV_LICENSE
from patchcore_helpers.data.drawing import check_choice, seed_numbers
from patchcore_helpers.data.elpv import load_elpv
from patchcore_helpers.data.images import read_image
from patchcore_helpers.data.planted import PLANTED_DEFECTS, plant_defect
from patchcore_helpers.data.synthetic_fabric import CLOTHS, FABRIC_DEFECTS, fabric
from patchcore_helpers.data.synthetic_strip import STRIP_DEFECTS, STRIP_MODELS, strip
from patchcore_helpers.errors import translate_os_errors
from patchcore_helpers.files import sha256


def _hash_of_code() -> str:
    """A hash of the modules that draw: other code may draw other pixels."""
    modules = drawing, planted, synthetic_fabric, synthetic_strip
    files = [__file__, *(str(module.__file__) for module in modules)]
    return sha256(*(Path(file).read_bytes() for file in files))


CODE_HASH = _hash_of_code()


# Samples


@dataclass(frozen=True)
class FabricRecipe:
    """The arguments of `fabric`."""

    weave: str
    seed: tuple[int, ...]
    defect: str | None
    height: int = 256
    width: int = 256
    strength: str = "clear"

    def draw(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The image and the mask of its defect."""
        return fabric(
            self.weave, self.height, self.width, self.seed, self.defect, strength=self.strength
        )

    def fingerprint(self) -> str:
        """A hash of the code and the arguments."""
        return sha256(CODE_HASH, repr(self))


@dataclass(frozen=True)
class PlantedRecipe:
    """The arguments of `plant_defect`, with files instead of images."""

    image: Path
    donor: Path
    defect: str
    seed: tuple[int, ...]

    def draw(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The image and the mask of its defect."""
        image = np.asarray(read_image(self.image).convert("L"))
        donor = np.asarray(read_image(self.donor).convert("L"))
        return plant_defect(image, self.defect, self.seed, donor)

    def fingerprint(self) -> str:
        """A hash of the code, the content of the two files, and the other arguments."""
        files = self.image.read_bytes(), self.donor.read_bytes()
        return sha256(CODE_HASH, *files, self.defect, repr(self.seed))


# All that the pixels of a drawn image depend on: equal recipes draw equal images.
Recipe = FabricRecipe | PlantedRecipe


@lru_cache(maxsize=128)
def _draw(recipe: Recipe) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw, or take a recent result: an image is often read several times, and its mask as well."""
    return recipe.draw()


@dataclass(frozen=True)
class DrawnSample:
    """A labeled image that is drawn when it is read, and whose defect is known exactly.

    Attributes
    ----------
    source : str
        The path of the photograph below a planted defect. The images of a fabric are in no file;
        their paths, such as "fabric/twill/train/000.png", only tell them apart.
    kind : str
        "good" or the name of the defect.
    recipe : Recipe
    """

    source: str
    kind: str
    recipe: Recipe

    @property
    def label(self) -> int:
        """0 normal, 1 defective."""
        return int(self.kind != "good")

    @property
    def name(self) -> str:
        """Kind and file name, such as "knot/000.png"."""
        return f"{self.kind}/{PurePath(self.source).name}"

    @property
    def has_mask(self) -> bool:
        """True: the defective pixels of a drawn image are always known."""
        return True

    def read(self) -> Image.Image:
        """The image as RGB."""
        image, _ = _draw(self.recipe)
        return read_image(image)

    def mask(self) -> NDArray[np.bool_]:
        """The defective pixels, bool (height, width)."""
        _, mask = _draw(self.recipe)
        return mask.copy()

    def fingerprint(self) -> str:
        """A hash of all that the pixels depend on, without drawing them."""
        return self.recipe.fingerprint()


# Categories


def _load_fabric(name: str, seed: int) -> Category:
    """60 training images, 40 good ones and 10 of each defect to test, 40 for calibration.

    Those of "fabric/..." have defects that a person sees, those of "fabric_hard/..." faint ones, on
    the same cloth; their good images are the same.
    """
    collection, weave = name.split("/")
    strength_of_defects = "faint" if collection == "fabric_hard" else "clear"

    def draw(role: str, count: int, defect: str | None = None) -> list[LabeledImage]:
        samples: list[LabeledImage] = []
        for number in range(count):
            # Without a defect the strength says nothing: the features are computed once for both.
            strength = strength_of_defects if defect else "clear"
            recipe = FabricRecipe(weave, (seed, *role.encode(), number), defect, strength=strength)
            source = f"{name}/{role}/{number:03}.png"
            samples.append(DrawnSample(source, defect or "good", recipe))
        return samples

    test = draw("test", 40)
    for defect in FABRIC_DEFECTS:
        test += draw(defect, 10, defect)
    return Category(
        name,
        train=draw("train", 60),
        test=test,
        calibration=draw("calibration", 40),
        license="rendered by this package, MIT",
    )


N_UNTOUCHED = 60  # normal test images of a planted category
N_OF_EACH_PLANTED = 20


def _load_planted(name: str, seed: int) -> Category:
    """ELPV, with planted defects instead of real ones.

    The split is that of ELPV. Of its normal test images 60 are left untouched, and 60 get one
    planted defect each. Patches are cut from the image itself and from another normal test image by
    turns.
    """
    cells = load_elpv(name.replace("elpv_planted", "elpv"), seed)
    normal = [Path(sample.source) for sample in cells.test if sample.label == 0]
    n_planted = N_OF_EACH_PLANTED * len(PLANTED_DEFECTS)
    to_plant = normal[N_UNTOUCHED : N_UNTOUCHED + n_planted]
    donors = normal[N_UNTOUCHED + n_planted :]

    test: list[LabeledImage] = [Sample(path) for path in normal[:N_UNTOUCHED]]
    for number, path in enumerate(to_plant):
        defect = list(PLANTED_DEFECTS)[number // N_OF_EACH_PLANTED]
        donor = donors[number] if number % 2 else path
        recipe = PlantedRecipe(path, donor, defect, (seed, *name.encode(), number))
        test.append(DrawnSample(str(path), defect, recipe))
    license_ = f"{ELPV_LICENSE}, with planted defects"
    return replace(cells, name=name, test=test, left_out={}, license=license_)


RENDERED: dict[str, Callable[[str, int], Category]] = {
    **{f"fabric/{weave}": _load_fabric for weave in CLOTHS},
    **{f"fabric_hard/{weave}": _load_fabric for weave in CLOTHS},
    "elpv_planted/mono": _load_planted,
    "elpv_planted/poly": _load_planted,
}


# Strips in the layout of AITEX


class _StripJob(NamedTuple):
    """One strip to draw: the name of its file, and its number among those of its fabric."""

    fabric: str
    stem: str
    number: int
    defect: str | None

    @property
    def folder(self) -> str:
        """The folder of the strip below that of the data set."""
        return DEFECTIVE if self.defect else f"{CLEAN}/{FABRICS[self.fabric]}"


def _strip_jobs(fabrics: Sequence[str], clean: int, defective: int) -> Iterator[_StripJob]:
    """The strips of all fabrics; clean ones are numbered by fabric, defective ones throughout."""
    n_defective = 0
    for name in fabrics:
        kinds = STRIP_MODELS[name].defects
        for number in range(clean):
            yield _StripJob(name, f"{number + 1:04}_000_{name}", number, None)
        for number in range(defective):
            n_defective += 1
            defect = kinds[number % len(kinds)]
            stem = f"{n_defective:04}_{STRIP_DEFECTS[defect].code}_{name}"
            yield _StripJob(name, stem, number, defect)


def _write_strip(root: Path, job: _StripJob, seeds: Sequence[int], size: tuple[int, int]) -> None:
    """Draw a strip, and write it and the mask of its defect."""
    seed_of_strip = (*seeds, int(job.defect is not None), job.number)
    image, mask = strip(job.fabric, *size, seed_of_strip, job.defect)
    Image.fromarray(image).save(root / job.folder / f"{job.stem}.png")
    if job.defect:
        white = np.uint8(255) * mask
        Image.fromarray(white).save(root / MASKS / f"{job.stem}_mask.png")


def render_aitex(
    folder: str | Path,
    seed: int = 0,
    fabrics: Sequence[str] = ("00", "04"),
    clean: int = 20,
    defective: int = 6,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    progress: bool = False,
) -> Path:
    """Write drawn strips in the layout, names and mask conventions of AITEX.

    Parameters
    ----------
    folder : path
        A `data_dir`: the strips are written below ``aitex/`` in it. It is created if needed.
    seed : int, from 0
        Seed of all strips.
    fabrics : sequence of str
        Which of `STRIP_MODELS` to draw.
    clean, defective : int
        Strips of each fabric; the defects of its kinds take turns.
    size : (height, width), pixels
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Path
        `folder`, in which ``load_category("aitex/00", data_dir=folder)`` finds the first fabric.

    Raises
    ------
    InputError
        For an unknown fabric, a bad seed, or a folder that cannot be written.
    """
    for name in fabrics:
        check_choice("fabrics", name, STRIP_MODELS)
    seeds = seed_numbers(seed)
    root = Path(folder) / "aitex"
    jobs = list(_strip_jobs(fabrics, clean, defective))
    with translate_os_errors(folder, "choose another folder"):
        for name in (DEFECTIVE, MASKS, *(job.folder for job in jobs)):
            (root / name).mkdir(parents=True, exist_ok=True)
        # NumPy lets other threads work while it computes.
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            done = threads.map(lambda job: _write_strip(root, job, seeds, size), jobs)
            for _ in tqdm(done, "rendering", len(jobs), unit=" strips", disable=not progress):
                pass
    return Path(folder)
