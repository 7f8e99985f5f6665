"""The counters behind the status; every thread may use them."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from seqd_client.runinfo import CHANNELS, TileId
from seqd_client.status import (
    ENDED,
    CycleStatus,
    DiskStatus,
    EngineStatus,
    FitStatus,
    Lag,
    Phase,
    RunState,
    SinkStatus,
    SpoolStatus,
    Status,
    StopReason,
    Trouble,
)


class Progress:
    """The counters of the daemon; every thread may use it."""

    def __init__(self, version: str, *, stalled_after_s: float = math.inf) -> None:
        """
        Parameters
        ----------
        stalled_after_s : a daemon that has something to do and gets nothing done for so long is stalled.
        """
        self._stalled_after_s = stalled_after_s
        self._lock = threading.Lock()
        self._status = Status(version=version)
        self._refused: Counter[str] = Counter()
        self._shut_out: Counter[str] = Counter()
        self._requests_refused: Counter[str] = Counter()
        self._slowed = 0
        self._committed: dict[TileId, int] = {}
        self._since = time.monotonic()
        self._committed_here = 0
        self._busy_s: Callable[[], float] = lambda: 0.0
        self._heard = self._moved = time.monotonic()
        self._marks = 0
        self._working = False
        self._pending: set[tuple[TileId, int]] = set()
        self._frames: Counter[tuple[TileId, int]] = Counter()
        """Of tile-cycles that are not committed."""
        self._troubles: dict[tuple[str, int], tuple[Phase, str, float]] = {}
        """By what it is, and the thread that waits for it."""
        self._worker = 0
        """The thread that calls."""

    def take_up(self, run: str) -> None:
        """A run is known; nothing of it is yet."""
        with self._lock:
            self._status = Status(version=self._status.version, state=RunState.RUNNING, run=run)
            self._refused.clear()
            self._pending.clear()
            self._frames.clear()
            self._committed.clear()

    def start_run(
        self,
        *,
        cycles: int,
        committed: Mapping[TileId, int],
        totals: Mapping[CycleStatus, int],
        clusters: int,
        passing_filter: int,
        spooled: Collection[tuple[TileId, int]],
    ) -> None:
        """Begin the run that was taken up, or go on where its ledger ends.

        Parameters
        ----------
        committed : last committed cycle of every tile of the run.
        spooled : images that an earlier start left in the spool.
        """
        with self._lock:
            self._status.cycles = cycles
            self._frames = Counter({key: len(CHANNELS) for key in spooled})
            self._status.frames.restored = len(CHANNELS) * len(spooled)
            self._committed = dict(committed)
            self._status.clusters, self._status.passing_filter = clusters, passing_filter
            counts = self._status.tile_cycles
            counts.expected = cycles * len(committed)
            counts.called = totals[CycleStatus.CALLED]
            counts.missing = totals[CycleStatus.MISSING]
            counts.failed = totals[CycleStatus.FAILED]
            counts.received = sum(totals.values())
            self._since, self._committed_here = time.monotonic(), 0

    def set_engine(self, engine: EngineStatus, fit: FitStatus, busy_s: Callable[[], float]) -> None:
        """Say which engine is in use, and where cycles are fitted.

        Parameters
        ----------
        busy_s : seconds since the run was taken up in which an engine had a tile to compute.
        """
        with self._lock:
            self._status.engine, self._status.fit, self._busy_s = engine, fit, busy_s

    def set_state(self, state: RunState, stop: StopReason | None = None, reason: str = "") -> None:
        """Change the state; an ended run has a reason to have stopped."""
        with self._lock:
            self._status.state, self._status.stop_reason, self._status.reason = state, stop, reason
            if state in ENDED:
                self._troubles.clear()

    def trouble(self, what: str, phase: Phase, text: str) -> None:
        """Something hinders the run and is waited out."""
        with self._lock:
            key = what, threading.get_ident()
            since = self._troubles[key][2] if key in self._troubles else time.monotonic()
            self._troubles[key] = phase, text, since

    def over(self, what: str) -> None:
        """What hindered the run is over, for the thread that says so."""
        with self._lock:
            self._troubles.pop((what, threading.get_ident()), None)

    def heard(self) -> None:
        """A message of the controller came."""
        self._heard = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the controller was last heard."""
        return time.monotonic() - self._heard

    def frame(self, outcome: str, tile: TileId, cycle: int) -> None:
        """Count a frame that was not refused: ``accepted``, ``duplicate`` or ``late``."""
        with self._lock:
            self._status.frames.received += 1
            self._count(outcome)
            if outcome == "accepted":
                self._frames[tile, cycle] += 1

    def asked(self, outcome: str) -> None:
        """Count what became of asking for a frame again: ``resend_requested``, ``gone``."""
        with self._lock:
            self._count(outcome)

    def _count(self, outcome: str) -> None:
        setattr(self._status.frames, outcome, getattr(self._status.frames, outcome) + 1)

    def gap(self, messages: int) -> None:
        """Count sequence numbers that were skipped."""
        with self._lock:
            self._status.frames.gaps += messages

    def refused(self, reason: str) -> None:
        """Count a message that was refused."""
        with self._lock:
            self._refused[reason] += 1

    def shut_out(self, socket: str) -> None:
        """Count a connection that a socket refused."""
        with self._lock:
            self._shut_out[socket] += 1

    def request_refused(self, socket: str, reason: str) -> None:
        """Count a request of a client that was refused."""
        with self._lock:
            self._requests_refused[f"{socket}_{reason}"] += 1

    def slowed(self, requests: int) -> None:
        """Count requests that had to wait."""
        with self._lock:
            self._slowed += requests

    def received(self, tile: TileId, cycle: int) -> None:
        """A tile-cycle left the assembler."""
        with self._lock:
            self._status.tile_cycles.received += 1
            self._pending.add((tile, cycle))

    def committed(self, tile: TileId, cycle: int, status: CycleStatus, *, frames: int) -> None:
        """A tile-cycle was committed, made from so many frames."""
        with self._lock:
            counts = self._status.tile_cycles
            setattr(counts, status.value, getattr(counts, status.value) + 1)
            self._pending.discard((tile, cycle))
            self._frames.pop((tile, cycle), None)
            self._status.frames.committed += frames
            self._committed[tile] = cycle
            self._committed_here += 1
            self._mark()

    def last_committed(self, tile: TileId) -> int:
        """Last committed cycle of a tile, 0 if there is none."""
        with self._lock:
            return self._committed.get(tile, 0)

    def committed_cycles(self) -> tuple[str, dict[TileId, int]]:
        """The run, and the last committed cycle of each of its tiles."""
        with self._lock:
            return self._status.run, dict(self._committed)

    def template(self, clusters: int) -> None:
        """A template stands."""
        with self._lock:
            self._status.clusters += clusters

    def filtered(self, passing: int) -> None:
        """It is known how many clusters of a tile pass the filter."""
        with self._lock:
            self._status.passing_filter += passing

    def sink_written(self, name: str, files: int) -> None:
        """A tile-cycle is in so many more files of a sink, or in none."""
        with self._lock:
            self._status.sinks.setdefault(name, SinkStatus()).files += files
            self._marks += 1

    def sink_behind(self, name: str, tile_cycles: int) -> None:
        """So many committed tile-cycles are not in a sink's files."""
        with self._lock:
            self._status.sinks.setdefault(name, SinkStatus()).behind = tile_cycles

    def stream_dropped(self) -> None:
        """A message could not be queued for the stream."""
        with self._lock:
            self._status.stream_dropped += 1

    def lag(self, *, newest_cycle: int, lag: Lag, spool: SpoolStatus, disk: DiskStatus) -> None:
        """Say how far the controller is, what is held where, and what will be full when."""
        with self._lock:
            lag.cycles = max(0, newest_cycle - min(self._committed.values(), default=0))
            self._status.lag, self._status.spool, self._status.disk = lag, spool, disk

    def worked(self) -> None:
        """A piece of work is done that is not committed yet."""
        with self._lock:
            self._mark()

    def _mark(self) -> None:
        self._marks += 1
        self._moved = time.monotonic()

    def waited(self) -> None:
        """A thread waits with a reason; that of the one that works is no stall."""
        with self._lock:
            self._marks += 1
            if threading.get_ident() == self._worker:
                self._moved = time.monotonic()

    def set_working(self, working: bool) -> None:
        """Say whether there is anything to do; said by the thread that does it."""
        self._worker = threading.get_ident()
        if working and not self._working:
            self._moved = time.monotonic()
        self._working = working

    @property
    def stalled_s(self) -> float:
        """Seconds since anything got done, while there is something to do."""
        return time.monotonic() - self._moved if self._working else 0.0

    @property
    def stalled(self) -> bool:
        """Whether nothing gets done any longer."""
        return self.stalled_s >= self._stalled_after_s

    @property
    def marks(self) -> int:
        """Grows with every piece of work that is finished."""
        return self._marks

    def snapshot(self) -> Status:
        """A consistent copy."""
        with self._lock:
            status = self._status.model_copy(deep=True)
            now = time.monotonic()
            counts, frames, lag = status.tile_cycles, status.frames, status.lag
            counts.pending = lag.tile_cycles = len(self._pending)
            counts.balanced = counts.received == counts.called + counts.missing + counts.failed + counts.pending
            frames.refused = dict(sorted(self._refused.items()))
            frames.received += self._refused.total()
            frames.pending = self._frames.total()
            frames.balanced = frames.accepted + frames.restored == frames.committed + frames.pending
            status.shut_out, status.slowed = dict(sorted(self._shut_out.items())), self._slowed
            status.requests_refused = dict(sorted(self._requests_refused.items()))
            lag.silent_s = round(self.silent_s, 1)
            status.stalled_s = round(self.stalled_s, 1)
            status.cycle = min(self._committed.values(), default=0)
            status.troubles = [
                Trouble(what=what, phase=phase, text=text, since_s=round(now - since, 1))
                for (what, _), (phase, text, since) in self._troubles.items()
            ]
            status.phase = self._phase(status) if status.state is RunState.RUNNING else None
            elapsed = now - self._since
            if status.engine is not None and elapsed > 0:
                status.engine.busy = round(self._busy_s() / elapsed, 3)
            status.tile_cycles_per_s = round(self._committed_here / elapsed, 3) if elapsed > 0 else 0.0
            return status

    def _phase(self, status: Status) -> Phase:
        """The first of all that hold."""
        holding = {trouble.phase for trouble in status.troubles}
        holding |= {Phase.HOLDING} if status.lag.holding else set()
        holding |= {Phase.STALLED} if self.stalled else set()
        holding |= {Phase.CATCHING_UP} if status.spool.images else set()
        return next((phase for phase in Phase if phase in holding), Phase.CALLING)
