"""AITEX in its original layout: every oddity handled and said, strips split by their source."""

import json
import shutil

import numpy as np
import pytest
from helpers.samples import file_names
from PIL import Image

from patchcore_helpers import InputError, load_category
from patchcore_helpers.app import cli
from patchcore_helpers.data.aitex import (
    DEFECT_KINDS,
    FABRICS,
    FOLDERS,
    report_anomalous_files,
)
from patchcore_helpers.data.prepare import prepare
from patchcore_helpers.data.synthetic import render_aitex
from patchcore_helpers.data.synthetic_strip import STRIP_DEFECTS, STRIP_MODELS, strip

HEIGHT, WIDTH = 64, 512


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    return render_aitex(folder, clean=6, defective=3, size=(HEIGHT, WIDTH))


@pytest.fixture
def data(rendered, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(rendered, tmp_path / "data")


@pytest.fixture
def root(data):
    return data / "aitex"


def save(path, mode="L", width=WIDTH, box=None, height=HEIGHT):
    """Write an even picture; as a mask, 0 with 255 in a box (x0, y0, x1, y1)."""
    image = Image.new("L", (width, height), 90 if box is None else 0)
    if box:
        image.paste(255, box)
    path.parent.mkdir(exist_ok=True)
    image.convert(mode).save(path)


def test_rendered_strips_are_in_the_layout_of_aitex(rendered):
    root = rendered / "aitex"
    assert sorted(p.name for p in root.iterdir()) == sorted(FOLDERS)
    clean = sorted(p.relative_to(root / "NODefect_images") for p in root.glob("NO*/*/*"))
    expected = [f"{FABRICS[f]}/{n:04}_000_{f}.png" for f in ("04", "00") for n in range(1, 7)]
    assert [str(p) for p in clean] == expected
    # Broken end and cut selvage take turns on 00; a fuzzyball, a nep, and again a ball on 04.
    stems = ["0001_002_00", "0002_022_00", "0003_002_00"]
    stems += ["0004_019_04", "0005_030_04", "0006_019_04"]
    assert sorted(p.stem for p in root.glob("Defect_images/*")) == stems
    assert sorted(p.stem for p in root.glob("Mask_images/*")) == [f"{s}_mask" for s in stems]
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            assert image.mode == "L" and image.size == (WIDTH, HEIGHT)
            values = np.asarray(image)
        if "mask" in path.stem:
            assert set(np.unique(values)) == {0, 255}
        else:
            white = (values == 255).all(0)
            assert white[:100].all() == path.stem.endswith("00") and not white[200:].any()
    assert len({p.read_bytes() for p in root.rglob("*.png")}) == len(list(root.rglob("*.png")))


def test_rendered_strips_follow_the_seed(rendered, tmp_path):
    first, again = (
        render_aitex(tmp_path / name, seed, ("00",), 1, 1, (HEIGHT, WIDTH)) / "aitex"
        for name, seed in (("a", 0), ("b", 1))
    )
    for path in first.rglob("*.png"):
        inner = path.relative_to(first)
        assert path.read_bytes() == (rendered / "aitex" / inner).read_bytes()
        assert path.read_bytes() != (again / inner).read_bytes()
    assert set(STRIP_MODELS) < set(FABRICS)


def test_kinds_of_rendered_defects_have_the_words_of_their_codes():
    assert {kind.code: name for name, kind in STRIP_DEFECTS.items()}.items() <= DEFECT_KINDS.items()
    for model in STRIP_MODELS.values():
        assert set(model.defects) <= set(STRIP_DEFECTS)


def test_a_rendered_strip_is_the_cloth_with_an_exact_mask(rendered):
    sample = load_category("aitex/04", data_dir=rendered).test[-1]
    assert sample.kind == "019" and sample.mask().any()
    image, mask = strip("04", HEIGHT, WIDTH, (0, 1, 2), "fuzzyball")
    np.testing.assert_array_equal(np.asarray(sample.read())[..., 0], image)
    np.testing.assert_array_equal(sample.mask(), mask)


def test_what_cannot_be_rendered(tmp_path):
    with pytest.raises(InputError, match="fabrics='02': choose one of 00, 01, 04"):
        render_aitex(tmp_path, fabrics=("02",))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot be written"):
        render_aitex(tmp_path / "file", clean=1)


def test_strips_are_split_by_source_and_seed(rendered):
    category = load_category("aitex/00", data_dir=rendered)
    assert category.name == "aitex/00" and "Silvestre-Blanes" in category.license
    assert (len(category.train), category.labels.tolist()) == (3, [0] * 3 + [1] * 3)
    clean = file_names(category.train) + file_names(category.test[:3])
    assert sorted(clean) == [f"{n:04}_000_00.png" for n in range(1, 7)]
    assert [s.kind for s in category.test[3:]] == ["002", "022", "002"]
    assert all(s.mask().any() and s.mask().shape == (HEIGHT, WIDTH) for s in category.test[3:])
    by_seed = [load_category("aitex/00", data_dir=rendered, seed=seed) for seed in range(8)]
    splits = {tuple(file_names(category.train)) for category in by_seed}
    assert len(splits) > 4
    assert load_category("aitex/00", data_dir=rendered) == category


def test_twelve_of_twenty_clean_strips_are_to_fit(root, data):
    for n in range(7, 22):
        save(root / f"NODefect_images/{FABRICS['04']}/{n:04}_000_04.png")
        count = n * 3 // 5 if n < 20 else 12
        assert len(load_category("aitex/04", data_dir=data).train) == count


def test_every_oddity_is_handled_and_said(root, data, tmp_path, capfd):
    order = ("NO*/*/*_04.png", "NO*/*/*_00.png", "Defect_images/*")
    paths = [path.relative_to(root) for pattern in order for path in sorted(root.glob(pattern))]
    assert report_anomalous_files(root) == [
        *(f"{path}: 512x64, not 4096x256; taken as it is" for path in paths),
        *(f"fabric {f}: 6 clean strips and 3 with defects" for f in ("00", "04")),
    ]
    defects, masks = root / "Defect_images", root / "Mask_images"
    save(root / f"NODefect_images/{FABRICS['00']}/0018_00_00.png", "LA")
    save(root / f"NODefect_images/{FABRICS['00']}/copy of 3.png")
    save(root / f"NODefect_images/{FABRICS['00']}/0019_000_04.png")
    (root / f"NODefect_images/{FABRICS['04']}").rename(root / "NODefect_images/renamed")
    save(defects / "0044_019_04.png")
    for n, box in ((1, (10, 20, 14, 24)), (2, (30, 40, 34, 44))):
        save(masks / f"0044_019_04_mask{n}.png", "LA", box=box)
    save(defects / "0100_025_08.png")
    save(defects / "0106_010_04.png")
    save(masks / "0106_010_04_mask.png", box=(0, 0, 0, 0))
    save(defects / "unused/0094_027_04.png", "LA", width=WIDTH - 40)
    save(masks / "0500_010_04_mask.png")

    lines = [line for line in report_anomalous_files(root) if "512x64" not in line]
    where = f"NODefect_images/{FABRICS['00']}"
    assert sorted(lines) == sorted(
        [
            f"{where}/0018_00_00.png: defect code 00; taken as label 0, by its folder",
            f"{where}/copy of 3.png: not a name such as 0001_000_00.png; left out",
            f"{where}/0019_000_04.png: in the folder of fabric 00; taken as 04, by its name",
            "NODefect_images/renamed: unknown folder; fabric taken from the files' names",
            "Defect_images/0044_019_04.png: has 2 masks; joined by OR",
            "Defect_images/0100_025_08.png: has no mask; counts for image scores only",
            "Defect_images/0106_010_04.png: its mask is empty; counts for image scores only",
            "Defect_images/unused/0094_027_04.png: set aside by the publisher; left out",
            "Defect_images/unused/0094_027_04.png: 472x64, not 4096x256; taken as it is",
            "Mask_images/0500_010_04_mask.png: belongs to no strip",
            "2 strips are of mode LA; read as gray",
            "fabric 00: 7 clean strips and 3 with defects",
            "fabric 04: 7 clean strips and 5 with defects",
            "fabric 08: 0 clean strips and 1 with defects",
        ]
    )

    category = load_category("aitex/04", data_dir=data)
    both, empty = (s for s in category.test if s.image.stem in ("0044_019_04", "0106_010_04"))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[20:24, 10:14] = expected[40:44, 30:34] = True
    np.testing.assert_array_equal(both.mask(), expected)
    assert both.has_mask and not empty.has_mask and empty.mask() is None and empty.label == 1
    assert category.left_out == {"set aside by the publisher": 1}
    other = load_category("aitex/00", data_dir=data)
    assert "0018_00_00.png" in file_names(other.train + other.test)
    with pytest.raises(InputError, match=r"aitex/08: 0 clean strips in .*that have them: 00, 04"):
        load_category("aitex/08", data_dir=data)

    words = ["prepare", "aitex", "--source", str(data), "--data-dir", str(tmp_path / "to")]
    assert cli.main(words) == 0
    output, errors = capfd.readouterr()
    assert errors == "" and all(f"  {line}\n" in output for line in lines)
    assert load_category("aitex/04", data_dir=tmp_path / "to").labels.sum() == 5


def test_prepare_copies_what_belongs_and_says_what_differs(rendered, tmp_path):
    table, passed_over = prepare("aitex", rendered / "aitex", tmp_path)
    assert table.images.tolist() == [12, 6, 6] and passed_over == 0
    assert table.differs.tolist() == [True, True, False]
    for path in (rendered / "aitex").rglob("*.png"):
        copy = tmp_path / "aitex" / path.relative_to(rendered / "aitex")
        assert copy.read_bytes() == path.read_bytes()
    again, _ = prepare("aitex", rendered / "aitex", tmp_path)
    assert again.equals(table)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_missing_or_renamed_folder(name, root, data, tmp_path, capfd):
    (root / name).rename(root / "other")
    with pytest.raises(InputError, match=rf"aitex/{name}: no such folder; AITEX has NODefect"):
        load_category("aitex/00", data_dir=data)
    words = ["--source", str(root), "--data-dir", str(tmp_path / "to")]
    assert cli.main(["prepare", "aitex", *words]) == 2
    errors = capfd.readouterr().err
    assert f"has no {name}; keep the names" in errors and errors.count("\n") == 1
    assert not (tmp_path / "to").exists()


def test_a_mask_of_another_size(root, data, tmp_path, capfd):
    mask = next((root / "Mask_images").glob("*_00_mask.png"))
    save(mask, width=WIDTH - 1, box=(0, 0, 9, 9))
    message = rf"{mask.name}: mask is 511x64 but its image is 512x64"
    with pytest.raises(InputError, match=message):
        load_category("aitex/00", data_dir=data)
    assert len(load_category("aitex/04", data_dir=data).test) == 6
    words = ["--source", str(root), "--data-dir", str(tmp_path / "to")]
    assert cli.main(["prepare", "aitex", *words]) == 2
    errors = capfd.readouterr().err
    assert f"{mask}: mask is 511x64" in errors and errors.count("\n") == 1
    assert not (tmp_path / "to").exists()


def test_a_part_of_it_cannot_be_prepared(rendered, tmp_path):
    with pytest.raises(InputError, match="aitex is prepared as a whole; leave it out"):
        prepare("aitex", rendered / "aitex", tmp_path, ["Mask_images"])


def test_a_fabric_that_is_not_there(rendered, tmp_path):
    with pytest.raises(InputError, match=r"aitex/07: 0 clean strips in .* that have them: 00, 04"):
        load_category("aitex/07", data_dir=rendered)
    with pytest.raises(InputError, match="patchcore-course prepare aitex --source PATH"):
        load_category("aitex/00", data_dir=tmp_path)


# The real strips


@pytest.mark.long
def test_the_real_strips(shared):
    data = shared("aitex").parent
    for name, test, bad in (("00", 15, 7), ("01", 21, 12), ("04", 18, 10)):
        category = load_category(f"aitex/{name}", data_dir=data)
        assert (len(category.train), len(category.test), category.labels.sum()) == (12, test, bad)
        assert all(s.has_mask for s in category.test)
    two = next(s for s in category.test if s.image.stem == "0044_019_04")
    assert len(two.masks) == 2 and two.mask().sum() == 42 + 40
    lines = "\n".join(report_anomalous_files(data / "aitex"))
    for said in (
        *("0018_00_01.png: defect code 00", "0100_025_08.png: has no mask"),
        *("0106_010_03.png: its mask is empty", "0094_027_05.png: 3796x256"),
        *("0094_027_05.png: set aside", "0097_030_03.png: has 2 masks", "fabric 01: 21 clean"),
        *("31 strips are of mode LA", "fabric 08: 0 clean strips and 1 with"),
    ):
        assert said in lines
    assert json.dumps(lines).count("\\n") == 11
