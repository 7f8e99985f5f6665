import csv
import shutil
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from seqd_client.runinfo import TileId

from calib.normalisation import Normalisation
from calib.offline.evaluation.callers import read_fastq
from calib.offline.evaluation.superresolution import measure
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import simulated_tile_of, write_simulated_run
from calib.runfolder.images import RunFolderError, image_path, read_frames, read_image, read_run_info
from calib.template.tiletemplate import TileTemplate
from daemon.config import EngineConfig
from daemon.outputs.pictures.calledimage import CalledImage
from daemon.outputs.pictures.emit import Form, emit, form_folder, form_path
from daemon.outputs.pictures.forms import COLOURS, MARK, coordinates, stretch_contrast
from daemon.record.committed import open_run
from daemon.record.runfiles import RunFiles
from daemon.record.tilefile import read_locs
from tests.support.processes import SEQD, outputs

TILE = TileId(lane=1, tile=1101)
CYCLES = (1, 2, 4, 5)
"""Of five, the third lacks a frame."""
SHAPE = (96, 88)
CHANNEL_SHIFT = ((0.3, -0.5), (-0.2, 0.1), (0.5, 0.2), (-0.6, 0.2))


@dataclass(frozen=True)
class Run:
    images: Path
    files: RunFiles
    said: list[str]
    """What the calls printed: per channel, then merged."""
    before: dict[str, bytes]
    """Outputs and ledger after the first call."""


def call(images, output, *options):
    arguments = ["call", str(images), "--output", str(output), *options]
    return subprocess.run([*SEQD, *arguments], capture_output=True, text=True, timeout=100)


def kept(run_folder):
    database = sqlite3.connect(run_folder / "run.db")
    rows = database.execute("SELECT * FROM tile_cycle ORDER BY cycle").fetchall()
    database.close()
    return outputs(run_folder) | {"ledger": repr(rows).encode()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    images, output = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("runs")
    conditions = Conditions(density_k_mm2=70, drift_px=0.8, channel_shift_px=CHANNEL_SHIFT)
    write_simulated_run(images, conditions, run="F", tiles=1, cycles=5, shape=SHAPE, seed=4, progress=lambda done: None)
    image_path(images, TILE, 3, "G").unlink()
    every = [option for form in Form for option in ("--emit", form)]
    first = call(images, output, *every)
    assert first.returncode == 0, first.stderr
    before = kept(output / "F")
    second = call(images, output, *every, "--merged")
    assert second.returncode == 0, second.stderr
    return Run(images, RunFiles(output / "F"), [first.stdout, second.stdout], before)


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def positions(listed):
    return np.array([(float(row["y"]), float(row["x"])) for row in listed]).reshape(-1, 2)


def test_a_second_call_only_emits(run):
    assert kept(run.files.root) == run.before


def test_what_was_not_called_is_skipped_and_counted(run):
    for said in run.said:
        assert "forms of 4 tile-cycles, 1 skipped (missing or failed):" in said
        assert str(run.files.root / "sr") in said
    for form in Form:
        written = sorted(form_folder(run.files, form).rglob("*.*[!1]"))
        assert written == sorted(
            form_path(run.files, form, TILE, cycle, channel) for cycle in CYCLES for channel in (None, 0, 1, 2, 3)
        )


@pytest.mark.parametrize("cycle", CYCLES)
def test_coordinates_are_those_of_the_fastq_moved_with_the_stage(run, cycle):
    reads = read_fastq(run.files.root / "fastq" / f"s_{TILE}_R1.fastq.gz")
    called = reads.sequences[:, cycle - 1] != ord("N")
    listed = rows(form_path(run.files, Form.COORDINATES, TILE, cycle, None))
    assert len(listed) > 60
    assert "".join(row["base"] for row in listed).encode() == reads.sequences[called, cycle - 1].tobytes()
    assert [int(row["quality"]) for row in listed] == reads.qualities[called, cycle - 1].tolist()
    drift = positions(listed) - read_locs(run.files.locs_of(TILE))[called]
    assert np.ptp(drift, axis=0) == pytest.approx(0, abs=2e-3)
    true = simulated_tile_of(run.images, TILE).drift_px[cycle - 1] + np.mean(CHANNEL_SHIFT, axis=0)
    assert drift.mean(axis=0) == pytest.approx(true, abs=0.15)


@pytest.mark.parametrize("channel", range(4))
def test_coordinates_of_a_channel_are_where_its_frame_shows_them(run, channel):
    every = rows(form_path(run.files, Form.COORDINATES, TILE, 2, None))
    listed = rows(form_path(run.files, Form.COORDINATES, TILE, 2, channel))
    own = [row for row in every if row["base"] == "ACGT"[channel]]
    assert [(row["base"], row["quality"]) for row in listed] == [(row["base"], row["quality"]) for row in own]
    shift = positions(listed) - positions(own)
    assert np.ptp(shift, axis=0) == pytest.approx(0, abs=3e-3)
    assert shift.mean(axis=0) == pytest.approx(CHANNEL_SHIFT[channel], abs=0.15)


def test_probabilities_sum_to_one_and_peak_at_the_calls(run):
    maps = tifffile.imread(form_path(run.files, Form.PROBABILITIES, TILE, 2, None))
    assert maps.shape == (5, *SHAPE)
    assert maps.dtype == np.float32
    assert maps.sum(axis=0) == pytest.approx(1, abs=1e-5)
    for channel in range(4):
        one = tifffile.imread(form_path(run.files, Form.PROBABILITIES, TILE, 2, channel))
        assert np.array_equal(one, maps[1 + channel])
        y, x = np.rint(positions(rows(form_path(run.files, Form.COORDINATES, TILE, 2, channel)))).astype(int).T
        inside = (y > 0) & (y < SHAPE[0] - 1) & (x > 0) & (x < SHAPE[1] - 1)
        around = [one[y[inside] + dy, x[inside] + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        assert np.median(np.sum(around, axis=0)) > 0.5 > 10 * np.median(one)


def mark_pixels(listed):
    """Row of the list and pixel of every mark that lies in the frame."""
    pixels = np.rint(positions(listed)).astype(int)[:, None] + MARK
    row, _ = np.nonzero(np.all((pixels >= 0) & (pixels < SHAPE), axis=2))
    return row, pixels[np.all((pixels >= 0) & (pixels < SHAPE), axis=2)]


@pytest.mark.parametrize("channel", range(4))
def test_marked_frame_is_the_frame_with_open_marks_in_the_colour_of_the_base(run, channel):
    picture = tifffile.imread(form_path(run.files, Form.MARKED, TILE, 4, channel))
    assert picture.shape == (*SHAPE, 3)
    assert picture.dtype == np.uint8
    _, pixels = mark_pixels(rows(form_path(run.files, Form.COORDINATES, TILE, 4, channel)))
    marks = np.zeros(SHAPE, bool)
    marks[tuple(pixels.T)] = True
    assert 0 < marks.mean() < 0.3
    assert (picture[marks] == COLOURS[channel]).all()
    frame = read_image(image_path(run.images, TILE, 4, "ACGT"[channel]))
    grey = np.rint(255 * stretch_contrast(frame)).astype(np.uint8)
    assert (picture[~marks] == grey[~marks, None]).all()


def test_merged_picture_has_all_calls_on_the_channels_in_colour(run):
    picture = tifffile.imread(form_path(run.files, Form.MARKED, TILE, 4, None))
    listed = rows(form_path(run.files, Form.COORDINATES, TILE, 4, None))
    row, pixels = mark_pixels(listed)
    places, first, times = np.unique(pixels, axis=0, return_index=True, return_counts=True)
    alone = times == 1
    bases = np.array(["ACGT".index(listed[index]["base"]) for index in row[first]])
    assert (picture[tuple(places[alone].T)] == COLOURS[bases[alone]]).all()
    assert set(bases) == {0, 1, 2, 3}
    centres = np.rint(positions(listed)).astype(int)
    on = np.all((centres >= 0) & (centres < SHAPE), axis=1)
    assert np.median(picture[tuple(centres[on].T)].max(axis=1)) > 4 * np.median(picture.max(axis=2))


def test_superresolved_images_beat_bicubic_and_keep_the_light(run):
    figures = measure(run.images, read_run_info(run.images), folder=str(form_folder(run.files, Form.SUPERRESOLVED)))
    assert figures.images == 4 * len(CYCLES)
    assert figures.fidelity.psnr_db > figures.bicubic.psnr_db + 3
    assert figures.fidelity.ssim > figures.bicubic.ssim + 0.05
    frames = read_frames(run.images, TILE, 2, shape=SHAPE).astype(float)
    frames -= np.median(frames, axis=(1, 2), keepdims=True)
    for channel, frame in enumerate(frames):
        image = tifffile.imread(form_path(run.files, Form.SUPERRESOLVED, TILE, 2, channel))
        assert image.dtype == np.float32
        # Spots keep their peaks in counts, above the background, and measure half as much.
        assert image.max() == pytest.approx(frame.max(), rel=0.4)
    merged = tifffile.imread(form_path(run.files, Form.SUPERRESOLVED, TILE, 2, None))
    assert merged.shape == (2 * SHAPE[0], 2 * SHAPE[1])
    centres = np.rint(2 * positions(rows(form_path(run.files, Form.COORDINATES, TILE, 2, None))) + 0.5).astype(int)
    on = np.all((centres >= 0) & (centres < merged.shape), axis=1)
    assert np.median(merged[tuple(centres[on].T)]) > 20 * np.median(np.abs(merged))


def called_image(calls, positions):
    template = TileTemplate(
        positions=np.array(positions, np.float32).reshape(-1, 2),
        normalisation=Normalisation(np.zeros(4, np.float32), np.ones(4, np.float32)),
        channel_shift_px=np.array([(1, 0), (0, 2), (-1, 0), (0, -2)], np.float32),
        reference=np.zeros((20, 24), np.float32),
    )
    pixels = np.zeros((4, 20, 24), np.uint16)
    return CalledImage(TILE, 1, pixels, template, np.array((0.5, -1), np.float32), np.array(calls, np.uint8))


def test_channels_are_aligned_at_any_scale():
    image = called_image([], [])
    for scale in (1, 2):
        shown = np.zeros((4, 20 * scale, 24 * scale), np.float32)
        for channel, (y, x) in enumerate(scale * image.template.channel_shift_px.astype(int)):
            shown[channel, 10 * scale + y, 12 * scale + x] = 1
        laid = image.aligned(shown)
        assert laid[:, 10 * scale, 12 * scale] == pytest.approx(1)
        assert laid.sum(axis=(1, 2)) == pytest.approx(1)


def test_coordinates_by_hand():
    image = called_image([30 << 2 | 1, 0, 2 << 2, 12 << 2 | 1], [(3, 4), (5, 6), (7, 8.25), (9, 10)])
    assert coordinates(image, None) == b"y,x,base,quality\n3.500,3.000,C,30\n7.500,7.250,A,2\n9.500,9.000,C,12\n"
    assert coordinates(image, 1) == b"y,x,base,quality\n3.500,5.000,C,30\n9.500,11.000,C,12\n"
    assert coordinates(image, 2) == b"y,x,base,quality\n"


def test_image_that_is_gone_is_named(run, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(run.images, images)
    gone = image_path(images, TILE, 2, "C")
    gone.unlink()
    written = []
    with (
        open_run(run.files.root) as opened,
        pytest.raises(RunFolderError, match=r"C2\.1/s_1_1101_C\.tif: No such file or directory"),
    ):
        emit(
            images,
            opened,
            forms=[Form.COORDINATES],
            merged=True,
            engine=EngineConfig(),
            progress=lambda: written.append(1),
        )
    assert written == [1]


def test_full_disk_is_one_line_and_leaves_no_half_file(run, tmp_path):
    shutil.copytree(run.files.root, tmp_path / "F")
    shutil.rmtree(tmp_path / "F" / "sr")
    # A file size limit fails writes as a full disk does; super-resolved images are the largest files.
    command = f"{' '.join(SEQD)} call {run.images} --output {tmp_path} --emit superresolved"
    done = subprocess.run(["bash", "-c", f"ulimit -f 100; {command}"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 7
    assert done.stderr.strip().splitlines()[-1].startswith("seqd: form ")
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "F" / "sr").rglob("s_*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--emit", "pictures"], "'pictures' is not one of"),
        (["--merged"], "--merged: this option needs --emit"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message, tmp_path):
    command = [*SEQD, "call", str(tmp_path), "--output", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "forms").exists()
