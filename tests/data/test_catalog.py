"""Categories: the split of the solar cells, and any folder in the MVTec AD layout."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchcore_helpers import Category, InputError, Sample, load_category
from patchcore_helpers.data.folder import load_folder


@pytest.fixture(scope="module")
def elpv_lines():
    """The label file, read by hand: (file name, probability as written, type) of every cell."""
    folder = Path(importlib.util.find_spec("elpv_dataset").submodule_search_locations[0]) / "data"
    lines = (folder / "labels.csv").read_text().splitlines()
    return [(Path(a).name, round(float(b), 2), c) for a, b, c in map(str.split, lines)]


def names(samples):
    return [sample.image.name for sample in samples]


@pytest.mark.parametrize("kind, cells", [("mono", 1074), ("poly", 1550)])
def test_elpv_split(kind, cells, elpv_lines):
    category = load_category(f"elpv/{kind}", seed=3)
    normal = [s for s in category.test if s.label == 0]
    defective = [s for s in category.test if s.label == 1]
    by_probability = {
        p: {name for name, q, c in elpv_lines if (q, c) == (p, kind)} for p in (0, 0.33, 0.67, 1)
    }

    assert (len(category.train), len(normal)) == (200, 200)
    functional = names(category.train) + names(normal) + names(category.calibration)
    assert len(functional) == len(set(functional))
    assert set(functional) == by_probability[0]
    assert sorted(names(defective)) == sorted(by_probability[1])
    assert category.left_out == {
        "defect probability 1/3": len(by_probability[0.33]),
        "defect probability 2/3": len(by_probability[0.67]),
    }
    assert len(functional) + len(defective) + sum(category.left_out.values()) == cells
    assert {s.kind for s in normal} == {"good"} and {s.kind for s in defective} == {"defective"}
    assert category.counts()["images"].sum() == cells
    assert "CC BY-NC-SA" in category.license


def test_elpv_split_follows_the_seed():
    first, again, other = (load_category("elpv/mono", seed=seed) for seed in (5, 5, 6))
    assert names(first.train) == names(again.train) and names(first.test) == names(again.test)
    both = set(names(first.train)) & set(names(other.train))
    assert len(both) < 120  # by chance 200 * 200 / 588 = 68
    assert names(first.train) != sorted(names(first.train))
    with pytest.raises(InputError, match="seed=-1"):
        load_category("elpv/mono", seed=-1)


def test_elpv_images_are_readable_and_have_no_masks():
    category = load_category("elpv/poly")
    assert category.train[0].read().size == (300, 300)
    defective = category.test[-1]
    assert defective.mask() is None and not defective.has_mask
    assert category.test[0].mask().shape == (300, 300) and not category.test[0].mask().any()


def test_elpv_without_its_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="elpv-dataset package is missing; install it"):
        load_category("elpv/mono")


def test_mvtec_layout(tmp_path, make_category):
    category = load_folder(make_category(tmp_path / "bolt"))
    assert category.name == "bolt"
    assert names(category.train) == [f"{i:03}.png" for i in range(6)]
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
    assert names(category.train) == ["a.JPG", "b.tiff"]
    assert [s.name for s in category.test] == ["good/c.BMP", "good/d.Jpeg", "spot/000.png"]


def test_a_name_is_looked_up_below_the_data_folder_first(tmp_path, make_category, monkeypatch):
    make_category(tmp_path / "data/mvtec_ad/bolt", train=2)
    make_category(tmp_path / "mvtec_ad/bolt", train=3)
    monkeypatch.chdir(tmp_path)
    assert len(load_category("mvtec_ad/bolt").train) == 2
    assert load_category("mvtec_ad/bolt").name == "mvtec_ad/bolt"
    assert len(load_category("mvtec_ad/bolt", data_dir="nowhere").train) == 3
    assert len(load_category("./mvtec_ad/bolt").train) == 3
    assert len(load_category(tmp_path / "mvtec_ad/bolt").train) == 3
    assert load_category(tmp_path / "mvtec_ad/bolt").name == "bolt"
    monkeypatch.chdir(tmp_path / "mvtec_ad/bolt")
    assert load_category(".").name == "bolt"


@pytest.mark.parametrize(
    "remove, message",
    [
        ("", "nut: no such category or folder; known categories: elpv/mono, elpv/poly"),
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
        load_category(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_is_not_a_category(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match="no such category or folder"):
        load_category(tmp_path / "a.png")


def many(train=40, good=20, bad=30, calibration=10):
    def some(role, n, label=0):
        return [
            Sample(Path(f"{role}{i:02}.png"), label, "bad" if label else "good") for i in range(n)
        ]

    test = some("good", good) + some("bad", bad, 1)
    return Category("x", some("train", train), test, some("calibration", calibration), {"odd": 2})


def test_limit_takes_a_seeded_choice_of_each_class():
    category, small = many(), many().limit(train=5, test=4, seed=1)
    assert (len(small.train), len(small.calibration)) == (5, 4)
    assert sorted(small.labels.tolist()) == [0] * 4 + [1] * 4
    assert set(small.train) < set(category.train) and set(small.test) < set(category.test)
    assert small.left_out == {"odd": 2}
    assert many().limit(train=5, test=4, seed=1) == small
    assert many().limit(train=5, test=4, seed=2).train != small.train
    assert small.train != category.train[:5]
    assert many().limit() == category and many().limit(train=1000, test=1000) == category


def test_calibration_images_are_held_out_of_training():
    category = many(calibration=0)
    held = category.with_calibration(share=0.25, seed=1)
    assert (len(held.train), len(held.calibration)) == (30, 10)
    assert sorted(names(held.train + held.calibration)) == names(category.train)
    assert held.test == category.test
    assert category.with_calibration(0.25, seed=1) == held
    assert category.with_calibration(0.25, seed=2).calibration != held.calibration
    assert len(many(train=2, calibration=0).with_calibration(0.01).calibration) == 1
    assert many().with_calibration() == many()
    with pytest.raises(InputError, match="1 training images are too few"):
        many(train=1, calibration=0).with_calibration()


def test_counts():
    table = many(calibration=3).counts()
    assert table.to_numpy().tolist() == [
        ["train", "good", 40],
        ["test", "bad", 30],
        ["test", "good", 20],
        ["calibration", "good", 3],
        ["left out", "odd", 2],
    ]


# Folders as people have them


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


def relative(samples, folder):
    return sorted(s.image.relative_to(folder).as_posix() for s in samples)


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
    normal = [name for part in parts for name in relative(part, folder)]
    assert len(set(normal)) == 100 and all(name.startswith("Good/") for name in normal)
    assert {s.kind for part in parts for s in part} == {"good"}
    defects = [(s.kind, s.image.name, s.has_mask) for s in category.test if s.label == 1]
    assert defects == [
        *[("Dent", f"{i:03}.png", False) for i in range(2)],
        *[("scratch", f"{i:03}.TIF", i < 2) for i in range(3)],
    ]
    assert category.left_out == {} and category.train[0].read().mode == "RGB"
    assert load_category(folder, seed=1) == category
    assert names(load_category(folder, seed=2).train) != names(category.train)
    assert relative(category.train, folder) != sorted(normal)[:60]  # shuffled


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
    assert relative(loose.train + loose.calibration, folder) == ["000.png", "001.png", "003.png"]
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
