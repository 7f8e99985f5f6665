import json

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter, map_coordinates
from seqd_client.runinfo import TileId
from typer.testing import CliRunner

from calib.offline.cli import UsageError
from calib.offline.commands import app
from calib.offline.simulation.conditions import Conditions, Pattern
from calib.offline.simulation.illumination import carrier_frequencies, phases, stripes
from calib.offline.simulation.optics import spots
from calib.offline.simulation.simulatedrun import structured_path, write_simulated_run
from calib.offline.simulation.simulatedtile import simulate_tile
from calib.offline.structured_illumination.pattern import Stripes, check_consistent, fit_stripes
from calib.offline.structured_illumination.reconstructedrun import Report, superresolved_path
from calib.offline.structured_illumination.reconstruction import reconstruct, widefield
from calib.offline.structured_illumination.spectrum import (
    ABBE,
    Otf,
    ReconstructionError,
    read_otf,
    resolution_limit,
    ring_correlation,
)
from calib.runfolder.images import RunFolderError

SIGMA_PX = 1.2
ABBE_LIMIT_PX = SIGMA_PX / ABBE
"""Wavelength / 2 NA of an objective whose spots are that wide."""
RAYLEIGH_LIMIT_PX = 1.22 * ABBE_LIMIT_PX
"""0.61 wavelength / NA."""
PHASES_RAD = 0.4 + 2 * np.pi / 3 * np.arange(3)


def turned(frequency, angle_deg=10.0):
    """Carriers of three orientations."""
    angles = np.deg2rad(angle_deg + 60 * np.arange(3))
    return frequency * np.stack([np.sin(angles), np.cos(angles)], axis=1)


def exposed(positions, photons, waves, *, modulation, seed, sigma_px=SIGMA_PX, shape=(128, 128), steps=PHASES_RAD):
    """Nine frames of emitters, with shot noise, read noise, background and offset."""
    rng = np.random.default_rng(seed)
    frames = []
    for wave in waves:
        for phase in steps:
            light = stripes(positions_px=positions, carrier_px=wave, phase_rad=phase, modulation=modulation)
            image = spots(positions_px=positions, photons=photons * light, sigma_px=sigma_px, shape=shape) + 10
            frames.append(rng.poisson(image) + rng.normal(100, 1.5, shape))
    return np.rint(frames).astype(np.uint16)


def emitters(number, *, seed, shape=(128, 128)):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 1, (number, 2)) * shape, 1500 * rng.lognormal(0, 0.35, number)


def test_gaussian_transfer_function_is_that_of_spots_on_pixels():
    otf = Otf.gaussian(SIGMA_PX)
    image = spots(positions_px=np.array([[32.0, 32.0]]), photons=np.ones(1), sigma_px=SIGMA_PX, shape=(65, 65))
    seen = np.abs(np.fft.fft2(image))[0, :25]
    frequency = np.arange(25) / 65
    inside = frequency < otf.cutoff
    np.testing.assert_allclose(otf.at(frequency)[inside], seen[inside], atol=2e-3)
    assert otf.cutoff == pytest.approx(1 / ABBE_LIMIT_PX)
    assert otf.at(np.array([0.0, 0.6])).tolist() == [1, 0]


@pytest.mark.parametrize("steps", [PHASES_RAD, -PHASES_RAD, np.array([0.5, 2.2, 4.9])])
def test_stripes_are_found_as_they_are(steps):
    positions, photons = emitters(600, seed=1)
    waves = turned(0.27)
    frames = exposed(positions, photons, waves, modulation=0.8, seed=2, steps=steps)
    for wave, group in zip(waves, frames.reshape(3, 3, 128, 128).astype(float), strict=True):
        fitted = fit_stripes(group, Otf.gaussian(SIGMA_PX))
        sign = np.sign(wave @ fitted.carrier)
        # A twentieth of a period over the whole frame; phases where the errors of the carrier cancel, in its centre.
        assert np.abs(fitted.carrier - sign * wave).max() * 128 < 0.05
        assert fitted.modulation == pytest.approx(0.8, abs=0.05)
        centre = np.array([63.5, 63.5])
        found = fitted.phases + 2 * np.pi * fitted.carrier @ centre
        wrong = found - sign * (steps + 2 * np.pi * wave @ centre)
        assert np.abs((wrong + np.pi) % (2 * np.pi) - np.pi).max() < 0.1


@pytest.mark.parametrize("modulation", [0.4, 1.0])
def test_modulation_is_not_biased_by_noise(modulation):
    positions, photons = emitters(600, seed=3)
    frames = exposed(positions, photons / 4, turned(0.27), modulation=modulation, seed=4)
    fitted = reconstruct(frames, Otf.gaussian(SIGMA_PX)).stripes
    assert np.mean([one.modulation for one in fitted]) == pytest.approx(modulation, abs=0.08)


def test_two_emitters_at_six_tenths_of_the_rayleigh_limit_are_resolved():
    apart = 0.6 * RAYLEIGH_LIMIT_PX
    positions, photons = emitters(500, seed=5)
    middle = np.array([64.25, 64.25])
    far = np.hypot(*(positions - middle).T) > 9
    pair = middle + np.array([[0, -apart / 2], [0, apart / 2]])
    positions, photons = np.concatenate([positions[far], pair]), np.concatenate([photons[far], [3000, 3000]])
    frames = exposed(positions, photons, turned(0.3), modulation=0.8, seed=6)
    image = reconstruct(frames, Otf.gaussian(SIGMA_PX)).image
    # The line through both, a tenth of a super-resolved pixel a step; camera pixel y lies at 2 y + 0.5.
    x = np.linspace(124, 134, 101)
    line = map_coordinates(image, [np.full(101, 129.0), x])
    left, right = line[:50].argmax(), 50 + line[50:].argmax()
    assert [x[left], x[right]] == pytest.approx(2 * pair[:, 1] + 0.5, abs=0.25)
    assert line[left:right].min() < 0.8 * min(line[left], line[right])
    # In the widefield image they are one spot, brightest in the middle.
    even = map_coordinates(widefield(frames), [np.full(101, 64.25), (x - 0.5) / 2])
    assert x[even.argmax()] == pytest.approx(129, abs=0.5)
    assert (np.diff(np.sign(np.diff(even))) < 0).sum() == 1


def test_image_is_the_emitters_seen_half_as_wide_at_their_places():
    positions, photons = emitters(700, seed=7)
    frames = exposed(positions, photons, turned(0.27), modulation=0.8, seed=8)
    image = reconstruct(frames, Otf.gaussian(SIGMA_PX)).image
    truth = spots(positions_px=2 * positions + 0.5, photons=photons, sigma_px=SIGMA_PX, shape=(256, 256))
    assert image.shape == (256, 256)
    assert image.dtype == np.float32
    inside = (slice(8, -8), slice(8, -8))
    assert np.corrcoef(image[inside].ravel(), truth[inside].ravel())[0, 1] > 0.96
    low, low_truth = (gaussian_filter(one, 5)[inside].ravel() for one in (image, truth))
    assert np.polyfit(low_truth, low, 1)[0] == pytest.approx(1, abs=0.03)
    moved = [np.corrcoef(np.roll(image, step, 0)[inside].ravel(), truth[inside].ravel())[0, 1] for step in (-1, 0, 1)]
    assert moved[0] == pytest.approx(moved[2], abs=0.03)
    assert moved[1] == max(moved)


def test_resolution_gains_half_by_ring_correlation():
    positions, photons = emitters(700, seed=9)
    pair = [exposed(positions, photons / 6, turned(0.3), modulation=0.8, seed=seed) for seed in (10, 11)]
    sharp = [reconstruct(frames, Otf.gaussian(SIGMA_PX)).image for frames in pair]
    even = [widefield(frames) for frames in pair]
    # Both in cycles a camera pixel; a super-resolved pixel is half of one.
    assert 2 * resolution_limit(*sharp) > 1.5 * resolution_limit(*even)
    assert 2 * resolution_limit(*sharp) < 0.3 + 1 / ABBE_LIMIT_PX


def test_ring_correlation_of_filtered_noise_falls_where_the_filter_ends():
    rng = np.random.default_rng(12)
    thing = gaussian_filter(rng.normal(0, 1, (128, 128)), 1)
    pair = [thing + rng.normal(0, 0.02, thing.shape) for _ in range(2)]
    frequencies, correlations = ring_correlation(*pair)
    signal = np.exp(-4 * np.pi**2 * frequencies**2)
    np.testing.assert_allclose(correlations, signal / (signal + 0.02**2), atol=0.2)
    # FRC of 1/7: the signal's power is a sixth of the noise's.
    assert resolution_limit(*pair) == pytest.approx(np.sqrt(-np.log(0.02**2 / 6)) / (2 * np.pi), abs=0.03)
    assert resolution_limit(thing, thing) == 0.5


@pytest.mark.parametrize("seed", [13, 14, 15])
@pytest.mark.parametrize(
    ("frequency", "modulation", "sigma_px"),
    [(0.27, 0.0, 1.2), (0.27, 0.1, 1.2), (0.7, 0.8, 0.6), (0.6, 0.8, 0.6), (0.45, 0.8, 1.2)],
    ids=["no modulation", "little modulation", "aliased", "aliased at 0.6", "beyond support"],
)
def test_stripes_that_are_not_there_or_cannot_be_seen_are_refused(frequency, modulation, sigma_px, seed):
    positions, photons = emitters(600, seed=seed)
    frames = exposed(positions, photons, turned(frequency), modulation=modulation, seed=seed, sigma_px=sigma_px)
    with pytest.raises(ReconstructionError, match=r"stripes|phases"):
        reconstruct(frames, Otf.gaussian(sigma_px))


def test_refusals_name_the_values():
    positions, photons = emitters(600, seed=16)
    otf = Otf.gaussian(SIGMA_PX)
    dull = exposed(positions, photons, turned(0.27), modulation=0.15, seed=17)
    with pytest.raises(
        ReconstructionError, match=r"cycles/px at .* degrees: fitted modulation 0\.\d\d, must be 0\.25 to"
    ):
        reconstruct(dull, otf)
    beyond = exposed(positions, photons, turned(0.42), modulation=0.9, seed=17)
    with pytest.raises(
        ReconstructionError, match=r"stripes of 0\.420 cycles/px: beyond the support of the OTF, 0\.350"
    ):
        reconstruct(beyond, otf)
    still = exposed(positions, photons, turned(0.27), modulation=0.8, seed=17, steps=np.zeros(3))
    with pytest.raises(ReconstructionError):
        reconstruct(still, otf)
    with pytest.raises(ReconstructionError, match=r"frames of shape \(8, 128, 128\): must be 9 × height × width"):
        reconstruct(dull[:8], otf)


@pytest.mark.parametrize("level", [0, 100])
def test_frames_without_light_are_refused(level):
    with pytest.raises(ReconstructionError):
        reconstruct(np.full((9, 64, 64), level, np.uint16), Otf.gaussian(SIGMA_PX))


def test_orientations_must_be_one_grating_turned():
    good = [Stripes(wave, np.zeros(3), 0.8) for wave in turned(0.27)]
    check_consistent(good)
    check_consistent([Stripes(-good[0].carrier, np.zeros(3), 0.8), *good[1:]])
    with pytest.raises(ReconstructionError, match=r"stripes of 0\.300, 0\.270, 0\.270 cycles/px: .* by 5 % at most"):
        check_consistent([Stripes(turned(0.30)[0], np.zeros(3), 0.8), *good[1:]])
    with pytest.raises(ReconstructionError, match=r"stripes at 25\.0, 70\.0, .* degrees: must lie 60 degrees apart"):
        check_consistent([Stripes(turned(0.27, 25)[0], np.zeros(3), 0.8), *good[1:]])


def test_simulated_tile_gives_back_its_pattern():
    conditions = Conditions(density_k_mm2=300, pattern=Pattern(period_um=1.3, modulation=0.7))
    tile = simulate_tile(conditions, shape=(128, 112), cycles=2, seed=18)
    fitted = reconstruct(tile.structured_images(2)[1], Otf.gaussian(conditions.sigma_px[1])).stripes
    for one, wave, steps in zip(
        fitted, carrier_frequencies(conditions.pattern, pixel_um=0.375), phases(conditions.pattern), strict=True
    ):
        sign = np.sign(wave @ one.carrier)
        assert one.frequency == pytest.approx(0.375 / 1.3, rel=2e-3)
        assert one.modulation == pytest.approx(0.7, abs=0.05)
        centre = np.array([63.5, 55.5])
        wrong = one.phases + 2 * np.pi * one.carrier @ centre - sign * (steps + 2 * np.pi * wave @ centre)
        assert np.abs((wrong + np.pi) % (2 * np.pi) - np.pi).max() < 0.15


def test_measured_transfer_function_does_what_the_gaussian_does(tmp_path):
    otf = Otf.gaussian(SIGMA_PX)
    path = tmp_path / "otf.csv"
    np.savetxt(path, np.stack([otf.frequencies, otf.values], axis=1), delimiter=",")
    positions, photons = emitters(600, seed=19)
    frames = exposed(positions, photons, turned(0.27), modulation=0.8, seed=20)
    np.testing.assert_allclose(reconstruct(frames, read_otf(path)).image, reconstruct(frames, otf).image, atol=1e-3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0,1\n0.1,x\n", "could not convert"),
        ("0,1,2\n0.1,0.5,0.2\n", "3 columns, must be frequency and value"),
        ("0.1,1\n0.2,0.5\n", "frequencies must rise from 0"),
        ("0,1\n0.2,1.5\n", "values be 1 at 0 and in 0 to 1"),
        (None, "not found"),
    ],
)
def test_what_is_no_transfer_function_is_refused(tmp_path, content, message):
    path = tmp_path / "otf.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ReconstructionError, match=message):
        read_otf(path)


def command(*arguments):
    return CliRunner().invoke(app, ["reconstruct", *map(str, arguments)])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of two cycles with structured frames, and no light in one channel."""
    folder = tmp_path_factory.mktemp("structured")
    write_simulated_run(
        folder,
        Conditions(density_k_mm2=400, channel_yield=(1, 1, 1, 0), crosstalk=tuple(map(tuple, np.eye(4)))),
        run="SIM",
        tiles=1,
        cycles=2,
        shape=(96, 96),
        seed=21,
        progress=lambda _: None,
        structured=True,
    )
    return folder


def test_command_writes_images_and_a_report(run_folder):
    done = command(run_folder)
    assert done.exit_code == 0, done.exception
    tile = TileId(lane=1, tile=1101)
    frames = tifffile.imread(structured_path(run_folder, tile, 2, "C"))
    image = tifffile.imread(superresolved_path(run_folder, tile, 2, "C"))
    np.testing.assert_array_equal(image, reconstruct(frames, Otf.gaussian(1.1)).image)
    report = Report.model_validate_json((run_folder / "Superresolved/report.json").read_bytes())
    assert [(image.cycle, image.channel) for image in report.images] == [(c, b) for c in (1, 2) for b in "ACGT"]
    for fitted in report.images:
        path = superresolved_path(run_folder, tile, fitted.cycle, fitted.channel)
        assert path.exists() == (fitted.refused is None) == (fitted.channel != "T")
        for stripes_of_one in fitted.stripes:
            assert stripes_of_one.period_px == pytest.approx(1.25 / 0.375, rel=0.01)
    again = command(run_folder)
    assert isinstance(again.exception, UsageError)
    assert "--overwrite" in str(again.exception)
    assert command(run_folder, "--overwrite", "--sigma", 1.05, 1.1, 1.15, 1.2).exit_code == 0


def test_command_refuses_what_it_cannot_do(run_folder, tmp_path):
    elsewhere = tmp_path / "run"
    elsewhere.mkdir()
    (elsewhere / "RunInfo.xml").write_bytes((run_folder / "RunInfo.xml").read_bytes())
    for arguments, error, message in (
        ([], UsageError, "not a simulated one; give --sigma or --otf"),
        (["--sigma", 1, 1, 0, 1], UsageError, "--sigma 0: must be above 0"),
        (["--sigma", 1, 1, 1, 1, "--otf", "x"], UsageError, "--sigma and --otf: give one of them"),
        (["--sigma", 1, 1, 1, 1], RunFolderError, "No such file"),
    ):
        done = command(elsewhere, *arguments)
        assert isinstance(done.exception, error), done.exception
        assert message in str(done.exception)
    path = structured_path(elsewhere, TileId(lane=1, tile=1101), 1, "A")
    path.parent.mkdir(parents=True)
    tifffile.imwrite(path, np.zeros((8, 96, 96), np.uint16), photometric="minisblack")
    done = command(elsewhere, "--sigma", 1, 1, 1, 1)
    assert "8 × 96 × 96 uint16, must be 9 × 96 × 96 uint16" in str(done.exception)
    path.write_bytes(b"no image")
    assert "not a readable TIFF" in str(command(elsewhere, "--sigma", 1, 1, 1, 1).exception)


def test_command_fails_where_nothing_fits(run_folder, tmp_path):
    elsewhere = tmp_path / "run"
    elsewhere.mkdir()
    (elsewhere / "RunInfo.xml").write_bytes((run_folder / "RunInfo.xml").read_bytes())
    dark = np.random.default_rng(22).poisson(100, (9, 96, 96)).astype(np.uint16)
    for cycle in (1, 2):
        for channel in "ACGT":
            path = structured_path(elsewhere, TileId(lane=1, tile=1101), cycle, channel)
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, dark, photometric="minisblack")
    done = command(elsewhere, "--sigma", 1, 1, 1, 1)
    assert isinstance(done.exception, ReconstructionError)
    assert "run SIM: none of 8 images fits; the first: " in str(done.exception)
    assert len(json.loads((elsewhere / "Superresolved/report.json").read_text())["images"]) == 8
