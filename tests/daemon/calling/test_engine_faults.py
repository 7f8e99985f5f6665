"""Real daemons on a real engine that fails: nothing is lost that need not be."""

import json
import signal
import sqlite3
import sys
import zlib
from contextlib import closing, contextmanager

import pytest
import zmq
from seqd_client.runinfo import TileId
from seqd_client.status import Phase, RunState
from seqd_client.wire.codec import decode

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from calib.runfolder.images import read_frames
from daemon.record.runfiles import RunFiles
from daemon.record.tilefile import read_cycles
from tests.support.processes import bench, finish, outputs, process

RUN, CYCLES, SHAPE = "FAILING", 6, (96, 80)
TILES = (TileId(lane=1, tile=1101), TileId(lane=1, tile=1102))
MAP, FIRST, LATER = 2, 5, 15
"""Tiles of the engine: a map for the first template, one of the cycles that it was made from, a cycle after it.

Three maps and three cycles of each tile come first, then the other cycles by turns.
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    conditions = Conditions(density_k_mm2=70, drift_px=0.5)
    write_simulated_run(
        root, conditions, run=RUN, tiles=2, cycles=CYCLES, shape=SHAPE, seed=11, progress=lambda done: None
    )
    return root


def faulty_bench(folder, *, precision="f32", timeout_s=60.0, **faults):
    return bench(
        folder,
        calling={"template_cycles": 3},
        engine={"backend": "openvino", "threads": 1, "precision": precision, "timeout_s": timeout_s},
        faults={"engine_backoff_s": 0.01} | faults,
    )


@contextmanager
def daemon(here, *arguments, **plan):
    command = [sys.executable, "-m", "tests.support.failing_daemon", "run", "--config", str(here.config), *arguments]
    with process(command, here.folder / "daemon.log", {"FAULTS": json.dumps(plan)}) as started:
        yield started


def finished(here, images, **plan):
    """Status at the end of a run that was finished."""
    with here.camera(images), daemon(here, **plan) as started:
        status = here.wait_for(lambda status: status.state in (RunState.FINISHED, RunState.FAILED))
        started.send_signal(signal.SIGTERM)
        assert finish(started) == 0, logged(here)
    assert status.tile_cycles.balanced
    return status


def ended(here, images, **plan):
    """Exit code of a run that was not finished, and the last event of its log."""
    with here.camera(images), daemon(here, "--once", **plan) as started:
        code = finish(started)
    return code, lines(here, "run ended")[-1]


def logged(here):
    return (here.folder / "daemon.log").read_text("utf-8")


def lines(here, event):
    """Log lines of an event."""
    entries = [json.loads(line) for line in logged(here).splitlines() if line.startswith("{")]
    return [entry for entry in entries if entry["event"] == event]


def query(here, command):
    with closing(sqlite3.connect(here.runs / RUN / "run.db")) as database:
        return database.execute(command).fetchall()


def statuses(here):
    """Status and reason of the tile-cycles that were not called."""
    rows = query(here, "SELECT tile, cycle, status, reason FROM tile_cycle")
    assert len(rows) == len(TILES) * CYCLES
    return {(tile, cycle): (status, reason) for tile, cycle, status, reason in rows if status != "called"}


def image_of(images, tile, cycle):
    return zlib.crc32(read_frames(images, tile, cycle, shape=SHAPE).tobytes())


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    here = faulty_bench(tmp_path_factory.mktemp("undisturbed"))
    status = finished(here, images)
    assert status.engine.restarts == 0
    assert statuses(here) == {}
    return outputs(here.runs / RUN)


@pytest.mark.parametrize(
    ("plan", "restarts"),
    [
        ({"tiles": {LATER: "error"}}, 1),
        ({"tiles": {LATER: "lost"}}, 1),
        ({"tiles": {FIRST: "lost"}}, 1),
        ({"tiles": {MAP: "error"}}, 1),
        ({"tiles": {MAP: "lost"}}, 1),
        ({"memory": [8]}, 1),
        # Done again it fails again, and the next one too; twice the device does not open at first.
        ({"tiles": {LATER: "error", LATER + 2: "lost", LATER + 3: "error", LATER + 5: "error"}, "closed": [2, 3]}, 4),
    ],
    ids=str,
)
def test_faults_that_pass_change_no_call(plan, restarts, images, undisturbed, tmp_path):
    here = faulty_bench(tmp_path)
    status = finished(here, images, **plan)
    assert statuses(here) == {}
    assert outputs(here.runs / RUN) == undisturbed
    assert (status.engine.restarts, status.engine.fallback, status.troubles) == (restarts, "", [])
    assert len(lines(here, "engine failed")) == len(lines(here, "engine open")) == restarts
    assert len(lines(here, "engine not opened again")) == len(plan.get("closed", ()))
    assert query(here, "SELECT engine, count(*) FROM tile_cycle GROUP BY engine") == [(1, len(TILES) * CYCLES)]


@pytest.mark.parametrize("number", [MAP, LATER])
def test_engine_that_hangs_is_left_running(number, images, undisturbed, tmp_path):
    here = faulty_bench(tmp_path, timeout_s=4.0)
    status = finished(here, images, tiles={number: "hang"})
    assert statuses(here) == {}
    assert outputs(here.runs / RUN) == undisturbed
    assert status.engine.restarts == 1
    assert "a tile took longer than 4 s" in lines(here, "engine failed")[0]["error"]
    assert len(lines(here, "engine left running")) == 1


def test_tile_cycle_that_makes_every_engine_fail_is_the_only_failed_one(images, undisturbed, tmp_path):
    here = faulty_bench(tmp_path)
    status = finished(here, images, image=image_of(images, TILES[0], 5))
    assert statuses(here) == {(1101, 5): ("failed", "the engine failed 3 times: engine openvino: device: bad tile")}
    assert status.engine.restarts == 4
    mine = outputs(here.runs / RUN)
    of_tile = {name for name in mine if mine[name] != undisturbed[name]}
    assert {name for name in of_tile if not name.startswith("Data/")} == {
        "fastq/s_1_1101_R1.fastq.gz",
        "tiles/s_1_1101.bcls",
        "tiles/s_1_1101.chastity",
    }
    assert all("s_1_1101" in name for name in of_tile)


def test_engine_that_fails_at_every_tile_ends_the_run_and_costs_nothing(images, undisturbed, tmp_path):
    here = faulty_bench(tmp_path)
    code, last = ended(here, images, **{"from": LATER})
    assert (code, last["stop_reason"], last["failed"]) == (5, "engine_failed", 0)
    finished(here, images)
    assert outputs(here.runs / RUN) == undisturbed


def test_template_that_no_engine_makes_ends_the_run(images, undisturbed, tmp_path):
    here = faulty_bench(tmp_path)
    code, last = ended(here, images, image=image_of(images, TILES[0], 2))
    assert (code, last["stop_reason"], last["failed"]) == (5, "engine_failed", 0)
    assert (
        last["reason"] == "tile 1_1101: the template could not be made in 3 attempts: engine openvino: device: bad tile"
    )
    assert logged(here).splitlines()[-1] == f"seqd: {last['reason']}"
    finished(here, images)
    assert outputs(here.runs / RUN) == undisturbed


@pytest.mark.parametrize(("fault", "reason"), [("error", "engine_failed"), ("lost", "device_lost")])
def test_engine_that_does_not_open_again_ends_the_run_and_the_next_start_continues(
    fault, reason, images, undisturbed, tmp_path
):
    here = faulty_bench(tmp_path, engine_restarts=3)
    code, last = ended(here, images, tiles={LATER: fault}, closed=list(range(2, 99)))
    assert (code, last["stop_reason"], last["failed"]) == (5, reason, 0)
    assert "; not opened again: device: it does not open" in last["reason"]
    assert [line["attempt"] for line in lines(here, "engine not opened again")] == [1, 2, 3]
    finished(here, images)
    assert statuses(here) == {}
    assert outputs(here.runs / RUN) == undisturbed


def test_status_says_that_the_engine_is_opened_again_and_a_stop_ends_the_waiting(images, undisturbed, tmp_path):
    here = faulty_bench(tmp_path, engine_backoff_s=600.0)
    with here.camera(images), daemon(here, "--once", tiles={LATER: "lost"}, closed=[2]) as started:
        (before,) = here.wait_for(lambda status: "; not opened again" in str(status.troubles)).troubles
        status = here.wait_for(lambda status: status.troubles[0].since_s > before.since_s + 3)
        started.send_signal(signal.SIGTERM)
        assert finish(started) == 5
    (trouble,) = status.troubles
    assert status.phase is trouble.phase is Phase.ENGINE_RESTARTING
    assert trouble.what == "engine"
    assert trouble.text.endswith("device: gone; not opened again: device: it does not open")
    # The daemon waits for a known reason, so it is not stalled.
    assert status.stalled_s < trouble.since_s
    last = lines(here, "run ended")[-1]
    assert last["stop_reason"] == "device_lost"
    assert last["reason"].endswith("; asked to stop meanwhile")
    finished(here, images)
    assert outputs(here.runs / RUN) == undisturbed


def test_events_tell_of_the_fault_and_of_its_end(images, tmp_path):
    here = faulty_bench(tmp_path)
    with zmq.Context() as context, context.socket(zmq.SUB) as events:
        events.subscribe(b"event")
        events.connect(here.endpoint("calls"))
        finished(here, images, tiles={LATER: "error"})
        seen = []
        while events.poll(100):
            message, _ = decode(events.recv_multipart())
            seen.append((message.level, message.text))
    assert [level for level, _ in seen] == ["info", "error", "info", "info"]
    assert seen[1][1] == "engine failed: engine openvino: device: bad tile; it is opened again"
    assert seen[2][1] == "engine open again: openvino f32"


def test_fallback_takes_over_and_is_kept_over_a_kill(images, tmp_path):
    whole = faulty_bench(tmp_path, precision="int8")
    finished(whole, images)
    undisturbed = {tile: read_cycles(RunFiles(whole.runs / RUN).calls_of(tile), range(1, CYCLES + 1)) for tile in TILES}
    (tmp_path / "here").mkdir()
    here = faulty_bench(tmp_path / "here", precision="int8", fallback="cpu", engine_restarts=1)
    with here.camera(images, "--tile-seconds", "0.3"):
        plan = {"tiles": {LATER: "lost"}, "closed": [2], "precision": "int8"}
        with daemon(here, "--once", **plan) as started:
            status = here.wait_for(lambda status: status.engine is not None and status.engine.fallback != "")
            started.send_signal(signal.SIGKILL)
            finish(started)
        assert status.engine.precision != "int8"
        assert (status.engine.reason, status.engine.restarts) == ("fallback", 1)
        assert status.engine.fallback.endswith("device: gone; not opened again: device: it does not open")
        # The engine of the configuration works again.
        with daemon(here, "--once") as started:
            status = here.wait_for(lambda status: status.engine is not None)
            assert finish(started) == 0
    assert status.engine.fallback.endswith("device: it does not open")
    (line,) = lines(here, "run is called with the fallback engine to its end")
    assert line["reason"] == status.engine.fallback
    assert statuses(here) == {}
    first, second = json.loads((here.runs / RUN / "provenance.json").read_bytes())["engines"]
    assert (first["facts"]["precision"], first["reason"]) == ("int8", "")
    assert (second["facts"]["precision"], second["reason"]) == (status.engine.precision, status.engine.fallback)
    for tile in TILES:
        rows = query(here, f"SELECT engine FROM tile_cycle WHERE tile = {tile.tile} ORDER BY cycle")
        engines = [engine for (engine,) in rows]
        before = engines.count(1)
        assert engines == [1] * before + [2] * (CYCLES - before)
        assert 0 < before < CYCLES
        calls = read_cycles(RunFiles(here.runs / RUN).calls_of(tile), range(1, before + 1))
        assert (calls == undisturbed[tile][:before]).all()


def test_fallback_takes_over_from_an_engine_that_opens_and_is_useless(images, tmp_path):
    here = faulty_bench(tmp_path, precision="int8", fallback="cpu")
    status = finished(here, images, precision="int8", **{"from": LATER})
    assert (status.engine.reason, status.engine.fallback) == ("fallback", "engine openvino: device: bad tile")
    assert statuses(here) == {}


def test_fallback_takes_over_where_the_engine_does_not_open_at_the_start(images, tmp_path):
    here = faulty_bench(tmp_path, precision="int8", fallback="cpu")
    status = finished(here, images, precision="int8", closed=[1])
    assert (status.engine.reason, status.engine.fallback) == ("fallback", "device: it does not open")
    assert statuses(here) == {}


def test_no_engine_at_the_start_ends_the_run(images, tmp_path):
    code, last = ended(faulty_bench(tmp_path), images, closed=[1])
    assert (code, last["stop_reason"], last["reason"]) == (5, "engine_failed", "device: it does not open")


def test_run_that_another_engine_would_continue_is_refused(images, tmp_path):
    here = faulty_bench(tmp_path)
    ended(here, images, tiles={LATER: "lost"}, closed=list(range(2, 99)))
    other = faulty_bench(tmp_path, precision="int8")
    code, last = ended(other, images)
    assert (code, last["stop_reason"]) == (8, "refused")
    assert 'begun with precision "f32", this daemon has "int8"' in last["reason"]


def test_another_seqd_is_noted(images, undisturbed, tmp_path):
    here = faulty_bench(tmp_path, engine_restarts=0)
    ended(here, images, tiles={LATER: "lost"})
    assert lines(here, "run continues with another seqd") == []
    with closing(sqlite3.connect(here.runs / RUN / "run.db")) as database, database:
        database.execute("UPDATE start SET seqd = '0.0.7'")
    status = finished(here, images)
    (line,) = lines(here, "run continues with another seqd")
    assert (line["before"], line["now"]) == ("0.0.7", status.version)
    starts = json.loads((here.runs / RUN / "provenance.json").read_bytes())["starts"]
    assert [start["seqd"] for start in starts] == ["0.0.7", status.version]
    assert outputs(here.runs / RUN) == undisturbed
