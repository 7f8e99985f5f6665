"""Telling systemd: the documented notification socket (sd_notify(3)); does nothing elsewhere."""

import os
import socket


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
