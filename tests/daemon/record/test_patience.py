import errno
import sqlite3
import threading
import time
from contextlib import suppress

import pytest
from seqd_client.status import Phase, RunState, StopReason

from daemon.errors import OutputError, storage_error
from daemon.record import patience as module
from daemon.record.patience import Patience
from daemon.watching.progress import Progress


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(module, "SLICE_S", 0.005)


@pytest.fixture
def progress():
    progress = Progress("1")
    progress.set_state(RunState.RUNNING)
    return progress


@pytest.fixture
def said():
    return []


@pytest.fixture
def patience(progress, said):
    return Patience(progress, lambda level, text: said.append((level, text)), lambda: False, retry_for_s=30)


class Failing:
    """Fails with each of the errors in turn, then succeeds; remembers the phase it was shown in."""

    def __init__(self, errors, progress):
        self.errors, self.progress, self.phases = list(errors), progress, []

    def __call__(self):
        self.phases.append(self.progress.snapshot().phase)
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
def test_what_passes_is_waited_out_in_a_named_phase(error, phase, patience, progress, said):
    action = Failing([error, error], progress)
    assert patience("ledger", action) == "done"
    assert action.phases == [Phase.CALLING, phase, phase]
    assert progress.snapshot().phase is Phase.CALLING
    assert [level for level, _ in said] == ["error", "info"]
    assert said[0][1].startswith("ledger: ")
    assert said[1][1].startswith("ledger: goes on after ")


def test_waiting_is_not_stalling(patience, progress):
    before = progress.marks
    patience("ledger", Failing([OSError(errno.ENOSPC, "full")] * 2, progress))
    assert progress.marks == before + 2


def test_what_does_not_pass_is_not_tried_again(patience, progress, said):
    action = Failing([OutputError("tile file x: changed")] * 2, progress)
    with pytest.raises(OutputError, match="tile file x: changed") as caught:
        patience("tile files", action)
    assert caught.value.reason is StopReason.OUTPUT_CHANGED
    assert len(action.errors) == 1
    assert said == []


def test_patience_ends(progress):
    impatient = Patience(progress, lambda *_: None, lambda: False, retry_for_s=0.05)
    with pytest.raises(OutputError, match="ledger: full") as caught:
        impatient("ledger", Failing([OSError(errno.ENOSPC, "full")] * 10_000, progress))
    assert caught.value.reason is StopReason.DISK_FULL
    assert progress.snapshot().troubles == []


def test_request_to_stop_ends_it_at_once(progress):
    asked = []
    patient = Patience(progress, lambda level, text: asked.append(1), lambda: bool(asked), retry_for_s=3600)
    began = time.monotonic()
    with pytest.raises(OutputError):
        patient("ledger", Failing([OSError(errno.ENOSPC, "full")] * 10_000, progress))
    assert time.monotonic() - began < 30


def test_full_disk_under_the_ledger_is_a_full_disk(tmp_path):
    database = sqlite3.connect(tmp_path / "run.db", isolation_level=None)
    database.execute("CREATE TABLE one (value TEXT)")
    database.execute("PRAGMA max_page_count = 3")
    with pytest.raises(sqlite3.OperationalError) as caught:
        database.executemany("INSERT INTO one VALUES (?)", [("x" * 1000,)] * 1000)
    database.close()
    assert storage_error("ledger", caught.value).reason is StopReason.DISK_FULL


def test_one_thread_that_goes_on_does_not_hide_another_that_waits(progress):
    stop = threading.Event()
    patient = Patience(progress, lambda *_: None, stop.is_set, retry_for_s=3600)
    full = OSError(errno.ENOSPC, "full")
    other = threading.Thread(target=lambda: suppressed(patient, Failing([full] * 100_000, progress)))
    other.start()
    while not progress.snapshot().troubles:
        time.sleep(0.01)
    assert patient("ledger", Failing([full], progress)) == "done"
    assert [trouble.phase for trouble in progress.snapshot().troubles] == [Phase.DISK_FULL]
    stop.set()
    other.join()
    assert progress.snapshot().troubles == []


def suppressed(patience, action):
    with suppress(OutputError):
        patience("ledger", action)


def test_thread_that_waits_does_not_speak_for_the_one_that_calls(progress):
    progress.set_working(True)
    before = progress.stalled_s
    waiting = threading.Thread(target=progress.waited)
    waiting.start()
    waiting.join()
    assert progress.stalled_s > before
    time.sleep(0.05)
    progress.waited()
    assert progress.stalled_s < 0.05
