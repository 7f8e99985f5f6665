"""The stream of committed calls: a PUB socket fed from a queue that is bounded in bytes, so it cannot delay calling."""

import queue
import threading
from types import TracebackType

import zmq
from seqd_client.sockets import bind
from seqd_client.wire.codec import encode
from seqd_client.wire.messages import Message

from daemon.serving.gate import Gate
from daemon.watching.counters import Counters

MESSAGES = 128
"""Messages that ZeroMQ keeps for a consumer that does not read.

ZeroMQ counts messages where memory counts bytes, and a mark that is lowered while a connection stands can starve it for
good: instead of the mark, the size of a message follows from the bytes that there are."""

SUBSCRIPTION = 64
"""Bytes of the longest subscription of a consumer."""

OVERHEAD = 1024
"""Bytes that a message takes beside its own in Python and ZeroMQ, at most; what bounds a queue of events."""


class Stream:
    """Publishes ``calls``, ``template`` and ``event`` messages from any thread.

    The sequence number counts all messages of this daemon's life, so that a consumer sees what it missed.

    Parameters
    ----------
    queue_bytes : bytes of messages that wait for the publishing thread, and again of those that wait for a
        consumer. What comes beyond is dropped, and so is a message that takes more than one in ``MESSAGES`` of
        them: it leaves a gap in the sequence, and can be replayed.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        queue_bytes: int,
        counters: Counters,
        gate: Gate,
    ) -> None:
        self._socket = context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 500)
        gate.watch("calls", self._socket)
        bind(self._socket, endpoint, keys=gate.observers, queue=MESSAGES, largest_part=SUBSCRIPTION)
        # Without a length of its own: no put may wait.
        self._queue: queue.SimpleQueue[list[bytes | memoryview] | None] = queue.SimpleQueue()
        self._queue_bytes, self._waiting_bytes = queue_bytes, 0
        self._counters = counters
        self._seq = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._publish, name="stream", daemon=True)
        self._thread.start()

    def send(self, message: Message, payload: bytes = b"") -> None:
        """Queue a message; its ``seq`` is set here. Never waits: where there is no room it is dropped and counted."""
        with self._lock:
            parts = encode(message.model_copy(update={"seq": self._seq}), payload)
            self._seq += 1
            size = _size(parts)
            if size > self._queue_bytes // MESSAGES or self._waiting_bytes + size > self._queue_bytes:
                self._counters.stream_dropped()
                return
            self._waiting_bytes += size
            self._queue.put(parts)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join(timeout=5)

    def _publish(self) -> None:
        with self._socket:
            while (parts := self._queue.get()) is not None:
                self._socket.send_multipart(parts)
                with self._lock:
                    self._waiting_bytes -= _size(parts)


def _size(parts: list[bytes | memoryview]) -> int:
    return sum(map(len, parts)) + OVERHEAD
