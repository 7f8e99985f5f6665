"""The gate: the daemon's keys, the clients that may connect, and the count of refused connections."""

import threading
from contextlib import ExitStack
from types import TracebackType

import zmq
from seqd_client.keys import allow_clients, load_client_keys, load_server_keys
from zmq.utils.monitor import parse_monitor_message

from daemon.config import SecurityConfig
from daemon.watching.counters import Counters
from daemon.watching.logs import RateLimitedLog

FAILURES: dict[int, str] = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "its key is not on the list",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "its key is wrong or missing, or it has a wrong key of the daemon",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "it has no key, or closed the connection",
}

POLL_MS = 200


class Gate:
    """Holds the keys for the sockets of a daemon, and counts the connections that the sockets refuse.

    Key files are read once, when the object is made.

    Raises
    ------
    ConfigError : a key file cannot be used.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", config: SecurityConfig, counters: Counters) -> None:
        self.observers, self.operators = (
            load_server_keys(config.certificate, name, folder) if config.certificate and folder else None
            for name, folder in (("observers", config.observers), ("operators", config.operators))
        )
        self.controller = load_client_keys(config.certificate, config.controller) if config.controller else None
        self._counters, self._log = counters, RateLimitedLog()
        self._monitors: dict[zmq.Socket[bytes], str] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._opened = ExitStack()
        if lists := [keys for keys in (self.observers, self.operators) if keys]:
            self._opened.enter_context(allow_clients(context, *lists))
        self._thread = threading.Thread(target=self._count_refusals, name="gate", daemon=True)
        self._thread.start()

    def watch(self, name: str, socket: "zmq.Socket[bytes]") -> None:
        """Count the connections that a socket refuses; to be called before the socket is bound or connected."""
        monitor = socket.get_monitor_socket(sum(FAILURES))
        with self._lock:
            self._monitors[monitor] = name

    def __enter__(self) -> "Gate":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        self._opened.close()

    def _count_refusals(self) -> None:
        poller = zmq.Poller()
        while not self._stop.is_set():
            with self._lock:
                for monitor in self._monitors:
                    poller.register(monitor, zmq.POLLIN)
            for monitor, _ in poller.poll(POLL_MS):
                event = parse_monitor_message(monitor.recv_multipart())["event"]
                name = self._monitors[monitor]
                self._counters.connection_refused(name)
                self._log.warning("connection refused", socket=name, reason=FAILURES[event])
        for monitor in self._monitors:
            monitor.close()
        self._log.close()
