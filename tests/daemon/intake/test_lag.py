"""Calling that is slower than imaging: images go to disk, the flow cell is held, nothing is lost."""

import sqlite3
import sys
import time
from contextlib import closing

import pytest
from seqd_client.status import Phase

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from tests.support.processes import PATIENCE_S, bench, finish, outputs, process

RUN, TILES, CYCLES, TEMPLATE_CYCLES = "LAG", 2, 28, 3
SHAPE = (80, 80)
IMAGE = 4 * 80 * 80 * 2
TILE_S = 0.2
"""The controller images a tile in this time; the engine takes twice as long for 20 cycles."""
SLOWED = (2 * TILE_S, TEMPLATE_CYCLES * TILES * 2, TEMPLATE_CYCLES * TILES * 2 + 20 * TILES)
MEMORY = {"spill_above": 3 * IMAGE, "refuse_above": 8 * IMAGE}
SPOOL = {"limit": 30 * IMAGE, "hold_above": 6 * IMAGE, "release_below": 2 * IMAGE}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    write_simulated_run(
        root, Conditions(), run=RUN, tiles=TILES, cycles=CYCLES, shape=SHAPE, seed=5, progress=lambda done: None
    )
    return root


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    there = bench(tmp_path_factory.mktemp("undisturbed"), calling={"template_cycles": TEMPLATE_CYCLES})
    with there.camera(images), there.daemon("--once") as daemon:
        assert finish(daemon) == 0
    return there.runs / RUN


@pytest.fixture
def slowed(tmp_path):
    return bench(tmp_path, calling={"template_cycles": TEMPLATE_CYCLES}, memory=MEMORY, spool=SPOOL)


def slow_daemon(there, *slowed):
    command = [
        sys.executable,
        "-m",
        "tests.support.slowed",
        *map(str, slowed),
        "run",
        "--once",
        "--config",
        str(there.config),
    ]
    return process(command, there.folder / "daemon.log", None)


def watched(there, daemon):
    """Every status until the daemon ends."""
    seen, deadline = [], time.monotonic() + PATIENCE_S
    while daemon.poll() is None and time.monotonic() < deadline:
        seen += there.statuses()
        time.sleep(0.05)
    return seen


def test_engine_at_half_the_frame_rate_loses_nothing(images, undisturbed, slowed):
    with slowed.camera(images, "--tile-seconds", str(TILE_S)) as camera, slow_daemon(slowed, *SLOWED) as daemon:
        seen = watched(slowed, daemon)
        assert daemon.wait(5) == 0
        assert finish(camera) == 0
    assert max(status.lag.bytes for status in seen) <= MEMORY["refuse_above"]
    assert SPOOL["hold_above"] < max(status.spool.bytes for status in seen) <= SPOOL["limit"]
    held = [status.lag.holding for status in seen]
    assert True in held
    assert not held[held.index(True) :][-1]
    assert {Phase.HOLDING, Phase.CATCHING_UP} <= {status.phase for status in seen}
    assert max(status.lag.cycles for status in seen) > 4
    assert any(status.spool.full_in_s for status in seen)
    assert all(status.tile_cycles.balanced and status.frames.balanced for status in seen)
    assert outputs(slowed.runs / RUN) == outputs(undisturbed)
    assert list((slowed.runs / RUN / "spool").iterdir()) == []
    with closing(sqlite3.connect(slowed.runs / RUN / "run.db")) as ledger:
        rows = ledger.execute("SELECT status, count(*) FROM tile_cycle GROUP BY status").fetchall()
    assert rows == [("called", TILES * CYCLES)]


def test_what_was_spooled_is_called_after_a_kill_without_being_sent_again(images, undisturbed, slowed):
    # The controller forgets every frame at once: only the spool has them.
    with slowed.camera(images, "--tile-seconds", "0.1", "--faults", "ring=1") as camera:
        with slow_daemon(slowed, 1.0, TEMPLATE_CYCLES * TILES * 2, 10_000) as daemon:
            slowed.wait_for(lambda status: status.spool.images >= 5 and status.lag.holding)
            daemon.kill()
            daemon.wait()
        with slowed.daemon("--once") as daemon:
            restored = slowed.wait_for(lambda status: status.frames.restored > 0)
            assert finish(daemon) == 0
        finish(camera)
    assert restored.frames.restored >= 4 * 4
    with closing(sqlite3.connect(slowed.runs / RUN / "run.db")) as ledger:
        called = ledger.execute("SELECT count(*) FROM tile_cycle WHERE status = 'called'").fetchone()[0]
    assert called > TILES * CYCLES - 3 * TILES * 4


def test_daemon_that_is_asked_to_stop_keeps_whole_images(images, undisturbed, slowed):
    with slowed.camera(images, "--tile-seconds", "0.1"):
        with slow_daemon(slowed, 0.5, TEMPLATE_CYCLES * TILES * 2, 10_000) as daemon:
            slowed.wait_for(lambda status: status.lag.bytes >= 2 * IMAGE)
            daemon.terminate()
            assert finish(daemon) == 0
        kept = list((slowed.runs / RUN / "spool").glob("*.image"))
        assert kept
        with slowed.daemon("--once") as daemon:
            assert finish(daemon) == 0
    assert outputs(slowed.runs / RUN) == outputs(undisturbed)
