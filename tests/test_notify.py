import signal
import socket

from tests.processes import bench, finish


def test_systemd_is_told_of_readiness_life_and_stopping(tmp_path):
    here = bench(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        with here.daemon(env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as daemon:
            told = [manager.recv(4096) for _ in range(3)]
            daemon.send_signal(signal.SIGTERM)
            assert finish(daemon) == 0
            manager.settimeout(0.5)
            while b"STOPPING=1" not in told:
                told.append(manager.recv(4096))
    assert told[0] == b"READY=1"
    assert told[1] == b"WATCHDOG=1"
    assert told[2].startswith(b"STATUS=waiting")
