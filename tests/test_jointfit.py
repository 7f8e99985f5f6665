from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from scipy.stats import norm

from calib.jointfit.chemistry import SPREAD, expected_light, usual_brightness
from calib.jointfit.cycle import RIDGE, brightness_now, fit_cycle
from calib.jointfit.localise import localise
from calib.jointfit.scene import NEAR, Scene, crowding, crowding_beyond, near_pairs
from calib.jointfit.selection import not_one_more
from calib.jointfit.solve import solve
from calib.jointfit.spots import REACH, Spots, overlaps
from calib.learning.simulation.conditions import Conditions
from calib.learning.simulation.tile import simulate_tile
from calib.normalisation import estimate_normalisation

CROSSTALK = np.array([[1, 0.5, 0.02, 0.01], [0.3, 1, 0.02, 0.02], [0.01, 0.03, 1, 0.4], [0, 0.01, 0.15, 1]])
SHAPE = (34, 40)

EVERYWHERE = [[17, 20], [16.5, 19.5], [17.3, 20.8], [0, 0], [-1.4, 12.2], [33.4, 39.4], [35, 3.1], [-30, 500]]
"""Inside, between pixels, at the border, just outside, and far outside."""


def one_hot(bases):
    return np.eye(4)[bases]


def drawn(positions, heights, sigma, shape=SHAPE):
    """(H, W) sum of whole Gaussians, each pixel at its centre."""
    rows, columns = np.indices(shape)
    image = np.zeros(shape)
    for (y, x), height in zip(positions, heights, strict=True):
        image += height * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
    return image


# Spots.


@pytest.mark.parametrize("sigma", [0.7, 1.2, 2.5])
def test_spots_are_drawn_as_gaussians_up_to_their_reach(sigma):
    positions, heights = np.array(EVERYWHERE), np.linspace(-1, 2, len(EVERYWHERE))
    seen = Spots(positions, sigma, SHAPE).draw(heights)
    assert seen.dtype == np.float32
    left = np.exp(-(REACH**2) / 2) * np.abs(heights).sum()
    assert seen == pytest.approx(drawn(positions, heights, sigma), abs=left)
    assert left < 0.05


@pytest.mark.parametrize("sigma", [0.7, 1.2, 2.5])
def test_spots_read_the_sum_under_them_and_its_moments(sigma):
    image = np.random.default_rng(1).normal(1, 1, SHAPE).astype(np.float32)
    rows, columns = np.indices(SHAPE)
    spots = Spots(np.array(EVERYWHERE), sigma, SHAPE)
    read, moments = spots.read(image), spots.read_moments(image)
    for index, (y, x) in enumerate(EVERYWHERE):
        radius = np.ceil(REACH * sigma)
        near = (np.abs(rows - np.rint(y)) <= radius) & (np.abs(columns - np.rint(x)) <= radius)
        dy, dx = rows - y, columns - x
        under = np.where(near, image * np.exp(-(dy**2 + dx**2) / (2 * sigma**2)), 0)
        assert read[index] == pytest.approx(under.sum(), abs=1e-4)
        for found, distance in zip(moments, (dy, dx, dy**2 + dx**2), strict=True):
            assert found[index] == pytest.approx((under * distance).sum(), abs=1e-3)


def test_reading_is_the_transpose_of_drawing():
    rng = np.random.default_rng(2)
    spots = Spots(rng.uniform(-4, 42, (60, 2)), 1.3, SHAPE)
    image, heights = rng.normal(size=SHAPE).astype(np.float32), rng.normal(size=60)
    assert (spots.draw(heights) * image).sum() == pytest.approx(spots.read(image) @ heights, rel=1e-4)


def test_the_nearest_pixel_is_one_of_the_image():
    nearest = Spots(np.array(EVERYWHERE), 1.2, SHAPE).nearest
    places = np.stack(np.unravel_index(nearest, SHAPE), axis=1)
    aim = np.clip(np.rint(EVERYWHERE), 0, np.array(SHAPE) - 1)
    np.testing.assert_array_equal(places, aim)


def test_no_spots_draw_nothing():
    nothing = Spots(np.zeros((0, 2)), 1.2, SHAPE)
    assert not nothing.draw(np.zeros(0)).any()
    assert nothing.read(np.ones(SHAPE, np.float32)).shape == (0,)


@pytest.mark.parametrize("sigma", [0.8, 1.2, 2.5])
def test_overlaps_are_inner_products_of_drawn_spots(sigma):
    rng = np.random.default_rng(3)
    positions = np.concatenate([rng.uniform(-2, 40, (40, 2)), [[0, 0], [-0.5, 20], [33, 39]]])
    pairs = near_pairs(positions, np.full(4, sigma))
    found = overlaps(positions, pairs, sigma, SHAPE).toarray()
    images = np.stack([drawn([position], [1], sigma).ravel() for position in positions])
    near = cKDTree(positions).sparse_distance_matrix(cKDTree(positions), NEAR * sigma).toarray() > 0
    products = np.where(near | np.eye(len(positions), dtype=bool), images @ images.T, 0)
    # At the border the sum over pixels is not quite the integral.
    assert found == pytest.approx(products, abs=0.08 * np.pi * sigma**2)
    middle = np.all((positions > 4 * sigma) & (positions < np.array(SHAPE) - 4 * sigma), axis=1)
    assert middle.sum() >= 3
    inner = np.ix_(middle, middle)
    assert found[inner] == pytest.approx(products[inner], rel=0.01, abs=1e-6)
    np.testing.assert_array_equal(found, found.T)


def test_pairs_are_those_that_share_light():
    positions = np.array([[0, 0], [0, 5.0], [0, 10.2], [30, 30]])
    assert near_pairs(positions, np.array([1.0, 1.2, 1.1, 1.0])).tolist() == [[0, 1]]
    assert near_pairs(np.zeros((0, 2)), np.ones(4)).shape == (0, 2)


def test_crowding_of_two_clusters_is_the_closed_form():
    positions = np.array([[10, 10], [10, 11.5], [30, 30.0]])
    scene = Scene(positions, np.array([1.0, 2.0, 1.0]), np.zeros((4, 2)), np.full(4, 1.2), np.ones(4), np.eye(4))
    shared = np.exp(-(1.5**2) / (4 * 1.2**2))
    assert crowding(scene) == pytest.approx([2 * shared, shared / 2, 0])
    dark = replace(scene, brightness=np.array([0.0, 2.0, 0.0]))
    assert crowding(dark) == pytest.approx([2e6 * shared, 0, 0], abs=1e-5)
    assert crowding(replace(scene, positions=np.zeros((0, 2)), brightness=np.zeros(0))).shape == (0,)


def even_scene(*positions, shape, others=0):
    """Clusters of brightness 1 at these positions, and others in the middle."""
    places = np.concatenate([np.array(positions, float), np.tile(np.array(shape) / 2, (others, 1))])
    return Scene(places, np.ones(len(places)), np.zeros((4, 2)), np.full(4, 1.2), np.ones(4), np.eye(4))


STILL = np.zeros(2, np.float32)


def test_crowding_beyond_an_edge_is_the_closed_form():
    shape, others = (100, 80), 996
    scene = even_scene([50, 40], [-0.5, 40], [50, 79.5], [0.5, 40], shape=shape, others=others)
    scene = replace(scene, brightness=np.append([1, 1, 2, 1], np.ones(others)))
    even = (others + 5) / (100 * 80)
    whole = 4 * np.pi * 1.2**2 * even
    middle, edge, bright_edge, near = crowding_beyond(scene, shape, STILL)[:4]
    assert middle == pytest.approx(0, abs=1e-6)
    assert edge == pytest.approx(whole / 2)
    # The same light beside twice its own.
    assert bright_edge == pytest.approx(whole / 4)
    assert near == pytest.approx(whole * norm.cdf(-1 / (np.sqrt(2) * 1.2)))


def test_crowding_beyond_an_edge_is_what_clusters_there_would_add():
    # One cluster a pixel; those of the right half are not known.
    y, x = np.indices((41, 80))
    positions = np.stack([y.ravel(), x.ravel()], axis=1).astype(float)
    every = even_scene(*positions, shape=(41, 80))
    known = even_scene(*positions[positions[:, 1] < 40], shape=(41, 40))
    row = 20 * 80 + np.arange(40 - 12, 40)
    added = crowding(every)[row] - crowding(known)[20 * 40 + np.arange(40 - 12, 40)]
    # What lies beyond NEAR is left out of the sum.
    assert crowding_beyond(known, (41, 40), STILL)[20 * 40 + np.arange(40 - 12, 40)] == pytest.approx(added, abs=0.25)
    assert added[-1] > 6


def test_drift_brings_clusters_to_the_edge_and_takes_none_from_it():
    shape = (64, 64)
    scene = even_scene([32, 1.5], [32, 32], [32, 62], [1.5, 32], shape=shape, others=400)
    still = crowding_beyond(scene, shape, STILL)[:4]
    left = crowding_beyond(scene, shape, np.array([0, -2], np.float32))[:4]
    assert left[0] > 1.5 * still[0] > 0
    # What the template did not show does not come to light.
    assert left[1:] == pytest.approx(still[1:])
    assert left[0] == pytest.approx(crowding_beyond(even_scene([32, -0.5], shape=shape, others=403), shape, STILL)[0])


def test_a_cluster_outside_is_crowded_more_than_one_on_the_edge():
    shape = (64, 64)
    scene = even_scene([32, 2], [32, -0.5], [32, -2], [-20, 32], shape=shape, others=400)
    inside, edge, outside, far = crowding_beyond(scene, shape, STILL)[:4]
    assert inside < edge < outside < far
    assert far == pytest.approx(2 * edge)


def test_crowding_beyond_of_the_dark_and_of_nobody_is_finite():
    shape = (64, 64)
    dark = replace(even_scene([0, 0], [32, 32], shape=shape), brightness=np.array([0.0, 1.0]))
    assert np.isfinite(crowding_beyond(dark, shape, STILL)).all()
    nobody = replace(dark, positions=np.zeros((0, 2)), brightness=np.zeros(0))
    assert crowding_beyond(nobody, shape, STILL).shape == (0,)


# The linear system.


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), number=st.integers(1, 40), ridge=st.floats(0.3, 5))
def test_conjugate_gradients_solve_the_linear_system(seed, number, ridge):
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, 30, (number, 2))
    overlap = overlaps(positions, near_pairs(positions, np.full(4, 1.2)), 1.2, (30, 30))
    wanted, start = rng.normal(0, 5, number), rng.normal(0, 1, number)
    exact = np.linalg.solve(overlap.toarray() + ridge * np.eye(number), wanted)
    found = solve(overlap, ridge, wanted, start)
    assert found == pytest.approx(exact, abs=0.02 * np.abs(exact).max())


def test_a_solution_as_start_is_left_as_it_is():
    overlap = csr_matrix(np.array([[2.0, 0.5], [0.5, 1.0]]))
    exact = np.linalg.solve(overlap.toarray() + np.eye(2), [1.0, 2.0])
    assert solve(overlap, 1.0, np.array([1.0, 2.0]), exact).tolist() == exact.tolist()
    assert solve(overlap, 1.0, np.zeros(2), np.zeros(2)).tolist() == [0, 0]


# Chemistry.


def test_light_of_one_base_is_expected_as_it_is():
    brightness = np.array([0.5, 1.0, 2.0, 3.0])
    light = brightness[:, None] * one_hot([0, 1, 2, 3]) @ CROSSTALK.T
    assert expected_light(light, brightness, CROSSTALK) == pytest.approx(light, abs=1e-4)


def test_light_of_no_base_is_expected_to_be_the_mean_of_all():
    expected = expected_light(np.zeros((1, 4)), np.array([2.0]), CROSSTALK)
    assert expected[0] == pytest.approx(2 * CROSSTALK.mean(axis=1))


def test_bases_are_weighed_by_the_likelihood_of_the_light():
    light = np.array([[0.6, 0.5, 0.0, 0.1]])
    weights = np.exp(-((light - np.eye(4)) ** 2).sum(axis=1) / (2 * SPREAD**2))
    assert expected_light(light, np.ones(1), np.eye(4))[0] == pytest.approx(weights / weights.sum())


def test_a_cluster_without_brightness_is_expected_dark():
    light = np.array([[5.0, 1, 0, 0], [-1e9, 1e9, 0, 0]])
    assert not expected_light(light, np.zeros(2), CROSSTALK).any()


@settings(deadline=None)
@given(
    arrays.arrays(np.float64, (3, 2, 4), elements=st.floats(-1e6, 1e6)),
    arrays.arrays(np.float64, 3, elements=st.floats(0, 100)),
)
def test_expected_light_is_never_more_than_the_brightest_base_shows(light, brightness):
    expected = expected_light(light, brightness, CROSSTALK)
    assert expected.shape == light.shape
    assert (expected >= 0).all()
    assert (expected <= brightness[:, None, None] * CROSSTALK.max(axis=1) * (1 + 1e-9)).all()


def test_usual_brightness_is_the_median_of_the_brightest_base():
    bases = np.array([[0, 1, 2], [3, 3, 1]])
    light = one_hot(bases) * np.array([[1.0, 2.0, 9.0], [0.5, 0.4, 0.6]])[:, :, None] @ CROSSTALK.T
    assert usual_brightness(light, CROSSTALK) == pytest.approx([2, 0.5])


# One cycle at known positions.

NOISE = 0.02


def crowded_scene(rng, *, shape=(64, 72), sigma=1.2, apart=(1.0, 1.5), noise=NOISE):
    """Pairs of clusters 1.0 to 1.5 sigma apart, one in every other field of 12 pixels; single ones between."""
    y, x = np.meshgrid(np.arange(7, shape[0] - 5, 12), np.arange(7, shape[1] - 5, 12), indexing="ij")
    first = np.stack([y.ravel(), x.ravel()], axis=1) + rng.uniform(-1, 1, (y.size, 2))
    angle, distance = rng.uniform(0, 2 * np.pi, y.size), sigma * rng.uniform(*apart, y.size)
    second = first + distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    positions = np.concatenate([first, second[::2]])
    return Scene(
        positions=positions,
        brightness=rng.lognormal(0, 0.3, len(positions)),
        channel_shift_px=np.array([[0.3, -0.2], [-0.3, 0.1], [0.2, 0.4], [-0.2, -0.3]]),
        sigma_px=sigma * np.array([0.95, 1, 1.05, 1.1]),
        noise=np.full(4, noise),
        crosstalk=CROSSTALK,
    )


def picture(scene, light, drift, rng, *, shape=(64, 72)):
    """(4, H, W) images of the light under uneven background."""
    rows, columns = np.indices(shape)
    background = 0.1 + 0.05 * np.sin(rows / 25) + 0.002 * columns
    images = [
        drawn(scene.positions + drift + scene.channel_shift_px[channel], light[:, channel], sigma, shape) + background
        for channel, sigma in enumerate(scene.sigma_px)
    ]
    return (np.stack(images) + rng.normal(0, 1, (4, *shape)) * scene.noise[:, None, None]).astype(np.float32)


@pytest.mark.parametrize("moved", [(0, 0), (0.25, -0.2), (-0.15, 0.3)])
@pytest.mark.parametrize("decay", [1, 0.6])
def test_light_of_clusters_that_share_pixels_is_told_apart(moved, decay):
    rng = np.random.default_rng(4)
    scene = crowded_scene(rng)
    bases = rng.integers(0, 4, len(scene.positions))
    light = decay * scene.brightness[:, None] * one_hot(bases) @ CROSSTALK.T
    known = np.array([2.3, -1.6])
    images = picture(scene, light, known + moved, rng)
    found = fit_cycle(images, scene, known.astype(np.float32))
    wrong = (found.light - light) / scene.brightness[:, None]
    assert np.sqrt((wrong**2).mean()) < 0.05
    assert np.abs(wrong).max() < 0.3
    assert brightness_now(found.light, scene) / scene.brightness == pytest.approx(decay, rel=0.03)
    shares = np.linalg.solve(CROSSTALK, found.light.T).T
    np.testing.assert_array_equal(shares.argmax(axis=1), bases)


def test_what_noise_leaves_over_is_known_beforehand():
    rng = np.random.default_rng(5)
    scene = crowded_scene(rng, noise=0.1)
    light = scene.brightness[:, None] * one_hot(rng.integers(0, 4, len(scene.positions))) @ CROSSTALK.T
    found = fit_cycle(picture(scene, light, 0, rng), scene, np.zeros(2, np.float32))
    # Noise of the height of a single fitted spot; what the spots themselves took up is missing.
    white = scene.noise / (np.sqrt(np.pi) * scene.sigma_px)
    assert np.median(found.left_over, axis=0) == pytest.approx(white, rel=0.25)


def test_bright_clusters_leave_no_more_over_than_dim_ones():
    rng = np.random.default_rng(5)
    scene = crowded_scene(rng, noise=0.01)
    light = scene.brightness[:, None] * one_hot(rng.integers(0, 4, len(scene.positions))) @ CROSSTALK.T
    left_over = fit_cycle(picture(scene, light, 0, rng), scene, np.zeros(2, np.float32)).left_over
    white = scene.noise / (np.sqrt(np.pi) * scene.sigma_px)
    assert (np.median(left_over, axis=0) < 2 * white).all()


def test_structure_is_left_over_where_it_is():
    rng = np.random.default_rng(6)
    scene = crowded_scene(rng)
    light = scene.brightness[:, None] * one_hot(rng.integers(0, 4, len(scene.positions))) @ CROSSTALK.T
    images = picture(scene, light, 0, rng)
    rows, columns = np.indices(images.shape[1:])
    # A thread of light through the left half.
    images += (0.5 * np.exp(-((rows - 32 - 3 * np.sin(columns / 3)) ** 2)) * (columns < 36)).astype(np.float32)
    found = fit_cycle(images, scene, np.zeros(2, np.float32)).left_over.mean(axis=1)
    away, along = scene.positions[:, 1] > 50, np.abs(scene.positions - [32, 15]).max(axis=1) < 12
    assert along.sum() >= 3
    assert found[along].min() > 2 * np.median(found[away])


def test_a_single_cluster_is_drawn_a_little_to_what_is_expected():
    sigma = 1.2
    scene = Scene(
        np.array([[16.0, 16.0]]), np.ones(1), np.zeros((4, 2)), np.full(4, sigma), np.full(4, NOISE), np.eye(4)
    )
    image = drawn([(16, 16)], [0.8], sigma, (33, 33)).astype(np.float32)
    images = np.stack([image, *np.zeros((3, 33, 33), np.float32)])
    found = fit_cycle(images, scene, np.zeros(2, np.float32))
    # All clusters have 0.8 of their brightness, so that the expected light is 0.8 as well.
    assert found.light[0] == pytest.approx([0.8, 0, 0, 0], abs=0.8 * RIDGE / 2)


def test_an_empty_scene_and_blank_images_are_no_obstacle():
    rng = np.random.default_rng(7)
    scene = crowded_scene(rng)
    drift = np.array([0.4, -0.3], np.float32)
    empty = replace(scene, positions=np.zeros((0, 2)), brightness=np.zeros(0))
    blank = np.full((4, 64, 72), 0.3, np.float32)
    nothing = fit_cycle(blank, empty, drift)
    assert nothing.light.shape == nothing.left_over.shape == (0, 4)
    dark = fit_cycle(blank, scene, drift)
    assert np.abs(dark.light).max() < 1e-3
    unlit = fit_cycle(blank, replace(scene, brightness=np.zeros(len(scene.positions))), drift)
    assert np.isfinite(unlit.light).all()


# Selection.

CYCLES = 12
SIGMA, PIXEL_NOISE = np.full(4, 1.2), np.full(4, 0.05)


def lights(rng, *bases_and_heights):
    """(n, cycles, 4) fitted light of clusters of these bases and heights, beside many others."""
    shown = [height * one_hot(bases) for bases, height in bases_and_heights]
    others = one_hot(rng.integers(0, 4, (40, CYCLES)))
    return np.concatenate([np.stack(shown), others]) + rng.normal(0, 0.02, (40 + len(shown), CYCLES, 4))


def judged(rng, positions, *bases_and_heights):
    far = np.stack([np.full(40, 100.0), 30.0 * np.arange(40)], axis=1)
    gone = not_one_more(
        np.concatenate([np.array(positions, float), far]), lights(rng, *bases_and_heights), SIGMA, PIXEL_NOISE
    )
    assert not gone[len(positions) :].any()
    return gone[: len(positions)].tolist()


BASES = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3])
OTHER = np.roll(BASES, 1)
HALF = np.where(np.arange(CYCLES) < 6, BASES, OTHER)


def test_a_splinter_goes_and_a_neighbour_of_its_own_stays():
    rng = np.random.default_rng(8)
    near, far = [[0, 0], [0, 1.5]], [[0, 0], [0, 2.5]]
    assert judged(rng, near, (BASES, 1), (BASES, 0.6)) == [False, True]
    assert judged(rng, near, (BASES, 0.6), (BASES, 1)) == [True, False]
    assert judged(rng, near, (BASES, 1), (OTHER, 0.6)) == [False, False]
    assert judged(rng, far, (BASES, 1), (BASES, 0.6)) == [False, False]


def test_a_dim_neighbour_is_held_to_more():
    rng = np.random.default_rng(9)
    near = [[0, 0], [0, 1.5]]
    assert judged(rng, near, (BASES, 1), (HALF, 0.6)) == [False, False]
    assert judged(rng, near, (BASES, 1), (HALF, 0.25)) == [False, True]
    assert judged(rng, near, (BASES, 1), (OTHER, 0.25)) == [False, False]


def test_a_splinter_takes_nothing_with_it():
    rng = np.random.default_rng(10)
    row = [[0, 0], [0, 1.5], [0, 3.0]]
    assert judged(rng, row, (BASES, 1), (BASES, 0.8), (BASES, 0.6)) == [False, True, False]


def test_what_is_too_dim_or_lights_up_once_is_no_cluster():
    rng = np.random.default_rng(11)
    noise_of_a_spot = PIXEL_NOISE[0] / (np.sqrt(np.pi) * SIGMA[0])
    dim, bright = 1.5 * noise_of_a_spot, 8 * noise_of_a_spot
    assert judged(rng, [[0, 0], [0, 20]], (BASES, dim), (BASES, bright)) == [True, False]
    flash = np.where(np.arange(CYCLES) == 4, 8.0, 0.1)[:, None]
    assert judged(rng, [[0, 0]], (BASES, flash)) == [True]


# Localisation.


def normalised(tile, cycles=10):
    raw = np.stack([tile.images(cycle) for cycle in range(1, cycles + 1)])
    normalisation = estimate_normalisation(raw)
    return np.stack([normalisation.apply(pixels) for pixels in raw])


def find(tile, images, seeds, **changed):
    known = {
        "drift_px": tile.drift_px.astype(np.float32),
        "channel_shift_px": np.array(tile.conditions.channel_shift_px, np.float32),
        "support": np.ones(tile.shape, np.float32),
    }
    return localise(images, seeds=np.asarray(seeds, np.float32), **(known | changed))


def displaced_seeds(tile, rng):
    """Two thirds of the true positions, half a pixel off."""
    truth = tile.positions_px[tile.inside]
    chosen = truth[rng.permutation(len(truth))[: 2 * len(truth) // 3]]
    angle = rng.uniform(0, 2 * np.pi, len(chosen))
    return chosen + 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)


SHIFTS = ((0.4, -0.3), (-0.2, 0.1), (0, 0.5), (-0.2, -0.3))


@pytest.fixture(scope="module")
def tile():
    conditions = Conditions(density_k_mm2=250, channel_shift_px=SHIFTS)
    return simulate_tile(conditions, shape=(80, 72), cycles=10, seed=3)


@pytest.fixture(scope="module")
def images(tile):
    return normalised(tile)


@pytest.mark.parametrize("seed", [1, 2])
def test_clusters_of_a_crowded_tile_are_found_from_two_thirds_of_them(tile, images, seed):
    seeds = displaced_seeds(tile, np.random.default_rng(seed))
    scene = find(tile, images, seeds)
    truth = tile.positions_px[tile.inside]
    missed = cKDTree(scene.positions).query(truth)[0]
    assert (missed < 1).mean() > 0.93
    assert np.median(missed) < 0.2
    inside = np.all((scene.positions >= -0.5) & (scene.positions < np.array(tile.shape) - 0.5), axis=1)
    real = cKDTree(tile.positions_px).query(scene.positions[inside])[0]
    assert (real < 1).mean() > 0.95
    # A pixel gathers light over its area, which widens a spot by a twelfth.
    assert scene.sigma_px == pytest.approx(np.sqrt(np.array(tile.conditions.sigma_px) ** 2 + 1 / 12), rel=0.1)
    assert scene.crosstalk == pytest.approx(np.array(tile.conditions.crosstalk), abs=0.1)
    assert scene.channel_shift_px == pytest.approx(np.array(SHIFTS) - np.mean(SHIFTS, axis=0), abs=0.08)
    assert scene.positions[:, 0].tolist() == sorted(scene.positions[:, 0])
    single = np.flatnonzero(missed < 0.3)
    nearest = cKDTree(scene.positions).query(truth[single])[1]
    relative = scene.brightness[nearest] / tile.brightness[tile.inside][single]
    assert np.std(np.log(relative)) < 0.25


def test_the_same_images_give_the_same_scene(tile, images):
    seeds = displaced_seeds(tile, np.random.default_rng(3))
    before = images.copy()
    first, second = (find(tile, images, seeds) for _ in range(2))
    np.testing.assert_array_equal(images, before)
    for name in ("positions", "brightness", "channel_shift_px", "sigma_px", "noise", "crosstalk"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_nothing_is_added_where_the_network_sees_nothing(tile, images):
    truth = tile.positions_px[tile.inside]
    left = truth[:, 1] < 30
    support = np.zeros(tile.shape, np.float32)
    support[:, :36] = 1
    scene = find(tile, images, truth[left], support=support)
    # Splitting what gathers the light of many may reach a little farther.
    assert scene.positions[:, 1].max() < 44
    assert (cKDTree(scene.positions).query(truth[left])[0] < 1).mean() > 0.9


def test_no_seeds_are_an_empty_scene(tile, images):
    scene = find(tile, images, np.zeros((0, 2)))
    assert scene.positions.shape == (0, 2)
    assert scene.brightness.shape == (0,)
    assert np.isfinite(scene.sigma_px).all()
    assert (scene.noise > 0).all()
    assert scene.crosstalk.tolist() == np.eye(4).tolist()


@pytest.mark.parametrize("noise", [0, 0.1])
def test_blank_images_have_no_clusters(tile, noise):
    images = np.random.default_rng(12).normal(0.2, noise, (10, 4, *tile.shape)).astype(np.float32)
    scene = find(tile, images, displaced_seeds(tile, np.random.default_rng(13)))
    assert len(scene.positions) < 4
    assert np.isfinite(scene.brightness).all()
    assert np.isfinite(scene.channel_shift_px).all()


def test_one_cycle_alone_does_not_fail(tile, images):
    scene = find(
        tile, images[:1], displaced_seeds(tile, np.random.default_rng(14)), drift_px=np.zeros((1, 2), np.float32)
    )
    assert np.isfinite(scene.positions).all()
    assert (scene.sigma_px > 0).all()
