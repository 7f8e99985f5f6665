import signal
import socket
import sys
from contextlib import contextmanager

import pytest
from seqd_client.status import Phase

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from tests.support.processes import bench, finish, process


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    write_simulated_run(
        root, Conditions(), run="R", tiles=1, cycles=8, shape=(64, 64), seed=6, progress=lambda done: None
    )
    return root


@contextmanager
def manager(folder):
    """The socket that systemd would listen on, and the environment that names it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(folder / "notify"))
        receiver.settimeout(60)
        yield receiver, {"NOTIFY_SOCKET": str(folder / "notify")}


def test_systemd_is_notified_of_start_life_and_stop(tmp_path):
    here = bench(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        with here.daemon(env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as daemon:
            received = [manager.recv(4096) for _ in range(3)]
            daemon.send_signal(signal.SIGTERM)
            assert finish(daemon) == 0
            manager.settimeout(0.5)
            while b"STOPPING=1" not in received:
                received.append(manager.recv(4096))
    assert received[0] == b"READY=1"
    assert received[1] == b"WATCHDOG=1"
    assert received[2].startswith(b"STATUS=waiting")


def test_systemd_shows_the_progress(images, tmp_path):
    here = bench(tmp_path, calling={"template_cycles": 3})
    with (
        manager(tmp_path) as (receiver, env),
        here.camera(images, "--tile-seconds", "1"),
        here.daemon("--once", env=env),
    ):
        received = ""
        while "running R cycle 2/8" not in received and "running R cycle 3/8" not in received:
            received = receiver.recv(4096).decode()
    assert "called" in received
    assert "missing 0, failed 0" in received


def test_daemon_that_hangs_shows_it_and_no_longer_notifies(images, tmp_path):
    here = bench(tmp_path, calling={"template_cycles": 3}, engine={"timeout_s": 4})
    command = [sys.executable, "-m", "tests.support.slowed", "1000", "8", "8", "run", "--config", str(here.config)]
    with (
        manager(tmp_path) as (receiver, env),
        here.camera(images),
        process(command, tmp_path / "daemon.log", env),
    ):
        status = here.wait_for(lambda status: status.phase is Phase.STALLED)
        assert status.stalled_s >= 4
        assert status.tile_cycles.pending > 0
        received = b""
        while not received.startswith(b"STATUS=stalled"):
            received = receiver.recv(4096)
        receiver.settimeout(7)
        with pytest.raises(TimeoutError):
            receiver.recv(4096)
        assert here.status().phase is Phase.STALLED
    assert '"event": "stalled"' in (tmp_path / "daemon.log").read_text()
