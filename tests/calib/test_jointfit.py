import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial import cKDTree
from scipy.stats import norm

from calib.jointfit import gaussianspots as spots_module
from calib.jointfit.arrays import FIXED_POINT, NUMPY, fixed_point_sum, library_of
from calib.jointfit.colourprior import SPREAD, expected_light, mix_channels, usual_brightness
from calib.jointfit.fitcycle import BACKGROUND_PERCENTILE, RIDGE, brightness_now, fit_cycle, start_background
from calib.jointfit.gaussianspots import REACH, Spots
from calib.jointfit.neighbours import NEAR, Neighbours, Overlap, csr_product, overlaps, padded_product
from calib.jointfit.scene import Scene, crowding, crowding_beyond
from calib.jointfit.solve import solve

try:
    import cupy
except ImportError:
    cupy = None

LIBRARIES = [np, cupy] if cupy is not None and cupy.cuda.is_available() else [np]
on_each_library = pytest.mark.parametrize("xp", LIBRARIES, ids=[module.__name__ for module in LIBRARIES])
"""The same test where NumPy and, with a GPU, where CuPy holds the arrays."""


def host(array):
    return library_of(array).to_host(array)


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


# Arrays.


def test_sums_in_fixed_point_are_sums_whatever_the_order():
    rng = np.random.default_rng(1)
    index, values = rng.integers(0, 50, (7, 300)), rng.normal(0, 10, (7, 300)).astype(np.float32)
    values[0, :2] = 3e6, -3e6
    pieces = list(zip(index, values, strict=True))
    found = fixed_point_sum(np, np.add.at, 60, pieces)
    assert found.dtype == np.float32
    exact = np.bincount(index.ravel(), values.ravel().astype(float), minlength=60)
    assert found == pytest.approx(exact, rel=1e-6, abs=300 / FIXED_POINT)
    assert NUMPY.sum_at(60, pieces) == pytest.approx(exact, rel=1e-4, abs=0.5)
    backwards = [(index[::-1], values[::-1]) for index, values in reversed(pieces)]
    assert fixed_point_sum(np, np.add.at, 60, backwards).tobytes() == found.tobytes()


@on_each_library
def test_a_library_does_what_numpy_does(xp):
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(3, 5, 70)).astype(np.float32), rng.normal(size=(5, 70)).astype(np.float32)
    index = rng.integers(0, 40, (5, 70))
    library = library_of(xp.asarray(a))
    assert library.xp is xp
    for axis, keepdims in itertools.product((0, 1, 2), (False, True)):
        found = library.dot(xp.asarray(a), xp.asarray(b), axis=axis, keepdims=keepdims)
        assert found.dtype == np.float32
        assert host(found) == pytest.approx((a * b).sum(axis=axis, keepdims=keepdims), abs=1e-4)
    drawn = library.sum_at(40, [(xp.asarray(index), xp.asarray(b))] * 2)
    assert host(drawn) == pytest.approx(2 * np.bincount(index.ravel(), b.ravel(), minlength=40), abs=1e-4)
    fused = library.fuse(_twice_and_product)
    for found, true in zip(fused(xp.asarray(a), xp.asarray(b)), _twice_and_product(a, b), strict=True):
        assert host(found) == pytest.approx(true)


def _twice_and_product(a, b):
    return (a > b) * a + a, a * b


# Spots.


def spots_on(xp, *positions, sigma, shape=SHAPE):
    """Spots on a stack of images, one for each list of positions."""
    return Spots(xp.asarray(np.array(positions, float)), np.broadcast_to(sigma, len(positions)), shape)


@on_each_library
@pytest.mark.parametrize("sigma", [0.7, 1.2, 2.5])
def test_spots_are_drawn_as_gaussians_up_to_their_reach(xp, sigma):
    heights = np.linspace(-1, 2, len(EVERYWHERE))
    seen = spots_on(xp, EVERYWHERE, sigma=sigma).draw(xp.asarray(heights[None]))
    assert seen.dtype == np.float32
    left = np.exp(-(REACH**2) / 2) * np.abs(heights).sum()
    assert host(seen)[0] == pytest.approx(drawn(EVERYWHERE, heights, sigma), abs=left)
    assert left < 0.05


@on_each_library
@pytest.mark.parametrize("sigma", [0.7, 1.2, 2.5])
def test_spots_read_the_sum_under_them_and_its_moments(xp, sigma):
    image = np.random.default_rng(1).normal(1, 1, SHAPE).astype(np.float32)
    rows, columns = np.indices(SHAPE)
    spots = spots_on(xp, EVERYWHERE, sigma=sigma)
    read = host(spots.read(xp.asarray(image[None])))[0]
    moments = [host(moment)[0] for moment in spots.read_moments(xp.asarray(image[None]))]
    for index, (y, x) in enumerate(EVERYWHERE):
        radius = np.ceil(REACH * sigma)
        near = (np.abs(rows - np.rint(y)) <= radius) & (np.abs(columns - np.rint(x)) <= radius)
        dy, dx = rows - y, columns - x
        under = np.where(near, image * np.exp(-(dy**2 + dx**2) / (2 * sigma**2)), 0)
        assert read[index] == pytest.approx(under.sum(), abs=1e-4)
        for found, distance in zip(moments, (dy, dx, dy**2 + dx**2), strict=True):
            assert found[index] == pytest.approx((under * distance).sum(), abs=1e-3)


@on_each_library
def test_reading_is_the_transpose_of_drawing(xp):
    rng = np.random.default_rng(2)
    spots = spots_on(xp, rng.uniform(-4, 42, (60, 2)), sigma=1.3)
    image, heights = rng.normal(size=(1, *SHAPE)).astype(np.float32), rng.normal(size=(1, 60))
    seen, read = host(spots.draw(xp.asarray(heights))), host(spots.read(xp.asarray(image)))
    assert (seen * image).sum() == pytest.approx((read * heights).sum(), rel=1e-4)


@on_each_library
def test_images_of_a_stack_are_read_and_drawn_each_for_itself(xp, monkeypatch):
    rng = np.random.default_rng(20)
    # Widths of one radius, of another and of the first again, and more spots than are taken at once.
    sigma, places = np.array([1.1, 1.2, 2.0, 1.1]), rng.uniform(-3, 40, (4, 50, 2))
    images, heights = rng.normal(size=(4, *SHAPE)).astype(np.float32), rng.normal(size=(4, 50))
    few = replace(library_of(xp.asarray(images)), max_elements=81 * 30)
    monkeypatch.setattr(spots_module, "library_of", lambda array: few)
    stack = Spots(xp.asarray(places), sigma, SHAPE)
    monkeypatch.undo()
    seen, read = host(stack.draw(xp.asarray(heights))), host(stack.read(xp.asarray(images)))
    nearest, moments = host(stack.nearest), [host(moment) for moment in stack.read_moments(xp.asarray(images))]
    for index in range(4):
        one, image = spots_on(np, places[index], sigma=sigma[index]), images[[index]]
        assert seen[index] == pytest.approx(one.draw(heights[[index]])[0], abs=1e-5)
        assert read[index] == pytest.approx(one.read(image)[0], abs=1e-4)
        for found, true in zip(moments, one.read_moments(image), strict=True):
            assert found[index] == pytest.approx(true[0], abs=1e-3)
        np.testing.assert_array_equal(nearest[index], one.nearest[0] + index * SHAPE[0] * SHAPE[1])


@on_each_library
def test_the_nearest_pixel_is_one_of_the_image(xp):
    nearest = host(spots_on(xp, EVERYWHERE, sigma=1.2).nearest)[0]
    places = np.stack(np.unravel_index(nearest, SHAPE), axis=1)
    aim = np.clip(np.rint(EVERYWHERE), 0, np.array(SHAPE) - 1)
    np.testing.assert_array_equal(places, aim)


@on_each_library
def test_no_spots_draw_nothing(xp):
    nothing = spots_on(xp, np.zeros((0, 2)), sigma=1.2)
    assert not nothing.draw(xp.zeros((1, 0))).any()
    assert nothing.read(xp.ones((1, *SHAPE), np.float32)).shape == (1, 0)
    assert nothing.nearest.shape == (1, 0)


# Neighbours.


def matrix(overlap, number):
    """(b, n, n) what an overlap multiplies with."""
    xp = library_of(overlap.own).xp
    columns = [overlap.others(xp.tile(unit, (len(overlap.own), 1))) for unit in xp.eye(number, dtype=np.float32)]
    return host(xp.stack(columns, axis=2)) + host(overlap.own)[:, :, None] * np.eye(number)


@on_each_library
@pytest.mark.parametrize("sigma", [0.8, 1.2, 2.5])
def test_overlaps_are_inner_products_of_drawn_spots(xp, sigma):
    rng = np.random.default_rng(3)
    positions = np.concatenate([rng.uniform(-2, 40, (40, 2)), [[0, 0], [-0.5, 20], [33, 39]]])
    neighbours = Neighbours.find(positions, np.full(4, sigma))
    found = matrix(overlaps(xp.asarray(positions[None]), neighbours, np.array([sigma]), SHAPE), len(positions))[0]
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


@pytest.mark.parametrize("number", [1, 2, 300])
def test_padded_columns_multiply_as_compressed_rows_do(number):
    rng = np.random.default_rng(21)
    neighbours = Neighbours.find(rng.uniform(0, 40, (number, 2)), np.full(4, 1.2))
    values, light = rng.normal(size=(4, neighbours.pairs.shape[1])), rng.normal(size=(4, number)).astype(np.float32)
    products = [form(neighbours, values)(light) for form in (csr_product, padded_product)]
    dense = np.zeros((4, number, number))
    first, second = neighbours.pairs
    dense[:, first, second] = dense[:, second, first] = values
    for product in products:
        assert product.dtype == np.float32
        assert product == pytest.approx(np.einsum("bij,bj->bi", dense, light), abs=1e-4)


def test_pairs_are_those_that_share_light():
    positions = np.array([[0, 0], [0, 5.0], [0, 10.2], [30, 30]])
    assert Neighbours.find(positions, np.array([1.0, 1.2, 1.1, 1.0])).pairs.T.tolist() == [[0, 1]]
    assert Neighbours.find(np.zeros((0, 2)), np.ones(4)).pairs.shape == (2, 0)


def test_each_cluster_numbers_its_neighbours():
    neighbours = Neighbours.find(np.random.default_rng(22).uniform(0, 30, (90, 2)), np.ones(4))
    for cluster in range(90):
        ranks = neighbours.rank[neighbours.pairs == cluster]
        assert sorted(ranks) == list(range(len(ranks)))
        assert len(ranks) <= neighbours.max_neighbours


def test_neighbours_of_a_scene_are_found_once():
    scene = even_scene([10, 10], [10, 12], shape=(64, 64))
    assert scene.neighbours is scene.neighbours
    assert scene.neighbours.pairs.T.tolist() == [[0, 1]]
    assert replace(scene, positions=scene.positions * 5).neighbours.pairs.size == 0


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


@on_each_library
@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), number=st.integers(1, 40))
def test_conjugate_gradients_solve_the_linear_systems(xp, seed, number):
    rng = np.random.default_rng(seed)
    positions, sigma, ridge = rng.uniform(0, 30, (number, 2)), np.array([1.2, 1.0, 1.2]), rng.uniform(0.3, 5, (3, 1))
    neighbours = Neighbours.find(positions, sigma)
    overlap = overlaps(xp.asarray(np.stack([positions] * 3)), neighbours, sigma, (30, 30))
    wanted, start = rng.normal(0, 5, (3, number)), rng.normal(0, 1, (3, number))
    # One that is solved before the others.
    wanted[2] = start[2] = 0
    found = host(solve(overlap, *(xp.asarray(one, np.float32) for one in (ridge, wanted, start))))
    dense = matrix(overlap, number) + ridge[:, :, None] * np.eye(number)
    exact = np.linalg.solve(dense, wanted[:, :, None])[:, :, 0]
    assert found == pytest.approx(exact, abs=0.02 * np.abs(exact).max())
    assert not found[2].any()


def test_systems_are_solved_each_as_if_it_stood_alone():
    rng = np.random.default_rng(23)
    positions, sigma = rng.uniform(0, 30, (60, 2)), np.array([1.2, 1.2])
    neighbours, ridge = Neighbours.find(positions, sigma), np.array([[0.3], [30]], np.float32)
    wanted = rng.normal(0, 5, (2, 60)).astype(np.float32)
    start = np.zeros_like(wanted)
    together = solve(overlaps(np.stack([positions] * 2), neighbours, sigma, (30, 30)), ridge, wanted, start)
    for index in range(2):
        one = slice(index, index + 1)
        overlap = overlaps(positions[None], neighbours, sigma[one], (30, 30))
        np.testing.assert_array_equal(together[one], solve(overlap, ridge[one], wanted[one], start[one]))


@on_each_library
def test_a_solution_as_start_is_left_as_it_is(xp):
    swapped = Overlap(own=xp.asarray([[2.0, 1.0]]), others=lambda x: 0.5 * x[:, ::-1])
    exact = xp.asarray(np.linalg.solve([[3.0, 0.5], [0.5, 2.0]], [1.0, 2.0])[None])
    assert host(solve(swapped, 1.0, xp.asarray([[1.0, 2.0]]), exact)).tolist() == host(exact).tolist()
    nothing = xp.zeros((1, 2))
    assert host(solve(swapped, 1.0, nothing, nothing)).tolist() == [[0, 0]]


# Chemistry.


@on_each_library
def test_light_of_one_base_is_expected_as_it_is(xp):
    brightness = np.array([0.5, 1.0, 2.0, 3.0])
    light = CROSSTALK @ (brightness * one_hot([0, 1, 2, 3]))
    assert host(expected_light(xp.asarray(light), xp.asarray(brightness), CROSSTALK)) == pytest.approx(light, abs=1e-4)


def test_light_of_no_base_is_expected_to_be_the_mean_of_all():
    expected = expected_light(np.zeros((4, 1)), np.array([2.0]), CROSSTALK)
    assert expected[:, 0] == pytest.approx(2 * CROSSTALK.mean(axis=1))


def test_bases_are_weighed_by_the_likelihood_of_the_light():
    light = np.array([0.6, 0.5, 0.0, 0.1])
    weights = np.exp(-((light - np.eye(4)) ** 2).sum(axis=1) / (2 * SPREAD**2))
    assert expected_light(light[:, None], np.ones(1), np.eye(4))[:, 0] == pytest.approx(weights / weights.sum())


@on_each_library
def test_a_cluster_without_brightness_is_expected_dark(xp):
    light = np.array([[5.0, 1, 0, 0], [-1e9, 1e9, 0, 0]]).T
    assert not expected_light(xp.asarray(light), xp.zeros(2), CROSSTALK).any()


@settings(deadline=None)
@given(
    arrays.arrays(np.float64, (4, 3, 2), elements=st.floats(-1e6, 1e6)),
    arrays.arrays(np.float64, 3, elements=st.floats(0, 100)),
)
def test_expected_light_is_never_more_than_the_brightest_base_shows(light, brightness):
    expected = expected_light(light, brightness, CROSSTALK)
    assert expected.shape == light.shape
    assert (expected >= 0).all()
    most = CROSSTALK.max(axis=1)[:, None, None] * brightness[:, None]
    assert (expected <= most * (1 + 1e-9)).all()


def test_mixing_is_the_product_of_matrices():
    light = np.random.default_rng(24).normal(size=(4, 5, 3))
    assert mix_channels(CROSSTALK, light) == pytest.approx(np.einsum("cb,bnk->cnk", CROSSTALK, light))


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


@on_each_library
@pytest.mark.parametrize("moved", [(0, 0), (0.25, -0.2), (-0.15, 0.3)])
@pytest.mark.parametrize("decay", [1, 0.6])
def test_light_of_clusters_that_share_pixels_is_told_apart(xp, moved, decay):
    rng = np.random.default_rng(4)
    scene = crowded_scene(rng)
    bases = rng.integers(0, 4, len(scene.positions))
    light = decay * scene.brightness[:, None] * one_hot(bases) @ CROSSTALK.T
    known = np.array([2.3, -1.6])
    images = picture(scene, light, known + moved, rng)
    found = fit_cycle(xp.asarray(images), scene, known.astype(np.float32))
    wrong = (found.light - light) / scene.brightness[:, None]
    assert np.sqrt((wrong**2).mean()) < 0.05
    assert np.abs(wrong).max() < 0.3
    assert brightness_now(found.light, scene) / scene.brightness == pytest.approx(decay, rel=0.03)
    shares = np.linalg.solve(CROSSTALK, found.light.T).T
    np.testing.assert_array_equal(shares.argmax(axis=1), bases)


@on_each_library
def test_what_noise_leaves_over_is_known_beforehand(xp):
    rng = np.random.default_rng(5)
    scene = crowded_scene(rng, noise=0.1)
    light = scene.brightness[:, None] * one_hot(rng.integers(0, 4, len(scene.positions))) @ CROSSTALK.T
    found = fit_cycle(xp.asarray(picture(scene, light, 0, rng)), scene, np.zeros(2, np.float32))
    # Noise of the height of a single fitted spot; what the spots themselves took up is missing.
    white = scene.noise / (np.sqrt(np.pi) * scene.sigma_px)
    assert np.median(found.left_over, axis=0) == pytest.approx(white, rel=0.25)


@on_each_library
def test_bright_clusters_leave_no_more_over_than_dim_ones(xp):
    rng = np.random.default_rng(5)
    scene = crowded_scene(rng, noise=0.01)
    light = scene.brightness[:, None] * one_hot(rng.integers(0, 4, len(scene.positions))) @ CROSSTALK.T
    left_over = fit_cycle(xp.asarray(picture(scene, light, 0, rng)), scene, np.zeros(2, np.float32)).left_over
    white = scene.noise / (np.sqrt(np.pi) * scene.sigma_px)
    assert (np.median(left_over, axis=0) < 2 * white).all()


@on_each_library
def test_structure_is_left_over_where_it_is(xp):
    rng = np.random.default_rng(6)
    scene = crowded_scene(rng)
    light = scene.brightness[:, None] * one_hot(rng.integers(0, 4, len(scene.positions))) @ CROSSTALK.T
    images = picture(scene, light, 0, rng)
    rows, columns = np.indices(images.shape[1:])
    # A thread of light through the left half.
    images += (0.5 * np.exp(-((rows - 32 - 3 * np.sin(columns / 3)) ** 2)) * (columns < 36)).astype(np.float32)
    found = fit_cycle(xp.asarray(images), scene, np.zeros(2, np.float32)).left_over.mean(axis=1)
    away, along = scene.positions[:, 1] > 50, np.abs(scene.positions - [32, 15]).max(axis=1) < 12
    assert along.sum() >= 3
    assert found[along].min() > 2 * np.median(found[away])


@on_each_library
def test_a_single_cluster_is_drawn_a_little_to_what_is_expected(xp):
    sigma = 1.2
    scene = Scene(
        np.array([[16.0, 16.0]]), np.ones(1), np.zeros((4, 2)), np.full(4, sigma), np.full(4, NOISE), np.eye(4)
    )
    image = drawn([(16, 16)], [0.8], sigma, (33, 33)).astype(np.float32)
    images = np.stack([image, *np.zeros((3, 33, 33), np.float32)])
    found = fit_cycle(xp.asarray(images), scene, np.zeros(2, np.float32))
    # All clusters have 0.8 of their brightness, so that the expected light is 0.8 as well.
    assert found.light[0] == pytest.approx([0.8, 0, 0, 0], abs=0.8 * RIDGE / 2)


@on_each_library
def test_an_empty_scene_and_blank_images_are_no_obstacle(xp):
    rng = np.random.default_rng(7)
    scene = crowded_scene(rng)
    drift = np.array([0.4, -0.3], np.float32)
    empty = replace(scene, positions=np.zeros((0, 2)), brightness=np.zeros(0))
    blank = np.full((4, 64, 72), 0.3, np.float32)
    nothing = fit_cycle(xp.asarray(blank), empty, drift)
    assert nothing.light.shape == nothing.left_over.shape == (0, 4)
    dark = fit_cycle(xp.asarray(blank), scene, drift)
    assert np.abs(dark.light).max() < 1e-3
    unlit = fit_cycle(xp.asarray(blank), replace(scene, brightness=np.zeros(len(scene.positions))), drift)
    assert np.isfinite(unlit.light).all()


@on_each_library
def test_a_fit_is_the_same_bits_every_time_and_the_same_light_everywhere(xp):
    rng = np.random.default_rng(25)
    scene = crowded_scene(rng, shape=(136, 148))
    light = scene.brightness[:, None] * one_hot(rng.integers(0, 4, len(scene.positions))) @ CROSSTALK.T
    images, drift = picture(scene, light, np.array([0.2, -0.1]), rng, shape=(136, 148)), np.zeros(2, np.float32)
    reference = fit_cycle(images, scene, drift)
    first, second = (fit_cycle(xp.asarray(images), replace(scene), drift) for _ in range(2))
    assert images.tobytes() == host(xp.asarray(images)).tobytes()
    for name, far in (("light", 1e-3), ("left_over", 1e-4), ("visible", 1e-5)):
        found = getattr(first, name)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float32
        assert found.tobytes() == getattr(second, name).tobytes()
        assert found == pytest.approx(getattr(reference, name), abs=far)


def test_a_wide_image_starts_from_a_sample_of_its_pixels():
    image = np.random.default_rng(26).normal(3, 1, (2, 700, 300)).astype(np.float32)
    level = start_background(image)
    assert level.shape == (2, 1, 1)
    assert level.dtype == np.float32
    assert level.ravel() == pytest.approx(np.percentile(image, BACKGROUND_PERCENTILE, axis=(1, 2)), abs=0.02)
    small = image[:, :200, :256]
    assert start_background(small).ravel() == pytest.approx(np.percentile(small, BACKGROUND_PERCENTILE, axis=(1, 2)))
