"""Real daemons and controllers, and every fault that a controller can make."""

import re
import sqlite3
from contextlib import closing

import pytest
from seqd_client.runinfo import CHANNELS, TileId

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from camera.faultdraws import FaultDraws
from camera.faults import parse_faults
from daemon.record.runfiles import RunFiles
from daemon.record.tilefile import read_cycles
from tests.support.processes import bench, finish, outputs

RUN = "FAULTY"
CYCLES = 6
TILES = (TileId(lane=1, tile=1101), TileId(lane=1, tile=1102))
IMAGES = CYCLES * len(TILES)
SETTINGS = {"calling": {"template_cycles": 3}, "engine": {"threads": 1}}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    conditions = Conditions(density_k_mm2=70, drift_px=0.5)
    write_simulated_run(
        root, conditions, run=RUN, tiles=2, cycles=CYCLES, shape=(96, 80), seed=11, progress=lambda done: None
    )
    return root


def called(images, folder, *, faults="", pace="0", **controller):
    """Output folder of a run that was finished, by both processes' word."""
    here = bench(folder, controller=controller, **SETTINGS)
    with (
        here.camera(images, "--faults", faults, "--tile-seconds", pace) as camera,
        here.daemon("--once") as daemon,
    ):
        assert finish(daemon) == 0, (folder / "daemon.log").read_text()
        assert finish(camera) == 0, (folder / "camera.log").read_text()
    return here.runs / RUN


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    return called(images, tmp_path_factory.mktemp("undisturbed"))


def missing(run_folder):
    """Reason by tile and cycle of what is missing; every other tile-cycle has been called."""
    with closing(sqlite3.connect(run_folder / "run.db")) as database:
        rows = database.execute("SELECT lane, tile, cycle, status, reason FROM tile_cycle").fetchall()
    found = {(TileId(lane=lane, tile=tile), cycle): (status, reason) for lane, tile, cycle, status, reason in rows}
    assert len(rows) == len(found) == IMAGES
    assert {status for status, _ in found.values()} <= {"called", "missing"}
    return {place: reason for place, (status, reason) in found.items() if status == "missing"}


def place_of(image):
    """Tile and 1-based cycle of a tile image."""
    return TILES[image % 2], image // 2 + 1


def dropped(faults):
    """Channels by tile and cycle that are never published."""
    draws = FaultDraws(parse_faults(faults))
    lost = {}
    for frame in range(4 * IMAGES):
        if not draws.sent(frame, [b"", b"", b"pixels"]):
            lost.setdefault(place_of(frame // 4), []).append(CHANNELS[frame % 4])
    return lost


def crashes(faults):
    """Crash by number of the tile image."""
    draws = FaultDraws(parse_faults(faults))
    found = {image: draws.crash(image) for image in range(IMAGES)}
    return {image: crash for image, crash in found.items() if crash is not None}


@pytest.mark.parametrize(
    ("faults", "pace"),
    [
        ("truncate=0.2,seed=1", "0"),
        ("delay=0.3,delay_images=3,seed=1", "0"),
        # Longer than the silence after which the daemon asks where the controller is.
        ("pause=0.1,pause_s=3,seed=10", "0"),
        ("clock=0.5,clock_s=1e9,seed=1", "0"),
        ("drop=0.3,resend_drop=0.5,seed=1", "0"),
        ("drop=0.1,duplicate=0.1,reorder=0.2,delay=0.1,corrupt=0.1,truncate=0.1,resend_drop=0.2,seed=4", "0"),
        # What was published has time to leave, and the tile image under way is taken again.
        ("crash=0.2,crash_s=1,seed=16", "0.4"),
        # Away for longer than the silence after which the daemon asks.
        ("crash=0.05,crash_s=4,seed=7", "0.4"),
    ],
)
def test_no_call_changes_when_no_frame_is_lost_for_good(faults, pace, images, undisturbed, tmp_path):
    run_folder = called(images, tmp_path, faults=faults, pace=pace)
    assert missing(run_folder) == {}
    assert outputs(run_folder) == outputs(undisturbed)


def assert_same_before(cycle, run_folder, undisturbed):
    """Calls look two cycles ahead: those of earlier cycles know nothing of this one."""
    there, here = RunFiles(undisturbed), RunFiles(run_folder)
    for tile in TILES:
        assert here.locs_of(tile).read_bytes() == there.locs_of(tile).read_bytes()
        assert here.calls_of(tile).stat().st_size == there.calls_of(tile).stat().st_size
        before = range(1, cycle - 2)
        assert len(before) > 0
        assert (read_cycles(here.calls_of(tile), before) == read_cycles(there.calls_of(tile), before)).all()


def test_frames_lost_beyond_a_small_ring_cost_their_tile_cycles(images, undisturbed, tmp_path):
    faults = "drop=0.05,ring=0,seed=47"
    lost = dropped(faults)
    assert len(lost) == 2
    run_folder = called(images, tmp_path, faults=faults)
    assert missing(run_folder) == {
        place: f"channel {','.join(channels)}: the controller no longer has it" for place, channels in lost.items()
    }
    assert_same_before(min(cycle for _, cycle in lost), run_folder, undisturbed)


def test_frames_that_are_never_sent_again_cost_their_tile_cycles(images, undisturbed, tmp_path):
    faults = "drop=0.05,resend_drop=1,seed=47"
    lost = dropped(faults)
    run_folder = called(images, tmp_path, faults=faults, missing_after_s=1.0)
    assert missing(run_folder) == {
        place: f"channel {','.join(channels)}: not sent within 1 s" for place, channels in lost.items()
    }
    assert_same_before(min(cycle for _, cycle in lost), run_folder, undisturbed)


def test_tile_images_that_a_crash_cut_off_are_missing(images, undisturbed, tmp_path):
    faults = "crash=0.1,crash_skip=1,crash_s=1,seed=7"
    cut = crashes(faults)
    assert all(crash.skip and crash.after < 4 for crash in cut.values())
    run_folder = called(images, tmp_path, faults=faults, pace="0.4")
    reasons = missing(run_folder)
    assert set(reasons) == {place_of(image) for image in cut}
    assert len(reasons) == 2
    for reason in reasons.values():
        # What was published of it may have died with the sockets.
        assert re.fullmatch("channel ([ACG],)*T: the controller no longer has it", reason)
    assert_same_before(min(cycle for _, cycle in reasons), run_folder, undisturbed)
