from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from seqd_client.runinfo import TileId
from seqd_client.status import CycleStatus

from calib.phasing import NeighbourLight
from daemon.errors import OutputError, RunError
from daemon.record.ledger import Ledger
from daemon.record.ledgerreader import CycleRow

FIRST, SECOND = TileId(lane=1, tile=1101), TileId(lane=2, tile=1101)
FACTS = {"model": "abc", "template_cycles": 7, "info": {"reads": [100, 8], "run": "R1"}}


def row(cycle, tile=FIRST, status=CycleStatus.CALLED, light=(None, None, None)):
    return CycleRow(
        tile.lane, tile.tile, cycle, status, "", 4, 2**32 - 1, None, 0.5, None, *light, 0.25, 1_700_000_000_000_000_000
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


def test_new_ledger_is_empty(path):
    with closing(Ledger(path)) as ledger:
        assert ledger.tiles() == {}
        assert ledger.committed_cycles() == {}
        assert ledger.totals() == {CycleStatus.CALLED: 0, CycleStatus.MISSING: 0, CycleStatus.FAILED: 0}


def test_committed_rows_are_there_after_reopening(path):
    with closing(Ledger(path)) as ledger:
        ledger.commit_tile(FIRST, 40, 7)
        for cycle in (1, 2, 3):
            ledger.commit(row(cycle))
        ledger.commit_tile(SECOND, 0, 7)
        ledger.commit(row(1, SECOND))
    with closing(Ledger(path)) as ledger:
        assert ledger.tiles() == {FIRST: 40, SECOND: 0}
        assert ledger.committed_cycles() == {FIRST: 3, SECOND: 1}


def test_committed_rows_are_there_after_the_process_is_gone_without_closing(path):
    with closing(Ledger(path)) as left_open:
        left_open.commit_tile(FIRST, 40, 7)
        left_open.commit(row(1))
        with closing(Ledger(path)) as ledger:
            assert ledger.tiles() == {FIRST: 40}
            assert ledger.committed_cycles() == {FIRST: 1}


def test_a_tile_with_a_template_and_no_cycle_is_known(path):
    with closing(Ledger(path)) as ledger:
        ledger.commit_tile(FIRST, 40, 7)
        assert ledger.tiles() == {FIRST: 40}
        assert ledger.committed_cycles() == {}


def test_what_strands_out_of_step_showed_is_there_after_reopening(path):
    with closing(Ledger(path)) as ledger:
        ledger.commit(row(1))
        ledger.commit(row(2, light=(1.0, 0.25, -0.125)))
        ledger.commit(row(3, light=(0.1, 0.2, 0.3)))
        ledger.commit(row(1, SECOND, light=(9.0, 9.0, 9.0)))
    with closing(Ledger(path)) as ledger:
        assert ledger.neighbour_light(FIRST) == {2: NeighbourLight(1.0, 0.25, -0.125), 3: NeighbourLight(0.1, 0.2, 0.3)}
        assert ledger.neighbour_light(TileId(lane=3, tile=1)) == {}


def test_drift_is_known_of_called_cycles_in_their_order(path):
    with closing(Ledger(path)) as ledger:
        for cycle, status in ((2, CycleStatus.CALLED), (3, CycleStatus.FAILED), (1, CycleStatus.CALLED)):
            ledger.commit(replace(row(cycle, status=status), drift_y=0.5 * cycle, drift_x=-0.25))
        ledger.commit(replace(row(9, SECOND), drift_x=7.0))
        found = ledger.drift(FIRST)
        assert list(found) == [1, 2]
        assert all(drift.dtype == np.float32 for drift in found.values())
        assert [drift.tolist() for drift in found.values()] == [[0.5, -0.25], [1.0, -0.25]]


def test_totals_count_by_status(path):
    with closing(Ledger(path)) as ledger:
        statuses = [CycleStatus.CALLED, CycleStatus.MISSING, CycleStatus.CALLED, CycleStatus.FAILED, CycleStatus.CALLED]
        for cycle, status in enumerate(statuses, 1):
            ledger.commit(row(cycle, status=status))
        assert ledger.totals() == {CycleStatus.CALLED: 3, CycleStatus.MISSING: 1, CycleStatus.FAILED: 1}


@pytest.mark.parametrize("bad", [row(1), replace(row(2), reason=None)])
def test_a_row_that_cannot_be_is_refused_and_leaves_nothing(path, bad):
    with closing(Ledger(path)) as ledger:
        ledger.commit(row(1))
        with pytest.raises(OutputError, match=r"run\.db: .*constraint failed"):
            ledger.commit(bad)
        assert ledger.committed_cycles() == {FIRST: 1}
        ledger.commit(row(2))
        assert ledger.committed_cycles() == {FIRST: 2}


def test_a_tile_has_one_template(path):
    with closing(Ledger(path)) as ledger:
        ledger.commit_tile(FIRST, 40, 7)
        with pytest.raises(OutputError, match=r"run\.db: .*constraint failed"):
            ledger.commit_tile(FIRST, 41, 7)
        assert ledger.tiles() == {FIRST: 40}


def test_run_goes_on_with_the_same_facts(path):
    with closing(Ledger(path)) as ledger:
        ledger.begin(FACTS)
    with closing(Ledger(path)) as ledger:
        ledger.begin({**FACTS, "info": {"run": "R1", "reads": [100, 8]}})
        assert ledger.committed_cycles() == {}


@pytest.mark.parametrize(("fact", "now"), [("model", "def"), ("template_cycles", 5), ("info", {"run": "R1"})])
def test_run_does_not_go_on_with_other_facts(path, fact, now):
    with closing(Ledger(path)) as ledger:
        ledger.begin(FACTS)
        with pytest.raises(RunError, match=f"begun with {fact} .*, this daemon has "):
            ledger.begin({**FACTS, fact: now})
        ledger.begin(FACTS)


def test_file_that_is_no_ledger_is_refused(path):
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(OutputError, match=r"run\.db: file is not a database"):
        Ledger(path)


def test_ledger_in_a_folder_that_is_missing_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"run\.db: No such file or directory"):
        Ledger(tmp_path / "missing" / "run.db")
