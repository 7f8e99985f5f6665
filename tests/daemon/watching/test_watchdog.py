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


def notified(manager) -> bool:
    received = []
    while True:
        try:
            received.append(manager.recv(4096))
        except BlockingIOError:
            return b"WATCHDOG=1" in received


def test_stalled_daemon_does_not_notify(manager):
    status = RunStatus("test", stalled_after_s=0.05)
    dog = watchdog.Watchdog(Notifier(), status)
    dog.tick()
    assert notified(manager)
    status.liveness.set_working(True)
    time.sleep(0.1)
    dog.tick()
    assert not notified(manager)
    status.liveness.note_work()
    dog.tick()
    assert notified(manager)


def test_idle_daemon_notifies(manager):
    dog = watchdog.Watchdog(Notifier(), RunStatus("test", stalled_after_s=0.05))
    for _ in range(3):
        time.sleep(0.1)
        dog.tick()
        assert notified(manager)
