"""What an imaging controller says and answers about one run; no sockets, no threads and no clock."""

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from seqd_client.errors import PublishError
from seqd_client.runinfo import CHANNELS, Channel, RunInfo, TileId
from seqd_client.wire.codec import encode
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

Parts = list[bytes]
"""A message as it is sent: topic, header, payload."""


def encoded(message: Message, payload: bytes = b"") -> Parts:
    """The parts of a message."""
    return [bytes(part) for part in encode(message, payload)]


def frame_of(
    run: str, tile: TileId, cycle: int, channel: Channel, image: NDArray[np.uint16], *, t_ns: int
) -> tuple[Frame, bytes]:
    """A frame as an answer to ``resend``, and its payload.

    Parameters
    ----------
    image : (H, W) uint16.
    t_ns : time of exposure, nanoseconds since 1970.

    Raises
    ------
    PublishError : the image has another type or shape, or a side that no frame may have.
    """
    what = f"tile {tile}, cycle {cycle}, channel {channel}"
    if image.ndim != 2 or image.dtype != np.uint16:
        raise PublishError(
            f"{what}: the image is {image.ndim}-dimensional {image.dtype}, a frame is 2-dimensional uint16"
        )
    payload = image.astype("<u2").tobytes()
    try:
        frame = Frame(
            run=run,
            seq=0,
            lane=tile.lane,
            tile=tile.tile,
            cycle=cycle,
            channel=channel,
            height=image.shape[0],
            width=image.shape[1],
            t_ns=t_ns,
            crc32=zlib.crc32(payload),
        )
    except ValidationError as error:
        size = f"{image.shape[0]}×{image.shape[1]} px"
        raise PublishError(f"{what}: the image is {size}, a side has 8 to 16384") from error
    return frame, payload


class ControllerSession:
    """Numbers the messages of one run, and answers the daemon's requests.

    Parameters
    ----------
    info : the run.
    resent : returns the frame that a ``resend`` asks for, without a number; None when the controller no longer holds
        it, and an empty list when the daemon gets no answer.
    kept : takes the cycle up to which the controller need hold nothing.
    """

    def __init__(self, info: RunInfo, *, resent: Callable[[Resend], Parts | None], kept: Callable[[int], None]) -> None:
        self.info = info
        self._resent, self._kept = resent, kept
        self._seq, self._cycle, self._ended, self._started = 0, 0, False, False
        self.holding = False
        """Whether the daemon asked to hold the flow cell."""
        self.done = False
        """Whether the daemon needs nothing more of the run."""

    def power_up(self) -> None:
        """Forget what a controller does not know after it was restarted: its numbers, and the hold."""
        self._seq, self._started, self.holding = 0, False, False

    def start(self) -> Parts:
        """Declare the run."""
        self._started = True
        return encoded(RunStart(run=self.info.run, seq=self.next_seq(), info=self.info))

    def next_seq(self) -> int:
        """The number of the next message."""
        self._seq += 1
        return self._seq - 1

    def end_cycle(self, cycle: int) -> Parts:
        """Say that all frames of a 1-based cycle were published."""
        self._cycle = cycle
        return encoded(CycleEnd(run=self.info.run, seq=self.next_seq(), cycle=cycle))

    def end_run(self) -> Parts:
        """Say that all frames of the run were published."""
        self._ended = True
        return encoded(RunEnd(run=self.info.run, seq=self.next_seq()))

    def answers(self, request: Message) -> list[Parts]:
        """The answers to a request of the daemon; none to a message about another run."""
        run = self.info.run
        match request:
            case Sync() if not self._started:
                return [encoded(Idle())]
            case Sync():
                position = Position(run=run, seq=self._seq - 1, cycle=self._cycle, ended=self._ended)
                return [encoded(RunStart(run=run, seq=0, info=self.info)), encoded(position)]
            case Resend() if self._started and request.run == run:
                return self._resend(request)
            case Hold() if request.run == run:
                self.holding = True
            case Release() if request.run == run:
                self.holding = False
            case Kept() if request.run == run:
                self._kept(request.cycle)
            case Done() if request.run == run:
                self.done = True
        return []

    def _resend(self, request: Resend) -> list[Parts]:
        frame = self._resent(request)
        if frame is not None:
            return [frame] if frame else []
        asked = {name: getattr(request, name) for name in ("run", "lane", "tile", "cycle", "channel")}
        return [encoded(Gone.model_validate(asked))]


def answers_to(request: Message, session: ControllerSession | None) -> list[Parts]:
    """The answers of a controller that may have no run yet."""
    if session is not None:
        return session.answers(request)
    return [encoded(Idle())] if isinstance(request, Sync) else []


def check_declared(info: RunInfo, tile: TileId, cycle: int, channel: str, shape: tuple[int, ...]) -> None:
    """Check that a run declares a frame.

    Raises
    ------
    PublishError : the run declares another tile, cycle, channel or size.
    """
    what = f"tile {tile}, cycle {cycle}, channel {channel}"
    if tile not in info.tiles:
        raise PublishError(f"{what}: run {info.run} does not declare the tile")
    if not 1 <= cycle <= info.cycles:
        raise PublishError(f"{what}: run {info.run} declares cycles 1 to {info.cycles}")
    if channel not in CHANNELS:
        raise PublishError(f"{what}: the channels are {', '.join(CHANNELS)}")
    if shape != (info.height, info.width):
        size = "×".join(map(str, shape))
        raise PublishError(f"{what}: the image is {size} px, run {info.run} declares {info.height}×{info.width}")
