import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from scipy.integrate import dblquad
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from scipy.stats import binom
from seqd_client.runinfo import Read, TileId, parse_reads
from typer.testing import CliRunner

from calib.fasta import FastaError, Sequence, read_fasta, reverse_complement, write_fasta
from calib.offline.cli import UsageError
from calib.offline.commands import app
from calib.offline.simulation.background import illumination, structures
from calib.offline.simulation.chemistry import accumulated_weights, emission, phasing_weights
from calib.offline.simulation.clusterlayout import patterned, scattered
from calib.offline.simulation.conditions import IDEAL_CROSSTALK, Conditions, Grid, Pattern, random_conditions
from calib.offline.simulation.illumination import PatternError, carrier_frequencies, phases, stripes
from calib.offline.simulation.obstructions import bubbles, dust, seen_through
from calib.offline.simulation.optics import TAIL_REACH, defocused_sigma, projected, spots, tails
from calib.offline.simulation.sensor import expose, sensor
from calib.offline.simulation.simulatedreads import INSERT_BEYOND, cut_reads, random_reference, template_reads
from calib.offline.simulation.simulatedrun import read_truth, simulated_tile_of, structured_path, write_simulated_run
from calib.offline.simulation.simulatedtile import MARGIN_PX, simulate_tile
from calib.runfolder.images import RunFolderError, image_path, read_image, read_run_info


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


def test_spots_are_the_same_when_rendered_in_parts(monkeypatch):
    rng = np.random.default_rng(2)
    crowd = {"positions_px": rng.uniform(0, 32, (50, 2)), "photons": rng.uniform(10, 1000, 50), "sigma_px": 1.1}
    whole = spots(**crowd, shape=(32, 32))
    monkeypatch.setattr("calib.offline.simulation.optics.SPOTS_AT_ONCE", 7)
    np.testing.assert_allclose(spots(**crowd, shape=(32, 32)), whole, rtol=1e-12)


def tail(y, x, *, width_px=2.0, shape=(81, 81)):
    return tails(positions_px=np.array([[y, x]]), photons=np.array([1000.0]), width_px=width_px, shape=shape)


def test_tail_holds_its_light_and_falls_with_the_third_power():
    image = tail(40, 40)
    half_edge = TAIL_REACH * 2.0 + 0.5
    held = 4 / (2 * np.pi) * np.arctan(half_edge**2 / (2 * np.sqrt(2 * half_edge**2 + 4)))
    assert image.sum() == pytest.approx(1000 * held, rel=1e-6)
    density = lambda y, x: 1000 * 2.0 / (2 * np.pi * (y**2 + x**2 + 4) ** 1.5)  # noqa: E731
    assert image[43, 38] == pytest.approx(dblquad(density, -2.5, -1.5, 2.5, 3.5)[0], rel=1e-6)
    assert image[40, 54] / image[40, 47] == pytest.approx(((7**2 + 4) / (14**2 + 4)) ** 1.5, rel=0.01)


def test_tail_lies_where_its_spot_lies_and_shines_in_from_outside():
    assert centroid(tail(40.3, 39.6)) == pytest.approx([40.3, 39.6], abs=0.05)
    np.testing.assert_allclose(
        tail(-3.4, 20.2, shape=(30, 40)), tail(6.6, 30.2, shape=(50, 60))[10:40, 10:50], atol=1e-9
    )


def test_spots_grow_with_defocus():
    assert defocused_sigma(sigma_px=1.2, defocus_um=0, depth_um=0.8) == 1.2
    assert defocused_sigma(sigma_px=1.2, defocus_um=-0.8, depth_um=0.8) == pytest.approx(1.2 * np.sqrt(2))
    assert defocused_sigma(sigma_px=1.2, defocus_um=80, depth_um=0.8) == pytest.approx(120, rel=1e-3)


def test_magnification_keeps_the_centre_and_scales_from_it():
    places = np.array([[9.5, 19.5], [0, 0], [19, 39]])
    seen = projected(positions_px=places, shift_px=np.array([0.5, -1]), magnification=1.01, shape=(20, 40))
    np.testing.assert_allclose(seen, [[10, 18.5], [0.405, -1.195], [19.595, 38.195]])


@pytest.mark.parametrize("angle_deg", [0, 17])
def test_grid_has_its_pitch_its_density_and_its_occupancy(angle_deg):
    rng = np.random.default_rng(5)
    ideal = {"shape": (90, 120), "margin_px": 5, "pitch_px": 2.5, "angle_deg": angle_deg, "rng": rng}
    full = patterned(**ideal, jitter_px=0, occupancy=1)
    assert len(full) == pytest.approx(100 * 130 / 2.5**2, rel=0.03)
    assert full.min() >= -5.5 - 1e-9
    assert (full.max(axis=0) <= np.array([94.5, 124.5]) + 1e-9).all()
    distance = cKDTree(full).query(full, k=2)[0][:, 1]
    assert distance == pytest.approx(2.5)
    places = full @ np.array([np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))]) / 2.5
    assert np.abs((places - places[0] + 0.5) % 1 - 0.5).max() < 1e-9
    part = patterned(**ideal, jitter_px=0, occupancy=0.7)
    assert len(part) / len(full) == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / len(full)))


def test_jitter_moves_clusters_off_the_grid_by_its_standard_deviation():
    here, there = (
        patterned(
            shape=(80, 80),
            margin_px=0,
            pitch_px=2,
            jitter_px=jitter,
            occupancy=1,
            angle_deg=0,
            rng=np.random.default_rng(6),
        )
        for jitter in (0, 0.1)
    )
    assert (there - here).std(axis=0) == pytest.approx([0.1, 0.1], rel=0.1)


def test_scattered_clusters_do_not_know_of_each_other():
    places = scattered(shape=(200, 200), margin_px=0, density_px2=0.1, rng=np.random.default_rng(7))
    # Mean distance to the nearest neighbour of a Poisson process (Clark and Evans 1954).
    assert cKDTree(places).query(places, k=2)[0][:, 1].mean() == pytest.approx(0.5 / np.sqrt(0.1), rel=0.05)


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


def test_accumulated_light_is_a_geometric_series():
    steps = {"cycles": 20, "phasing": 0, "prephasing": 0}
    weights = accumulated_weights(cycle=9, carried=0.3, **steps)
    assert weights[:9] == pytest.approx(0.3 ** np.arange(8, -1, -1.0), abs=1e-4)
    assert not weights[9:].any()
    assert weights.sum() == pytest.approx((1 - 0.3**9) / (1 - 0.3), rel=1e-4)
    np.testing.assert_array_equal(accumulated_weights(cycle=9, carried=0, **steps), phasing_weights(cycle=9, **steps))


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


def even_sensor(**changed):
    even = {"counts_per_e": 3.0, "gain_spread": 0, "offset": 100, "offset_spread": 0, "read_noise_e": 2.0}
    even |= {"read_noise_spread": 0, "shape": (400, 400), "rng": np.random.default_rng(3)}
    return sensor(**even | changed)


def test_camera_mean_and_variance_follow_photons_gain_and_read_noise():
    rng = np.random.default_rng(4)
    photons = np.full((400, 400), 50.0)
    counts = expose(photons=photons, sensor=even_sensor(), rng=rng)
    assert counts.dtype == np.uint16
    assert counts.mean() == pytest.approx(100 + 3 * 50, abs=0.3)
    assert counts.var() == pytest.approx(9 * (50 + 4), rel=0.02)


def test_camera_saturates_at_both_ends():
    photons = np.array([[0.0, 1e6]])
    for seed in range(5):
        rng = np.random.default_rng(seed)
        counts = expose(photons=photons, sensor=even_sensor(read_noise_e=1000, counts_per_e=1, offset=0), rng=rng)
        assert counts[0, 1] == 65535
        assert counts[0, 0] < 5000


def test_pixels_of_a_sensor_differ_as_asked_and_show_in_the_counts():
    uneven = even_sensor(gain_spread=0.02, offset_spread=3, read_noise_spread=0.3)
    assert uneven.counts_per_e.mean() == pytest.approx(3, rel=1e-3)
    assert uneven.counts_per_e.std() == pytest.approx(0.06, rel=0.02)
    assert uneven.offset.std() == pytest.approx(3, rel=0.02)
    assert np.median(uneven.read_noise_e) == pytest.approx(2, rel=0.01)
    assert np.log(uneven.read_noise_e).std() == pytest.approx(0.3, rel=0.02)
    rng = np.random.default_rng(4)
    mean = np.mean([expose(photons=np.full((400, 400), 50.0), sensor=uneven, rng=rng) for _ in range(16)], axis=0)
    np.testing.assert_allclose(mean, 50 * uneven.counts_per_e + uneven.offset, atol=6 * 3 * np.sqrt(75 / 16))


def test_bubbles_cover_their_area_and_dim_and_blur_what_is_under_them():
    covers = [
        bubbles(shape=(150, 150), mean_number=1.5, radius_px=12, rng=np.random.default_rng(seed)) for seed in range(300)
    ]
    assert min(cover.min() for cover in covers) >= 0
    # Of randomly placed discs (Boolean model) the covered share is 1 - exp(-discs a pixel x area of a disc).
    area = np.pi * 12**2 * np.exp(2 * 0.1**2)
    inner = np.mean([cover[20:-20, 20:-20].mean() for cover in covers])
    assert inner == pytest.approx(1 - np.exp(-1.5 / 150**2 * area), rel=0.25)
    image = one_spot(20, 20, sigma_px=1.2, shape=(41, 41))
    under = seen_through(photons=image, cover=np.ones((41, 41)), light=0.3, blur_px=2.5)
    wider = one_spot(20, 20, photons=300, sigma_px=np.hypot(1.2, 2.5), shape=(41, 41))
    np.testing.assert_allclose(under, wider, atol=0.02)
    np.testing.assert_array_equal(seen_through(photons=image, cover=np.zeros((41, 41)), light=0.3, blur_px=2.5), image)


def test_dust_takes_light_or_gives_it_in_gaussian_specks():
    for seed in range(8):
        transmission, glow = dust(shape=(90, 90), number=1, photons_px=200, rng=np.random.default_rng(seed))
        assert (transmission == 1).all() != (glow == 0).all()
        speck = glow if glow.any() else 1 - transmission
        middle = np.unravel_index(speck.argmax(), speck.shape)
        if not all(25 < place < 65 for place in middle):
            continue
        variance = speck.sum() / (2 * np.pi * speck.max())
        y = np.arange(90) - centroid(speck)[0]
        assert (speck.sum(axis=1) * y**2).sum() / speck.sum() == pytest.approx(variance, rel=0.06)
    transmission, glow = dust(shape=(9, 8), number=0, photons_px=200, rng=np.random.default_rng(1))
    assert (transmission == 1).all()
    assert not glow.any()


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


def test_first_cycle_is_dimmer_and_only_the_first():
    conditions = Conditions(photons=1000, first_cycle=0.6, crosstalk=IDEAL_CROSSTALK, decay=0, phasing=0, prephasing=0)
    tile = lone_cluster(conditions, base=1)
    assert tile.cluster_light(1)[1, 0] == pytest.approx(600)
    assert tile.cluster_light(2)[1, 0] == pytest.approx(1000)


def test_light_of_a_t_stays_for_the_cycles_after_it():
    conditions = Conditions(
        photons=1000, t_accumulation=0.2, crosstalk=IDEAL_CROSSTALK, decay=0, phasing=0, prephasing=0
    )
    tile = replace(lone_cluster(conditions, base=0, cycles=4), reads=np.array([[3, 0, 3, 2]], np.uint8))
    light = np.stack([tile.cluster_light(cycle)[:, 0] for cycle in (1, 2, 3, 4)])
    np.testing.assert_allclose(light[:, 3], [1000, 200, 1040, 208])
    np.testing.assert_allclose(light[:, :3], [[0, 0, 0], [1000, 0, 0], [0, 0, 0], [0, 0, 1000]])


def test_focus_of_channel_and_cycle_sets_the_width_of_spots():
    tile = lone_cluster(Conditions(defocus_um=(0, 0.5, 0, 0), focal_depth_um=1), base=1)
    tile = replace(tile, focus_um=np.array([0, 0.7]))
    assert tile.spot_sigma(1, 0) == 1.05
    assert tile.spot_sigma(2, 1) == pytest.approx(1.1 * np.sqrt(1 + 1.2**2))
    drifting = simulate_tile(Conditions(focus_drift_um=0.2), shape=(16, 16), cycles=40, seed=10)
    assert drifting.focus_um[0] == 0
    assert 0.15 < np.abs(np.diff(drifting.focus_um)).max() <= 0.2


NOISELESS = {"photons": 50_000, "counts_per_e": 0.5, "read_noise_e": 0, "background_px": (0, 0, 0, 0), "falloff": 0}


def test_frames_show_magnification_defocus_and_tails():
    plain = lone_cluster(Conditions(**NOISELESS), base=1)
    magnified = lone_cluster(Conditions(channel_magnification=(1, 1.05, 1, 1), **NOISELESS), base=1)
    centre = np.array([19.5, 23.5])
    for tile, factor in ((plain, 1), (magnified, 1.05)):
        found = centroid(tile.images(1)[1] - 100.0)
        assert found == pytest.approx(centre + factor * (np.array([20, 24]) - centre), abs=0.03)
    # Half a pixel off the focus of depth one widens the variance by a quarter.
    blurred = lone_cluster(Conditions(defocus_um=(0, 0.5, 0, 0), **NOISELESS), base=1)
    peaks = [tile.images(1)[1].max() - 100.0 for tile in (plain, blurred)]
    assert peaks[0] / peaks[1] == pytest.approx((1.1**2 * 1.25 + 1 / 12) / (1.1**2 + 1 / 12), rel=0.03)
    far = lone_cluster(Conditions(airy_tail=(0, 0.24, 0, 0), **NOISELESS), base=1).images(1)[1] - 100.0
    y, x = np.indices(far.shape)
    width, radius = 2 * 1.1, np.hypot(y - 20, x - 24)
    beyond = [0.24 * 25_000 * width / np.hypot(width, edge) for edge in (6, 14)]
    assert far[(radius > 6) & (radius < 14)].sum() == pytest.approx(beyond[0] - beyond[1], rel=0.1)


def test_bubbles_come_and_go_and_dust_and_pixels_stay():
    conditions = Conditions(
        density_k_mm2=0, background_px=(2000,) * 4, bubbles=1, dust=6, offset_spread=5, read_noise_e=0
    )
    tile = simulate_tile(conditions, shape=(60, 60), cycles=12, seed=3)
    darkest = np.array([tile.images(cycle)[0].mean() for cycle in range(1, 13)])
    assert darkest.min() < 0.9 * darkest.max()
    assert darkest.max() == pytest.approx(np.median(darkest[darkest > 0.98 * darkest.max()]), rel=0.02)
    bare = simulate_tile(conditions.model_copy(update={"bubbles": 0}), shape=(60, 60), cycles=12, seed=3)
    smooth = [gaussian_filter(bare.images(cycle)[channel].astype(float), 1.5) for cycle, channel in ((1, 0), (9, 2))]
    assert np.corrcoef(smooth[0].ravel(), smooth[1].ravel())[0, 1] > 0.95


def test_effects_leave_clusters_and_reads_as_they_are():
    plain = simulate_tile(Conditions(), shape=(48, 48), cycles=5, seed=4)
    changed = simulate_tile(
        Conditions(bubbles=2, dust=3, gain_spread=0.02, offset_spread=2, focus_drift_um=0.1, t_accumulation=0.1),
        shape=(48, 48),
        cycles=5,
        seed=4,
    )
    for name in ("positions_px", "reads", "brightness", "drift_px"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(changed, name))


@pytest.mark.parametrize(("density", "pixel_um"), [(50, 0.2), (1000, 0.2), (50, 0.5), (1000, 0.5)])
def test_densities_and_pixel_sizes_at_their_bounds(density, pixel_um):
    tile = simulate_tile(Conditions(density_k_mm2=density, pixel_um=pixel_um), shape=(96, 96), cycles=1, seed=5)
    expected = density * 1000 * (96 * pixel_um / 1000) ** 2
    assert abs(tile.inside.sum() - expected) < 5 * np.sqrt(expected)
    light = tile.images(1).astype(float) - 100
    assert (light.mean(axis=(1, 2)) > 2 * 20 * 0.85).all()


def test_grid_sets_the_density():
    conditions = Conditions(grid=Grid(pitch_um=1.0, occupancy=0.8), pixel_um=0.25)
    tile = simulate_tile(conditions, shape=(128, 128), cycles=1, seed=6)
    assert conditions.density_px2 == pytest.approx(0.05)
    assert tile.inside.sum() == pytest.approx(0.05 * 128**2, rel=0.1)


def test_reads_are_cut_from_both_strands_of_known_bases():
    rng = np.random.default_rng(8)
    bases = random_reference(length=300, composition=(0.4, 0.3, 0.2, 0.1), rng=rng)[0].bases
    gapped = Sequence("gapped", bases.copy())
    gapped.bases[100] = 4
    reads = cut_reads(reference=(gapped, Sequence("short", bases[:5])), number=400, cycles=12, rng=rng)
    forward = bases.tobytes()
    reverse = (3 - bases[::-1]).astype(np.uint8).tobytes()
    places = [forward.find(read.tobytes()) for read in reads]
    assert sum(place >= 0 for place in places) == pytest.approx(200, abs=60)
    assert all(place >= 0 or read.tobytes() in reverse for place, read in zip(places, reads, strict=True))
    assert not any(88 < place <= 100 for place in places)
    with pytest.raises(FastaError, match="a read needs 301 known bases in a row, the longest sequence has 300"):
        cut_reads(reference=(gapped,), number=1, cycles=301, rng=rng)


def test_both_ends_of_inserts_are_read_towards_each_other():
    rng = np.random.default_rng(8)
    reference = random_reference(length=2000, composition=(0.25,) * 4, rng=rng)
    reads = parse_reads("40T6B25T")
    both = template_reads(reference=reference, number=3000, reads=reads, rng=rng)
    assert both.shape == (3000, 65)
    strands = reference[0].bases.tobytes(), reverse_complement(reference[0].bases).tobytes()
    lengths = []
    for read in both:
        (strand,) = (strand for strand in strands if read[:40].tobytes() in strand)
        start = strand.index(read[:40].tobytes())
        lengths.append(strand.index(reverse_complement(read[40:]).tobytes()) + 25 - start)
    assert (min(lengths), max(lengths)) == (40, 40 + INSERT_BEYOND)
    with pytest.raises(FastaError, match="a read needs 240 known bases in a row"):
        template_reads(
            reference=random_reference(length=239, composition=(0.25,) * 4, rng=rng), number=1, reads=reads, rng=rng
        )


def test_each_read_begins_with_new_strands():
    conditions = Conditions(phasing=0.05, prephasing=0.04, decay=0.1, first_cycle=0.5, density_k_mm2=200)
    tile = simulate_tile(conditions, shape=(40, 48), cycles=parse_reads("9T4B7T"), seed=3, barcodes=("ACGT",))
    np.testing.assert_array_equal(tile.reads[:, 9:13], np.tile(np.arange(4), (len(tile.reads), 1)))
    for first, cycles in ((1, 9), (10, 4), (14, 7)):
        alone = replace(
            tile,
            parts=(Read(number=1, cycles=cycles),),
            reads=tile.reads[:, first - 1 : first - 1 + cycles],
            second_reads=tile.second_reads[:, first - 1 : first - 1 + cycles],
        )
        for cycle in range(cycles):
            np.testing.assert_array_equal(tile.cluster_light(first + cycle), alone.cluster_light(1 + cycle))


def test_stripes_have_their_period_direction_and_phase():
    pattern = Pattern(period_um=1.5, modulation=0.6, angle_deg=20, start_phase_rad=(0.1, 0.2, 0.3))
    waves = carrier_frequencies(pattern, pixel_um=0.375)
    assert np.hypot(*waves.T) == pytest.approx([0.25] * 3)
    assert np.rad2deg(np.arctan2(waves[:, 0], waves[:, 1])) == pytest.approx([20, 80, 140])
    np.testing.assert_allclose(np.diff(phases(pattern), axis=1), 2 * np.pi / 3)
    places = np.random.default_rng(1).uniform(0, 500, (5000, 2))
    light = stripes(positions_px=places, carrier_px=waves[1], phase_rad=0.2, modulation=0.6)
    across = places @ waves[1]
    assert light == pytest.approx(1 + 0.6 * np.cos(2 * np.pi * across + 0.2))
    assert light.mean() == pytest.approx(1, abs=0.02)
    steps = [stripes(positions_px=places, carrier_px=waves[0], phase_rad=p, modulation=0.6) for p in phases(pattern)[0]]
    assert np.sum(steps, axis=0) == pytest.approx(3)


def test_stripes_that_the_camera_cannot_see_are_refused():
    carrier_frequencies(Pattern(period_um=0.66), pixel_um=0.325)
    with pytest.raises(PatternError, match=r"period_um 0.65: must be above 0.65, two pixels \(the Nyquist limit\)"):
        carrier_frequencies(Pattern(period_um=0.65), pixel_um=0.325)


def test_structured_frames_average_to_the_image_under_even_light():
    conditions = Conditions(density_k_mm2=60, photons=20_000, pattern=Pattern(modulation=1))
    tile = simulate_tile(conditions, shape=(40, 48), cycles=2, seed=9)
    frames = tile.structured_images(2)
    assert frames.shape == (4, 9, 40, 48)
    assert frames.dtype == np.uint16
    even = tile.images(2).astype(float)
    for orientation in range(3):
        mean = frames[:, 3 * orientation : 3 * orientation + 3].mean(axis=1)
        np.testing.assert_allclose(mean, even, atol=6 * 2 * np.sqrt(even.max()))
    assert frames[:, 0].astype(float).std() > 0
    np.testing.assert_array_equal(frames, tile.structured_images(2))


def test_random_conditions_stay_physical():
    drawn = [random_conditions(np.random.default_rng(seed)) for seed in range(300)]
    effects = ("grid", "airy_tail", "focus_drift_um", "t_accumulation", "bubbles", "dust", "gain_spread")
    for effect in effects:
        assert 0 < sum(getattr(c, effect) != getattr(Conditions(), effect) for c in drawn) < 120
    sharp = [c for c in drawn if 1.0 < min(c.sigma_px) < 1.2]
    assert max(c.density_px2 / c.pixel_um**2 * 1000 for c in sharp) > 800
    for conditions in drawn[:50]:
        assert sum(conditions.composition) == pytest.approx(1)
        assert np.diag(conditions.crosstalk) == pytest.approx(1)
        assert min(conditions.sigma_px) > 0.6
        assert conditions.density_px2 <= 0.145 + 1e-9


def test_simulated_run_reads_back_with_its_truth(tmp_path):
    conditions, shape, progress = Conditions(density_k_mm2=150), (32, 40), []
    info = write_simulated_run(
        tmp_path, conditions, run="SIM", tiles=2, cycles=3, shape=shape, seed=11, progress=progress.append
    )
    assert read_run_info(tmp_path) == info
    assert progress == [1, 2, 3, 4, 5, 6]
    assert read_fasta(tmp_path / "Truth/reference.fasta")[0].bases.size == 20_000
    tile = simulated_tile_of(tmp_path, info.tiles[1])
    np.testing.assert_array_equal(read_image(image_path(tmp_path, info.tiles[1], 3, "G")), tile.images(3)[2])
    truth = read_truth(tmp_path, info.tiles[1])
    np.testing.assert_allclose(truth.positions, tile.positions_px[tile.inside], atol=6e-4)
    np.testing.assert_array_equal(truth.reads, tile.reads[tile.inside])
    with pytest.raises(RunFolderError, match=r"s_1_1103\.csv"):
        read_truth(tmp_path, TileId(lane=1, tile=1103))
    with pytest.raises(RunFolderError, match="tile 1_1103: not in run SIM, which has 1_1101, 1_1102"):
        simulated_tile_of(tmp_path, TileId(lane=1, tile=1103))


def test_simulated_samples_read_back_with_their_truth(tmp_path):
    info = write_simulated_run(
        tmp_path,
        Conditions(density_k_mm2=400),
        run="SIM",
        tiles=1,
        cycles=parse_reads("3T2B2B3T"),
        shape=(48, 48),
        seed=11,
        progress=lambda _: None,
        barcodes=("ACGT", "TTGG"),
    )
    assert [(read.cycles, read.index) for read in read_run_info(tmp_path).reads] == [
        (3, False),
        (2, True),
        (2, True),
        (3, False),
    ]
    tile = simulated_tile_of(tmp_path, info.tiles[0])
    truth = read_truth(tmp_path, info.tiles[0])
    np.testing.assert_array_equal(truth.reads, tile.reads[tile.inside])
    found, numbers = np.unique(truth.reads[:, 3:7], axis=0, return_counts=True)
    assert found.tolist() == [[0, 1, 2, 3], [3, 3, 2, 2]]
    assert min(numbers) > 0.3 * len(truth.reads)
    barcodes = tmp_path / "Truth/barcodes.txt"
    barcodes.write_text("ACGT\n")
    with pytest.raises(RunFolderError, match="is not what its seed and conditions give"):
        simulated_tile_of(tmp_path, info.tiles[0])
    barcodes.unlink()
    with pytest.raises(RunFolderError, match="is not what its seed and conditions give"):
        simulated_tile_of(tmp_path, info.tiles[0])


def test_rebuilding_a_tile_refuses_what_its_truth_does_not_bear_out(tmp_path):
    tile = TileId(lane=1, tile=1101)
    write_simulated_run(
        tmp_path, Conditions(), run="SIM", tiles=1, cycles=2, shape=(32, 32), seed=1, progress=lambda _: None
    )
    seed = tmp_path / "Truth/seed.json"
    seed.write_text(json.dumps({"seed": 2}))
    with pytest.raises(RunFolderError, match="is not what its seed and conditions give"):
        simulated_tile_of(tmp_path, tile)
    seed.write_text("[]")
    with pytest.raises(RunFolderError, match="a whole number"):
        simulated_tile_of(tmp_path, tile)
    seed.unlink()
    with pytest.raises(RunFolderError, match=r"seed\.json: No such file"):
        simulated_tile_of(tmp_path, tile)
    (tmp_path / "Truth/conditions.json").write_text('{"dust": -1}')
    seed.write_text('{"seed": 1}')
    with pytest.raises(RunFolderError, match=r"conditions\.json: dust: Input should be greater than"):
        simulated_tile_of(tmp_path, tile)


def test_truth_without_clusters_reads_back(tmp_path):
    conditions = Conditions(density_k_mm2=0)
    write_simulated_run(tmp_path, conditions, run="SIM", tiles=1, cycles=2, shape=(16, 16), seed=1, progress=print)
    assert len(simulated_tile_of(tmp_path, TileId(lane=1, tile=1101)).positions_px) == 0


def simulate(*arguments):
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)])


def test_command_writes_structured_frames_of_reads_from_a_given_reference(tmp_path):
    fasta = tmp_path / "r.fasta"
    write_fasta(fasta, random_reference(length=50, composition=(0.25,) * 4, rng=np.random.default_rng(1)))
    arguments = (tmp_path / "run", "--cycles", 3, "--size", 32, "--structured", "--reference", fasta)
    done = simulate(*arguments)
    assert done.exit_code == 0, done.output
    assert "100 K clusters" in done.output
    tile = simulated_tile_of(tmp_path / "run", TileId(lane=1, tile=1101))
    pages = tifffile.imread(structured_path(tmp_path / "run", TileId(lane=1, tile=1101), 2, "C"))
    np.testing.assert_array_equal(pages, tile.structured_images(2)[1])
    assert read_fasta(tmp_path / "run/Truth/reference.fasta")[0].bases.tolist() == read_fasta(fasta)[0].bases.tolist()
    derived = [tmp_path / "run" / name for name in ("Structured", "Superresolved", "Labels")]
    for folder in derived:
        folder.mkdir(exist_ok=True)
    assert simulate(*arguments[:5], "--overwrite").exit_code == 0
    assert not any(folder.exists() for folder in derived)
    assert isinstance(simulate(tmp_path / "long", "--cycles", 51, "--reference", fasta).exception, FastaError)
    assert not (tmp_path / "long").exists()


@pytest.mark.parametrize(
    ("conditions", "options", "error", "message"),
    [
        ({"pattern": {"period_um": 0.7}}, ["--structured"], PatternError, "period_um 0.7: must be above 0.75"),
        ({"grid": {"pitch_um": 1}}, ["--density", "80"], UsageError, "--density 80: the grid of"),
        ({"t_accumulation": 1}, [], UsageError, "t_accumulation: Input should be less than 1"),
    ],
)
def test_command_refuses_conditions_that_cannot_be(tmp_path, conditions, options, error, message):
    path = tmp_path / "conditions.json"
    path.write_text(json.dumps(conditions))
    done = simulate(tmp_path / "run", "--conditions", path, *options)
    assert isinstance(done.exception, error)
    assert message in str(done.exception)
    assert not (tmp_path / "run").exists()
