"""The stream of committed calls: a PUB socket whose queue is bounded in bytes and never delays calling."""

import queue
import threading

import zmq
from seqd_client.sockets import bind
from seqd_client.wire.codec import encode
from seqd_client.wire.messages import Message

from daemon.serving.gate import Gate
from daemon.watching.counters import Counters

MAX_MESSAGES = 128
"""Messages that ZeroMQ keeps for a consumer that does not read.

ZeroMQ bounds the number of messages, and memory is a number of bytes. Lowering the bound of an open connection can stop
that connection for good. Therefore this bound is fixed, and the stream bounds the size of each message."""

MAX_SUBSCRIPTION = 64
"""Bytes that the subscription of a consumer may have."""

OVERHEAD = 1024
"""Maximum number of bytes that Python and ZeroMQ need for a message in addition to its content. They are counted, so
that many small messages, such as events, do not take unlimited memory."""


class Stream:
    """Publishes ``calls``, ``template`` and ``event`` messages from any thread.

    The sequence number counts all messages since the daemon started, so that a consumer sees that it missed some.

    Parameters
    ----------
    queue_bytes : maximum number of bytes of messages that wait for the publishing thread. The same number of bytes may
        wait for each consumer. A message is dropped when it does not fit, or when it alone needs more than
        ``queue_bytes / MAX_MESSAGES``. It leaves a gap in the sequence numbers, and a consumer can ask for a replay.
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
        bind(self._socket, endpoint, keys=gate.observers, queue=MAX_MESSAGES, largest_part=MAX_SUBSCRIPTION)
        # This queue has no bound, so that no put waits; the bytes are counted in `send`.
        self._queue: queue.SimpleQueue[list[bytes | memoryview] | None] = queue.SimpleQueue()
        self._queue_bytes, self._waiting_bytes = queue_bytes, 0
        self._counters = counters
        self._seq = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._publish, name="stream", daemon=True)
        self._thread.start()

    def send(self, message: Message, payload: bytes = b"") -> None:
        """Queue a message and set its ``seq``; this never waits: a message without room is dropped and counted."""
        with self._lock:
            parts = encode(message.model_copy(update={"seq": self._seq}), payload)
            self._seq += 1
            size = _size(parts)
            if size > self._queue_bytes // MAX_MESSAGES or self._waiting_bytes + size > self._queue_bytes:
                self._counters.stream_dropped()
                return
            self._waiting_bytes += size
            self._queue.put(parts)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *error: object) -> None:
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
