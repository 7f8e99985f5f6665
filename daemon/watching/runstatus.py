"""The status of the daemon: the state of its run, put together with counters, liveness and troubles."""

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping

from seqd_client.runinfo import TileId
from seqd_client.status import (
    ENDED,
    CycleStatus,
    DiskStatus,
    EngineStatus,
    FitStatus,
    Lag,
    Phase,
    RunState,
    SpoolStatus,
    Status,
    StopReason,
)

from daemon.watching.counters import Counters
from daemon.watching.liveness import Liveness
from daemon.watching.troubles import Troubles


class RunStatus:
    """The state of the daemon and its run; any thread may use it.

    Attributes
    ----------
    counters, liveness, troubles : the parts of the status that the stages of a run report to.
    """

    def __init__(self, version: str, *, stalled_after_s: float = math.inf) -> None:
        """
        Parameters
        ----------
        stalled_after_s : see :class:`Liveness`.
        """
        self.counters, self.troubles = Counters(), Troubles()
        self.liveness = Liveness(stalled_after_s=stalled_after_s)
        self._lock = threading.Lock()
        self._status = Status(version=version)
        self._begun = time.monotonic()
        self._busy_s: Callable[[], float] = lambda: 0.0

    def name_run(self, run: str) -> None:
        """Set the run that the daemon opens; its numbers are unknown before :meth:`start_run`."""
        with self._lock:
            self._status = Status(version=self._status.version, state=RunState.RUNNING, run=run)
            self.counters.reset()

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
        """Start or continue the named run; the arguments are described at :meth:`Counters.begin`."""
        with self._lock:
            self._status.cycles, self._begun = cycles, time.monotonic()
            self.counters.begin(
                expected=cycles * len(committed),
                committed=committed,
                totals=totals,
                clusters=clusters,
                passing_filter=passing_filter,
                spooled=spooled,
            )

    def set_engine(self, engine: EngineStatus, fit: FitStatus, busy_s: Callable[[], float]) -> None:
        """Set the engine in use, and the device that fits cycles.

        Parameters
        ----------
        busy_s : a function that returns the seconds in which an engine had a tile to compute, since the run started.
        """
        with self._lock:
            self._status.engine, self._status.fit, self._busy_s = engine, fit, busy_s

    def set_state(self, state: RunState, stop: StopReason | None = None, reason: str = "") -> None:
        """Change the state; a state of ``ENDED`` comes with its stop reason."""
        with self._lock:
            self._status.state, self._status.stop_reason, self._status.reason = state, stop, reason
            if state in ENDED:
                self.troubles.clear()

    def set_lag(self, *, newest_cycle: int, lag: Lag, spool: SpoolStatus, disk: DiskStatus) -> None:
        """Set how far the controller is, what memory, spool and disk hold, and when they will be full."""
        with self._lock:
            lag.cycles = max(0, newest_cycle - self.counters.committed_by_all)
            self._status.lag, self._status.spool, self._status.disk = lag, spool, disk

    def committed_cycles(self) -> tuple[str, dict[TileId, int]]:
        """The newest run, and the last committed cycle of each of its tiles."""
        with self._lock:
            return self._status.run, self.counters.committed_cycles()

    def snapshot(self) -> Status:
        """A consistent copy of the whole status."""
        with self._lock:
            status = self._status.model_copy(deep=True)
            self.counters.put_into(status)
            status.lag.silent_s = round(self.liveness.silent_s, 1)
            status.stalled_s = round(self.liveness.stalled_s, 1)
            status.troubles = self.troubles.listed()
            status.phase = self._phase(status) if status.state is RunState.RUNNING else None
            elapsed = time.monotonic() - self._begun
            if status.engine is not None and elapsed > 0:
                status.engine.busy = round(self._busy_s() / elapsed, 3)
            return status

    def _phase(self, status: Status) -> Phase:
        """The first of the phases, in the order of :class:`Phase`, that apply to the run."""
        present = {trouble.phase for trouble in status.troubles}
        present |= {Phase.HOLDING} if status.lag.holding else set()
        present |= {Phase.STALLED} if self.liveness.stalled else set()
        present |= {Phase.CATCHING_UP} if status.spool.images else set()
        return next((phase for phase in Phase if phase in present), Phase.CALLING)
