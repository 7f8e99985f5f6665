"""The sockets of the simulated controller, for as long as it lives."""

from collections.abc import Iterator
from contextlib import ExitStack

import zmq
from seqd_client.errors import SocketError
from seqd_client.keys import ServerKeys, let_in
from seqd_client.sockets import bind

QUEUE = 64
"""Messages kept for the daemon; what comes after them has to wait."""

BATCH = 64
"""Requests taken before imaging has its turn, so that one who asks without end does not stop it."""


class Link:
    """Publishes frames and answers requests.

    Raises
    ------
    SocketError : an address is in use or cannot be made.
    """

    def __init__(self, frames: str, recovery: str, keys: ServerKeys | None) -> None:
        # A context of its own, as a process has: when it is closed, the addresses are free again.
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # XPUB tells when a daemon subscribes, and can wait for a slow one instead of dropping.
        self._frames = self._context.socket(zmq.XPUB)
        self._frames.setsockopt(zmq.XPUB_NODROP, 1)
        self._recovery = self._context.socket(zmq.ROUTER)
        self.subscribed = False
        """Whether a daemon listened to the frames when :meth:`requests` was last called."""
        self._opened = ExitStack()
        try:
            if keys:
                self._opened.enter_context(let_in(self._context, keys))
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
        """Who asked and what, at most a batch; waits at most so long for the first."""
        for _ in range(BATCH):
            if not self._recovery.poll(timeout_ms):
                break
            timeout_ms = 0
            asker, *parts = self._recovery.recv_multipart()
            yield asker, parts
        while self._frames.poll(0):
            self.subscribed = self._frames.recv().startswith(b"\x01")

    def answer(self, asker: bytes, parts: list[bytes]) -> None:
        """Answer a request; one who is gone, or takes nothing, gets no answer."""
        self._recovery.send_multipart([asker, *parts])

    def close(self, *, linger_s: float) -> None:
        """Close the sockets; what was published may still leave for so long."""
        self._opened.close()
        self._context.destroy(linger=int(linger_s * 1000))
