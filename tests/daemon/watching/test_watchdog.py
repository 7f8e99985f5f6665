import socket
import time

import pytest

from daemon.watching import watchdog
from daemon.watching.runstatus import RunStatus
from daemon.watching.watchdog import Notifier


@pytest.fixture
def manager(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setattr(watchdog, "NOTIFY_S", 0.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        yield receiver


def fed(manager) -> bool:
    told = []
    while True:
        try:
            told.append(manager.recv(4096))
        except BlockingIOError:
            return b"WATCHDOG=1" in told


def test_a_caller_that_finishes_nothing_is_not_fed(manager):
    status = RunStatus("test", stalled_after_s=0.05)
    dog = watchdog.Watchdog(Notifier(), status)
    dog.tick()
    assert fed(manager)
    status.liveness.set_working(True)
    time.sleep(0.1)
    dog.tick()
    assert not fed(manager)
    status.liveness.worked()
    dog.tick()
    assert fed(manager)


def test_a_caller_that_has_nothing_to_do_is_fed(manager):
    dog = watchdog.Watchdog(Notifier(), RunStatus("test", stalled_after_s=0.05))
    for _ in range(3):
        time.sleep(0.1)
        dog.tick()
        assert fed(manager)
