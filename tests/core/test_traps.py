"""The trap audit: its values by hand, and what it says about categories made to trap."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from patchcore_helpers import InputError, Sample, load_category
from patchcore_helpers.core.traps import image_traits, trap_aurocs
from patchcore_helpers.data.category import Category


def written(folder, name, gray):
    """Write a gray image and return its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(gray, np.uint8)).save(path)
    return path


def test_traits_by_hand(tmp_path):
    ramp = np.tile(np.arange(0, 200, 4), (40, 1))  # 4 gray levels per column
    flat = np.full((50, 100), 90)
    dark_corner = flat.copy()
    dark_corner[:20, :20] = 10
    samples = [
        Sample(written(tmp_path, name, gray))
        for name, gray in (("9/ramp_012.png", ramp), ("no.png", flat), ("a1b22.png", dark_corner))
    ]
    traits = image_traits(samples)
    assert traits["file number"].tolist() == pytest.approx([12, np.nan, 22], nan_ok=True)
    assert traits["mean gray level"].tolist() == pytest.approx([98, 90, 90 - 80 * 400 / 5000])
    assert traits["sharpness"].tolist()[:2] == pytest.approx([4, 0])
    # A step of 80 is spread over two pixels of gradient 40, along two edges of 20 pixels; at the
    # corner both directions add up.
    edges = 2 * 2 * 19 * 40 + np.hypot(40, 40) * 1 + 2 * 40
    assert traits["sharpness"][2] == pytest.approx(edges / 5000, rel=0.02)
    assert traits["darkest point"].tolist() == pytest.approx([0, 90, 10], abs=1.5)
    assert traits["image size"].tolist() == [2000, 5000, 5000]


@dataclass(frozen=True)
class Grouped(Sample):
    group: int = 0


def trapped(tmp_path, sample=Sample, **groups):
    """20 normal and 20 defective images; bright ones, with high numbers, are mostly defective."""
    rng = np.random.default_rng(0)
    test = []
    for i in range(40):
        is_bright = i >= 20
        label = int(is_bright != (i % 5 == 0))
        gray = rng.normal(100 + 60 * is_bright, 10, (24, 24)).clip(0, 255)
        path = written(tmp_path, f"{'bad' if label else 'good'}/{i:03}.png", gray)
        options = {name: values[i] for name, values in groups.items()}
        test.append(sample(path, label, "bad" if label else "good", **options))
    return Category("x", [], test)


def test_a_trap_is_found(tmp_path):
    category = trapped(tmp_path)
    table = trap_aurocs(category).set_index("trap")
    numbers = [int(sample.image.stem) for sample in category.test]
    gray = [np.asarray(sample.read().convert("L"), float).mean() for sample in category.test]
    assert table.loc["file number", "auroc"] == pytest.approx(
        roc_auc_score(category.labels, numbers)
    )
    assert table.loc["mean gray level", "auroc"] == pytest.approx(
        roc_auc_score(category.labels, gray)
    )
    assert table.loc["file number", "separation"] > 0.7
    assert table.loc["image size", "auroc"] == 0.5
    assert "within_groups" not in table
    turned = Category("y", [], [Sample(s.image, 1 - s.label) for s in category.test])
    other = trap_aurocs(turned).set_index("trap")
    assert other["auroc"].tolist() == pytest.approx((1 - table["auroc"]).tolist())
    assert other["separation"].tolist() == pytest.approx(table["separation"].tolist())


def test_within_groups_the_trap_is_gone(tmp_path):
    category = trapped(tmp_path, Grouped, group=[0] * 20 + [1] * 20)
    table = trap_aurocs(category).set_index("trap")
    labels, groups = category.labels, category.groups
    gray = np.array([np.asarray(s.read().convert("L"), float).mean() for s in category.test])
    right = total = 0
    for i, j in np.ndindex(40, 40):
        if groups[i] == groups[j] and labels[i] > labels[j]:
            total += 1
            right += gray[i] > gray[j]
    expected = max(right / total, 1 - right / total)
    assert table.loc["mean gray level", "within_groups"] == pytest.approx(expected)
    assert table.loc["mean gray level", "separation"] > 0.7 > expected


def test_nothing_is_left_to_chance_where_names_have_no_numbers(tmp_path):
    test = [
        Sample(written(tmp_path, f"{name}.png", np.full((8, 8), 50)), label)
        for name, label in (("a", 0), ("b", 1))
    ]
    assert "file number" not in trap_aurocs(Category("x", [], test))["trap"].tolist()
    with pytest.raises(InputError, match="x: give normal and defective test images"):
        trap_aurocs(Category("x", [], test[:1]))


@pytest.mark.long
def test_the_file_number_separates_elpv():
    """The trap that the first data set of the course is: known from its file names alone."""
    category = load_category("elpv/mono")
    numbers = [int(Path(sample.source).stem[4:]) for sample in category.test]
    table = trap_aurocs(category.limit(test=60, seed=1)).set_index("trap")
    auroc = roc_auc_score(category.labels, numbers)
    assert 0.85 < max(auroc, 1 - auroc) < 0.9
    assert table.loc["file number", "separation"] > 0.75
    assert table.loc["file number", "within_groups"] < table.loc["file number", "separation"]
