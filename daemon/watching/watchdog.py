"""Notifying systemd through its socket (sd_notify(3)); without the socket nothing is sent."""

import os
import socket
import time

import structlog

from daemon.watching.runstatus import RunStatus


class Notifier:
    """Sends state lines to ``$NOTIFY_SOCKET``."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self) -> None:
        """Notify that the daemon has started."""
        self._send("READY=1")

    def alive(self) -> None:
        """Notify that the daemon is alive."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Notify that the daemon is stopping."""
        self._send("STOPPING=1")

    def show(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send(f"STATUS={text}")

    def _send(self, line: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(1.0)
            try:
                channel.sendto(line.encode(), self._address)
            except OSError:
                # systemd does not answer; calling is more important than the notification.
                return


NOTIFY_S = 5.0
"""Shortest time between two notifications."""

log = structlog.get_logger()


class Watchdog:
    """Notifies systemd's watchdog unless the daemon is stalled.

    A daemon that has tile images and finishes none logs this once, and sends no more notifications, so that systemd
    starts it again. A daemon that waits for a known reason, such as a full disk, sends notifications all the time.
    """

    def __init__(self, notifier: Notifier, status: RunStatus) -> None:
        self._notifier, self._status = notifier, status
        self._notified_s, self._stalled = 0.0, False

    def tick(self) -> None:
        """Notify systemd if ``NOTIFY_S`` has passed since the last time; to be called several times a second."""
        now = time.monotonic()
        if now - self._notified_s < NOTIFY_S:
            return
        status = self._status.snapshot()
        counts = status.tile_cycles
        if self._status.liveness.stalled:
            if not self._stalled:
                self._stalled = True
                log.error("stalled", run=status.run, stalled_s=status.stalled_s, pending=counts.pending)
                self._notifier.show(f"stalled for {status.stalled_s:g} s with {counts.pending} tile-cycles pending")
            return
        self._notified_s, self._stalled = now, False
        self._notifier.alive()
        self._notifier.show(
            f"{status.state} {status.run} cycle {status.cycle}/{status.cycles}, "
            f"called {counts.called}, missing {counts.missing}, failed {counts.failed}, lag {status.lag.cycles}"
            + (f", {status.phase}" if status.phase else "")
        )
