"""From images to patch vectors, against the same steps written out by hand."""

import warnings

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchcore_helpers import InputError, Sample
from patchcore_helpers.core.aggregation import aggregate
from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.extractor import Extractor, as_size, extract
from patchcore_helpers.core.feature_cache import FeatureCache


class Pixels(torch.nn.Module):
    """A network whose feature map is the image that it sees."""

    def forward_intermediates(self, images, **options):
        return [images]


@pytest.fixture
def pixels():
    backbone = load_backbone("test_resnet", weights="random")
    backbone.network = Pixels()
    backbone.mean, backbone.std = (0.0, 0.25, 0.5), (1.0, 0.5, 0.25)
    return backbone


def patches_by_hand(images, name, size, mean, std, layers=(2, 3)):
    """Patch vectors of uint8 arrays in ten lines of torch."""
    state = load_backbone(name, weights="random").network.state_dict()
    network = timm.create_model(name, features_only=True, out_indices=layers).eval()
    network.load_state_dict({key: state[key] for key in network.state_dict()})
    height, width = size
    small = [np.array(Image.fromarray(i).resize((width, height), Image.BILINEAR)) for i in images]
    x = torch.tensor(np.stack(small)).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        maps = network((x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])
    means = [F.unfold(m, 3, padding=1).unflatten(1, (-1, 9)).mean(2) for m in maps]
    shallow, deep = (mean.reshape(m.shape) for mean, m in zip(means, maps, strict=True))
    deep = F.interpolate(deep, shallow.shape[2:], mode="bilinear")
    joined = torch.cat([shallow, deep], 1)
    return joined.permute(0, 2, 3, 1).numpy()


@pytest.mark.long
@pytest.mark.parametrize("size", [(64, 64), (96, 64), (50, 75)])
def test_patch_vectors_are_those_of_ten_lines_of_torch(size, photo):
    images = [photo(seed, size=(80, 120), defect=seed == 2) for seed in range(3)]
    backbone = load_backbone("resnet18", weights="random")
    assert backbone.mean == (0.485, 0.456, 0.406)
    patches = extract(images, backbone, size, precision="float32")
    expected = patches_by_hand(images, "resnet18", size, backbone.mean, backbone.std)
    assert patches.dtype == np.float32 and patches.shape == expected.shape
    assert patches.shape[1:3] == (-(-size[0] // 8), -(-size[1] // 8)) and patches.shape[3] == 384
    np.testing.assert_allclose(patches, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(patches[0] - patches[2]).max() > 0.01


def test_images_are_resized_with_antialiasing_without_a_crop(pixels):
    fine = np.zeros((256, 128, 3), np.uint8)
    fine[:, ::2] = 255  # stripes one pixel wide: without antialiasing they turn black or white
    fine[-64:, :, 0] = 255  # and the lower quarter must still be there
    seen = extract([fine], pixels, (64, 32), neighborhood=1, precision="float32")[0]
    seen = seen * pixels.std + pixels.mean
    tensor = torch.from_numpy(fine).permute(2, 0, 1)[None].float() / 255
    expected = F.interpolate(tensor, (64, 32), mode="bilinear", antialias=True)[0]
    np.testing.assert_allclose(seen, expected.permute(1, 2, 0), atol=2 / 255)
    np.testing.assert_allclose(seen[10:40, 5:25], 0.5, atol=2 / 255)
    np.testing.assert_allclose(seen[50:, 5:25, 0], 1.0, atol=2 / 255)


def test_images_are_normalized_with_the_backbones_statistics(pixels):
    seen = extract([np.full((8, 8), 51, np.uint8)], pixels, 8, neighborhood=1)[0, 4, 4]
    np.testing.assert_allclose(seen, [0.2, (0.2 - 0.25) / 0.5, (0.2 - 0.5) / 0.25], atol=1e-2)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7, 16])
@pytest.mark.parametrize("count", [1, 4, 5, 11])
def test_order_is_kept_whatever_the_batches(batch_size, count, pixels):
    images = [np.full((8, 8), 20 * i, np.uint8) for i in range(count)]
    seen = extract(images, pixels, 8, neighborhood=1, batch_size=batch_size, precision="float32")
    np.testing.assert_allclose(seen[:, 0, 0, 0], np.arange(count) * 20 / 255, atol=1e-6)


def test_batch_size_does_not_matter(photos):
    backbone = load_backbone("test_resnet", weights="random")
    one, three, all_ = (
        extract(photos, backbone, 64, batch_size=n, precision="float32") for n in (1, 3, 16)
    )
    np.testing.assert_allclose(three, one, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(all_, one, rtol=1e-4, atol=1e-5)


def test_every_kind_of_item_gives_the_same_patches(photo, tmp_path):
    backbone = load_backbone("test_resnet", weights="random")
    Image.fromarray(photo()).save(tmp_path / "a.png")
    path = tmp_path / "a.png"
    items = [photo(), path, str(path), Sample(path), Image.fromarray(photo())]
    patches = extract(items, backbone, 64, batch_size=1)
    assert all(np.array_equal(patches[0], other) for other in patches[1:])
    again = extract((item for item in items), backbone, 64, batch_size=1)
    np.testing.assert_array_equal(again, patches)


@pytest.mark.long
@pytest.mark.parametrize("size, grid", [(70, (4, 4)), ((50, 100), (3, 6)), (64, (4, 4))])
def test_a_vit_sees_the_next_smaller_multiple_of_its_patch(size, grid, photos):
    backbone = load_backbone("test_vit", weights="random")
    patches = extract(photos[:2], backbone, size)
    assert patches.shape == (2, *grid, 64)
    seen = extract(photos[:2], backbone, tuple(16 * n for n in grid))
    np.testing.assert_array_equal(patches, seen)


@pytest.mark.long
@pytest.mark.parametrize("name", ["efficientnet_lite0", "test_vit"])
def test_bfloat16_is_close_to_float32(name, photos):
    backbone = load_backbone(name, weights=None if name == "efficientnet_lite0" else "random")
    exact, short = (
        extract(photos[:2], backbone, 64, precision=p).reshape(-1) for p in ("float32", "bfloat16")
    )
    assert short.dtype == np.float32
    assert not np.array_equal(exact, short)
    error = np.linalg.norm(exact - short) / np.linalg.norm(exact)
    assert error < 0.06  # 8 bits: up to 0.004 per operation, over some 50 operations in a row


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_network_itself_computes_in_the_chosen_precision(precision, pixels, photos):
    seen = []
    layer = torch.nn.Conv2d(3, 3, 1)
    pixels.network.forward_intermediates = lambda images, **options: (
        seen.append(layer(images).dtype) or [images]
    )
    extract(photos[:1], pixels, 8, precision=precision, engine="torch")
    assert seen == [getattr(torch, precision)]


def neighborhood_sums(maps):
    """Sum over the 3x3 neighborhood by nine shifted copies, zeros beyond the border."""
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    h, w = maps.shape[2:]
    return sum(padded[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3))


def test_the_papers_aggregation_at_the_channel_counts_of_resnet50():
    rng = np.random.default_rng(0)
    shallow = rng.normal(size=(2, 512, 5, 6)).astype(np.float32)
    deep = rng.normal(size=(2, 1024, 5, 6)).astype(np.float32)
    out = aggregate([torch.from_numpy(m) for m in (shallow, deep)], "paper").numpy()
    assert out.shape == (2, 5, 6, 1024)
    first = 0.2 * shallow + 0.1 * (neighborhood_sums(shallow) - shallow)
    means = neighborhood_sums(deep) / 9
    second = (means[:, ::2] + means[:, 1::2]) / 2
    expected = np.concatenate([first, second], axis=1).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_the_papers_aggregation_resizes_the_deeper_map():
    rng = torch.Generator().manual_seed(0)
    shallow, deep = torch.randn(1, 512, 8, 6, generator=rng), torch.randn(1, 1024, 4, 3)
    out = aggregate([shallow, deep], "paper")
    means = torch.from_numpy(neighborhood_sums(deep.numpy()) / 9)
    means = F.interpolate(means, (8, 6), mode="bilinear").unflatten(1, (512, 2)).mean(2)
    torch.testing.assert_close(out[..., 512:], means.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("name, size", [("test_resnet", 64), ("test_vit", 64)])
def test_the_papers_aggregation_has_1024_channels_for_any_network(name, size, photos):
    backbone = load_backbone(name, weights="random")
    assert extract(photos[:1], backbone, size, aggregation="paper").shape[3] == 1024


@pytest.mark.parametrize("neighborhood", [1, 3, 5])
def test_one_hot_spreads_over_its_neighborhood_alone(neighborhood):
    spike = torch.zeros(1, 2, 9, 9)
    spike[0, 1, 4, 4] = 1
    out = aggregate([spike], "concat", neighborhood)[0]
    reach = neighborhood // 2
    expected = torch.zeros(9, 9)
    expected[4 - reach : 5 + reach, 4 - reach : 5 + reach] = 1 / neighborhood**2
    torch.testing.assert_close(out[:, :, 1], expected)
    assert not out[:, :, 0].any()


def test_zeros_beyond_the_border_count():
    out = aggregate([torch.ones(1, 1, 4, 4)])[0, :, :, 0]
    assert out[0, 0] == pytest.approx(4 / 9) and out[0, 1] == pytest.approx(6 / 9)
    assert out[1, 1] == pytest.approx(1)


@given(st.integers(1, 4000), st.integers(1, 4000))
@settings(deadline=None, max_examples=20)
def test_sizes(height, width):
    assert as_size(height) == (height, height)
    assert as_size([height, width]) == as_size(np.array([height, width])) == (height, width)
    assert all(type(n) is int for n in as_size((np.int64(height), np.float64(width))))


@pytest.mark.parametrize(
    "size",
    [
        0,
        -64,
        10_000,
        64.5,
        float("nan"),
        float("inf"),
        None,
        "64",
        (64,),
        (64, 0),
        (1, 2, 3),
        [[64, 64]],
    ],
)
def test_bad_sizes(size):
    with pytest.raises(InputError, match=r"image_size=.*: give pixels per side, or \(height"):
        as_size(size)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"aggregation": "sum"}, "aggregation='sum': choose one of concat, paper"),
        ({"neighborhood": 2}, "neighborhood=2: give an odd number"),
        ({"neighborhood": 0}, "neighborhood=0"),
        ({"neighborhood": 3.0}, "neighborhood=3.0"),
        ({"precision": "float16"}, "precision='float16': choose one of auto, float32, bfloat16"),
        ({"batch_size": 0}, "batch_size=0: give a whole number from 1"),
        ({"image_size": 15}, "image_size=15: smaller than one 16-pixel patch"),
    ],
)
def test_bad_options(options, message, photos):
    backbone = load_backbone("test_vit", weights="random")
    with pytest.raises(InputError, match=message):
        extract(photos[:1], backbone, **options)


def test_a_network_that_cannot_take_the_size_says_so(photos):
    backbone = load_backbone("test_vit_relpos", weights="random")
    with pytest.raises(InputError, match=r"cannot take images of \(64, 64\).*change image_size"):
        extract(photos[:1], backbone, 64)


def test_no_images(pixels):
    with pytest.raises(InputError, match="no images: give at least one"):
        extract([], pixels, 8)


def test_a_damaged_image_in_the_middle_is_named(photos, pixels, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"bad\.png: cannot be read"):
        extract([*photos, tmp_path / "bad.png", *photos], pixels, 8, batch_size=2)


def test_progress_goes_to_standard_error(photos, pixels, capsys):
    extract(photos, pixels, 8, progress="memory bank")
    captured = capsys.readouterr()
    assert captured.out == "" and "memory bank" in captured.err and "8/8" in captured.err
    extract(photos, pixels, 8)
    assert capsys.readouterr() == ("", "")


def test_gradients_and_warnings_stay_away(photos):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone = load_backbone("test_resnet", weights="random")
        (batch,) = Extractor(backbone, 64).patches(photos)
    assert not batch.requires_grad


def test_reduced_precision_is_a_choice():
    backbone = load_backbone("test_resnet", weights="random")
    assert Extractor(backbone, 64).precision == "float32"
    assert Extractor(backbone, 64, precision="auto").precision == "float32"
    assert Extractor(backbone, 64, precision="bfloat16").precision == "bfloat16"


def test_patches_do_not_depend_on_the_threads():
    photos = [np.full((20, 30), 40 * n, np.uint8) for n in range(5)]
    backbone = load_backbone("resnet18", weights="random")
    extractor = Extractor(backbone, 64, batch_size=1)
    expected = torch.cat([p for photo in photos for p in extractor.patches([photo])])
    np.testing.assert_array_equal(extractor.extract(photos), expected)
    shapes = extractor.patches(photos, then=lambda patches: patches.shape)
    assert list(shapes) == [(1, *expected.shape[1:])] * len(photos)


def test_all_maps_are_those_of_single_images_with_and_without_a_cache(tmp_path):
    images = [np.random.default_rng(i).integers(0, 255, (40, 40, 3), np.uint8) for i in range(5)]
    backbone = load_backbone("resnet18", layers=(1, 3), weights="random")
    plain = Extractor(backbone, 64, batch_size=2, engine="torch", device="cpu")
    cached = Extractor(
        backbone, 64, batch_size=2, engine="torch", device="cpu", cache=FeatureCache(tmp_path)
    )
    expected = [torch.cat(layer) for layer in zip(*plain.compute_maps(images), strict=True)]
    for extractor in (plain, cached, cached):  # the last one reads what the second has written
        maps = extractor.all_maps(images)
        assert [m.shape[0] for m in maps] == [5, 5]
        for found, layer in zip(maps, expected, strict=True):
            torch.testing.assert_close(found, layer)
