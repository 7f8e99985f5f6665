"""The simulated imaging controller: publishes an archived run, answers on the recovery socket."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from seqd_client.errors import UnreachableError
from seqd_client.keys import ServerKeys
from seqd_client.runinfo import CHANNELS, RunInfo, TileId
from seqd_client.wire.codec import WireError, decode, encode
from seqd_client.wire.messages import (
    CycleEnd,
    Done,
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

from camera.archive import Archive
from camera.disturbance import Disturbance
from camera.faults import Faults
from camera.link import Link
from camera.ring import Ring

POLL_MS = 20
LEAVE_S = 1.0
"""Time that the last messages get to leave."""


@dataclass(frozen=True)
class Pace:
    """How the controller behaves in time."""

    tile_s: float = 0.0
    """Seconds between tile images; 0 is as fast as the daemon takes them."""
    wait_s: float = 60.0
    """Seconds to wait for a daemon to subscribe."""
    stuck_s: float = 900.0
    """Seconds to wait for a daemon that has subscribed, but takes nothing or holds, and says nothing; it may be
    building an engine plan."""
    linger_s: float = 60.0
    """Seconds to stay after the last frame without hearing from the daemon."""


class Controller:
    """Publishes every frame of a run, cycle by cycle, tile by tile."""

    def __init__(
        self,
        root: Path,
        info: RunInfo,
        *,
        frames: str,
        recovery: str,
        pace: Pace,
        faults: Faults,
        keys: ServerKeys | None = None,
    ) -> None:
        self._archive, self._info, self._pace, self._faults = Archive(root, info), info, pace, faults
        self._disturbance, self._ring = Disturbance(faults), Ring(faults.ring)
        self._asked: Counter[int] = Counter()
        self._addresses = frames, recovery, keys
        self._cycle, self._ended, self._done = 0, False, False
        self._heard_s = time.monotonic()
        self._power_up()

    def run(self, progress: Callable[[int], None]) -> None:
        """Publish the run and stay until the daemon is done; ``progress`` gets the tile images taken.

        Raises
        ------
        UnreachableError : no daemon came, or it stays away.
        RunFolderError : an image is not a frame.
        """
        self._start()
        tiles = len(self._info.tiles)
        for image in range(self._info.cycles * tiles):
            self._take(image)
            progress(image + 1)
            if self._done:
                return
            if (image + 1) % tiles == 0:
                self._cycle += 1
                self._publish(self._numbered(CycleEnd(run=self._info.run, seq=self._seq, cycle=self._cycle)))
        self._ended = True
        self._publish(self._numbered(RunEnd(run=self._info.run, seq=self._seq)))
        for parts in self._disturbance.flushed():
            self._publish(parts)
        self._heard_s = time.monotonic()
        while not self._done and time.monotonic() - self._heard_s < self._pace.linger_s:
            self._serve(POLL_MS)

    def __enter__(self) -> "Controller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.close(linger_s=LEAVE_S)

    def _power_up(self) -> None:
        """What a controller knows when its process begins: which image is next, but nothing of earlier ones."""
        self._link = Link(*self._addresses)
        self._seq, self._started, self._holding = 0, False, False

    def _start(self) -> None:
        """Wait for a daemon and tell it of the run."""
        self._wait_until(lambda: self._link.subscribed)
        self._started = True
        self._publish(self._numbered(RunStart(run=self._info.run, seq=self._seq, info=self._info)))

    def _take(self, image: int) -> None:
        """Take a tile image, and publish its frames."""
        moment_s = time.monotonic() + self._pace.tile_s
        while (left_s := moment_s - time.monotonic()) > 0:
            self._serve(min(POLL_MS, int(left_s * 1000)))
        if self._disturbance.pauses(image):
            time.sleep(self._faults.pause_s)
        frames = range(image * len(CHANNELS), (image + 1) * len(CHANNELS))
        crash = self._disturbance.crash(image)
        if crash is not None:
            self._expose(frames[: crash.after])
            self._crash()
            if crash.skip:
                return
        self._expose(frames)

    def _expose(self, frames: Iterable[int]) -> None:
        for frame in frames:
            self._wait_until(lambda: not self._holding)
            t_ns = time.time_ns() + self._disturbance.clock_error_ns(frame)
            self._ring.hold(frame, t_ns)
            parts = self._archive.frame(frame, seq=self._seq, t_ns=t_ns)
            self._seq += 1
            for message in self._disturbance.sent(frame, parts):
                self._publish(message)

    def _crash(self) -> None:
        """Die without a word, and come back after a while."""
        self._link.close(linger_s=0)
        self._disturbance.flushed()
        self._ring.clear()
        time.sleep(self._faults.crash_s)
        self._power_up()
        self._start()

    def _numbered(self, message: Message) -> list[bytes]:
        self._seq += 1
        return [bytes(part) for part in encode(message)]

    def _publish(self, parts: list[bytes]) -> None:
        self._wait_until(lambda: self._link.publish(parts))

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        """Answer requests until something is so, or the daemon is done.

        Raises
        ------
        UnreachableError : no daemon is there, or it says nothing.
        """
        since_s = time.monotonic()
        self._serve(0)
        while not self._done and not ready():
            limit_s = self._pace.stuck_s if self._link.subscribed else self._pace.wait_s
            if time.monotonic() - max(since_s, self._heard_s) > limit_s:
                raise UnreachableError(self._complaint(limit_s))
            self._serve(POLL_MS)

    def _complaint(self, limit_s: float) -> str:
        if not self._link.subscribed:
            return f"controller: no daemon subscribed within {limit_s:g} s; start `seqd run` with the same addresses"
        state = "asked to hold" if self._holding else "takes no frames"
        return f"controller: the daemon {state} and said nothing for {limit_s:g} s; see its log and `seqd status`"

    def _serve(self, timeout_ms: int) -> None:
        """Answer what came on the recovery socket; waits at most so long for the first request."""
        for asker, parts in self._link.requests(timeout_ms):
            self._heard_s = time.monotonic()
            try:
                request, _ = decode(parts)
            except WireError:
                continue  # not a daemon of this protocol: nothing to answer
            for answer in self._answers(request):
                self._link.answer(asker, answer)

    def _answers(self, request: Message) -> list[list[bytes]]:
        run = self._info.run
        match request:
            case Sync() if not self._started:
                return [[bytes(part) for part in encode(Idle())]]
            case Sync():
                start = RunStart(run=run, seq=0, info=self._info)
                position = Position(run=run, seq=self._seq - 1, cycle=self._cycle, ended=self._ended)
                return [[bytes(part) for part in encode(message)] for message in (start, position)]
            case Resend() if self._started and request.run == run:
                return self._again(request)
            case Hold() if request.run == run:
                self._holding = True
            case Release() if request.run == run:
                self._holding = False
            case Kept() if request.run == run:
                self._ring.release(before=self._archive.first_of_cycle(request.cycle + 1))
            case Done() if request.run == run:
                self._done = True
            case _:
                pass
        return []

    def _again(self, request: Resend) -> list[list[bytes]]:
        """The frame asked for, or that it is gone; nothing when the answer is to be lost."""
        tile = TileId(lane=request.lane, tile=request.tile)
        number = self._archive.number(tile, request.cycle, request.channel)
        exposed_ns = None if number is None else self._ring.exposed_ns(number)
        if number is not None and exposed_ns is not None:
            frame = self._archive.frame(number, seq=0, t_ns=exposed_ns)
            if frame is not None:
                self._asked[number] += 1
                lost = self._disturbance.resend_lost(number, self._asked[number] - 1)
                return [] if lost else [frame]
        gone = Gone(run=request.run, lane=tile.lane, tile=tile.tile, cycle=request.cycle, channel=request.channel)
        return [[bytes(part) for part in encode(gone)]]
