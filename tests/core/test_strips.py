"""Strips: no seam, no border, no cloth where there is none; what is measured on which tiles."""

import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from patchcore_helpers import InputError, PatchCore, load_category
from patchcore_helpers.app import cli
from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.evaluation import evaluate
from patchcore_helpers.core.extractor import extract
from patchcore_helpers.core.strips import (
    STRIP_SETTINGS,
    PatchMemory,
    StripPatchCore,
    peak_is_on_defect,
    score_tiles,
    strip_score,
)
from patchcore_helpers.data.synthetic import render_aitex
from patchcore_helpers.data.synthetic_fabric import fabric
from patchcore_helpers.data.tiling import fabric_extent


def make(border_margin=(0, 0), **options):
    inner = PatchCore("efficientnet_lite0", layers=(2,), coreset_ratio=0.05, precision="float32")
    return StripPatchCore(inner, border_margin=border_margin, **options)


def cloth(seed, width=700, height=64, **options):
    return fabric("plain", height, width, seed, **options)[0]


@pytest.fixture(scope="module")
def normal():
    return [cloth(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    return render_aitex(folder, 0, ("00",), clean=8, defective=4, size=(256, 1024))


@pytest.mark.long
def test_pieces_leave_no_seam(normal):
    whole = make(piece=704, context=64).fit(normal)
    strip = cloth(9, defect="stain")
    expected = whole.anomaly_map(strip)
    for piece in (64, 256, 672):
        pieces = make(piece=piece, context=64).fit(normal)
        assert pieces.bank_.n_vectors_ == whole.bank_.n_vectors_
        np.testing.assert_allclose(pieces.anomaly_map(strip), expected, rtol=1e-3)
    narrow = make(piece=64, context=32).fit(normal)  # patches here see 33 pixels away
    assert np.abs(narrow.anomaly_map(strip) / expected - 1).max() > 1e-3


@pytest.mark.long
def test_the_default_context_is_wide_enough_for_the_default_layers(normal):
    inner = PatchCore(**STRIP_SETTINGS, precision="float32")
    apart = {}
    for context in (StripPatchCore().context, 0):
        model = StripPatchCore(inner, context=context, border_margin=(0, 0)).fit(normal)
        strip = cloth(9, defect="stain")
        one, two = (model.set_params(piece=piece).anomaly_map(strip) for piece in (128, 704))
        apart[context] = np.abs(one - two).mean() / np.median(two)
    assert apart.pop(0) > 0.02 and apart.popitem()[1] < 0.002


@pytest.mark.long
def test_patches_inside_a_piece_are_those_of_the_extractor(normal):
    model = make().fit(normal)
    strip = np.repeat(normal[0][:, :640, None], 3, 2)
    grid, step = model.stitch(strip)
    backbone = load_backbone("efficientnet_lite0", (2,))
    plain = extract([strip], backbone, (64, 640), precision="float32")[0]
    assert step == 8 and grid.shape == plain.shape
    inner = np.s_[:, 5:-5]
    tall, _ = model.stitch(np.vstack([strip] * 3))
    three = extract([np.vstack([strip] * 3)], backbone, (192, 640), precision="float32")[0]
    np.testing.assert_allclose(tall[inner][5:-5], three[inner][5:-5], atol=1e-3)


@pytest.mark.long
def test_the_border_of_a_strip_is_not_what_stands_out(normal):
    strips = [cloth(seed) for seed in range(20, 26)]
    tops = {True: 0, False: 0}
    model = make(border_margin=(16, 32)).fit(normal)
    inner = PatchCore(**model.model.get_params()).set_params(image_size=(64, 704)).fit(normal)
    for strip in strips:
        for stitched in tops:
            found = model.anomaly_map(strip) if stitched else inner.anomaly_maps([strip])[0]
            y, x = np.unravel_index(found.argmax(), found.shape)
            near = min(y, x, found.shape[0] - 1 - y, found.shape[1] - 1 - x)
            tops[stitched] += near < 8
    assert tops[True] < tops[False] or tops[False] == 0


@pytest.mark.long
def test_a_defect_is_found_where_it_is(normal):
    model = make(border_margin=(16, 16)).fit(normal)
    for seed, left in ((31, 100), (32, 350), (33, 620)):
        good = cloth(seed, height=128)
        strip = good.copy()
        strip[50:74, left : left + 24] = 255
        found = model.anomaly_map(strip)
        assert found.shape == strip.shape and found.dtype == np.float32
        y, x = np.unravel_index(found.argmax(), found.shape)
        assert 34 < y < 90 and left - 16 < x < left + 40
        assert (
            model.anomaly_scores([strip])[0] == strip_score(found) > model.anomaly_scores([good])[0]
        )


@pytest.mark.long
def test_neither_margin_nor_table_nor_edge_counts(normal):
    strips = [cloth(s, 900, margin=150 + 10 * s, selvage=20) for s in range(3)]
    model = make(border_margin=(0, 24)).fit(strips)
    strip = cloth(7, 900, margin=170, selvage=20)
    found = model.anomaly_map(strip)
    assert (found[:, : 170 + 24] == 0).all() and (found[:, 170 + 24 : -24] > 0).all()
    table = strip.copy()
    table[:, :170] = 200
    first, _ = fabric_extent(table)
    assert abs(first - 170) < 4
    assert model.anomaly_scores([table])[0] < 1.3 * model.anomaly_scores([strip])[0]
    mirrored = model.anomaly_map(strip[:, ::-1])
    assert (mirrored[:, 900 - 170 - 24 :] == 0).all() and (
        mirrored[:, 24 : 900 - 170 - 24] > 0
    ).all()


@pytest.mark.long
def test_a_strip_in_other_light_is_standardized_by_itself(normal):
    bright = [np.clip(1.25 * cloth(s).astype(float), 0, 254).astype(np.uint8) for s in (50, 51)]
    plain = [cloth(s) for s in (50, 51)]
    gain = {}
    for how in ("strip", "bank"):
        model = make(border_margin=(0, 0), standardize=how).fit(normal)
        gain[how] = (model.anomaly_scores(bright) / model.anomaly_scores(plain)).mean()
    assert abs(gain["strip"] - 1) < 0.5 * abs(gain["bank"] - 1)
    with pytest.raises(InputError, match="standardize='both': choose one of strip, bank"):
        make(standardize="both").fit(normal)


@pytest.mark.long
def test_strips_of_any_size(normal):
    model = make(piece=256).fit(normal)
    for height, width in ((64, 48), (64, 3796), (50, 333), (96, 700)):
        strip = cloth(5, width, height)
        found = model.anomaly_map(strip)
        assert found.shape == (height, width) and found.min() > 0
    assert (model.anomaly_map(np.full((64, 300), 255, np.uint8)) == 0).all()
    color = np.repeat(cloth(5)[:, :, None], 3, 2)
    np.testing.assert_array_equal(model.anomaly_map(color), model.anomaly_map(cloth(5)))


@pytest.mark.long
def test_models_with_one_memory_look_once_and_score_as_without(normal, monkeypatch):
    strips = [cloth(5, defect="stain"), cloth(6, 500)]
    stitched = []
    plain_stitch = StripPatchCore.stitch

    def counted(model, cloth_pixels):
        stitched.append(cloth_pixels.shape)
        return plain_stitch(model, cloth_pixels)

    monkeypatch.setattr(StripPatchCore, "stitch", counted)
    memory = PatchMemory()
    for options in ({}, {"border_margin": (8, 40)}, {"standardize": "bank"}, {"context": 64}):
        expected = make(**options).fit(normal).anomaly_maps(strips)
        stitched.clear()
        remembering = clone(make(**options, memory=memory)).fit(normal)
        for found, right in zip(remembering.anomaly_maps(strips), expected, strict=True):
            np.testing.assert_array_equal(found, right)
        again = remembering.anomaly_maps(strips)
        np.testing.assert_array_equal(again[0], expected[0])
        looks_otherwise = options in ({}, {"context": 64})
        assert len(stitched) == 5 * looks_otherwise  # three normal strips and two others
    assert len(memory) == 10


def test_a_memory_keeps_networks_apart():
    memory = PatchMemory()
    one, same, other = (
        memory.extractor(PatchCore("resnet18", weights="random", layers=layers, random_state=seed))
        for layers, seed in (((2,), 0), ((2,), 1), ((3,), 0))
    )
    assert one is same and one is not other
    random = np.random.default_rng(0)
    strips = [random.integers(60, 120, (96, 320), np.uint8) for _ in range(3)]
    for layers in ((2,), (3,)):
        inner = PatchCore("resnet18", weights="random", layers=layers, coreset_ratio=0.1)
        maps = [
            StripPatchCore(inner, piece=128, context=32, memory=kept)
            .fit(strips[:2])
            .anomaly_map(strips[2])
            for kept in (None, memory)
        ]
        np.testing.assert_array_equal(*maps)
    assert len(memory) == 2 * 3


@pytest.mark.parametrize("reach", [0, 5, 300])
def test_a_peak_is_on_a_defect_within_its_reach(reach):
    random = np.random.default_rng(reach)
    for _ in range(20):
        strip_map = random.uniform(size=(40, 90))
        mask = random.uniform(size=(40, 90)) > 0.995
        row, column = divmod(int(strip_map.argmax()), 90)
        rows, columns = np.nonzero(mask)
        apart = np.maximum(abs(rows - row), abs(columns - column))
        assert peak_is_on_defect(strip_map, mask, reach) == bool((apart <= reach).any())


def test_what_cannot_be_fitted(normal):
    with pytest.raises(InputError, match="no cloth in the normal strips"):
        make().fit([np.full((64, 300), 255, np.uint8)])
    for name in ("piece", "context"):
        for value in (40, -32, 64.0, *([0] if name == "piece" else [])):
            with pytest.raises(InputError, match=f"{name}={value}: give pixels, a multiple of 32"):
                make(**{name: value}).fit(normal)


@pytest.mark.long
def test_a_threshold_from_normal_strips(normal):
    model = make().fit(normal).calibrate([cloth(s) for s in range(40, 44)], 0.2)
    assert model.threshold_ == model.anomaly_scores([cloth(s) for s in range(40, 44)]).max()
    assert model.predict([cloth(s) for s in range(40, 44)]).tolist() == [0] * 4
    assert not hasattr(model.fit(normal), "threshold_")


@pytest.mark.long
def test_the_detectors_contract(normal):
    strips = [cloth(5), cloth(6, 500), np.full((64, 300), 255, np.uint8)]
    model = make().fit(normal)
    result = model.detect(strips)
    maps = model.anomaly_maps(strips)
    assert [m.shape for m in maps] == [(64, 700), (64, 500), (64, 300)]
    assert result.scores.tolist() == [m.max() for m in maps] and result.scores[2] == 0
    assert result.patch_scores[2].size == 0
    np.testing.assert_array_equal(model.to_maps(result.select([1]))[0], maps[1])
    for streamed, expected in zip(model.iterate_maps(strips), maps, strict=True):
        np.testing.assert_array_equal(streamed, expected)


@pytest.mark.long
def test_evaluate(rendered, capfd):
    words = ["evaluate", "aitex/00", "--data-dir", str(rendered), "--json"]
    assert cli.main(words) == 0
    output = json.loads(capfd.readouterr().out.splitlines()[-1])
    category = load_category("aitex/00", data_dir=rendered)
    model = StripPatchCore(PatchCore(**STRIP_SETTINGS))
    results, result = evaluate(category, model)
    maps = model.to_maps(result)
    timed = ("fit_seconds", "score_seconds", "peak_rss_mb")
    assert [k for k in results if results[k] != output[k] and k not in timed] == ["image_size"]
    assert output["image_size"] == [256, 1024] and list(output) == list(results)
    assert (output["n_train"], output["n_test"]) == (4, 8)
    assert output["image_auroc"] == roc_auc_score(category.labels, result.scores)

    labels, scores = [], []
    for sample, found in zip(category.test, maps, strict=True):
        first, _ = fabric_extent(np.asarray(sample.read()))
        for x in range(0, 1024, 256):
            if x + 256 > first:
                labels.append(sample.mask()[:, x : x + 256].any())
                scores.append(found[:, x : x + 256].max())
    assert output["tile_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert len(labels) < 8 * 4
    tiles = score_tiles(category, maps)
    assert len(tiles) == len(labels) and (tiles.cloth > 0).all()


@pytest.mark.slow
def test_memory_and_time_of_a_very_long_strip():
    code = """
import sys, time
import numpy as np
from patchcore_helpers.process import peak_rss_mb
from patchcore_helpers.core.strips import StripPatchCore
rng = np.random.default_rng(0)
model = StripPatchCore().fit([rng.integers(60, 120, (256, 1024), np.uint8)])
start = time.perf_counter()
model.anomaly_map(rng.integers(60, 120, (256, int(sys.argv[1])), np.uint8))
print(time.perf_counter() - start, peak_rss_mb())  # getrusage would count pytest's own
"""

    def run(width):
        done = subprocess.run(
            [sys.executable, "-c", code, str(width)], capture_output=True, text=True, check=True
        )
        return map(float, done.stdout.split())

    (_, little), (_, much) = run(4096), run(65_536)
    assert much < 1500 and much - little < 600
