"""The stream of committed calls: a PUB socket fed from a bounded queue, so it cannot delay calling."""

import queue
import threading
import time
from types import TracebackType

import zmq

from daemon.progress import Progress
from daemon.sockets import bind
from daemon.wire.codec import encode
from daemon.wire.messages import Event, Message

QUEUE = 10_000
"""Messages waiting for the publishing thread; more are dropped, counted, and can be replayed."""


class Stream:
    """Publishes ``calls``, ``template`` and ``event`` messages from any thread.

    The sequence number counts all messages of this daemon's life, so that a consumer sees what it missed.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, high_water: int, progress: Progress
    ) -> None:
        self._socket = context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, high_water)
        self._socket.setsockopt(zmq.LINGER, 500)
        bind(self._socket, endpoint)
        self._queue: queue.Queue[list[bytes | memoryview] | None] = queue.Queue(QUEUE)
        self._progress = progress
        self._seq = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._publish, name="stream", daemon=True)
        self._thread.start()

    def send(self, message: Message, payload: bytes = b"") -> None:
        """Queue a message; its ``seq`` is set here."""
        with self._lock:
            numbered = message.model_copy(update={"seq": self._seq})
            self._seq += 1
            try:
                self._queue.put_nowait(encode(numbered, payload))
            except queue.Full:
                self._progress.stream_dropped()

    def event(self, level: str, text: str) -> None:
        """Queue an event for operators, about the run in hand."""
        status = self._progress.snapshot()
        facts = {"run": status.run, "run_state": status.state.value, "level": level, "text": text[:2000]}
        self.send(Event.model_validate({"seq": 0, "t_ns": time.time_ns(), **facts}))

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None, timeout=5)
        self._thread.join(timeout=5)

    def _publish(self) -> None:
        with self._socket:
            while (parts := self._queue.get()) is not None:
                self._socket.send_multipart(parts)
