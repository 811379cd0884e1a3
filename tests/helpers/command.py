"""The command on miniature images: what its tests share."""

import shutil
import sys
from pathlib import Path

from PIL import Image

from helpers.miniatures import picture
from patchcore_helpers import PatchCore

COMMAND = shutil.which("patchcore-course", path=Path(sys.executable).parent)
TINY_OPTIONS = ["--backbone", "test_resnet", "--weights", "random", "--image-size", "64"]
TINY_OPTIONS += ["--coreset-ratio", "0.1", "--precision", "float32"]
# Run by `python -c`: the command, where only the packages that a line needs are installed.
WITHOUT_TORCH = """
import sys
for name in ("torch", "timm", "torchvision", "openvino", "faiss"):
    sys.modules[name] = None
from patchcore_helpers.app.cli import main
sys.exit(main(sys.argv[1:]))
"""
HOSTILE_NAMES = [
    *("a b", "<b>bold", "\"quotes'", "ümläut", "50% #1", "&amp;", "img onerror=alert(1)"),
    *("{{ 7 * 7 }}", "{% raw %}"),
]


def tiny_model(**options):
    """The PatchCore that `TINY_OPTIONS` ask for."""
    options = {"image_size": 64, "coreset_ratio": 0.1, "precision": "float32", **options}
    return PatchCore("test_resnet", weights="random", **options)


def write_image(path, number, defective=False, size=64):
    """Write an image of the product "part", by number; a defect is a bright square."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture("part", number, size, defective)[0]).save(path)


def write_products(folder, products, n_good=24, n_bad=3):
    """Write good and bad images of products, each a texture of its own, in a folder each."""
    for product in products:
        for kind, numbers in {"good": range(n_good), "bad": range(200, 200 + n_bad)}.items():
            for number in numbers:
                path = folder / product / kind / f"{number:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels, _ = picture(product, number, 64, defective=kind == "bad")
                Image.fromarray(pixels).save(path)
    return folder
