"""Folders of images: in the MVTec AD layout, and with good and bad images side by side."""

import shutil

import numpy as np
import pytest
from helpers.miniatures import make_mvtec
from helpers.samples import file_names, relative_paths
from PIL import Image

from patchcore_helpers import InputError, load_category
from patchcore_helpers.data import folder as folder_module
from patchcore_helpers.data.folder import load_folder


def test_mvtec_layout(tmp_path, make_category):
    category = load_folder(make_category(tmp_path / "bolt"))
    assert category.name == "bolt"
    assert file_names(category.train) == [f"{i:03}.png" for i in range(6)]
    assert all(s.image.parent == tmp_path / "bolt/train/good" for s in category.train)
    assert [s.name for s in category.test] == [
        f"{kind}/{i:03}.png" for kind in ("good", "spot") for i in range(3)
    ]
    assert category.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [s.has_mask for s in category.test] == [True] * 5 + [False]
    expected = np.zeros((64, 64), bool)
    expected[20:36, 24:40] = True
    np.testing.assert_array_equal(category.test[4].mask(), expected)
    assert category.test[5].mask() is None
    assert category.calibration == [] and category.left_out == {}


def test_masks_are_found_by_either_name_in_any_case(tmp_path, make_category):
    folder = make_category(tmp_path, defects=1)
    masks = folder / "ground_truth" / "scratch"
    masks.mkdir(parents=True)
    (folder / "test" / "scratch").mkdir()
    for stem, mask in [("a", "a_mask.png"), ("b", "B_MASK.PNG"), ("C", "c.png"), ("d", "d.BMP")]:
        shutil.copy(folder / "train/good/000.png", folder / f"test/scratch/{stem}.JPG")
        Image.fromarray(np.ones((64, 64), np.uint8)).save(masks / mask)
    shutil.copy(masks / "a_mask.png", masks / "e_mask.png")
    scratched = [s for s in load_folder(folder).test if s.kind == "scratch"]
    found = {s.image.stem: s.mask_path.name for s in scratched}
    assert found == {"a": "a_mask.png", "b": "B_MASK.PNG", "C": "c.png", "d": "d.BMP"}
    assert all(s.mask().all() for s in scratched)


def test_same_stem_in_both_cases_keeps_each_image_with_its_own_mask(tmp_path, make_category):
    folder = make_category(tmp_path, defects=1)
    for stem, width in (("a", 10), ("A", 20)):
        Image.new("L", (width, 8)).save(folder / f"test/spot/{stem}.png")
        (folder / "ground_truth/spot").mkdir(parents=True, exist_ok=True)
        Image.new("L", (width, 8)).save(folder / f"ground_truth/spot/{stem}_mask.png")
    spots = {s.image.stem: s for s in load_folder(folder).test if s.kind == "spot"}
    assert spots["a"].mask().shape == (8, 10) and spots["A"].mask().shape == (8, 20)


def test_extensions_and_hidden_files(tmp_path, make_category, photo):
    folder = make_category(tmp_path, train=0, good=0, defects=1)
    for name in ("train/good/a.JPG", "train/good/b.tiff", "test/good/c.BMP", "test/good/d.Jpeg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo()).save(folder / name)
    for name in (
        "train/good/._a.JPG",
        "train/good/notes.txt",
        "test/readme.png",
        "test/.git/x.png",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not an image")
    category = load_folder(folder)
    assert file_names(category.train) == ["a.JPG", "b.tiff"]
    assert [s.name for s in category.test] == ["good/c.BMP", "good/d.Jpeg", "spot/000.png"]


@pytest.mark.parametrize(
    "remove, message",
    [
        ("", "nut: no such folder"),
        ("train", r"has no train/good folder, and no sub-folder named good, .*: --good NAME"),
        ("train/good", "has no train/good folder"),
        ("train/good/*", "train/good: holds no image"),
        ("test", "test: holds no image in a folder such as test/good"),
        ("test/*", "test: holds no image"),
        ("test/*/*", "test: holds no image"),
    ],
)
def test_what_is_missing_is_said_in_one_line(remove, message, tmp_path, make_category):
    folder = make_category(tmp_path / "nut")
    for path in sorted(folder.glob(remove)) if remove else [folder]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=message) as caught:
        load_folder(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_masks_are_listed_once_for_each_folder(tmp_path, monkeypatch):
    """A folder may hold thousands of images; listing its masks for each would take hours."""
    folder = make_mvtec(tmp_path, ["bottle"]) / "bottle"
    listed = []
    iter_image_files = folder_module.iter_image_files

    def listing(path, **options):
        listed.append(path)
        return iter_image_files(path, **options)

    monkeypatch.setattr(folder_module, "iter_image_files", listing)
    load_folder(folder)
    kinds = ("good", "large_square", "square")
    tests = [folder / "test" / kind for kind in kinds]
    masks = [folder / "ground_truth" / kind for kind in kinds[1:]]
    assert sorted(listed) == sorted([folder / "train/good", *tests, *masks])


@pytest.fixture
def make_folder(tmp_path, photo):
    """Write images of different sizes below a folder: {path with a * for a number: how many}."""

    def make(files, name="mine"):
        for pattern, count in files.items():
            for i in range(count):
                path = tmp_path / name / pattern.replace("*", f"{i:03}")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(photo(i, (40 + i % 3, 64))).save(path)
        return tmp_path / name

    return make


def test_good_and_bad_side_by_side(make_folder):
    folder = make_folder(
        {
            "Good/*.PNG": 80,
            "Good/deeper/*.jpg": 20,
            "scratch/*.TIF": 3,
            "Dent/monday/*.png": 2,
            ".hidden/*.png": 1,
            "ground_truth/scratch/*_mask.png": 2,
        }
    )
    category = load_category(folder, seed=1)
    parts = category.train, category.calibration, [s for s in category.test if s.label == 0]
    assert [len(part) for part in parts] == [60, 20, 20] and category.name == "mine"
    normal = [name for part in parts for name in relative_paths(part, folder)]
    assert len(set(normal)) == 100 and all(name.startswith("Good/") for name in normal)
    assert {s.kind for part in parts for s in part} == {"good"}
    defects = [(s.kind, s.image.name, s.has_mask) for s in category.test if s.label == 1]
    assert defects == [
        *[("Dent", f"{i:03}.png", False) for i in range(2)],
        *[("scratch", f"{i:03}.TIF", i < 2) for i in range(3)],
    ]
    assert category.left_out == {} and category.train[0].read().mode == "RGB"
    assert load_category(folder, seed=1) == category
    assert file_names(load_category(folder, seed=2).train) != file_names(category.train)
    assert relative_paths(category.train, folder) != sorted(normal)[:60]  # shuffled


@pytest.mark.parametrize(
    "n, sizes",
    [
        *[(2, (1, 1, 0)), (3, (1, 1, 1)), (4, (2, 1, 1)), (10, (5, 3, 2)), (30, (14, 10, 6))],
        *[(57, (27, 19, 11)), (60, (29, 19, 12)), (95, (57, 19, 19)), (200, (120, 40, 40))],
    ],
)
def test_sizes_of_the_split(n, sizes, make_folder):
    category = load_category(make_folder({"ok/*.png": n, "bad/*.png": 1}))
    test = [s for s in category.test if s.label == 0]
    assert (len(category.train), len(category.calibration), len(test)) == sizes


def test_only_normal_images(make_folder):
    category = load_category(make_folder({"NORMAL/*.png": 6}))
    assert [len(part) for part in (category.train, category.calibration, category.test)] == [
        3,
        2,
        1,
    ]
    assert not category.labels.any()
    with pytest.raises(
        InputError, match="2 normal images in good and 0 defective ones are too few"
    ):
        load_category(make_folder({"good/*.png": 2}, "two"))


def test_what_is_passed_over_is_counted(make_folder):
    folder = make_folder({"good/*.png": 5, "bad/*.png": 2, "*.png": 3})
    (folder / "bad" / "empty.png").touch()
    (folder / "good" / "photo.webp").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    (folder / "bad" / ".DS_Store").write_bytes(b"x")
    category = load_category(folder)
    assert category.left_out == {
        "loose in the folder, outside its sub-folders": 3,
        "files that are not png, jpg, jpeg, bmp, tif or tiff": 2,
        "empty files": 1,
    }
    assert len(category.train + category.calibration + category.test) == 7
    assert category.counts()["images"].sum() == 13


def test_the_normal_folder_by_name(make_folder):
    folder = make_folder({"fine/*.png": 5, "broken/*.png": 2, "*.png": 4})
    with pytest.raises(InputError) as caught:
        load_category(folder)
    line = str(caught.value)
    assert str(folder) in line and "--good NAME" in line and "\n" not in line
    assert "sub-folders: broken, fine; loose images: 4" in line
    with pytest.raises(InputError, match="has no sub-folder named fien"):
        load_category(folder, good="fien")
    for good in ("../mine/fine", "/", "..", "fine/"):
        with pytest.raises(InputError, match="no sub-folder"):
            load_category(folder, good=good)
    category = load_category(folder, good="fine")
    assert len(category.train) == 3 and category.labels.tolist() == [0, 1, 1]
    assert load_category(folder, good="FINE") == category
    assert load_category(f"{folder}::fine") == category
    loose = load_category(folder, good=".")
    assert relative_paths(loose.train + loose.calibration, folder) == [
        "000.png",
        "001.png",
        "003.png",
    ]
    assert {s.kind for s in loose.test if s.label} == {"fine", "broken"}


def test_loose_images_alone_ask_for_their_name(make_folder):
    folder = make_folder({"*.png": 4})
    with pytest.raises(InputError, match=r"loose images: 4\); .*or --good \. for the loose"):
        load_category(folder)
    assert len(load_category(folder, good=".").train) == 2


def test_the_mvtec_layout_comes_first(tmp_path, make_category, make_folder):
    folder = make_category(tmp_path / "mine")
    make_folder({"good/*.png": 4})
    assert len(load_category(folder).train) == 6
    assert len(load_category(folder, good="good").train) == 2
