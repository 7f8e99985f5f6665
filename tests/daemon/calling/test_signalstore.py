"""Signals that wait to be called: the same in memory and on disk."""

import numpy as np
import pytest
from seqd_client.runinfo import TileId

from calib.calling.signals import Signals
from daemon.calling.signalstore import SignalStore
from daemon.record.runfiles import RunFiles
from daemon.record.storageretry import StorageRetry
from daemon.watching.liveness import Liveness
from daemon.watching.troubles import Troubles

TILE, OTHER = TileId(lane=1, tile=1101), TileId(lane=1, tile=1102)
CLUSTERS = 50
BYTES = 28 * CLUSTERS


def signals(seed):
    rng = np.random.default_rng(seed)
    drawn = rng.normal(0, 1, (CLUSTERS, 14)).astype(np.float32)
    return Signals.unpacked(drawn.astype(np.float32))


def same(first, second):
    return first.packed().tobytes() == second.packed().tobytes()


@pytest.fixture
def files(tmp_path):
    files = RunFiles(tmp_path / "R1")
    files.create()
    return files


@pytest.fixture
def open_store(files):
    retry = StorageRetry(Troubles(), Liveness(), lambda *_: None, lambda: False, retry_for_s=0)
    return lambda memory_bytes: SignalStore(files, retry, memory_bytes=memory_bytes)


@pytest.mark.parametrize("held", [0, 2, 9], ids=["all on disk", "some on disk", "all in memory"])
def test_signals_come_back_the_same_from_memory_and_disk(open_store, files, held):
    store = open_store(held * BYTES)
    keys = [(tile, cycle) for cycle in (1, 2) for tile in (TILE, OTHER)]
    for seed, key in enumerate(keys):
        store.put(*key, signals(seed))
    assert len(list(files.spool.iterdir())) == max(0, len(keys) - held)
    for seed, key in enumerate(keys):
        assert same(store.get(*key), signals(seed))


def test_dropped_signals_leave_no_file_and_give_their_memory_back(open_store, files):
    store = open_store(BYTES)
    for cycle in range(1, 6):
        store.put(TILE, cycle, signals(cycle))
        store.put(OTHER, cycle, signals(-1 + 2 * cycle))
        assert [path.name for path in files.spool.iterdir()] == [f"s_1_1102_C{cycle}.signals.npy"]
        store.drop(TILE, cycle)
        store.drop(OTHER, cycle)
        assert not list(files.spool.iterdir())


def test_signals_that_were_not_put_are_an_error(open_store):
    store = open_store(BYTES)
    with pytest.raises(Exception, match=r"spool: No such file or directory"):
        store.get(TILE, 1)
