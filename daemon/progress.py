"""The counters behind the status; every thread may use them."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

from calib.runfolder import TileId
from daemon.ledger import CycleStatus
from daemon.status import EngineStatus, FitStatus, RunState, Status


class Progress:
    """The counters of the daemon; every thread may use it."""

    def __init__(self, version: str) -> None:
        self._lock = threading.Lock()
        self._status = Status(version=version)
        self._refused: Counter[str] = Counter()
        self._committed: dict[TileId, int] = {}
        self._since = time.monotonic()
        self._committed_here = 0
        self._busy_s: Callable[[], float] = lambda: 0.0
        self._busy_before = 0.0
        self._heard = time.monotonic()
        self._marks = 0
        self._working = False

    def start_run(
        self,
        *,
        run: str,
        cycles: int,
        committed: Mapping[TileId, int],
        totals: Mapping[CycleStatus, int],
        clusters: int,
        passing_filter: int,
        fastq_files: int,
    ) -> None:
        """Begin a run, or take it up where the ledger ends.

        Parameters
        ----------
        committed : last committed cycle of every tile of the run.
        """
        with self._lock:
            version = self._status.version
            self._status = Status(version=version, state=RunState.RUNNING, run=run, cycles=cycles)
            self._refused.clear()
            self._committed = dict(committed)
            self._status.clusters, self._status.passing_filter = clusters, passing_filter
            self._status.fastq_files = fastq_files
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
        busy_s : seconds in which it had a tile to compute, ever growing.
        """
        with self._lock:
            self._status.engine, self._status.fit = engine, fit
            self._busy_s, self._busy_before = busy_s, busy_s()

    def set_state(self, state: RunState, reason: str = "") -> None:
        """Change the state."""
        with self._lock:
            self._status.state, self._status.reason = state, reason

    def heard(self) -> None:
        """A message of the controller came."""
        self._heard = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the controller was last heard."""
        return time.monotonic() - self._heard

    def frame(self, outcome: str) -> None:
        """Count a frame: ``accepted``, ``duplicate``, ``late``, ``gone``, ``resend_requested``."""
        with self._lock:
            setattr(self._status.frames, outcome, getattr(self._status.frames, outcome) + 1)

    def gap(self, messages: int) -> None:
        """Count sequence numbers that were skipped."""
        with self._lock:
            self._status.frames.gaps += messages

    def refused(self, reason: str) -> None:
        """Count a message that was refused."""
        with self._lock:
            self._refused[reason] += 1

    def received(self) -> None:
        """A tile-cycle left the assembler."""
        with self._lock:
            self._status.tile_cycles.received += 1

    def committed(self, tile: TileId, cycle: int, status: CycleStatus) -> None:
        """A tile-cycle was committed."""
        with self._lock:
            counts = self._status.tile_cycles
            setattr(counts, status.value, getattr(counts, status.value) + 1)
            self._committed[tile] = cycle
            self._committed_here += 1
            self._marks += 1

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

    def fastq_written(self) -> None:
        """A FASTQ file is in place."""
        with self._lock:
            self._status.fastq_files += 1
            self._marks += 1

    def stream_dropped(self) -> None:
        """A message could not be queued for the stream."""
        with self._lock:
            self._status.stream_dropped += 1

    def lag(self, *, newest_cycle: int, held_bytes: int, holding: bool) -> None:
        """Say how far the controller is and what is held."""
        with self._lock:
            lag = self._status.lag
            cycle = min(self._committed.values(), default=0)
            lag.cycles, lag.bytes, lag.holding = max(0, newest_cycle - cycle), held_bytes, holding

    def worked(self) -> None:
        """A piece of work is done that is not committed yet."""
        with self._lock:
            self._marks += 1

    def set_working(self, working: bool) -> None:
        """Say whether the caller has anything to do."""
        self._working = working

    @property
    def working(self) -> bool:
        """Whether the caller has anything to do."""
        return self._working

    @property
    def marks(self) -> int:
        """Grows with every piece of work that is finished; a watchdog compares it."""
        return self._marks

    def snapshot(self) -> Status:
        """A consistent copy."""
        with self._lock:
            status = self._status.model_copy(deep=True)
            counts = status.tile_cycles
            counts.pending = counts.received - counts.called - counts.missing - counts.failed
            status.frames.refused = dict(sorted(self._refused.items()))
            status.lag.tile_cycles = counts.pending
            status.lag.silent_s = round(self.silent_s, 1)
            status.cycle = min(self._committed.values(), default=0)
            elapsed = time.monotonic() - self._since
            if status.engine is not None and elapsed > 0:
                status.engine.busy = round((self._busy_s() - self._busy_before) / elapsed, 3)
            status.tile_cycles_per_s = round(self._committed_here / elapsed, 3) if elapsed > 0 else 0.0
            return status
