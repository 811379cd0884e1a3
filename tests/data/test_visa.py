"""VisA in its own layout: its table is read, and checked before it is believed."""

import shutil

import numpy as np
import pytest
from helpers.miniatures import DEFECTIVE, GOOD, TRAIN

from patchcore_helpers import load_category
from patchcore_helpers.data.prepare import prepare
from patchcore_helpers.data.visa import load_visa

CSV_CHANGES = {
    "column": (",mask\n", ",truth\n", "has no column mask"),
    "unknown": ("pcb1,", "pcb9,", "visa/pcb1: unknown object; "),
    "missing image": ("Normal/0003.JPG", "Normal/9003.JPG", "Normal/9003.JPG is missing"),
    "missing mask": ("Masks/Anomaly/003", "Masks/Anomaly/903", "Anomaly/903.png is missing"),
    "parent": ("candle/Data/Images/Normal/0003", "../x", "'../x.JPG' leads outside"),
    "absolute": ("candle/Data/Images/Normal/0003", "/x", "'/x.JPG' leads outside"),
    "backslash": ("candle/Data/Images/Normal/0003", "..\\x", "leads outside"),
    "mask outside": ("candle/Data/Masks/Anomaly/003", "../x", "'../x.png' leads outside"),
    "role": ("test,anomaly,candle", "train,anomaly,candle", "is train and anomaly; known are"),
    "no test": ("pcb1,test,", "spoon,test,", "pcb1 has 12 training, 0 test images"),
}


@pytest.mark.long
@pytest.mark.parametrize("case", CSV_CHANGES)
def test_what_is_wrong_with_the_table_of_visa(case, visa, refused):
    old, new, message = CSV_CHANGES[case]
    csv = visa / "split_csv/1cls.csv"
    text = csv.read_text()
    assert old in text
    csv.write_text(text.replace(old, new))
    line = refused(visa, "visa")
    assert message in line and "1cls.csv" in line and ".part" not in line


def test_files_of_visa_that_the_table_does_not_name(visa, refused):
    shutil.copy(visa / "candle/Data/Images/Normal/0000.JPG", visa / "pcb1/Data/Images/Normal/x.JPG")
    assert "pcb1/Data/Images/Normal/x.JPG belongs to no image" in refused(visa, "visa")


@pytest.mark.parametrize("content", [None, "", "\xff\xfe", 'object,split\n"a'])
def test_no_table_of_visa(content, visa, refused):
    csv = visa / "split_csv/1cls.csv"
    csv.unlink()
    if content is not None:
        csv.write_bytes(content.encode("latin-1"))
    assert "1cls.csv: cannot be read (" in refused(visa, "visa")


def test_visa_is_read_in_its_own_layout(roots, tmp_path):
    prepare("visa", roots["visa"], tmp_path, ["candle", "pcb1"])
    category = load_category("visa/candle", data_dir=tmp_path)
    assert category.name == "visa/candle" and "CC BY 4.0" in category.license
    assert [s.image.name for s in category.train] == [f"{i:04}.JPG" for i in range(TRAIN)]
    assert category.labels.tolist() == [0] * GOOD + [1] * DEFECTIVE
    assert {s.kind for s in category.test[GOOD:]} == {"anomaly"}
    for sample in category.test[GOOD:]:
        image, mask = np.asarray(sample.read()).mean(axis=2), sample.mask()
        assert mask.sum() == 256 and image[mask].min() > image[~mask].mean() + 50
        assert sample.mask_path.is_relative_to(tmp_path / "visa/candle")
    assert load_visa(tmp_path / "visa", "pcb1").train[0].image.is_relative_to(tmp_path)
