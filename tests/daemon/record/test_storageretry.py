import errno
import sqlite3
import threading
import time
from contextlib import suppress

import pytest
from seqd_client.status import Phase, RunState, StopReason

from daemon.errors import OutputError, storage_error
from daemon.record import storageretry
from daemon.record.storageretry import StorageRetry
from daemon.watching import liveness
from daemon.watching.runstatus import RunStatus


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(storageretry, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(liveness, "SLICE_S", 0.005)


@pytest.fixture
def status():
    status = RunStatus("1")
    status.set_state(RunState.RUNNING)
    return status


@pytest.fixture
def said():
    return []


@pytest.fixture
def retry(status, said):
    return StorageRetry(
        status.troubles, status.liveness, lambda level, text: said.append((level, text)), lambda: False, retry_for_s=30
    )


class Failing:
    """Fails with each of the errors in turn, then succeeds; remembers the phase it was shown in."""

    def __init__(self, errors, status):
        self.errors, self.status, self.phases = list(errors), status, []

    def __call__(self):
        self.phases.append(self.status.snapshot().phase)
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.mark.parametrize(
    ("error", "phase"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), Phase.DISK_FULL),
        (OSError(errno.EDQUOT, "Quota exceeded"), Phase.DISK_FULL),
        (OSError(errno.EACCES, "Permission denied"), Phase.PERMISSION_LOST),
        (OSError(errno.EROFS, "Read-only file system"), Phase.PERMISSION_LOST),
        (OSError(errno.EIO, "Input/output error"), Phase.STORAGE_FAILED),
        (MemoryError(), Phase.OUT_OF_MEMORY),
    ],
)
def test_what_passes_is_waited_out_in_a_named_phase(error, phase, retry, status, said):
    action = Failing([error, error], status)
    assert retry("ledger", action) == "done"
    assert action.phases == [Phase.CALLING, phase, phase]
    assert status.snapshot().phase is Phase.CALLING
    assert [level for level, _ in said] == ["error", "info"]
    assert said[0][1].startswith("ledger: ")
    assert said[1][1].startswith("ledger: continues after ")


def test_waiting_is_not_stalling(retry, status):
    before = status.liveness.marks
    retry("ledger", Failing([OSError(errno.ENOSPC, "full")] * 2, status))
    assert status.liveness.marks >= before + 2


def test_what_does_not_pass_is_not_tried_again(retry, status, said):
    action = Failing([OutputError("tile file x: changed")] * 2, status)
    with pytest.raises(OutputError, match="tile file x: changed") as caught:
        retry("tile files", action)
    assert caught.value.reason is StopReason.OUTPUT_CHANGED
    assert len(action.errors) == 1
    assert said == []


def test_patience_ends(status):
    short = StorageRetry(status.troubles, status.liveness, lambda *_: None, lambda: False, retry_for_s=0.05)
    with pytest.raises(OutputError, match="ledger: full") as caught:
        short("ledger", Failing([OSError(errno.ENOSPC, "full")] * 10_000, status))
    assert caught.value.reason is StopReason.DISK_FULL
    assert status.snapshot().troubles == []


def test_request_to_stop_ends_it_at_once(status):
    asked = []
    retrying = StorageRetry(
        status.troubles, status.liveness, lambda level, text: asked.append(1), lambda: bool(asked), retry_for_s=3600
    )
    began = time.monotonic()
    with pytest.raises(OutputError):
        retrying("ledger", Failing([OSError(errno.ENOSPC, "full")] * 10_000, status))
    assert time.monotonic() - began < 30


def test_full_disk_under_the_ledger_is_a_full_disk(tmp_path):
    database = sqlite3.connect(tmp_path / "run.db", isolation_level=None)
    database.execute("CREATE TABLE one (value TEXT)")
    database.execute("PRAGMA max_page_count = 3")
    with pytest.raises(sqlite3.OperationalError) as caught:
        database.executemany("INSERT INTO one VALUES (?)", [("x" * 1000,)] * 1000)
    database.close()
    assert storage_error("ledger", caught.value).reason is StopReason.DISK_FULL


def test_one_thread_that_goes_on_does_not_hide_another_that_waits(status):
    stop = threading.Event()
    retrying = StorageRetry(status.troubles, status.liveness, lambda *_: None, stop.is_set, retry_for_s=3600)
    full = OSError(errno.ENOSPC, "full")
    other = threading.Thread(target=lambda: suppressed(retrying, Failing([full] * 100_000, status)))
    other.start()
    while not status.snapshot().troubles:
        time.sleep(0.01)
    assert retrying("ledger", Failing([full], status)) == "done"
    assert [trouble.phase for trouble in status.snapshot().troubles] == [Phase.DISK_FULL]
    stop.set()
    other.join()
    assert status.snapshot().troubles == []


def suppressed(retry, action):
    with suppress(OutputError):
        retry("ledger", action)


def test_thread_that_waits_does_not_speak_for_the_one_that_calls(status):
    status.liveness.set_working(True)
    time.sleep(0.05)
    before = status.liveness.stalled_s
    waiting = threading.Thread(target=status.liveness.waited)
    waiting.start()
    waiting.join()
    stalled_s = status.liveness.stalled_s
    assert stalled_s > before
    began = time.monotonic()
    status.liveness.waited()
    # The silence before is forgotten: what is left began after this line did.
    assert status.liveness.stalled_s <= time.monotonic() - began
