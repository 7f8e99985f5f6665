import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from calib.jointfit.smoothing import broad_blur


@pytest.mark.parametrize("shape", [(1, 96, 128), (3, 77, 131)])
def test_what_is_smooth_is_blurred_as_by_a_gaussian(shape):
    y, x = np.mgrid[: shape[1], : shape[2]]
    smooth = np.stack([np.sin(y / 9 + k) + np.cos(x / 7 + y / 15) for k in range(shape[0])]).astype(np.float32)
    found = broad_blur(smooth, 5.0)
    assert found.dtype == np.float32
    inside = np.s_[:, : shape[1] - 20, : shape[2] - 20]
    np.testing.assert_allclose(found[inside], gaussian_filter(smooth, (0, 5, 5))[inside], atol=0.01)
    # An odd edge is mirrored a pixel farther out.
    np.testing.assert_allclose(found, gaussian_filter(smooth, (0, 5, 5)), atol=0.04 if shape[1] % 2 == 0 else 0.12)


@pytest.mark.parametrize("at", [(40, 40), (41, 40), (40, 41), (41, 41)])
def test_a_point_becomes_a_gaussian_of_that_width_at_its_place(at):
    image = np.zeros((1, 90, 94), np.float32)
    image[0, *at] = 1
    blurred = broad_blur(image, 5.0)[0].astype(np.float64)
    assert blurred.sum() == pytest.approx(1, abs=1e-3)
    for axis, place in enumerate(at):
        along, where = blurred.sum(axis=1 - axis), np.arange(image.shape[1 + axis])
        assert (along * where).sum() == pytest.approx(place, abs=0.51)
        assert (along * (where - (along * where).sum()) ** 2).sum() == pytest.approx(25, rel=0.03)


def test_of_noise_half_a_percent_is_elsewhere():
    noise = np.random.default_rng(1).normal(0, 1, (1, 256, 256)).astype(np.float32)
    assert (broad_blur(noise, 5.0) - gaussian_filter(noise, (0, 5, 5))).std() == pytest.approx(0.006, abs=0.0015)


def test_an_even_image_stays_even():
    np.testing.assert_allclose(broad_blur(np.full((2, 31, 17), 3, np.float32), 5.0), 3, rtol=1e-6)
