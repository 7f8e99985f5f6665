"""The sockets of an imaging controller."""

from collections.abc import Iterator
from contextlib import ExitStack

import zmq

from seqd_client.errors import SocketError
from seqd_client.keys import ServerKeys, allow_clients
from seqd_client.sockets import bind

QUEUE = 64
"""Messages kept for the daemon; a later message has to wait."""

BATCH = 64
"""Requests that are answered before the next message is published, so that a flood does not stop imaging."""


class Link:
    """Publishes messages and receives requests; one thread uses it.

    Raises
    ------
    SocketError : an address is in use or cannot be used.
    """

    def __init__(self, frames: str, recovery: str, keys: ServerKeys | None) -> None:
        # A context of its own, so that closing it frees the addresses.
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # XPUB tells when a daemon subscribes, and can wait for a slow one instead of dropping messages.
        self._frames = self._context.socket(zmq.XPUB)
        self._frames.setsockopt(zmq.XPUB_NODROP, 1)
        self._recovery = self._context.socket(zmq.ROUTER)
        self.subscribed = False
        """Whether a daemon had subscribed to the frames when :meth:`requests` was last called."""
        self._opened = ExitStack()
        try:
            if keys:
                self._opened.enter_context(allow_clients(self._context, keys))
            bind(self._frames, frames, keys=keys, queue=QUEUE)
            bind(self._recovery, recovery, keys=keys, queue=QUEUE)
        except SocketError:
            self.close(linger_s=0)
            raise

    def publish(self, parts: list[bytes]) -> bool:
        """Publish a message; False when the daemon takes no more for now."""
        try:
            self._frames.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def requests(self, timeout_ms: int) -> Iterator[tuple[bytes, list[bytes]]]:
        """Sender and parts of the requests that came, at most a batch; waits so long for the first."""
        for _ in range(BATCH):
            if not self._recovery.poll(timeout_ms):
                break
            timeout_ms = 0
            sender, *parts = self._recovery.recv_multipart()
            yield sender, parts
        while self._frames.poll(0):
            self.subscribed = self._frames.recv().startswith(b"\x01")

    def answer(self, sender: bytes, parts: list[bytes]) -> None:
        """Send an answer; a daemon that has left gets none."""
        self._recovery.send_multipart([sender, *parts])

    def close(self, *, linger_s: float) -> None:
        """Close the sockets; messages that were published may still leave for so long."""
        self._opened.close()
        self._context.destroy(linger=int(linger_s * 1000))
