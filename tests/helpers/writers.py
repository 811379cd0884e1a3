"""Everything that writes results, as functions that another process can call.

Each takes a folder to write into and a variant; a variant's result is the same every time.
"""

import numpy as np

from helpers.command import TINY_OPTIONS, tiny_model
from helpers.miniatures import make_mvtec, picture
from patchcore_helpers import MemoryBank
from patchcore_helpers.app import cli
from patchcore_helpers.data.prepare import prepare
from patchcore_helpers.experiments.grid import Grid

TEMPORARY = (".part", ".old", ".running")  # how the names of unfinished files and folders end


def write_bank(folder, variant=0):
    vectors = np.random.default_rng(variant).normal(size=(200, 16))
    MemoryBank(coreset_ratio=0.5).fit(vectors).save(folder / "bank.safetensors")


def write_cache(folder, variant=0):
    """Fill a feature cache; exit status 3 if it changes the scores."""
    images = [picture("cache", 10 * variant + number, 64)[0] for number in range(4)]
    right = tiny_model().fit(images).anomaly_scores(images)
    cached = tiny_model(cache=folder).fit(images).anomaly_scores(images)
    return 0 if np.array_equal(cached, right) else 3


def square(number):
    return [{"square": number**2}], {}


def write_grid(folder, variant=0):
    tasks = [{"number": number} for number in range(3)]
    Grid(square, ["number", "square", "status"], folder).run(tasks)


def write_prepared(folder, variant=0):
    source = folder.parent / "source"
    if not source.exists():
        make_mvtec(source, ("bottle", "cable"), size=32)
    prepare("mvtec_ad", source, folder, ["bottle", "cable"])


def write_report(folder, variant=0):
    category = make_mvtec(folder.parent / "data", ("bottle",)) / "bottle"
    words = ["new", category, "--output", folder, "--pictures", 2 + variant, *TINY_OPTIONS]
    return cli.main([str(word) for word in words])


def write_verdicts(folder, variant=0):
    images = make_mvtec(folder.parent / "data", ("bottle",)) / "bottle" / "test"
    bank = folder.parent / "bank.safetensors"
    if not bank.exists():
        train = [picture("bottle", number, 64)[0] for number in range(6)]
        tiny_model().fit(train).calibrate(train, 0.5).save(bank)
    source = images / "good" if variant else images
    return cli.main(["predict", str(bank), str(source), "--output", str(folder)])


def contents(folder):
    """Every finished file below a folder, as {relative path: bytes}; hidden ones do not count."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(p[0] == "." for p in path.relative_to(folder).parts)
    }


def unfinished(folder):
    """Temporary files and folders, at any depth."""
    return [path for path in folder.rglob(".*") if path.name.endswith(TEMPORARY)]
