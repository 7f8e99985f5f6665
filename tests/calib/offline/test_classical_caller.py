from dataclasses import replace
from shutil import copytree

import numpy as np
import pytest
import tifffile
from scipy.spatial import cKDTree
from seqd_client.runinfo import TileId

from calib.offline.classical_caller import logspots
from calib.offline.classical_caller.callscores import chastity, passes_filter, qualities
from calib.offline.classical_caller.calltile import call_folder, call_tile
from calib.offline.classical_caller.phasecorrection import phasing_of, undo_phasing
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedtile import simulate_tile
from calib.phasing import Phasing, strands
from calib.runfolder.images import RunFolderError, image_path
from tests.support.places import CROP

TILE = TileId(lane=1, tile=1101)


def gaussian(y, x, *, width, shape=(41, 37)):
    rows, columns = np.indices(shape)
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * width**2)).astype(np.float32)


def one_hot(bases):
    return np.eye(4, dtype=np.float32)[bases]


def clusters(number, cycles, *, composition=(0.25, 0.25, 0.25, 0.25), seed=1):
    """Bases (n, cycles) and clean light (n, cycles, 4) of clusters of varied brightness."""
    rng = np.random.default_rng(seed)
    bases = rng.choice(4, (number, cycles), p=composition)
    light = one_hot(bases) * rng.lognormal(0, 0.3, (number, 1, 1))
    return bases, light.astype(np.float32), rng


@pytest.mark.parametrize("width", [1.5, 2.0, 3.0])
def test_response_of_a_gaussian_is_the_closed_form_and_background_gives_none(width):
    scale = 2.0
    background = 5 + 0.1 * np.arange(37, dtype=np.float32)
    seen = logspots.response(gaussian(20, 18, width=width) + background, scale_px=scale)
    assert seen[20, 18] == pytest.approx(2 * scale**2 * width**2 / (scale**2 + width**2) ** 2, rel=0.02)
    flat = logspots.response(np.broadcast_to(background, (41, 37)), scale_px=scale)
    assert np.abs(flat[:, 14:-14]).max() < 0.005 * background.max()


@pytest.mark.parametrize(("y", "x"), [(20, 18), (20.3, 17.6), (19.75, 18.45)])
def test_a_spot_is_found_where_it_is(y, x):
    noise = np.random.default_rng(1).normal(0, 0.01, (41, 37))
    found = logspots.find(logspots.response((gaussian(y, x, width=1.2) + noise).astype(np.float32), scale_px=1.2))
    assert found == pytest.approx(np.array([[y, x]]), abs=0.06)


def test_a_response_is_read_between_pixels_and_not_far_outside():
    image = gaussian(20.4, 18.3, width=2)
    places = np.array([[20.4, 18.3], [20, 18], [-1.6, 3], [3, 38.0], [41.4, 36]], np.float32)
    read = logspots.read(image, places)
    assert read[:2] == pytest.approx([1, image[20, 18]], abs=2e-3)
    assert np.isnan(read[2:]).tolist() == [True, True, False]


def test_undoing_phasing_is_the_inverse_of_mixing():
    _, light, _ = clusters(20, 30)
    phasing = Phasing(0.01, 0.005)
    mixed = np.einsum("ct,ntb->ncb", strands(cycles=30, phasing=phasing), light).astype(np.float32)
    assert undo_phasing(mixed, phasing) == pytest.approx(light, abs=1e-4)
    mixed[3, 7] = np.nan
    assert np.argwhere(np.isnan(undo_phasing(mixed, phasing)).any(axis=2)).tolist() == [[3, 7]]


@pytest.mark.parametrize(("behind", "ahead"), [(0.0015, 0.001), (0.005, 0.003), (0.012, 0.0)])
def test_phasing_is_found_in_noisy_crowded_intensities(behind, ahead):
    _, light, rng = clusters(1500, 60)
    _, neighbour, _ = clusters(1500, 60, seed=2)
    crowded = light + neighbour * rng.uniform(0, 0.3, (1500, 1, 1))
    mixed = np.einsum("ct,ntb->ncb", strands(cycles=60, phasing=Phasing(behind, ahead)), crowded)
    mixed += rng.normal(0, 0.1, mixed.shape)
    mixed[:, 20] = np.nan
    found = phasing_of(mixed.astype(np.float32))
    assert found.behind == pytest.approx(behind, rel=0.1, abs=2e-4)
    assert found.ahead == pytest.approx(ahead, rel=0.1, abs=2e-4)


def test_a_short_read_or_no_read_tells_nothing_of_phasing():
    _, light, _ = clusters(50, 9)
    assert phasing_of(light) == Phasing(0, 0)
    assert phasing_of(np.zeros((0, 40, 4), np.float32)) == Phasing(0, 0)


def test_chastity_by_hand():
    light = np.array([[3, 1, 0, 0], [1, 1, 1, 1], [2, -1, -1, -1], [0, 0, 0, 0], [np.nan] * 4], np.float32)
    assert chastity(light) == pytest.approx([0.75, 0.5, 1, np.nan, np.nan], nan_ok=True)


def test_one_failure_in_the_first_25_cycles_passes():
    purity = np.full((5, 40), 0.9, np.float32)
    purity[1, 3] = 0.59
    purity[2, [3, 24]] = 0.59
    purity[3, 25:] = 0.5
    purity[4, :2] = np.nan
    assert passes_filter(purity).tolist() == [True, True, False, True, False]


def test_scores_rise_with_the_lead_over_a_clusters_noise_and_predict_errors():
    rng = np.random.default_rng(3)
    bases = rng.integers(0, 4, (3000, 40))
    light = (one_hot(bases) + rng.normal(0, 0.25, (3000, 40, 4))).astype(np.float32)
    light[5, 6] = np.nan
    scores = qualities(light)
    assert scores[5, 6] == 0
    wrong = np.argmax(np.nan_to_num(light), axis=2) != bases
    for low, high in ((2, 10), (10, 20), (20, 41)):
        chosen = (scores >= low) & (scores < high)
        assert -10 * np.log10((wrong[chosen].sum() + 1) / chosen.sum()) > low - 1


def read_share(calls, tile):
    """Shares of the true clusters that are read with at most 5 % wrong bases, and of the calls that are real."""
    truth, reads = tile.positions_px[tile.inside], tile.reads[tile.inside]
    distance, nearest = cKDTree(calls.positions).query(truth)
    wrong = (calls.bases[nearest] != reads).mean(axis=1)
    real = cKDTree(truth).query(calls.positions)[0] < 1
    return ((distance < 1) & (wrong <= 0.05)).mean(), real.mean()


@pytest.mark.parametrize(("density", "right"), [(57, 0.9), (156, 0.78), (284, 0.7), (530, 0.5)])
def test_a_simulated_tile_is_read(density, right):
    conditions = Conditions(density_k_mm2=density, channel_shift_px=((0.4, -0.3), (-0.2, 0.1), (0, 0.5), (-0.2, -0.3)))
    tile = simulate_tile(conditions, shape=(112, 112), cycles=30, seed=4)
    calls = call_tile([tile.images(cycle) for cycle in range(1, 31)])
    found, real = read_share(calls, tile)
    assert found > right
    assert real > 0.97
    assert np.abs(calls.geometry.drift_px - tile.drift_px).max() < 0.2
    assert np.abs(calls.geometry.channel_shift_px - conditions.channel_shift_px).max() < 0.15
    assert calls.intensities.shape == (*calls.bases.shape, 4)
    passed = replace(calls, positions=calls.positions[calls.passed], bases=calls.bases[calls.passed])
    assert 0 < calls.passed.sum() < len(calls.passed)
    assert read_share(passed, tile)[0] > 0.8 * found


@pytest.mark.parametrize("blank", [3, 12])
def test_a_cycle_that_shows_nothing_is_a_no_call_and_costs_no_other(blank):
    tile = simulate_tile(Conditions(density_k_mm2=80), shape=(112, 112), cycles=16, seed=5)
    images = [tile.images(cycle) for cycle in range(1, 17)]
    images[blank] = np.random.default_rng(1).normal(140, 8, images[blank].shape).astype(np.uint16)
    calls = call_tile(images)
    assert np.flatnonzero(np.isnan(calls.geometry.drift_px[:, 0])).tolist() == [blank]
    assert not calls.qualities[:, blank].any()
    assert not calls.bases[:, blank].any()
    truth = tile.positions_px[tile.inside]
    distance, nearest = cKDTree(truth).query(calls.positions)
    others = np.arange(16) != blank
    wrong = calls.bases != tile.reads[tile.inside][nearest]
    assert wrong[distance < 0.5][:, others].mean() < 0.05


def test_an_empty_tile_has_no_clusters():
    dark = [np.random.default_rng(cycle).normal(100, 3, (4, 64, 64)).astype(np.uint16) for cycle in range(12)]
    calls = call_tile(dark)
    assert calls.positions.shape == (0, 2)
    assert calls.bases.shape == (0, 12)
    assert calls.passed.shape == (0,)


def test_real_images_are_read_on_their_codebook():
    calls = call_folder(CROP, TILE)
    codes = {line.split(",")[1] for line in (CROP / "codebook.csv").read_text().split()[1:]}
    reads = ["".join("ACGT"[base] for base in read) for read in calls.bases]
    assert len(reads) > 150
    assert np.mean([read in codes for read in reads]) > 0.85


def test_a_folder_that_is_not_whole_is_refused_in_one_line(tmp_path):
    with pytest.raises(RunFolderError, match=r"tile 2_1101 is not one of 1_1101$"):
        call_folder(CROP, TileId(lane=2, tile=1101))
    copytree(CROP, tmp_path / "run")
    path = image_path(tmp_path / "run", TILE, 3, "G")
    tifffile.imwrite(path, np.zeros((16, 24), np.uint16))
    with pytest.raises(RunFolderError, match=r"s_1_1101_G.tif: 16×24 px, the run declares 320×320$"):
        call_folder(tmp_path / "run", TILE)
    path.unlink()
    with pytest.raises(RunFolderError, match=r"C3\.1/s_1_1101_G\.tif: No such file or directory$"):
        call_folder(tmp_path / "run", TILE)
