"""What the tests share: tiny images and categories, real images, a cache of their own."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

settings.register_profile("same every time", deadline=None, derandomize=True)
settings.load_profile("same every time")  # --hypothesis-profile default tries new examples

# Real images that are not part of the project: PATCHCORE_SHARED_DATA names their folder.
SHARED_DATA = os.environ.get("PATCHCORE_SHARED_DATA") or Path(__file__).parents[2] / "shared/data"
REQUIRE_BROWSER = os.environ.get("PATCHCORE_REQUIRE_BROWSER", "") not in ("", "0")


def pytest_configure(config):
    if not config.option.markexpr:
        config.option.markexpr = "not slow and not network"
    torch.set_num_threads(1)  # tiny images only lose by more


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Nothing is read from, or left in, the user's own cache; commands started here inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATCHCORE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def photo():
    """Make an image: smooth texture by seed, with a bright square if it is defective."""

    def make(seed=0, size=(64, 64), defect=False):
        small = np.random.default_rng(seed).integers(80, 150, (8, 8, 3), dtype=np.uint8)
        image = np.array(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))
        if defect:
            image[20:36, 24:40] = 255
        return image

    return make


@pytest.fixture(scope="session")
def photos(photo):
    """Eight normal images, as arrays."""
    return [photo(seed) for seed in range(8)]


@pytest.fixture
def make_category(photo):
    """Write a small category in the MVTec AD layout; every defect but the last has a mask."""

    def make(folder, train=6, good=3, defects=3, size=(64, 64)):
        seeds = iter(range(1000))
        mask = np.zeros(size, np.uint8)
        mask[20:36, 24:40] = 255

        def write(array, name):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)

        for i in range(train):
            write(photo(next(seeds), size), f"train/good/{i:03}.png")
        for i in range(good):
            write(photo(next(seeds), size), f"test/good/{i:03}.png")
        for i in range(defects):
            write(photo(next(seeds), size, defect=True), f"test/spot/{i:03}.png")
            if i < defects - 1:
                write(mask, f"ground_truth/spot/{i:03}_mask.png")
        return folder

    return make


@pytest.fixture(scope="session")
def shared():
    """Find a folder of real images that is not part of the project, or skip."""

    def find(name):
        folder = Path(SHARED_DATA) / name
        if not folder.is_dir():
            pytest.skip(f"{folder} is missing; PATCHCORE_SHARED_DATA names the folder of {name}/")
        return folder

    return find


def skip_or_fail(reason):
    """Where PATCHCORE_REQUIRE_BROWSER is set, a test that cannot run in a browser has failed."""
    (pytest.fail if REQUIRE_BROWSER else pytest.skip)(reason)


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests of a process: Playwright cannot be started twice in a thread."""
    from helpers.lab_harness import CHROMIUM_FLAGS, find_chromium

    path = find_chromium()
    if path is None:
        skip_or_fail("Chromium not found: install it, e.g. apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        skip_or_fail("playwright is not installed: run make setup-dev")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()
