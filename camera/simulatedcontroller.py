"""The simulated imaging controller: it replays an archived run, with faults on request."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from seqd_client.controller.link import Link
from seqd_client.controller.session import ControllerSession, Parts
from seqd_client.errors import UnreachableError
from seqd_client.keys import ServerKeys
from seqd_client.runinfo import CHANNELS, RunInfo, TileId
from seqd_client.wire.codec import WireError, decode
from seqd_client.wire.messages import Resend

from camera.archive import Archive, HeldFrames
from camera.disturbance import Disturbance
from camera.faults import Faults

POLL_MS = 20
LEAVE_S = 1.0
"""Seconds that the last messages get to leave."""


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


class SimulatedController:
    """Publishes every frame of a run, cycle by cycle, tile by tile.

    It works in one thread, so that each fault happens where its seed says; instrument software uses
    :class:`seqd_client.Controller` on the same session and sockets.
    """

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
        self._disturbance, self._held = Disturbance(faults), HeldFrames(faults.ring)
        self._asked: Counter[int] = Counter()
        self._addresses = frames, recovery, keys
        self._session = ControllerSession(info, resent=self._resent, kept=self._release)
        self._heard_s = time.monotonic()
        self._link = Link(*self._addresses)

    def run(self, progress: Callable[[int], None]) -> None:
        """Publish the run and stay until the daemon is done; ``progress`` gets the number of tile images taken.

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
            if self._session.done:
                return
            if (image + 1) % tiles == 0:
                self._publish(self._session.end_cycle((image + 1) // tiles))
        self._publish(self._session.end_run())
        for parts in self._disturbance.flushed():
            self._publish(parts)
        self._heard_s = time.monotonic()
        while not self._session.done and time.monotonic() - self._heard_s < self._pace.linger_s:
            self._serve(POLL_MS)

    def __enter__(self) -> "SimulatedController":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.close(linger_s=LEAVE_S)

    def _start(self) -> None:
        """Wait for a daemon and declare the run to it."""
        self._wait_until(lambda: self._link.subscribed)
        self._publish(self._session.start())

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
            self._wait_until(lambda: not self._session.holding)
            t_ns = time.time_ns() + self._disturbance.clock_error_ns(frame)
            self._held.hold(frame, t_ns)
            parts = self._archive.frame(frame, seq=self._session.next_seq(), t_ns=t_ns)
            for message in self._disturbance.sent(frame, parts):
                self._publish(message)

    def _crash(self) -> None:
        """Die without a word, and come back after a while."""
        self._link.close(linger_s=0)
        self._disturbance.flushed()
        self._held.clear()
        time.sleep(self._faults.crash_s)
        self._session.power_up()
        self._link = Link(*self._addresses)
        self._start()

    def _publish(self, parts: Parts) -> None:
        self._wait_until(lambda: self._link.publish(parts))

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        """Answer requests until a condition holds, or the daemon is done.

        Raises
        ------
        UnreachableError : no daemon is there, or it says nothing.
        """
        since_s = time.monotonic()
        self._serve(0)
        while not self._session.done and not ready():
            limit_s = self._pace.stuck_s if self._link.subscribed else self._pace.wait_s
            if time.monotonic() - max(since_s, self._heard_s) > limit_s:
                raise UnreachableError(self._complaint(limit_s))
            self._serve(POLL_MS)

    def _complaint(self, limit_s: float) -> str:
        if not self._link.subscribed:
            return f"controller: no daemon subscribed within {limit_s:g} s; start `seqd run` with the same addresses"
        state = "asked to hold" if self._session.holding else "takes no frames"
        return f"controller: the daemon {state} and said nothing for {limit_s:g} s; see its log and `seqd status`"

    def _serve(self, timeout_ms: int) -> None:
        """Answer the requests that came; waits so long for the first."""
        for sender, parts in self._link.requests(timeout_ms):
            self._heard_s = time.monotonic()
            try:
                request, _ = decode(parts)
            except WireError:
                continue  # not a daemon of this protocol: there is nothing to answer
            for answer in self._session.answers(request):
                self._link.answer(sender, answer)

    def _resent(self, request: Resend) -> Parts | None:
        """The frame that is asked for, None when it is gone, an empty message when the answer is to be lost."""
        tile = TileId(lane=request.lane, tile=request.tile)
        number = self._archive.number(tile, request.cycle, request.channel)
        exposed_ns = None if number is None else self._held.exposed_ns(number)
        if number is None or exposed_ns is None:
            return None
        frame = self._archive.frame(number, seq=0, t_ns=exposed_ns)
        if frame is None:
            return None
        self._asked[number] += 1
        return [] if self._disturbance.resend_lost(number, self._asked[number] - 1) else frame

    def _release(self, cycle: int) -> None:
        """The daemon has kept the cycles up to this one."""
        self._held.release(before=self._archive.first_of_cycle(cycle + 1))
