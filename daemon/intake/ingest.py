"""The ingest: the sockets to the imaging controller."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import zmq
from seqd_client.sockets import connect
from seqd_client.wire.codec import Refusal, WireError, decode, encode
from seqd_client.wire.messages import (
    CycleEnd,
    Frame,
    Gone,
    Idle,
    Message,
    Position,
    RunEnd,
    RunStart,
    Sync,
)

from daemon.config import ControllerConfig
from daemon.serving.gate import Gate
from daemon.watching.counters import Counters
from daemon.watching.liveness import Liveness
from daemon.watching.logs import RateLimitedLog

QUEUE = 32
"""Messages that a socket keeps. It drops further frames; the ingest counts the gap, and they are requested again."""

SYNC_EVERY_S = 2.0
"""The daemon asks the controller for its position after a silence of this length; while the controller sends frames of
an unknown run, it asks at this interval."""

BATCH = 64
"""Maximum number of messages that one call of :meth:`Ingest.receive` takes from one socket."""

PUBLISHED = (RunStart, Frame, CycleEnd, RunEnd)
ANSWERS = (RunStart, Frame, Gone, Position, Idle)


class Ingest:
    """Receives the controller's messages; everything that is refused is counted and logged."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        config: ControllerConfig,
        counters: Counters,
        liveness: Liveness,
        gate: Gate,
    ) -> None:
        self._counters, self._liveness, self._log = counters, liveness, RateLimitedLog()
        with ExitStack() as opened:
            self._frames = opened.enter_context(context.socket(zmq.SUB))
            self._frames.setsockopt(zmq.SUBSCRIBE, b"")
            self._recovery = opened.enter_context(context.socket(zmq.DEALER))
            # Otherwise requests would pile up while no controller is connected.
            self._recovery.setsockopt(zmq.IMMEDIATE, 1)
            for name, socket, endpoint in (
                ("frames", self._frames, config.frames),
                ("recovery", self._recovery, config.recovery),
            ):
                socket.setsockopt(zmq.LINGER, 200)
                gate.watch(name, socket)
                connect(socket, endpoint, keys=gate.controller, queue=QUEUE)
            self._opened = opened.pop_all()
        self._poller = zmq.Poller()
        self._poller.register(self._frames, zmq.POLLIN)
        self._poller.register(self._recovery, zmq.POLLIN)
        self._run = ""
        self._last_seq: int | None = None
        # A daemon that is started again may join in the middle of a run.
        self._lost = True
        self._synced_s = -SYNC_EVERY_S

    def receive(self, timeout_s: float) -> Iterator[tuple[Message, bytes]]:
        """Messages that come within the timeout, and their payloads; at most ``BATCH`` of each socket."""
        unsure = self._lost or self._liveness.silent_s > SYNC_EVERY_S
        if unsure and time.monotonic() - self._synced_s > SYNC_EVERY_S and self.send(Sync()):
            self._lost, self._synced_s = False, time.monotonic()
        ready = dict(self._poller.poll(int(timeout_s * 1000)))
        for socket, allowed in ((self._recovery, ANSWERS), (self._frames, PUBLISHED)):
            if socket not in ready:
                continue
            for _ in range(BATCH):
                try:
                    parts = socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                try:
                    message, payload = decode(parts)
                    if not isinstance(message, allowed):
                        raise WireError(Refusal.TOPIC, f"{message.topic}: this socket does not take it")
                except WireError as error:
                    self.refuse(error)
                    continue
                if not self._run or getattr(message, "run", None) == self._run:
                    self._liveness.note_message()
                if socket is self._frames:
                    self._watch_sequence(message)
                yield message, payload

    def send(self, message: Message) -> bool:
        """Send to the controller's recovery socket; False when the message cannot be queued at the moment."""
        try:
            self._recovery.send_multipart(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def refuse(self, error: WireError) -> None:
        """Count and log a refused message."""
        self._counters.refused(error.refusal)
        self._log.warning("message refused", reason=error.refusal.value, detail=str(error))

    def set_run(self, run: str) -> None:
        """Set the run whose sequence numbers are watched."""
        self._run, self._last_seq, self._lost = run, None, False
        self._liveness.note_message()

    def __enter__(self) -> "Ingest":
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()
        self._log.close()

    def _watch_sequence(self, message: Message) -> None:
        if not isinstance(message, PUBLISHED):
            return
        if message.run != self._run:
            # A daemon that joins in the middle of a run did not receive its run_start, and has to ask for it.
            self._lost = not isinstance(message, RunStart)
            return
        if isinstance(message, RunStart):
            # A controller that was started again counts from the beginning.
            self._last_seq = None
        if self._last_seq is not None and message.seq > self._last_seq + 1:
            missed = message.seq - self._last_seq - 1
            self._counters.gap(missed)
            self._log.warning("sequence gap", missed=missed, after=self._last_seq)
        if self._last_seq is None or message.seq > self._last_seq:
            self._last_seq = message.seq
