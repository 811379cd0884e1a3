"""Miniature data sets in the layouts of the originals, on which a model can learn something."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image

TRAIN, GOOD, DEFECTIVE = 12, 6, 6


def picture(name, number, size, defective=False):
    """A smooth texture of its own for each name, with noise; and the mask of a bright square."""
    own = np.random.default_rng(zlib.crc32(name.encode()))
    rng = np.random.default_rng([zlib.crc32(name.encode()), number])
    small = Image.fromarray(own.integers(60, 140, (6, 6, 3), dtype=np.uint8))
    image = np.array(small.resize((size, size), Image.Resampling.BICUBIC), dtype=float)
    image += rng.normal(0, 4, image.shape)
    mask = np.zeros((size, size), np.uint8)
    if defective:
        side = size // 4
        top, left = rng.integers(0, size - side, 2)
        mask[top : top + side, left : left + side] = 255
        image[mask > 0] = 230 + rng.normal(0, 4, (side * side, 3))
    return image.clip(0, 255).astype(np.uint8), mask


def save(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **({"quality": 95} if path.suffix == ".JPG" else {}))


def make_mvtec(folder, categories=("bottle", "cable"), size=64):
    """Write categories in the original layout of MVTec AD; returns the folder."""
    folder = Path(folder)
    for name in categories:
        root = folder / name
        for i in range(TRAIN):
            save(picture(name, i, size)[0], root / f"train/good/{i:03}.png")
        for i in range(GOOD):
            save(picture(name, 100 + i, size)[0], root / f"test/good/{i:03}.png")
        for i in range(DEFECTIVE):
            image, mask = picture(name, 200 + i, size, defective=True)
            kind = ("square", "large_square")[i % 2]
            save(image, root / f"test/{kind}/{i:03}.png")
            save(mask, root / f"ground_truth/{kind}/{i:03}_mask.png")
        (root / "readme.txt").write_text("a miniature\n")
        (root / "license.txt").write_text("none\n")
    return folder


def make_visa(folder, objects=("candle", "pcb1"), size=64):
    """Write objects in the original layout of VisA; returns the folder."""
    folder = Path(folder)
    rows = ["object,split,label,image,mask"]
    for name in objects:
        data = f"{name}/Data"
        for i in range(TRAIN + GOOD):
            image = f"{data}/Images/Normal/{i:04}.JPG"
            save(picture(name, i, size)[0], folder / image)
            rows.append(f"{name},{'train' if i < TRAIN else 'test'},normal,{image},")
        for i in range(DEFECTIVE):
            pixels, mask = picture(name, 200 + i, size, defective=True)
            image, truth = f"{data}/Images/Anomaly/{i:03}.JPG", f"{data}/Masks/Anomaly/{i:03}.png"
            save(pixels, folder / image)
            save(mask // 255, folder / truth)
            rows.append(f"{name},test,anomaly,{image},{truth}")
        (folder / name / "image_anno.csv").write_text("image,label,mask\n")
    (folder / "split_csv").mkdir(parents=True)
    (folder / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")
    (folder / "LICENSE-DATASET").write_text("none\n")
    return folder
