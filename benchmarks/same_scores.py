"""Do two commits give the same scores? Compares this checkout with another commit of it.

    python -m benchmarks.same_scores 2a6a5b0

Image and patch scores of elpv/mono, elpv/poly, fabric/twill and of one rendered AITEX fabric, at
float32 with seeds 0 and 1, are computed by both, each in a process of its own. The command ends
with status 1 if any of them differ by more than 1e-4 of their largest value.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-4
# Runs in both checkouts, so it knows the names of both: those before and after the package was
# divided into rooms.
SCORES = """
import sys
import numpy as np
from patchcore_helpers import PatchCore, load_category

try:
    from patchcore_helpers.core.strips import STRIP_SETTINGS, StripPatchCore
    from patchcore_helpers.data.synthetic import render_aitex
except ImportError:
    from patchcore_helpers.rendering import render_aitex
    from patchcore_helpers.strips import SETTINGS as STRIP_SETTINGS, StripPatchCore

output, data = sys.argv[1:]
options = {"precision": "float32"}
if "engine" in PatchCore().get_params():
    options["engine"] = "torch"
scores = {}
for seed in (0, 1):
    for name in ("elpv/mono", "elpv/poly", "fabric/twill"):
        category = load_category(name, seed=seed)
        model = PatchCore(random_state=seed, **options).fit(category.train)
        result = getattr(model, "detect", None) or model.inspect
        result = result(category.test)
        scores[f"{name}, seed {seed}, image scores"] = result.scores
        scores[f"{name}, seed {seed}, patch scores"] = result.patch_scores
    folder = render_aitex(f"{data}/{seed}", seed, ("00",), clean=8, defective=4, size=(256, 1024))
    category = load_category("aitex/00", data_dir=folder, seed=seed)
    model = StripPatchCore(PatchCore(**{**STRIP_SETTINGS, **options, "random_state": seed}))
    model.fit(category.train)
    maps = np.stack(list(model.anomaly_maps(category.test)))
    scores[f"aitex/00, seed {seed}, image scores"] = maps.max((1, 2))
    scores[f"aitex/00, seed {seed}, anomaly maps"] = maps
np.savez(output, **scores)
"""


def scores_of(checkout: Path, folder: Path) -> dict[str, np.ndarray]:
    """The scores that a checkout computes."""
    folder.mkdir()
    output = folder / "scores.npz"
    command = [sys.executable, "-c", SCORES, str(output), str(folder)]
    subprocess.run(
        command, cwd=checkout, env={**environment(), "PYTHONPATH": str(checkout)}, check=True
    )
    with np.load(output) as scores:
        return dict(scores)


def environment() -> dict[str, str]:
    """The environment without a feature cache that the two could share."""

    return {name: value for name, value in os.environ.items() if name != "PATCHCORE_CACHE"}


def main() -> int:
    """Compare and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="the commit to compare with")
    commit = parser.parse_args().commit
    with tempfile.TemporaryDirectory() as temporary:
        other = Path(temporary) / "checkout"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(other), commit], check=True)
        try:
            before = scores_of(other, Path(temporary) / "before")
            after = scores_of(ROOT, Path(temporary) / "after")
        finally:
            subprocess.run([*git, "remove", "--force", str(other)], check=True)
    worst = 0.0
    for name, expected in before.items():
        difference = np.abs(after[name] - expected).max() / np.abs(expected).max()
        worst = max(worst, difference)
        print(f"{name:40} largest relative difference {difference:.1e}")
    print(f"largest of all: {worst:.1e}, allowed {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
