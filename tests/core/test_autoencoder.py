"""The autoencoder learns, repeats itself by seed, and is surprised where a square was planted."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch.distributions import Normal, kl_divergence

from patchcore_helpers.core.autoencoder import Autoencoder, kl_to_standard_normal
from patchcore_helpers.data.images import read_image
from patchcore_helpers.errors import InputError

SMALL = {"image_size": 32, "width": 8, "latent": 8}


def pixels(images, size):
    """Images as the network sees them, before they are standardized."""
    resized = [read_image(image).resize((size, size), 2) for image in images]  # 2: bilinear
    return np.array(resized) / 255


def mean_squares(images, drawn):
    """Squared error of each image, in units of its variance."""
    error = ((images - drawn) ** 2).mean((1, 2, 3))
    return error / images.var((1, 2, 3), ddof=1)


@pytest.fixture(scope="module")
def fitted(photos):
    return Autoencoder(**SMALL, epochs=200).fit(photos[:4])


def test_it_overfits_a_few_images(fitted, photos):
    photos = photos[:4]
    images = pixels(photos, 32)
    drawn = fitted.reconstruct(photos)
    assert drawn.shape == images.shape and drawn.dtype == np.float32
    constant = np.broadcast_to(images.mean((1, 2, 3), keepdims=True), images.shape)
    average = np.broadcast_to(images.mean(0), images.shape)
    error = mean_squares(images, drawn)
    assert error.max() < 0.5 * mean_squares(images, constant).min()
    assert error.mean() < 0.5 * mean_squares(images, average).mean()
    assert fitted.losses_[-1] < 0.5 * fitted.losses_[0] and len(fitted.losses_) == 200
    assert np.allclose(
        fitted.anomaly_scores(photos), error, rtol=0.1
    )  # smoothing moves some beyond a border


@pytest.mark.parametrize("variational", [False, True])
def test_the_seed_decides(photos, variational):
    model = Autoencoder(**SMALL, epochs=2, variational=variational)
    torch.manual_seed(1)
    one = model.fit(photos).detect(photos)
    torch.manual_seed(2)  # of others: neither read nor moved
    state = torch.get_rng_state()
    two = clone(model).fit(photos).detect(photos)
    assert torch.equal(state, torch.get_rng_state())
    other = clone(model).set_params(random_state=1).fit(photos).detect(photos)
    np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(one.patch_scores, two.patch_scores)
    assert np.array_equal(model.anomaly_scores(photos), one.scores), "scores are drawn at random"
    assert not np.allclose(one.scores, other.scores)
    assert one.scores.shape == (8,) and one.patch_scores.shape == (8, 32, 32)
    assert one.scores.dtype == one.patch_scores.dtype == np.float32


def test_the_surprise_lies_on_the_planted_square(fitted, photo):
    images = [photo(0), photo(0, defect=True)]  # rows 20 to 35 and columns 24 to 39 of 64
    normal, defective = fitted.anomaly_scores(images)
    maps = fitted.anomaly_maps(images)
    row, column = np.unravel_index(maps[1].argmax(), maps[1].shape)
    assert 10 <= row < 18 and 12 <= column < 20
    assert defective > 2 * normal


def test_brightness_and_contrast_do_not_count(fitted, photo):
    image = photo(3)
    darker = (image.astype(float) / 2 + 10).round().astype(np.uint8)
    assert fitted.anomaly_scores([darker]) == pytest.approx(fitted.anomaly_scores([image]), rel=0.1)
    assert np.allclose(
        fitted.reconstruct([darker]), fitted.reconstruct([image]) / 2 + 10 / 255, atol=0.02
    )


def test_gray_and_color_images_of_any_size(fitted, photo):
    gray = photo(0, (48, 80))[..., 0]
    assert fitted.anomaly_scores([gray]) == pytest.approx(
        fitted.anomaly_scores([np.stack([gray] * 3, 2)])
    )
    assert np.isfinite(fitted.anomaly_scores([np.full((40, 40), 9, np.uint8)])).all(), (
        "an image of one gray"
    )


def test_divergence_is_that_of_torch_distributions():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(5, 7), torch.randn(5, 7)
    codes = Normal(mean, (log_variance / 2).exp())
    expected = kl_divergence(codes, Normal(torch.zeros(5, 7), torch.ones(5, 7))).sum(1)
    assert torch.allclose(kl_to_standard_normal(mean, log_variance), expected, atol=1e-5)


def test_beta_draws_the_codes_to_the_standard_normal(photos):
    def divergence(beta):
        model = Autoencoder(**SMALL, epochs=40, variational=True, beta=beta).fit(photos)
        seen = torch.from_numpy(pixels(photos, 32)).float().permute(0, 3, 1, 2)
        spread, mean = torch.std_mean(seen, (1, 2, 3), keepdim=True)
        with torch.inference_mode():
            return model.network_((seen - mean) / spread)[1].mean()

    assert divergence(30.0) < 0.5 * divergence(0.1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"image_size": 40}, "image_size=40: give a multiple of 16, from 32"),
        ({"image_size": 16}, "image_size=16: give a multiple of 16, from 32"),
        ({"image_size": 64.0}, r"image_size=64\.0: give a whole number from 1"),
        ({"epochs": 0}, "epochs=0: give a whole number from 1"),
        ({"latent": -1}, "latent=-1: give a whole number from 1"),
        ({"width": "8"}, "width='8': give a whole number from 1"),
        ({"beta": -1}, "beta=-1: give a number from 0"),
        ({"beta": float("nan")}, "beta=nan: give a number from 0"),
    ],
)
def test_bad_parameters(photos, parameters, message):
    with pytest.raises(InputError, match=message) as caught:
        Autoencoder(**parameters).fit(photos)
    assert "\n" not in str(caught.value)


def test_no_images_and_no_fit(fitted, photos):
    for call in (Autoencoder(**SMALL).fit, fitted.anomaly_scores, fitted.reconstruct):
        with pytest.raises(InputError, match="no images: give at least one"):
            call([])
    with pytest.raises(NotFittedError):
        Autoencoder(**SMALL).anomaly_scores(photos)
