"""The supervised engine: it is closed and opened again when it fails, or another engine takes its place."""

import time
from collections.abc import Callable

import structlog
from seqd_client.errors import SeqdError, first_line
from seqd_client.status import Phase

from calib.jointfit.fitdevice import FitDevice
from daemon.calling.enginechoice import EngineChoice
from daemon.config import FaultsConfig
from daemon.watching.liveness import SLICE_S, Liveness
from daemon.watching.troubles import Troubles
from daemon.worker import Worker
from engines.contract import Engine
from engines.errors import EngineError, EngineLostError

FAULTS = (EngineError, EngineLostError, MemoryError)
"""The engine is opened again after these errors."""

CLOSE_S = 5.0
"""Longest time to close an engine. After it the engine counts as hanging, and its threads are left running."""

OPEN_S = 1800.0
"""Longest time to open an engine. After it the engine counts as hanging. The steps of opening, such as the check with
the bundle's golden tile, have shorter limits of their own."""

MAX_BACKOFF_S = 600.0
"""Longest pause between two attempts to open the engine."""

log = structlog.get_logger()


class SupervisedEngine:
    """The engine of a run, for one thread.

    Parameters
    ----------
    chosen : the open engine; :meth:`close` closes it.
    open_again : opens the same engine again.
    open_fallback : opens the fallback engine.
    fallback_reason : why ``chosen`` is the fallback engine; empty if it is the configured engine. No other engine can
        replace the fallback.
    engine_changed : is called with this object after another engine was opened, before that engine computes a tile.
    announce : takes the level and the text of an event.
    stopping : whether the daemon was asked to stop; then no engine is opened any more.
    """

    def __init__(
        self,
        chosen: EngineChoice,
        open_again: Callable[[], EngineChoice],
        open_fallback: Callable[[], EngineChoice],
        *,
        fallback_reason: str,
        engine_changed: Callable[["SupervisedEngine"], None],
        faults: FaultsConfig,
        troubles: Troubles,
        liveness: Liveness,
        announce: Callable[[str, str], None],
        stopping: Callable[[], bool],
    ) -> None:
        self.chosen, self.fallback_reason, self.restarts = chosen, fallback_reason, 0
        self._open_again, self._open_fallback, self._engine_changed = open_again, open_fallback, engine_changed
        self._may_fall_back = faults.fallback != "none" and not fallback_reason
        self._faults, self._announce, self._stopping = faults, announce, stopping
        self._troubles, self._liveness = troubles, liveness
        self._open = True
        self._busy_before = (-self.current.busy_s, self.current)

    @property
    def current(self) -> Engine:
        """The engine that computes tiles now."""
        return self.chosen.selection.engine

    @property
    def fit_device(self) -> FitDevice:
        """The device that fits cycles."""
        return self.chosen.fit_device

    @property
    def busy_s(self) -> float:
        """Seconds in which an engine had a tile to compute: the sum over all engines since the start."""
        before, engine = self._busy_before
        return before + engine.busy_s

    def restart(self, error: BaseException) -> None:
        """Open the engine again after it failed, or the fallback where it cannot be opened.

        Raises
        ------
        EngineLostError : no engine was opened, because none can be or the daemon is stopping; ``error`` is an
            EngineLostError.
        EngineError : no engine was opened for the same reasons; ``error`` is another error.
        """
        self._report_failure(f"engine failed: {error_text(error)}", "it is opened again")
        self.close()
        pause_s, text = self._faults.engine_backoff_s, error_text(error)
        for attempt in range(self._faults.engine_restarts):
            if attempt:
                self._liveness.wait(pause_s, self._stopping)
                pause_s = min(2 * pause_s, MAX_BACKOFF_S)
            self._raise_if_stopping(error, text)
            try:
                chosen = self._open_in_time(self._open_the_same, error)
            except (SeqdError, OSError, MemoryError) as failure:
                self._raise_if_stopping(error, text)
                text = f"{error_text(error)}; not opened again: {error_text(failure)}"
                log.error("engine not opened again", attempt=attempt + 1, error=error_text(failure))
                self._troubles.begin("engine", Phase.ENGINE_RESTARTING, text)
            else:
                self._switch_to(chosen)
                return
        self._fall_back(error, text)

    def replace(self, error: BaseException) -> None:
        """Open the fallback in place of an engine that opens but cannot compute.

        Raises
        ------
        EngineLostError : the fallback was not opened, because it is not allowed or cannot be; ``error`` is an
            EngineLostError.
        EngineError : the fallback was not opened for the same reasons; ``error`` is another error.
        """
        self._report_failure(f"engine is useless: {error_text(error)}", "the fallback replaces it if that is allowed")
        self.close()
        self._fall_back(error, error_text(error))

    def close(self) -> None:
        """Close the engine; the threads of an engine that hangs are left running."""
        if not self._open:
            return
        self._open = False
        closing = Worker("engine-closing", self.current.close)
        if self._ends_in_time(closing, CLOSE_S):
            closing.check()
        else:
            log.error("engine left running", reason=f"not closed after {CLOSE_S:g} s")

    def _fall_back(self, error: BaseException, text: str) -> None:
        """Open the fallback; ``text`` says why the engine cannot be used."""
        if not self._may_fall_back:
            self._troubles.end("engine")
            raise _error_of_same_kind(error, text)
        self._may_fall_back = False
        try:
            chosen = self._open_in_time(self._open_fallback, error)
        except (SeqdError, OSError, MemoryError) as failure:
            self._troubles.end("engine")
            raise _error_of_same_kind(
                error, f"{text}; the fallback does not open either: {error_text(failure)}"
            ) from failure
        self._open_again = self._open_fallback
        if chosen.facts != self.chosen.facts:
            self.fallback_reason = text
        self._switch_to(chosen)

    def _open_the_same(self) -> EngineChoice:
        chosen, facts = self._open_again(), self.chosen.facts
        if other := {name: value for name, value in chosen.facts.items() if value != facts[name]}:
            chosen.selection.engine.close()
            raise EngineError(f"engine {self.current.info.backend}: it differs from before, it has {other}")
        return chosen

    def _open_in_time(self, opens: Callable[[], EngineChoice], error: BaseException) -> EngineChoice:
        opened: list[EngineChoice] = []
        # The worker is a daemon thread, so a daemon that stops does not wait for an engine to open.
        opening = Worker("engine-opening", lambda: opened.append(opens()))
        if not self._ends_in_time(opening, OPEN_S, unless=self._stopping):
            raise _error_of_same_kind(error, f"not open after {OPEN_S:g} s")
        opening.check()
        return opened[0]

    def _switch_to(self, chosen: EngineChoice) -> None:
        """Compute tiles with an engine that was just opened."""
        engine = chosen.selection.engine
        self._busy_before = (self.busy_s - engine.busy_s, engine)
        self.chosen, self._open = chosen, True
        self.restarts += 1
        self._engine_changed(self)
        self._troubles.end("engine")
        info, fallback = engine.info, bool(self.fallback_reason)
        log.info(
            "engine open", backend=info.backend, precision=info.precision, restarts=self.restarts, fallback=fallback
        )
        text = f"engine open again: {info.backend} {info.precision}" + (" as fallback" if fallback else "")
        self._announce("warning" if fallback else "info", text)

    def _report_failure(self, text: str, reaction: str) -> None:
        self._troubles.begin("engine", Phase.ENGINE_RESTARTING, text)
        log.error("engine failed", error=text)
        self._announce("error", f"{text}; {reaction}")

    def _raise_if_stopping(self, error: BaseException, text: str) -> None:
        if self._stopping():
            self._troubles.end("engine")
            raise _error_of_same_kind(error, f"{text}; asked to stop meanwhile")

    def _ends_in_time(self, worker: Worker, limit_s: float, unless: Callable[[], bool] = lambda: False) -> bool:
        """Wait for the end of a worker, at most for a time, and only while ``unless`` is false."""
        until = time.monotonic() + limit_s
        while not worker.join(SLICE_S):
            if unless() or time.monotonic() > until:
                return False
            self._liveness.note_wait()
        return True


def _error_of_same_kind(error: BaseException, text: str) -> EngineError | EngineLostError:
    """An error with another text: an EngineLostError if the given error is one, else an EngineError."""
    return EngineLostError(text) if isinstance(error, EngineLostError) else EngineError(text)


def error_text(error: BaseException) -> str:
    """The text of an engine's error, in one line."""
    return "no memory is left" if isinstance(error, MemoryError) else first_line(error)
