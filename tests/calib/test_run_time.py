from dataclasses import replace

import numpy as np
import pytest

from calib.normalisation import estimate_normalisation
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.optics import spots
from calib.offline.simulation.simulatedtile import simulate_tile
from calib.registration import RegistrationError, align, draw_reference, measure_shift, register, spots_only
from calib.template.detections import Detections, detect, merge, support

CONDITIONS = Conditions(density_k_mm2=150, channel_yield=(1.5, 0.5, 0.8, 1.1), background_px=(10, 30, 20, 15))
CYCLES = 5


def images_of(tile):
    return np.stack([tile.images(cycle) for cycle in range(1, tile.reads.shape[1] + 1)])


def peak_of_a_typical_cluster(conditions):
    """Counts above background of the brightest pixel of a median cluster, by channel."""
    photons, centre = np.array([conditions.photons]), np.zeros((1, 2))
    peaks = [spots(positions_px=centre, photons=photons, sigma_px=sigma, shape=(1, 1)) for sigma in conditions.sigma_px]
    return np.array(peaks).ravel() * conditions.channel_yield * conditions.counts_per_e


@pytest.mark.parametrize("density_k_mm2", [40, 150])
def test_scale_is_found_however_unequal_the_channels(density_k_mm2):
    conditions = CONDITIONS.model_copy(update={"density_k_mm2": density_k_mm2})
    tile = simulate_tile(conditions, shape=(128, 128), cycles=CYCLES, seed=1)
    found = estimate_normalisation(images_of(tile))
    assert found.gain * peak_of_a_typical_cluster(conditions) == pytest.approx(1, abs=0.25)
    background = conditions.offset + conditions.counts_per_e * np.array(conditions.background_px)
    assert (found.offset - background) * found.gain == pytest.approx(0, abs=0.25)


def test_scale_is_found_when_cycles_have_extreme_composition():
    tile = simulate_tile(CONDITIONS, shape=(128, 128), cycles=CYCLES, seed=2)
    tile.reads[:, 0], tile.reads[:, 1] = 0, 3
    found = estimate_normalisation(images_of(tile))
    assert found.gain * peak_of_a_typical_cluster(CONDITIONS) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("level", [0, 100, 65535])
def test_scale_of_blank_images_is_finite(level):
    found = estimate_normalisation(np.full((2, 4, 32, 40), level, np.uint16))
    assert found.offset == pytest.approx(level)
    assert np.isfinite(found.gain).all()
    assert (found.gain > 0).all()


def test_scale_of_dark_frames_leaves_their_noise_small():
    frames = np.random.default_rng(3).normal(100, 3, (3, 4, 64, 64)).astype(np.uint16)
    found = estimate_normalisation(frames)
    assert np.isfinite(found.gain).all()
    assert found.apply(frames[0]).std() < 0.5


def test_normalisation_maps_background_to_zero_and_the_peak_to_one():
    found = estimate_normalisation(np.zeros((1, 4, 16, 16), np.uint16))
    known = replace(found, offset=np.full(4, 100, np.float32), gain=np.full(4, 0.01, np.float32))
    pixels = np.full((4, 1, 2), (100, 200), np.uint16)
    np.testing.assert_allclose(known.apply(pixels), np.broadcast_to((0.0, 1.0), (4, 1, 2)), atol=1e-6)


def picture(positions, shape=(96, 112)):
    lit = spots(positions_px=positions, photons=np.full(len(positions), 8.0), sigma_px=1.2, shape=shape)
    return spots_only(lit.astype(np.float32))


def scattered(seed, number=150):
    return np.random.default_rng(seed).uniform(-10, 120, (number, 2))


@pytest.mark.parametrize("shift_px", [(0, 0), (0.3, -1.7), (-0.55, 0.45), (5.25, -3.4)])
def test_known_shift_is_measured_to_a_tenth_of_a_pixel(shift_px):
    positions = scattered(1)
    found = measure_shift(picture(positions), picture(positions + shift_px))
    assert found == pytest.approx(shift_px, abs=0.1)


def test_unrelated_images_do_not_register():
    for seed in range(10):
        with pytest.raises(RegistrationError, match=r"correlation 0\.\d+, at least"):
            measure_shift(picture(scattered(seed)), picture(scattered(100 + seed)))


def test_blank_images_do_not_register():
    lit, blank = picture(scattered(1)), spots_only(np.full((96, 112), 0.3, np.float32))
    for reference, moved in ((lit, blank), (blank, lit), (blank, blank)):
        with pytest.raises(RegistrationError, match="blank"):
            measure_shift(reference, moved)


def test_cycle_registers_to_the_picture_of_its_template():
    tile = simulate_tile(CONDITIONS, shape=(96, 112), cycles=1, seed=4)
    tile = replace(tile, drift_px=np.array([[1.3, -2.6]]))
    normalisation = estimate_normalisation(images_of(tile))
    spots = spots_only(normalisation.apply(tile.images(1)))
    reference = draw_reference(tile.positions_px[tile.inside].astype(np.float32), (96, 112))
    assert register(reference, spots, np.zeros((4, 2), np.float32)) == pytest.approx([1.3, -2.6], abs=0.15)


SHIFTS = ((0.6, -0.5), (-0.4, 0.6), (0.2, 0.1), (-0.4, -0.2))
DRIFT = np.array([[0, 0], [2.0, -1.3], [-0.6, 0.4], [-2.0, 1.9], [0.5, 2.0]])


def spots_of_drifting_tile():
    conditions = CONDITIONS.model_copy(update={"channel_shift_px": SHIFTS})
    tile = replace(simulate_tile(conditions, shape=(128, 120), cycles=CYCLES, seed=5), drift_px=DRIFT)
    images = images_of(tile)
    normalisation = estimate_normalisation(images)
    return np.stack([spots_only(normalisation.apply(pixels)) for pixels in images])


def test_alignment_recovers_drift_and_channel_shift():
    found = align(spots_of_drifting_tile())
    np.testing.assert_allclose(found.drift_px, DRIFT, atol=0.15)
    np.testing.assert_allclose(found.channel_shift_px, SHIFTS, atol=0.15)


@pytest.mark.parametrize("blank", [0, 2])
def test_alignment_marks_a_blank_cycle_and_goes_on_without_it(blank):
    spots = spots_of_drifting_tile()
    spots[blank] = 0
    found = align(spots)
    assert np.isnan(found.drift_px[blank]).all()
    seen = np.delete(np.arange(CYCLES), blank)
    np.testing.assert_allclose(found.drift_px[seen], DRIFT[seen] - DRIFT[seen[0]], atol=0.15)
    np.testing.assert_allclose(found.channel_shift_px, SHIFTS, atol=0.15)


def test_alignment_leaves_a_dark_channel_where_it_is():
    spots = spots_of_drifting_tile()
    spots[:, 1] = 0
    found = align(spots)
    assert not found.channel_shift_px[1].any()
    np.testing.assert_allclose(found.drift_px, DRIFT, atol=0.2)


SHAPE = (64, 80)


def grid_of_clusters(rng):
    y, x = np.meshgrid(np.arange(4, 60, 5), np.arange(4, 76, 5), indexing="ij")
    return np.stack([y.ravel(), x.ravel()], axis=1) + rng.uniform(-1, 1, (y.size, 2))


def seen(positions, rng, *, spread_px=0.15):
    return Detections(positions + rng.normal(0, spread_px, positions.shape), np.full(len(positions), 0.9))


def test_template_finds_the_clusters_that_the_cycles_show():
    rng = np.random.default_rng(6)
    clusters = grid_of_clusters(rng)
    found = merge([seen(clusters, rng) for _ in range(6)], shape=SHAPE)
    assert found.dtype == np.float32
    assert len(found) == len(clusters)
    nearest = np.linalg.norm(found[:, None] - clusters[None], axis=2).min(axis=0)
    assert nearest.max() < 0.3


def test_template_is_ordered_and_inside_the_tile():
    rng = np.random.default_rng(7)
    clusters = np.concatenate([grid_of_clusters(rng), [[-2.0, 10], [10, 82], [-0.2, 20], [63.2, 30]]])
    found = merge([seen(clusters, rng, spread_px=0.05) for _ in range(4)], shape=SHAPE)
    assert len(found) == len(clusters) - 2
    assert (found >= -0.5).all()
    assert (found < np.array(SHAPE) - 0.5).all()
    np.testing.assert_array_equal(found, found[np.lexsort((found[:, 1], found[:, 0]))])


def test_template_separates_close_clusters_that_light_different_channels():
    rng = np.random.default_rng(8)
    pair = np.array([[20.0, 30.0], [20.7, 31.0]])
    apart = [seen(pair, rng, spread_px=0.1) for _ in range(6)]
    together = [seen(pair.mean(axis=0, keepdims=True), rng, spread_px=0.1) for _ in range(2)]
    found = merge([*apart[:3], *together, *apart[3:]], shape=SHAPE)
    np.testing.assert_allclose(found, pair, atol=0.3)


def test_template_drops_what_one_cycle_alone_shows():
    rng = np.random.default_rng(9)
    cluster, stray = np.array([[20.0, 30.0]]), np.array([[40.0, 50.0]])
    cycles = [seen(np.concatenate([cluster, stray]) if index == 2 else cluster, rng) for index in range(5)]
    np.testing.assert_allclose(merge(cycles, shape=SHAPE), cluster, atol=0.3)


def test_template_of_nothing_is_empty():
    nothing = Detections(np.zeros((0, 2)), np.zeros(0))
    for cycles in ([], [nothing], [nothing, nothing]):
        assert merge(cycles, shape=SHAPE).shape == (0, 2)


def found_in(probabilities, *, drift_px=(0, 0), channel_shift_px=((0, 0),) * 4):
    return detect(
        probabilities, drift_px=np.array(drift_px, np.float32), channel_shift_px=np.array(channel_shift_px, np.float32)
    )


def test_detection_stands_at_the_centre_of_mass_in_template_coordinates():
    probabilities = np.zeros((5, 24, 32), np.float32)
    probabilities[0] = 1
    probabilities[2, 10, 12:14] = 0.6, 0.2
    probabilities[4, 0, 31] = 0.5
    found = found_in(probabilities)
    np.testing.assert_allclose(found.positions, [[10, 12.25], [0, 31]], atol=1e-6)
    np.testing.assert_allclose(found.mass, [0.8, 0.5], atol=1e-6)
    shifts = ((9, 9), (0.5, -0.25), (9, 9), (0, 0.5))
    moved = found_in(probabilities, drift_px=(1, -2), channel_shift_px=shifts)
    np.testing.assert_allclose(moved.positions, [[8.5, 14.5], [-1, 32.5]], atol=1e-6)


def test_detection_needs_some_probability_and_counts_as_one_cluster_at_most():
    probabilities = np.zeros((5, 24, 32), np.float32)
    probabilities[1, 5, 5] = 0.05
    assert len(found_in(probabilities).mass) == 0
    probabilities[1, 4:7, 4:7] = 0.3
    probabilities[1, 5, 5] = 0.9
    assert found_in(probabilities).mass == pytest.approx([1.0])


def test_support_is_the_share_of_the_cycles_that_see_something_near():
    maps = [np.zeros((5, 24, 32), np.float32) for _ in range(4)]
    maps[0][1, 10, 12] = 0.9
    maps[1][3, 13, 10] = 1
    maps[2][2, 10, 12] = maps[2][4, 10, 13] = 1
    drift = np.array([[0, 0], [2, -2], [0, 0], [0, 0]], np.float32)
    channel_shift = np.array([[0, 0], [0, 0], [1, 0], [0, 0]], np.float32)
    seen = support(maps, drift_px=drift, channel_shift_px=channel_shift)
    assert seen[10, 12] == pytest.approx((0.9 + 1 + 1) / 4, abs=1e-5)
    assert seen[11, 11] == pytest.approx(seen[10, 12], abs=1e-5)
    assert seen[10, 14] == pytest.approx(1 / 4, abs=1e-5)
    assert not seen[:, 16:].any()


def test_a_blank_cycle_is_never_the_origin_of_a_template():
    tile = simulate_tile(Conditions(density_k_mm2=80), shape=(96, 96), cycles=2, seed=1)
    spots = spots_only(estimate_normalisation(tile.images(2)[None]).apply(tile.images(2)))
    alignment = align(np.stack([np.zeros_like(spots), spots]))
    assert np.isnan(alignment.drift_px[0]).all()
    assert (alignment.drift_px[1] == 0).all()


def test_blank_cycles_alone_match_nothing():
    assert np.isnan(align(np.zeros((2, 4, 64, 64), np.float32)).drift_px).all()
