import numpy as np
import pytest

from calib.crosstalk import brightness, estimate_crosstalk, unmix

MATRIX = np.array([[1, 0.5, 0.02, 0.01], [0.3, 1, 0.02, 0.02], [0.01, 0.03, 1, 0.4], [0, 0.01, 0.15, 1]])
STRONG = np.array([[1, 0.9, 0.02, 0.01], [0.19, 1, 0.02, 0.02], [0.01, 0.02, 1, 0.4], [0, 0.01, 0.05, 1]])
"""Much like a published start matrix of a four-colour instrument."""


def clusters(number=800, cycles=10, *, composition=(0.25, 0.25, 0.25, 0.25), seed=1):
    """Light (n, cycles, 4) of the bases of clusters of varied brightness."""
    rng = np.random.default_rng(seed)
    bases = rng.choice(4, (number, cycles), p=composition)
    return np.eye(4)[bases] * rng.lognormal(0, 0.3, (number, 1, 1)), rng


def test_unmixing_is_the_inverse_of_mixing():
    light, _ = clusters(50)
    assert unmix(light @ MATRIX.T, MATRIX) == pytest.approx(light, abs=1e-12)


@pytest.mark.parametrize(("noise", "within"), [(0, 1e-9), (0.02, 0.004), (0.1, 0.02), (0.2, 0.06)])
def test_a_known_matrix_is_recovered_from_noisy_light(noise, within):
    light, rng = clusters()
    seen = light @ MATRIX.T + rng.normal(0, noise, light.shape)
    assert estimate_crosstalk(seen.astype(np.float32)) == pytest.approx(MATRIX, abs=max(within, 1e-6))


@pytest.mark.parametrize(("true", "dyes"), [(STRONG, (1, 1, 1, 1)), (MATRIX, (0.6, 1, 1.6, 0.8))])
def test_strong_crosstalk_and_unequal_dyes(true, dyes):
    light, rng = clusters()
    seen = (light * dyes) @ true.T + rng.normal(0, 0.05, light.shape)
    assert estimate_crosstalk(seen) == pytest.approx(true, abs=0.02)


def test_neighbours_light_on_even_ground_and_a_missing_cycle():
    light, rng = clusters(2000)
    neighbour, _ = clusters(2000, seed=2)
    neighbour = neighbour * rng.uniform(0, 0.5, (2000, 1, 1))
    seen = (light + neighbour - neighbour.mean(axis=(0, 1))) @ MATRIX.T
    seen[:, 4] = np.nan
    assert estimate_crosstalk(seen) == pytest.approx(MATRIX, abs=0.06)


def test_a_base_that_never_shows_leaks_nothing_and_its_noise_stays_noise():
    light, rng = clusters(500, 8, composition=(0.4, 0.3, 0.3, 0))
    seen = light @ MATRIX.T + rng.normal(0, 0.02, light.shape)
    found = estimate_crosstalk(seen)
    assert found[:, :3] == pytest.approx(MATRIX[:, :3], abs=0.02)
    assert found[:, 3].tolist() == [0, 0, 0, 1]
    assert brightness(unmix(seen, found))[3] == 1


@pytest.mark.parametrize("nothing", [np.zeros((0, 7, 4)), np.full((9, 7, 4), np.nan), np.zeros((90, 7, 4))])
def test_nothing_to_see_leaks_nothing(nothing):
    assert estimate_crosstalk(nothing).tolist() == np.eye(4).tolist()


def test_brightness_is_the_median_of_the_strongest():
    light = np.eye(4)[np.repeat(np.arange(4), 30)] * [0.8, 1, 1.5, 2]
    assert brightness(light) == pytest.approx([0.8, 1, 1.5, 2])
