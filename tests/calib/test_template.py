"""Templates from simulated images; the network's part is played by the truth, blurred to a probability map."""

from dataclasses import fields

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from calib.calling.signals import MAX_SHARE
from calib.jointfit.fitcycle import FittedCycle, fit_cycle
from calib.jointfit.scene import crowding, crowding_beyond
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedtile import simulate_tile
from calib.registration import RegistrationError
from calib.template.tiletemplate import make_template
from daemon.errors import OutputError
from daemon.record.templates import SCENE, load_template, save_template
from engines.bundles.bundle import Readout
from engines.network.centres import read_centres

SHAPE, CYCLES = (80, 72), 10
SHIFTS = ((0.4, -0.3), (-0.2, 0.1), (0, 0.5), (-0.2, -0.3))
MAP_SIGMA_PX = 0.45


def probability_map(tile, cycle):
    """(5, H, W) a centre of each cluster's base where its channel shows the cluster."""
    maps = np.zeros((5, *tile.shape), np.float32)
    for channel in range(4):
        lit = tile.reads[:, cycle - 1] == channel
        places = np.rint(tile.channel_positions(cycle, channel)[lit]).astype(int)
        places = places[np.all((places >= 0) & (places < tile.shape), axis=1)]
        maps[channel + 1][tuple(places.T)] = 1
        maps[channel + 1] = gaussian_filter(maps[channel + 1], MAP_SIGMA_PX)
    maps[0] = np.maximum(1 - maps[1:].sum(axis=0), 0)
    return maps


def frames(tile):
    return [tile.images(cycle) for cycle in range(1, tile.reads.shape[1] + 1)]


def seeing(tile, images):
    """The truth in the network's place: knows a cycle by its pixels."""
    cycles = {pixels.tobytes(): cycle for cycle, pixels in enumerate(images, 1)}
    return lambda pixels, _: probability_map(tile, cycles[pixels.tobytes()])


def template_of(tile, images, readout):
    return make_template(images, seeing(tile, images), readout)


@pytest.fixture(scope="module")
def tile():
    conditions = Conditions(density_k_mm2=160, channel_shift_px=SHIFTS)
    return simulate_tile(conditions, shape=SHAPE, cycles=CYCLES, seed=2)


@pytest.fixture(scope="module")
def images(tile):
    return frames(tile)


@pytest.fixture(scope="module", params=list(Readout))
def template(request, tile, images):
    return template_of(tile, images, request.param)


def assert_finds(template, truth, *, found=0.93, real=0.95, offset_px=0.2):
    distance, nearest = cKDTree(template.positions).query(truth)
    assert (distance < 1).mean() > found
    # What the first cycle is aligned to is the origin, up to the precision of the registration.
    offset = np.median((template.positions[nearest] - truth)[distance < 1], axis=0)
    assert np.abs(offset).max() < offset_px
    assert (cKDTree(truth).query(template.positions)[0] < 1).mean() > real


def test_clusters_are_found_and_ordered_inside_the_tile(template, tile):
    # The mean of the channels is the origin.
    truth = tile.positions_px[tile.inside] + np.mean(SHIFTS, axis=0)
    assert_finds(template, truth)
    positions = template.positions
    assert positions.dtype == np.float32
    assert positions.shape == (len(positions), 2)
    assert ((positions >= -0.5) & (positions < np.array(SHAPE) - 0.5)).all()
    np.testing.assert_array_equal(positions[:, 0], np.sort(positions[:, 0]))
    assert template.channel_shift_px == pytest.approx(np.array(SHIFTS) - np.mean(SHIFTS, axis=0), abs=0.15)


def test_the_joint_fit_knows_more_than_is_called(template):
    if template.scene is None:
        assert template.called is None
        return
    assert len(template.scene.positions) >= len(template.called) == len(template.positions)
    np.testing.assert_array_equal(template.scene.positions[template.called].astype(np.float32), template.positions)


def test_drift_of_a_cycle_is_measured_against_the_template(template, tile, images):
    for cycle in (2, 7):
        drift = template.drift(template.normalisation.apply(images[cycle - 1]))
        assert drift == pytest.approx(tile.drift_px[cycle - 1], abs=0.2)
    with pytest.raises(RegistrationError):
        template.drift(np.zeros((4, *SHAPE), np.float32))


def test_each_channel_shows_a_cluster_where_shift_and_drift_put_it(template):
    places = template.positions_in(np.array([1, -2], np.float32))
    assert places.dtype == np.float32
    assert places.shape == (4, len(template.positions), 2)
    for channel in range(4):
        moved = template.positions + template.channel_shift_px[channel] + [1, -2]
        np.testing.assert_allclose(places[channel], moved, atol=1e-5)


@pytest.mark.parametrize("readout", list(Readout))
def test_blank_images_have_an_empty_template(readout):
    dark = [np.full((4, 64, 48), 100, np.uint16)] * 3
    nothing = np.zeros((5, 64, 48), np.float32)
    template = make_template(dark, lambda *_: nothing, readout)
    assert template.positions.shape == (0, 2)
    assert template.reference.shape == (64, 48)
    assert np.isfinite(template.channel_shift_px).all()
    assert template.positions_in(np.zeros(2, np.float32)).shape == (4, 0, 2)


@pytest.mark.parametrize("readout", list(Readout))
def test_clusters_that_the_network_does_not_see_at_all_are_no_template(tile, images, readout):
    template = make_template(images, lambda *_: np.zeros((5, *SHAPE), np.float32), readout)
    assert template.positions.shape == (0, 2)


@pytest.mark.parametrize("readout", [Readout.NETWORK, Readout.FUSED])
@pytest.mark.parametrize("blank", [0, 4])
def test_a_cycle_that_matches_no_other_is_left_out(tile, images, readout, blank):
    noisy = np.random.default_rng(1).normal(140, 8, images[0].shape).astype(np.uint16)
    some = [noisy if index == blank else pixels for index, pixels in enumerate(images)]
    template = template_of(tile, some, readout)
    origin = tile.drift_px[1 if blank == 0 else 0]
    assert_finds(template, tile.positions_px[tile.inside] + np.mean(SHIFTS, axis=0) + origin, found=0.9, real=0.9)


def test_one_image_is_enough_for_a_template(tile, images):
    for readout in Readout:
        template = template_of(tile, images[:1], readout)
        assert len(template.positions) > 0.5 * tile.inside.sum()
        assert np.isfinite(template.positions).all()


def test_what_stands_out_of_structure_needs_the_network():
    # Clusters on the left; on the right bright threads, where the network sees nothing.
    sparse = Conditions(density_k_mm2=60)
    tile = simulate_tile(sparse, shape=SHAPE, cycles=CYCLES, seed=3)
    rows, columns = np.indices(SHAPE)
    threads = np.zeros(SHAPE)
    rng = np.random.default_rng(4)
    for _ in range(9):
        y, phase, amplitude = rng.uniform(5, 75), rng.uniform(0, 6), rng.uniform(2, 6)
        threads += np.exp(-((rows - y - amplitude * np.sin(columns / 4 + phase)) ** 2) / 2) * (columns > 40)
    images = [
        (pixels + 180 * np.roll(threads, np.rint(drift).astype(int), axis=(0, 1))).astype(np.uint16)
        for pixels, drift in zip(frames(tile), tile.drift_px, strict=True)
    ]
    left = tile.positions_px[:, 1] < 36

    def sees_left(pixels, normalisation):
        maps = seeing(tile, images)(pixels, normalisation)
        maps[1:, :, 38:] = 0
        return maps

    template = make_template(images, sees_left, Readout.FUSED)
    assert (template.positions[:, 1] > 46).sum() <= 3
    truth = tile.positions_px[tile.inside & left]
    assert (cKDTree(template.positions).query(truth)[0] < 1).mean() > 0.85


def test_readings_of_a_template_show_the_bases_that_are_there(template, tile, images):
    truth = tile.positions_px + np.mean(SHIFTS, axis=0)
    distance, nearest = cKDTree(truth).query(template.positions)
    sure = (distance < 0.5) & (tile.second_share[nearest] == 0)
    drift = tile.drift_px[4].astype(np.float32)
    normalised = template.normalisation.apply(images[4])
    centres = read_centres(probability_map(tile, 5), template.positions_in(drift))
    fitted = None if template.scene is None else fit_cycle(normalised, template.scene, drift)
    reading = template.signals(fitted, drift, centres)
    bases = np.argmax(np.nan_to_num(reading.shares), axis=1)
    assert (bases == tile.reads[nearest, 4])[sure].mean() > 0.9
    np.testing.assert_array_equal(reading.centres, centres)
    away = np.array([500, 0], np.float32)
    fitted = None if template.scene is None else fit_cycle(normalised, template.scene, away)
    far = template.signals(fitted, away, centres * 0)
    assert np.isnan(far.shares).all()


def test_readings_of_a_template_hear_of_neighbours_known_and_beyond_the_edges(template):
    number = len(template.positions)
    nothing = np.zeros((number, 4), np.float32)
    drift = np.array([0, -3], np.float32)
    if template.scene is None:
        assert not template.signals(None, drift, nothing).crowding.any()
        return
    dark = FittedCycle(
        *[np.zeros((len(template.scene.positions), 4), np.float32)] * 2,
        np.ones(len(template.scene.positions), np.float32),
    )
    moved, still = (template.signals(dark, by, None).crowding for by in (drift, 0 * drift))
    beyond = crowding_beyond(template.scene, SHAPE, drift)
    assert moved == pytest.approx(np.minimum(crowding(template.scene) + beyond, MAX_SHARE)[template.called])
    assert moved.dtype == np.float32
    gone = template.positions[:, 1] < 3
    assert gone.any()
    assert (moved[gone] > still[gone]).all()
    assert moved[template.positions[:, 1] > 10] == pytest.approx(still[template.positions[:, 1] > 10], abs=1e-3)


# Keeping it.


def assert_same(loaded, template):
    for name in ("positions", "channel_shift_px", "reference"):
        kept, given = getattr(loaded, name), getattr(template, name)
        np.testing.assert_array_equal(kept, given)
        assert kept.dtype == given.dtype
    np.testing.assert_array_equal(loaded.normalisation.offset, template.normalisation.offset)
    np.testing.assert_array_equal(loaded.normalisation.gain, template.normalisation.gain)
    assert (loaded.scene is None) == (template.scene is None)
    if template.scene is not None:
        np.testing.assert_array_equal(loaded.called, template.called)
        assert loaded.called.dtype == template.called.dtype
        for name in SCENE:
            np.testing.assert_array_equal(getattr(loaded.scene, name), getattr(template.scene, name))
        assert set(SCENE) == {field.name for field in fields(template.scene)}


def test_a_template_is_read_back_as_it_was(template, tmp_path):
    path = tmp_path / "s_1_1101.npz"
    save_template(path, template)
    assert_same(load_template(path, SHAPE), template)


@pytest.mark.parametrize("readout", list(Readout))
def test_an_empty_template_is_read_back(readout, tmp_path):
    dark = [np.full((4, 32, 48), 100, np.uint16)] * 2
    template = make_template(dark, lambda *_: np.zeros((5, 32, 48), np.float32), readout)
    save_template(tmp_path / "t.npz", template)
    assert_same(load_template(tmp_path / "t.npz", (32, 48)), template)


def test_a_missing_template_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"file .*gone\.npz: .*No such file.*; it was changed from outside"):
        load_template(tmp_path / "gone.npz", SHAPE)


def test_a_cut_template_is_refused(template, tmp_path):
    path = tmp_path / "t.npz"
    save_template(path, template)
    whole = path.read_bytes()
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(OutputError, match=r"t\.npz: .*; it was changed from outside$"):
            load_template(path, SHAPE)


@pytest.mark.parametrize("content", [b"not a template", bytes(32), b"PK\x05\x06" + bytes(50)])
def test_what_is_no_template_is_refused(content, tmp_path):
    path = tmp_path / "t.npz"
    path.write_bytes(content)
    with pytest.raises(OutputError, match=r"t\.npz: its SHA-256 is not .*; it was changed from outside$"):
        load_template(path, SHAPE)


def test_a_template_with_a_damaged_byte_is_refused(tile, images, tmp_path):
    path = tmp_path / "t.npz"
    save_template(path, template_of(tile, images[:2], Readout.FIT))
    whole = path.read_bytes()
    rng = np.random.default_rng(5)
    for place in [*rng.integers(0, len(whole), 60), *(len(whole) - rng.integers(1, 600, 60))]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(OutputError):
            load_template(path, SHAPE)
