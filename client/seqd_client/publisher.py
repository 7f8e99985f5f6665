"""The two sockets of an imaging controller, and what it has to know to answer the daemon; for one thread."""

import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import zmq
from numpy.typing import NDArray

from seqd_client.errors import SocketError, UnreachableError
from seqd_client.keys import ServerKeys, allow_clients
from seqd_client.runinfo import Channel, RunInfo, TileId
from seqd_client.sockets import bind
from seqd_client.wire.codec import WireError, decode, encode
from seqd_client.wire.messages import (
    CycleEnd,
    Done,
    Frame,
    Gone,
    Hold,
    Idle,
    Kept,
    Message,
    Position,
    Release,
    Resend,
    RunEnd,
    RunStart,
    Sync,
)

QUEUE = 64
"""Maximum number of messages that ZeroMQ keeps for the daemon. When they wait, :meth:`Publisher.send` sends nothing."""

BATCH = 64
"""Requests answered in one call, so that a client that asks without end does not stop the imaging."""

Parts = list[bytes]
"""An encoded message: topic, header, payload."""


class FrameKey(NamedTuple):
    """Names a frame within its run."""

    tile: TileId
    cycle: int
    channel: Channel


def frame_message(run: str, key: FrameKey, image: NDArray[np.uint16], *, seq: int, t_ns: int) -> tuple[Frame, bytes]:
    """Make the message of an image (H, W) exposed at ``t_ns``, nanoseconds since 1970; the pixels are copied.

    Raises
    ------
    pydantic.ValidationError : the image is smaller or larger than a frame can be.
    """
    payload = image.astype("<u2").tobytes()
    frame = Frame(
        run=run,
        seq=seq,
        lane=key.tile.lane,
        tile=key.tile.tile,
        cycle=key.cycle,
        channel=key.channel,
        height=image.shape[0],
        width=image.shape[1],
        t_ns=t_ns,
        crc32=zlib.crc32(payload),
    )
    return frame, payload


def encoded(message: Message, payload: bytes = b"") -> Parts:
    """Encode a message."""
    return [bytes(part) for part in encode(message, payload)]


class Ring:
    """The newest frames of a run, which can be sent again.

    Parameters
    ----------
    limit : the largest sum of the sizes of the frames; the oldest frames are dropped beyond it. With None there is no
        limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit, self._size = limit, 0
        self._held: dict[FrameKey, tuple[int, Callable[[], Parts | None]]] = {}

    def keep(self, key: FrameKey, source: Callable[[], Parts | None], *, size: int = 1) -> None:
        """Keep the newest frame. ``source`` gives its message; when it gives None, a resend request is not answered."""
        self._drop(key)
        self._held[key] = size, source
        self._size += size
        while self._limit is not None and self._size > self._limit:
            self._drop(next(iter(self._held)))

    def source(self, key: FrameKey) -> Callable[[], Parts | None] | None:
        """Where the message of a frame comes from; None when the ring does not hold the frame."""
        return self._held[key][1] if key in self._held else None

    def forget(self, cycle: int) -> None:
        """Drop the frames of all cycles up to this one."""
        for key in [key for key in self._held if key.cycle <= cycle]:
            self._drop(key)

    def _drop(self, key: FrameKey) -> None:
        size, _ = self._held.pop(key, (0, None))
        self._size -= size


class Publisher:
    """Numbers and publishes messages, and answers requests whenever its owner calls :meth:`serve`.

    Parameters
    ----------
    frames, recovery : addresses to bind, which the daemon connects to.
    keys : the controller's keys, and those of the daemons that it allows, for addresses on the network.
    ring_limit : limit of the :class:`Ring`.

    Raises
    ------
    SocketError : an address is in use or cannot be made.
    """

    def __init__(self, frames: str, recovery: str, *, keys: ServerKeys | None, ring_limit: int | None) -> None:
        self.subscribed, self.done = False, False
        """Whether a daemon listens to the frames, and whether it needs nothing more of the run."""
        self._heard_s = time.monotonic()
        self._cycle, self._ended = 0, False
        self._info: RunInfo | None = None
        self._seq, self._run, self._held_run = 0, "", ""
        self._ring_limit = ring_limit
        self.ring = Ring(ring_limit)
        # With a context of its own, the addresses are free again when the publisher is closed.
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # An XPUB socket shows when a daemon subscribes, and can wait for a slow one instead of dropping messages.
        self._frames, self._recovery = self.context.socket(zmq.XPUB), self.context.socket(zmq.ROUTER)
        self._frames.setsockopt(zmq.XPUB_NODROP, 1)
        self._opened = ExitStack()
        self.poller = zmq.Poller()
        """What :meth:`serve` waits for; the owner may register a socket of its own."""
        try:
            if keys:
                self._opened.enter_context(allow_clients(self.context, keys))
            for socket, endpoint in ((self._frames, frames), (self._recovery, recovery)):
                bind(socket, endpoint, keys=keys, queue=QUEUE)
                self.poller.register(socket, zmq.POLLIN)
        except SocketError:
            self.close(linger_s=0)
            raise

    @property
    def holding(self) -> bool:
        """Whether the daemon asked to stop the imaging of the run."""
        return self._held_run == self._run != ""

    def start(self, info: RunInfo, *, cycle: int = 0) -> Parts:
        """Begin a run of which the cycles up to ``cycle`` were published before; returns the message to send."""
        self._info, self._run, self._cycle, self._ended, self.done = info, info.run, cycle, False, False
        self.ring = Ring(self._ring_limit)
        return encoded(RunStart(run=info.run, seq=self.next_seq(), info=info))

    def end_cycle(self, cycle: int) -> Parts:
        """End a cycle."""
        self._cycle = cycle
        return encoded(CycleEnd(run=self._run, seq=self.next_seq(), cycle=cycle))

    def end_run(self) -> Parts:
        """End the run."""
        self._ended = True
        return encoded(RunEnd(run=self._run, seq=self.next_seq()))

    def next_seq(self) -> int:
        """Take the next sequence number."""
        self._seq += 1
        return self._seq - 1

    def send(self, parts: Parts) -> bool:
        """Publish a message; False when the daemon takes no more for now."""
        try:
            self._frames.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def serve(self, timeout_ms: int) -> None:
        """Answer the requests that came, at most a batch; wait at most ``timeout_ms`` for the first one."""
        self.poller.poll(timeout_ms)
        for _ in range(BATCH):
            if not self._recovery.poll(0):
                break
            client, *parts = self._recovery.recv_multipart()
            self._heard_s = time.monotonic()
            try:
                request, _payload = decode(parts)
            except WireError:
                continue  # The protocol says that a message that is no request gets no answer.
            for answer in self._answers(request):
                # A client that has left, or does not read, gets no answer.
                self._recovery.send_multipart([client, *answer])
        while self._frames.poll(0):
            self.subscribed = self._frames.recv().startswith(b"\x01")

    def silent_s(self, since_s: float) -> float:
        """Seconds without a request, counted from ``since_s`` on the monotonic clock or from the last request."""
        return time.monotonic() - max(since_s, self._heard_s)

    def check_daemon(self, since_s: float, timeout_s: float) -> None:
        """Raise UnreachableError if the daemon was silent for longer than the timeout (:meth:`silent_s`)."""
        if self.silent_s(since_s) <= timeout_s:
            return
        state = "asked to hold" if self.holding else "takes no frames"
        reason = f"the daemon {state} and said nothing for {timeout_s:g} s; see its log and `seqd status`"
        if not self.subscribed:
            reason = f"no daemon subscribed within {timeout_s:g} s; start `seqd run` with the same addresses"
        raise UnreachableError(f"controller: {reason}")

    def close(self, *, linger_s: float) -> None:
        """Close the sockets; messages that were published are still sent for at most ``linger_s`` seconds."""
        self._opened.close()
        self.context.destroy(linger=int(linger_s * 1000))

    def _answers(self, request: Message) -> list[Parts]:
        """Act on a request; gives the messages to answer with."""
        match request:
            case Sync() if self._info is not None and not self.done:
                position = Position(run=self._run, seq=self._seq - 1, cycle=self._cycle, ended=self._ended)
                return [encoded(RunStart(run=self._run, seq=0, info=self._info)), encoded(position)]
            case Sync():
                return [encoded(Idle())]
            case Hold():
                # A daemon that knows the run from an earlier start of the controller may ask before the run starts.
                self._held_run = request.run
            case Release() if request.run == self._held_run:
                self._held_run = ""
            case Resend() if request.run == self._run:
                source = self.ring.source(
                    FrameKey(TileId(lane=request.lane, tile=request.tile), request.cycle, request.channel)
                )
                answer = encoded(Gone(**request.model_dump())) if source is None else source()
                return [] if answer is None else [answer]
            case Kept() if request.run == self._run:
                self.ring.forget(request.cycle)
            case Done() if request.run == self._run:
                self.done, self.ring, self._held_run = True, Ring(), ""
            case _:
                pass
        return []
