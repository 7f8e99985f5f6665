"""Telling systemd: the documented notification socket (sd_notify(3)); does nothing elsewhere."""

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
        """Start-up is over."""
        self._send("READY=1")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Shutting down."""
        self._send("STOPPING=1")

    def show(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={text}")

    def _send(self, line: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(1.0)
            try:
                channel.sendto(line.encode(), self._address)
            except OSError:
                # systemd went away or is slow; calling matters more than telling.
                return


FEED_S = 5.0
"""How often systemd is told at most."""

log = structlog.get_logger()


class Watchdog:
    """Feeds systemd's watchdog as long as work gets done, or there is none.

    A daemon that has tile images and finishes none says so once and stops being fed: systemd starts it anew. One that
    waits for a full disk or an engine with a reason goes on being fed.
    """

    def __init__(self, notifier: Notifier, status: RunStatus) -> None:
        self._notifier, self._status = notifier, status
        self._fed_s, self._stalled = 0.0, False

    def tick(self) -> None:
        """Call often."""
        now = time.monotonic()
        if now - self._fed_s < FEED_S:
            return
        status = self._status.snapshot()
        counts = status.tile_cycles
        if self._status.liveness.stalled:
            if not self._stalled:
                self._stalled = True
                log.error("stalled", run=status.run, stalled_s=status.stalled_s, pending=counts.pending)
                self._notifier.show(f"stalled for {status.stalled_s:g} s with {counts.pending} tile-cycles in hand")
            return
        self._fed_s, self._stalled = now, False
        self._notifier.alive()
        self._notifier.show(
            f"{status.state} {status.run} cycle {status.cycle}/{status.cycles}, "
            f"called {counts.called}, missing {counts.missing}, failed {counts.failed}, lag {status.lag.cycles}"
            + (f", {status.phase}" if status.phase else "")
        )
