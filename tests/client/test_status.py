import json

from seqd_client.runinfo import TileId
from seqd_client.status import CycleStatus, Phase, RunState, Status, StopReason

from daemon.watching.runstatus import RunStatus
from tests.support.places import DOCS

REGENERATE = "python -m tests.client.regenerate"
SCHEMA = DOCS / "reference" / "status.schema.json"
FIRST, SECOND = TileId(lane=1, tile=1101), TileId(lane=1, tile=1102)


def started(**committed):
    run_status = RunStatus("1.2.3")
    run_status.name_run("R1")
    run_status.start_run(
        cycles=5,
        committed={FIRST: committed.get("first", 0), SECOND: committed.get("second", 0)},
        totals={CycleStatus.CALLED: sum(committed.values()), CycleStatus.MISSING: 0, CycleStatus.FAILED: 0},
        clusters=0,
        passing_filter=0,
        spooled=(),
    )
    return run_status


def test_schema_of_the_status_is_fresh():
    assert json.loads(SCHEMA.read_text("utf-8")) == Status.model_json_schema(), f"write it again with: {REGENERATE}"


def test_status_comes_back_from_its_json():
    run_status = started(first=2)
    run_status.counters.refused("checksum")
    status = run_status.snapshot()
    assert Status.model_validate_json(status.model_dump_json()) == status
    assert status.version == "1.2.3"
    assert status.frames.refused == {"checksum": 1}


def test_new_daemon_waits():
    status = RunStatus("1").snapshot()
    assert (status.state, status.run, status.cycle, status.tile_cycles.expected) == (RunState.WAITING, "", 0, 0)


def test_received_is_called_and_missing_and_failed_and_pending():
    run_status = started()
    for tile, cycle in ((FIRST, 1), (SECOND, 1), (FIRST, 2), (FIRST, 3)):
        run_status.counters.received(tile, cycle)
    run_status.counters.committed(FIRST, 1, CycleStatus.CALLED, frames=0, passing=0)
    run_status.counters.committed(FIRST, 2, CycleStatus.MISSING, frames=0, passing=0)
    run_status.counters.committed(SECOND, 1, CycleStatus.FAILED, frames=0, passing=0)
    status = run_status.snapshot()
    assert status.tile_cycles.balanced
    counts = status.tile_cycles
    assert (counts.expected, counts.received, counts.pending) == (10, 4, 1)
    assert (counts.called, counts.missing, counts.failed) == (1, 1, 1)
    assert status.lag.tile_cycles == 1
    assert status.cycle == 1


def test_run_that_is_taken_up_counts_what_was_committed_before():
    status = started(first=3, second=2).snapshot()
    assert (status.state, status.cycle) == (RunState.RUNNING, 2)
    assert (status.tile_cycles.received, status.tile_cycles.called, status.tile_cycles.pending) == (5, 5, 0)


def test_last_committed_cycle_is_kept_by_tile():
    run_status = started(first=3)
    assert [run_status.counters.last_committed(tile) for tile in (FIRST, SECOND, TileId(lane=2, tile=1))] == [3, 0, 0]


def test_snapshot_does_not_change_afterwards():
    run_status = started()
    before = run_status.snapshot()
    run_status.counters.frame("accepted", FIRST, 1)
    run_status.counters.refused("size")
    assert before.frames.accepted == 0
    assert before.frames.refused == {}
    assert run_status.snapshot().frames.accepted == 1


def test_tile_cycle_committed_twice_unbalances_the_books():
    run_status = started()
    run_status.counters.received(FIRST, 1)
    for _ in range(2):
        run_status.counters.committed(FIRST, 1, CycleStatus.CALLED, frames=4, passing=0)
    assert not run_status.snapshot().tile_cycles.balanced


def test_frames_are_committed_or_pending():
    run_status = started()
    for cycle, frames in ((1, 4), (2, 3)):
        for _ in range(frames):
            run_status.counters.frame("accepted", FIRST, cycle)
    for outcome in ("duplicate", "late"):
        run_status.counters.frame(outcome, FIRST, 1)
    run_status.counters.refused("size")
    run_status.counters.committed(FIRST, 1, CycleStatus.CALLED, frames=4, passing=0)
    frames = run_status.snapshot().frames
    assert (frames.received, frames.accepted, frames.committed, frames.pending) == (10, 7, 4, 3)
    assert frames.balanced
    run_status.counters.committed(FIRST, 2, CycleStatus.MISSING, frames=2, passing=0)
    assert not run_status.snapshot().frames.balanced


def test_of_all_that_hinders_a_run_the_worst_is_its_phase():
    run_status = started()
    assert run_status.snapshot().phase is Phase.CALLING
    run_status.troubles.begin("controller", Phase.SILENT, "nothing comes")
    run_status.troubles.begin("ledger", Phase.DISK_FULL, "no room")
    status = run_status.snapshot()
    assert status.phase is Phase.DISK_FULL
    assert {trouble.what for trouble in status.troubles} == {"controller", "ledger"}
    run_status.troubles.end("ledger")
    assert run_status.snapshot().phase is Phase.SILENT
    run_status.set_state(RunState.STOPPED, StopReason.ASKED, "asked to stop")
    status = run_status.snapshot()
    assert (status.phase, status.stop_reason, status.troubles) == (None, StopReason.ASKED, [])
