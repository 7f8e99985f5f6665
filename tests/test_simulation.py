from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from calib.learning.simulation.background import illumination, structures
from calib.learning.simulation.camera import expose
from calib.learning.simulation.chemistry import emission, phasing_weights
from calib.learning.simulation.conditions import IDEAL_CROSSTALK, Conditions, random_conditions
from calib.learning.simulation.folder import read_truth, write_simulated_run
from calib.learning.simulation.optics import spots
from calib.learning.simulation.tile import MARGIN_PX, simulate_tile
from calib.runfolder import RunFolderError, TileId, image_path, read_image, read_run_info


def one_spot(y, x, *, photons=1000.0, sigma_px=1.2, shape=(32, 40)):
    return spots(positions_px=np.array([[y, x]]), photons=np.array([photons]), sigma_px=sigma_px, shape=shape)


def centroid(image):
    y, x = np.indices(image.shape)
    return np.array([(image * y).sum(), (image * x).sum()]) / image.sum()


@pytest.mark.parametrize("sigma_px", [0.6, 1.2, 2.5])
@pytest.mark.parametrize(("y", "x"), [(15, 20), (14.37, 20.5), (15.99, 19.01)])
def test_spot_has_its_photons_its_place_and_its_width(sigma_px, y, x):
    image = one_spot(y, x, sigma_px=sigma_px)
    assert image.sum() == pytest.approx(1000, rel=2e-4)
    assert centroid(image) == pytest.approx([y, x], abs=2e-3)
    columns = np.arange(40)
    variance = (image.sum(axis=0) * (columns - centroid(image)[1]) ** 2).sum() / image.sum()
    assert variance == pytest.approx(sigma_px**2 + 1 / 12, rel=4e-3)


def test_spots_add_up():
    rng = np.random.default_rng(1)
    positions, photons = rng.uniform(0, 32, (7, 2)), rng.uniform(10, 1000, 7)
    together = spots(positions_px=positions, photons=photons, sigma_px=1.1, shape=(32, 32))
    alone = sum(
        one_spot(y, x, photons=light, sigma_px=1.1, shape=(32, 32))
        for (y, x), light in zip(positions, photons, strict=True)
    )
    np.testing.assert_allclose(together, alone, atol=1e-9)


@pytest.mark.parametrize(("y", "x"), [(-2.3, 10), (10, -4.6), (33.4, 41.2), (-1, -1)])
def test_spot_outside_shines_in_as_in_a_larger_image(y, x):
    larger = one_spot(y + 10, x + 10, shape=(52, 60))
    np.testing.assert_allclose(one_spot(y, x), larger[10:42, 10:50], atol=1e-9)
    assert one_spot(y, x).sum() > 0


def test_spots_far_outside_and_no_spots_leave_the_image_dark():
    assert not one_spot(-500, 1e6).any()
    assert not spots(positions_px=np.zeros((0, 2)), photons=np.zeros(0), sigma_px=1, shape=(8, 9)).any()


def test_without_phasing_a_cycle_shows_its_own_base():
    for cycle in (1, 2, 30):
        weights = phasing_weights(cycle=cycle, cycles=30, phasing=0, prephasing=0)
        assert weights == pytest.approx(np.eye(30)[cycle - 1])


@pytest.mark.parametrize("cycle", [1, 5, 20])
def test_phasing_alone_is_binomial(cycle):
    weights = phasing_weights(cycle=cycle, cycles=30, phasing=0.03, prephasing=0)
    assert weights == pytest.approx(binom.pmf(np.arange(1, 31), cycle, 0.97), abs=1e-12)


@pytest.mark.parametrize("cycle", [1, 5, 20])
def test_prephasing_alone_is_binomial(cycle):
    weights = phasing_weights(cycle=cycle, cycles=60, phasing=0, prephasing=0.02)
    assert weights == pytest.approx(binom.pmf(np.arange(60) - (cycle - 1), cycle, 0.02), abs=1e-12)


def test_strands_are_all_shown_inside_the_read_and_dark_behind_it():
    shown = phasing_weights(cycle=12, cycles=30, phasing=0.03, prephasing=0.02)
    assert shown.sum() == pytest.approx(1)
    assert (shown * np.arange(30)).sum() == pytest.approx(12 * (1 - 0.03 + 0.02) - 1)
    at_the_end = phasing_weights(cycle=12, cycles=12, phasing=0.03, prephasing=0.02)
    np.testing.assert_allclose(at_the_end, shown[:12])
    assert at_the_end.sum() < 0.95


def test_emission_sums_the_weights_of_each_base():
    reads = np.array([[0, 1, 2, 3], [3, 3, 0, 3]], np.uint8)
    shares = emission(reads=reads, weights=np.array([0.1, 0.6, 0.2, 0.05]))
    np.testing.assert_allclose(shares, [[0.1, 0.6, 0.2, 0.05], [0.2, 0, 0, 0.75]])


def test_illumination_is_full_in_the_centre_and_falls_to_the_corners():
    profile = illumination(shape=(31, 41), falloff=0.3)
    assert profile[15, 20] == pytest.approx(1)
    assert profile[[0, 0, -1, -1], [0, -1, 0, -1]] == pytest.approx(0.7)
    assert profile[0, 20] == profile[15, 0] == pytest.approx(0.85)


def test_structures_are_light():
    rng = np.random.default_rng(3)
    assert not structures(shape=(40, 50), number=0, photons_px=30, rng=rng).any()
    light = structures(shape=(40, 50), number=12, photons_px=30, rng=rng)
    assert light.min() >= 0
    assert light.max() > 5


def test_camera_mean_and_variance_follow_photons_gain_and_read_noise():
    rng = np.random.default_rng(4)
    photons = np.full((400, 400), 50.0)
    counts = expose(photons=photons, read_noise_e=2.0, counts_per_e=3.0, offset=100, rng=rng)
    assert counts.dtype == np.uint16
    assert counts.mean() == pytest.approx(100 + 3 * 50, abs=0.3)
    assert counts.var() == pytest.approx(9 * (50 + 4), rel=0.02)


def test_camera_saturates_at_both_ends():
    photons = np.array([[0.0, 1e6]])
    for seed in range(5):
        rng = np.random.default_rng(seed)
        counts = expose(photons=photons, read_noise_e=1000, counts_per_e=1, offset=0, rng=rng)
        assert counts[0, 1] == 65535
        assert counts[0, 0] < 5000


def test_tile_has_the_density_asked_for():
    conditions = Conditions(density_k_mm2=200)
    shape = (300, 200)
    area_mm2 = (shape[0] + 2 * MARGIN_PX) * (shape[1] + 2 * MARGIN_PX) * (0.375e-3) ** 2
    tile = simulate_tile(conditions, shape=shape, cycles=2, seed=5)
    expected = 200_000 * area_mm2
    assert abs(len(tile.positions_px) - expected) < 5 * np.sqrt(expected)
    inside = expected * (shape[0] * shape[1]) / ((shape[0] + 2 * MARGIN_PX) * (shape[1] + 2 * MARGIN_PX))
    assert abs(tile.inside.sum() - inside) < 5 * np.sqrt(inside)


def test_reads_follow_the_composition():
    tile = simulate_tile(
        Conditions(density_k_mm2=300, composition=(0.7, 0.1, 0.2, 0)), shape=(96, 96), cycles=50, seed=6
    )
    shares = np.bincount(tile.reads.ravel(), minlength=4) / tile.reads.size
    assert shares == pytest.approx([0.7, 0.1, 0.2, 0], abs=0.02)


def test_images_come_out_the_same_every_time_and_differ_between_cycles_and_seeds():
    conditions = Conditions(structures=3)
    tile, again, other = (simulate_tile(conditions, shape=(40, 48), cycles=3, seed=seed) for seed in (7, 7, 8))
    images = tile.images(2)
    assert images.shape == (4, 40, 48)
    np.testing.assert_array_equal(images, tile.images(2))
    np.testing.assert_array_equal(images, again.images(2))
    assert (images != tile.images(3)).any()
    assert (images != other.images(2)).any()


def lone_cluster(conditions, *, base, cycles=2):
    """A tile whose only cluster stands at (20, 24) and reads the same base in every cycle."""
    tile = simulate_tile(conditions, shape=(40, 48), cycles=cycles, seed=9)
    return replace(
        tile,
        positions_px=np.array([[20.0, 24.0]]),
        reads=np.full((1, cycles), base, np.uint8),
        second_reads=np.zeros((1, cycles), np.uint8),
        second_share=np.zeros(1),
        brightness=np.ones(1),
    )


def test_drift_and_channel_shift_move_what_the_frames_show():
    shifts = ((0.4, -0.3), (-0.5, 0.2), (0.0, 0.6), (0.1, -0.5))
    everywhere = ((1.0, 1.0, 1.0, 1.0),) * 4
    noiseless = {"photons": 50_000, "counts_per_e": 0.5, "read_noise_e": 0, "background_px": (0, 0, 0, 0), "falloff": 0}
    conditions = Conditions(crosstalk=everywhere, channel_shift_px=shifts, **noiseless)
    drift = np.array([[0, 0], [1.7, -2.2]])
    tile = replace(lone_cluster(conditions, base=1), drift_px=drift)
    for cycle in (1, 2):
        for frame, shift in zip(tile.images(cycle), shifts, strict=True):
            found = centroid(frame.astype(float) - conditions.offset)
            assert found == pytest.approx(np.array([20, 24]) + drift[cycle - 1] + shift, abs=0.03)


def test_drift_starts_at_the_first_cycle_and_its_steps_are_bounded():
    tile = simulate_tile(Conditions(drift_px=0.7), shape=(16, 16), cycles=40, seed=10)
    assert not tile.drift_px[0].any()
    steps = np.abs(np.diff(tile.drift_px, axis=0))
    assert 0.5 < steps.max() <= 0.7


def test_light_carries_yield_crosstalk_and_decay():
    conditions = Conditions(photons=1000, channel_yield=(1, 2, 1, 1), decay=0.1, phasing=0, prephasing=0)
    light = lone_cluster(conditions, base=1).cluster_light(2)
    assert light[:, 0] == pytest.approx(np.array([0.35, 1.0, 0.02, 0.01]) * 1000 * 2 * 0.9)


def test_polyclonal_cluster_shares_its_light_between_two_reads():
    conditions = Conditions(photons=1000, crosstalk=IDEAL_CROSSTALK, decay=0, phasing=0, prephasing=0)
    tile = replace(lone_cluster(conditions, base=1), second_share=np.array([0.3]))
    assert tile.cluster_light(1)[:, 0] == pytest.approx([300, 700, 0, 0])


def test_random_conditions_stay_physical():
    for seed in range(50):
        conditions = random_conditions(np.random.default_rng(seed))
        assert sum(conditions.composition) == pytest.approx(1)
        assert np.diag(conditions.crosstalk) == pytest.approx(1)
        assert min(conditions.sigma_px) > 0.6
        assert conditions.density_px2 <= 0.09 + 1e-9


def test_simulated_run_reads_back_with_its_truth(tmp_path):
    conditions, shape, progress = Conditions(density_k_mm2=150), (32, 40), []
    info = write_simulated_run(
        tmp_path, conditions, run="SIM", tiles=2, cycles=3, shape=shape, seed=11, progress=progress.append
    )
    assert read_run_info(tmp_path) == info
    assert progress == [1, 2, 3, 4, 5, 6]
    tile = simulate_tile(conditions, shape=shape, cycles=3, seed=12)
    np.testing.assert_array_equal(read_image(image_path(tmp_path, info.tiles[1], 3, "G")), tile.images(3)[2])
    truth = read_truth(tmp_path, info.tiles[1])
    np.testing.assert_allclose(truth.positions, tile.positions_px[tile.inside], atol=6e-4)
    np.testing.assert_array_equal(truth.reads, tile.reads[tile.inside])
    with pytest.raises(RunFolderError, match=r"s_1_1103\.csv"):
        read_truth(tmp_path, TileId(lane=1, tile=1103))
