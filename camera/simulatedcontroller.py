"""The simulated imaging controller: it publishes an archived run, with faults, and answers the daemon."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from seqd_client.keys import ServerKeys
from seqd_client.publisher import Parts, Publisher
from seqd_client.runinfo import CHANNELS, RunInfo

from camera.archive import Archive
from camera.faultdraws import FaultDraws
from camera.faults import Faults

POLL_MS = 20
LINGER_S = 1.0
"""Seconds in which the last messages can still be sent when the controller is closed."""


@dataclass(frozen=True)
class Pace:
    """How the controller behaves in time."""

    tile_s: float = 0.0
    """Seconds between tile images; 0 publishes them as fast as the daemon takes them."""
    wait_s: float = 60.0
    """Seconds to wait for a daemon to subscribe."""
    no_progress_s: float = 900.0
    """Seconds to wait for a daemon that has subscribed, if it sends nothing after a hold or takes no frames. The daemon
    may be building an engine plan."""
    linger_s: float = 60.0
    """Seconds without a request of the daemon after which the controller ends, once it has published the run."""


class SimulatedController:
    """Publishes every frame of a run, cycle by cycle, tile by tile.

    It owns a :class:`Publisher`, not a ``seqd_client.Controller``: while a fault makes it pause or crash, no thread may
    answer for it. Frames that are sent again are read from the archive again.
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
        self._draws = FaultDraws(faults)
        self._asked: Counter[int] = Counter()
        self._cycle = 0
        self._power_up = partial(Publisher, frames, recovery, keys=keys, ring_limit=faults.ring)
        self._publisher = self._power_up()

    def run(self, progress: Callable[[int], None]) -> None:
        """Publish the run and answer until the daemon is done; ``progress`` gets the number of tile images taken.

        Raises
        ------
        UnreachableError : no daemon subscribed, or it was silent for too long.
        RunFolderError : an image is not a frame.
        """
        self._start()
        tiles = len(self._info.tiles)
        for image in range(self._info.cycles * tiles):
            self._take_image(image)
            progress(image + 1)
            if self._publisher.done:
                return
            if (image + 1) % tiles == 0:
                self._cycle += 1
                self._send(self._publisher.end_cycle(self._cycle))
        self._send(self._publisher.end_run())
        for parts in self._draws.take_held_back():
            self._send(parts)
        ended_s = time.monotonic()
        while not self._publisher.done and self._publisher.silent_s(ended_s) < self._pace.linger_s:
            self._publisher.serve(POLL_MS)

    def __enter__(self) -> "SimulatedController":
        return self

    def __exit__(self, *_: object) -> None:
        self._publisher.close(linger_s=LINGER_S)

    def _start(self) -> None:
        """Wait for a daemon and start the run, from the cycle that was reached."""
        self._wait_until(lambda: self._publisher.subscribed)
        self._send(self._publisher.start(self._info, cycle=self._cycle))

    def _take_image(self, image: int) -> None:
        """Wait until a tile image is due, and publish its frames."""
        due_s = time.monotonic() + self._pace.tile_s
        while (left_s := due_s - time.monotonic()) > 0:
            self._publisher.serve(min(POLL_MS, int(left_s * 1000)))
        if self._draws.pauses(image):
            time.sleep(self._faults.pause_s)
        frames = range(image * len(CHANNELS), (image + 1) * len(CHANNELS))
        crash = self._draws.crash(image)
        if crash is not None:
            self._expose(frames[: crash.after])
            if self._publisher.done:
                return
            self._crash()
            if crash.skip:
                return
        self._expose(frames)

    def _expose(self, frames: Iterable[int]) -> None:
        for frame in frames:
            self._wait_until(lambda: not self._publisher.holding)
            t_ns = time.time_ns() + self._draws.clock_error_ns(frame)
            parts = self._archive.frame(frame, seq=self._publisher.next_seq(), t_ns=t_ns)
            if parts is not None:
                self._publisher.ring.keep(self._archive.key(frame), partial(self._read_for_resend, frame, t_ns))
            for message in self._draws.sent(frame, parts):
                self._send(message)

    def _read_for_resend(self, frame: int, t_ns: int) -> Parts | None:
        """Read a frame to be sent again; None when the answer is to be lost."""
        self._asked[frame] += 1
        lost = self._draws.resend_lost(frame, self._asked[frame] - 1)
        return None if lost else self._archive.frame(frame, seq=0, t_ns=t_ns)

    def _crash(self) -> None:
        """Close the sockets without a message, forget everything except the place in the run, and start again."""
        self._publisher.close(linger_s=0)
        self._draws.take_held_back()
        time.sleep(self._faults.crash_s)
        self._publisher = self._power_up()
        self._start()

    def _send(self, parts: Parts) -> None:
        self._wait_until(lambda: self._publisher.send(parts))

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        """Answer requests until a condition holds or the daemon is done.

        Raises
        ------
        UnreachableError : no daemon subscribed, or it was silent for too long.
        """
        since_s = time.monotonic()
        self._publisher.serve(0)
        while not self._publisher.done and not ready():
            timeout_s = self._pace.no_progress_s if self._publisher.subscribed else self._pace.wait_s
            self._publisher.check_daemon(since_s, timeout_s)
            self._publisher.serve(POLL_MS)
