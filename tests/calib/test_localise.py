import numpy as np
import pytest
from scipy.spatial import cKDTree

from calib.jointfit.localise import localise
from calib.jointfit.modelselection import spurious_clusters
from calib.normalisation import estimate_normalisation
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedtile import simulate_tile


def one_hot(bases):
    return np.eye(4)[bases]


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
    gone = spurious_clusters(
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
