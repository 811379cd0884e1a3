"""Several products in one bank: scores against a bank of one product; files that do not fit."""

import json

import numpy as np
import pytest
from helpers.bank_files import products_changed
from helpers.command import tiny_model
from helpers.miniatures import picture

from patchcore_helpers import InputError, MemoryBank, PatchCore
from patchcore_helpers.core.bank_file import FORMAT, read_bank_file
from patchcore_helpers.core.product_file import (
    LONGEST_PRODUCT,
    check_product_names,
    join_files,
    split_file,
)
from patchcore_helpers.core.products import ProductBank, load_model, most_like

PRODUCTS = ("bolt", "nut", "washer")


def images_of(product, numbers):
    return [picture(product, number, 64)[0] for number in numbers]


def fitted(product, n_images=8, **options):
    return tiny_model(**options).fit(images_of(product, range(n_images)))


@pytest.fixture(scope="module")
def models():
    """Of different numbers of images; the last has no threshold."""
    models = {product: fitted(product, 6 + i) for i, product in enumerate(PRODUCTS)}
    for product in PRODUCTS[:2]:
        n_images = 9 if product == "bolt" else 12
        models[product].calibrate(images_of(product, range(50, 50 + n_images)), 0.2)
    return models


@pytest.fixture(scope="module")
def bank(models):
    return ProductBank(models)


@pytest.fixture(scope="module")
def saved(bank, tmp_path_factory):
    bank.save(path := tmp_path_factory.mktemp("products") / "bank")
    return path


def joined(bank, images):
    """Scores, patch scores and products of all batches."""
    results = list(bank.detect_batches(images))
    return (
        np.concatenate([result.scores for result in results]),
        np.concatenate([result.patch_scores for result in results]),
        [product for result in results for product in result.products],
    )


@pytest.mark.parametrize("image_score", ["max", "mean", "reweighted"])
def test_scores_are_those_of_a_bank_of_the_product_alone(tmp_path, image_score):
    options = {"image_score": image_score, "n_neighbors": 2, "batch_size": 4}
    models = {product: fitted(product, **options) for product in PRODUCTS}
    ProductBank(models).save(tmp_path / "bank")
    bank = ProductBank.load(tmp_path / "bank")
    images = [picture(product, 90 + i, 64, i > 1)[0] for product in PRODUCTS for i in range(3)]
    scores, patch_scores, products = joined(bank, images)
    assert products == [product for product in PRODUCTS for _ in range(3)]
    for image, score, grid, product in zip(images, scores, patch_scores, products, strict=True):
        alone = fitted(product, **options).detect([image])
        assert score == pytest.approx(alone.scores[0], rel=1e-5)
        np.testing.assert_allclose(grid, alone.patch_scores[0], rtol=1e-4, atol=1e-5)


def test_the_product_is_that_of_most_nearest_rows(bank, models):
    mixed = np.hstack([picture("nut", 70, 64)[0][:, :40], picture("bolt", 70, 64)[0][:, 40:]])
    images = [mixed, mixed[:, ::-1].copy(), *images_of("washer", [70])]
    patches = models["bolt"].extractor_.extract(images)
    rows = np.concatenate([model.bank_.vectors_ for model in models.values()])
    sizes = [len(model.bank_) for model in models.values()]
    product_of_row = np.repeat(PRODUCTS, sizes)
    expected = []
    for image in patches:  # brute force over the rows of all products
        vectors = image.reshape(-1, image.shape[-1])
        nearest = np.linalg.norm(vectors[:, None] - rows, axis=2).argmin(axis=1)
        names, votes = np.unique(product_of_row[nearest], return_counts=True)
        expected.append(names[votes.argmax()])
    assert joined(bank, images)[2] == expected


def test_patches_outside_the_region_of_interest_do_not_vote():
    inside = np.zeros((64, 64), bool)
    inside[:, :16] = True
    bank = ProductBank({product: fitted(product, roi=inside) for product in PRODUCTS})
    assert joined(bank, images_of("washer", [70]))[2] == ["washer"]


def test_a_tie_is_the_first_product():
    scores = np.array([[[1, 2]], [[2, 1]]])
    assert most_like(scores).tolist() == [0] and most_like(scores[::-1]).tolist() == [0]


def test_one_product_alone_is_never_taken_for_another(bank, models):
    images = images_of("washer", [70, 71])
    scores, _, products = joined(bank.only("nut"), images)
    assert products == ["nut", "nut"]
    np.testing.assert_allclose(scores, models["nut"].anomaly_scores(images), rtol=1e-6)
    with pytest.raises(InputError, match=r"'Nut'.*bolt, nut, washer"):
        bank.only("Nut")


def test_a_file_keeps_what_each_product_has(saved, models):
    loaded = ProductBank.load(saved)
    assert loaded.products == list(PRODUCTS)
    for product, model in models.items():
        again = loaded.of(product)
        assert loaded.threshold_of(product) == getattr(model, "threshold_", None)
        assert again.taught_.names == model.taught_.names
        np.testing.assert_array_equal(again.taught_.digests, model.taught_.digests)
        np.testing.assert_array_equal(again.bank_.vectors_, model.bank_.vectors_)
        rows = np.arange(len(model.bank_))
        np.testing.assert_array_equal(again.origin(rows), model.origin(rows))
        assert hasattr(again, "calibration_") == hasattr(model, "calibration_")
        if hasattr(model, "calibration_"):
            np.testing.assert_array_equal(again.calibration_.scores, model.calibration_.scores)
            assert again.calibration_.images.names == model.calibration_.images.names
            assert again.calibration_.threshold == model.threshold_


def test_the_parts_of_a_file_are_the_files_of_the_products(saved, models, tmp_path):
    parts = split_file(read_bank_file(saved))
    for product, model in models.items():
        model.save(tmp_path / product)
        alone = read_bank_file(tmp_path / product)
        part = parts[product]
        assert (part.n_vectors, part.settings) == (alone.n_vectors, alone.settings)
        assert json.loads(part.detector) == json.loads(alone.detector)
        assert json.loads(part.images) == json.loads(alone.images)
        assert set(part.tensors) == set(alone.tensors)
        for name, array in alone.tensors.items():
            np.testing.assert_array_equal(part.tensors[name], array)


def test_the_file_is_also_one_large_bank(saved, models):
    bank = MemoryBank.load(saved)
    vectors = np.concatenate([model.bank_.vectors_ for model in models.values()])
    np.testing.assert_array_equal(bank.vectors_, vectors)
    assert bank.n_vectors_ == sum(model.bank_.n_vectors_ for model in models.values())


def test_the_right_reader(saved, models, tmp_path):
    assert isinstance(load_model(saved), ProductBank)
    with pytest.raises(InputError, match=r"several products.*ProductBank\.load"):
        PatchCore.load(saved)
    models["bolt"].save(tmp_path / "one")
    assert isinstance(load_model(tmp_path / "one"), PatchCore)
    with pytest.raises(InputError, match=r"one product.*PatchCore\.load"):
        ProductBank.load(tmp_path / "one")


@pytest.mark.parametrize(
    "options",
    [{"sigma": 1.0}, {"image_size": 96}, {"coreset_ratio": 0.2}, {"roi": np.eye(64) > -1}],
    ids=lambda options: next(iter(options)),
)
def test_products_with_other_settings_are_refused(models, options):
    other = fitted("nut", **options)
    with pytest.raises(InputError, match="'nut': has other settings than 'bolt'"):
        ProductBank({"bolt": models["bolt"], "nut": other})


def test_what_cannot_be_joined_is_refused(models):
    index = {"kind": "ivf_pq", "m": 4, "bits": 4, "n_clusters": 1}
    with pytest.raises(InputError, match=r"'nut': an approximate index.*index='exact'"):
        ProductBank({"nut": fitted("nut", coreset_ratio=1.0, index=index)})
    unknown = fitted("nut")
    unknown.taught_ = None
    with pytest.raises(InputError, match=r"'nut'.*fit it again"):
        ProductBank({"nut": unknown})


@pytest.mark.parametrize(
    "names",
    [[], [""], ["a\nb"], ["x" * (LONGEST_PRODUCT + 1)], ["Bolt", "bolt"], ["STRASSE", "straße"]],
)
def test_names_that_are_refused(names):
    with pytest.raises(InputError) as caught:
        check_product_names(names)
    assert "\n" not in str(caught.value)


def record(number, **change):
    return lambda products, tensors: products["products"][number].update(change)


def shifted_origins(products, tensors):
    tensors["origins"] = tensors["origins"][::-1].copy()


HOSTILE = {
    "no products": lambda products, tensors: products.update(products=[]),
    "too many products": lambda products, tensors: products.update(
        products=products["products"] * 400
    ),
    "an unknown setting": lambda products, tensors: products.update(other=1),
    "an unknown setting of a product": record(0, other=1),
    "a name that is no text": record(0, name=3),
    "an empty name": record(0, name=""),
    "a long name": record(0, name="x" * 101),
    "a name of two lines": record(0, name="a\nb"),
    "a name twice": record(0, name="nut"),
    "a name twice, but for case": record(0, name="NUT"),
    "no rows": record(0, rows=0),
    "negative rows": record(0, rows=-1),
    "more rows than there are": record(0, rows=10**6),
    "rows beyond any file": record(0, rows=2**70),
    "rows as text": record(0, rows="3"),
    "one image less": record(0, images=5),
    "one image more": record(0, images=7),
    "no images": record(0, images=0),
    "more calibration images": record(0, calibration_images=10),
    "calibration images without a rate": record(0, false_alarm_rate=None),
    "a rate without calibration images": record(2, false_alarm_rate=0.1),
    "a rate of 2": record(0, false_alarm_rate=2.0),
    "a threshold of text": record(0, threshold="high"),
    "origins of another product": shifted_origins,
    "no origins": lambda products, tensors: tensors.pop("origins"),
    "an array of another index": lambda products, tensors: tensors.update(
        codes=np.zeros((3, 3), np.uint8)
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(saved, tmp_path, name):
    path = tmp_path / "bank"
    path.write_bytes(products_changed(saved, HOSTILE[name]))
    with pytest.raises(InputError, match="not a memory bank of this package") as caught:
        load_model(path)
    line = str(caught.value)
    assert line.startswith(str(path)) and "\n" not in line and len(line) < 600


def test_a_change_that_fits_is_read(saved, tmp_path):
    path = tmp_path / "bank"
    path.write_bytes(products_changed(saved, record(0, name="screw", threshold=3.5)))
    bank = ProductBank.load(path)
    assert bank.products[0] == "screw" and bank.threshold_of("screw") == 3.5


def test_a_threshold_is_covered_by_the_checksum(saved, tmp_path):
    path = tmp_path / "bank"
    text = saved.read_bytes()
    digits = json.dumps(ProductBank.load(saved).threshold_of("bolt")).encode()
    assert text.count(digits) == 1
    path.write_bytes(text.replace(digits, digits[:-1] + bytes([digits[-1] ^ 1])))
    with pytest.raises(InputError, match="checksum"):
        load_model(path)


def test_files_of_one_product_have_the_format_they_had(models, tmp_path):
    models["bolt"].save(tmp_path / "one")
    content = (tmp_path / "one").read_bytes()
    assert FORMAT.encode() in content and b"products" not in content


def test_joining_leaves_the_files_as_they_are(models):
    files = {product: model.as_bank_file() for product, model in models.items()}
    before = {product: file.tensors["origins"].copy() for product, file in files.items()}
    join_files(files)
    for product, file in files.items():
        np.testing.assert_array_equal(file.tensors["origins"], before[product])
