"""An engine that lasts for a run: closed and opened again when it fails, or another one in its place."""

import time
from collections.abc import Callable

import structlog
from seqd_client.errors import SeqdError, first_line
from seqd_client.status import Phase

from calib.jointfit.fitdevice import Place
from daemon.calling.enginechoice import Chosen
from daemon.config import FaultsConfig
from daemon.watching.progress import Progress
from daemon.worker import Worker
from engines.contract import Engine
from engines.errors import EngineError, EngineLostError

FAULTS = (EngineError, EngineLostError, MemoryError)
"""What is answered by opening the engine again."""

CLOSE_S = 5.0
"""An engine that is not closed by then hangs, and its threads are left behind."""

OPEN_S = 1800.0
"""An engine that is not open by then hangs; opening and the golden tile have shorter limits of their own."""

LONGEST_BACKOFF_S = 600.0
SLICE_S = 0.1
"""How soon a request to stop is seen."""

log = structlog.get_logger()


class LastingEngine:
    """The engine that a run has at the moment, for one thread; status is never kept waiting.

    Parameters
    ----------
    chosen : open; closed by :meth:`close`.
    open_again : opens the same engine.
    fallback : opens the one that may take over.
    fallen_back : why ``chosen`` is that one already; then nothing else takes over.
    changed : called with this when another engine is open, before a tile is computed with it.
    announce : takes level and text of an event.
    stopping : whether the daemon was asked to stop; then nothing is waited for any longer.
    """

    def __init__(
        self,
        chosen: Chosen,
        open_again: Callable[[], Chosen],
        fallback: Callable[[], Chosen],
        *,
        fallen_back: str,
        changed: Callable[["LastingEngine"], None],
        faults: FaultsConfig,
        progress: Progress,
        announce: Callable[[str, str], None],
        stopping: Callable[[], bool],
    ) -> None:
        self.chosen, self.fallen_back, self.restarts = chosen, fallen_back, 0
        self._open_again, self._fallback, self._changed = open_again, fallback, changed
        self._may_fall_back = faults.fallback != "none" and not fallen_back
        self._faults, self._progress, self._announce, self._stopping = faults, progress, announce, stopping
        self._open = True
        self._at_work = (-self.engine.busy_s, self.engine)

    @property
    def engine(self) -> Engine:
        """Computes tiles."""
        return self.chosen.selection.engine

    @property
    def place(self) -> Place:
        """Fits cycles."""
        return self.chosen.place

    @property
    def busy_s(self) -> float:
        """Seconds in which there was a tile to compute, of all engines together."""
        before, engine = self._at_work
        return before + engine.busy_s

    def restart(self, error: BaseException) -> None:
        """Open the engine again after it failed, or the one that may take over when it cannot be opened.

        Raises
        ------
        EngineError, EngineLostError : as the error is; no engine can be opened, or the daemon was asked to stop.
        """
        self._say(f"engine failed: {told(error)}", "it is opened again")
        self.close()
        pause_s, text = self._faults.engine_backoff_s, told(error)
        for attempt in range(self._faults.engine_restarts):
            if attempt:
                self._wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_BACKOFF_S)
            self._give_way(error, text)
            try:
                chosen = self._opened(self._same, error)
            except (SeqdError, OSError, MemoryError) as failure:
                self._give_way(error, text)
                text = f"{told(error)}; not opened again: {told(failure)}"
                log.error("engine not opened again", attempt=attempt + 1, error=told(failure))
                self._progress.trouble("engine", Phase.ENGINE_RESTARTING, text)
            else:
                self._take(chosen)
                return
        self._fall_back(error, text)

    def replace(self, error: BaseException) -> None:
        """Have the engine that may take over take over from one that opens and is of no use.

        Raises
        ------
        EngineError, EngineLostError : as the error is; none may take over, or it cannot be opened.
        """
        self._say(f"engine of no use: {told(error)}", "another one may take over")
        self.close()
        self._fall_back(error, told(error))

    def close(self) -> None:
        """Close the engine; one that hangs is left behind."""
        if not self._open:
            return
        self._open = False
        closing = Worker("engine-closing", self.engine.close)
        if self._joined(closing, CLOSE_S):
            closing.check()
        else:
            log.error("engine left behind", reason=f"not closed after {CLOSE_S:g} s")

    def _fall_back(self, error: BaseException, text: str) -> None:
        if not self._may_fall_back:
            self._progress.over("engine")
            raise _as(error, text)
        self._may_fall_back = False
        try:
            chosen = self._opened(self._fallback, error)
        except (SeqdError, OSError, MemoryError) as failure:
            self._progress.over("engine")
            raise _as(error, f"{text}; nor does the fallback open: {told(failure)}") from failure
        self._open_again = self._fallback
        if chosen.facts != self.chosen.facts:
            self.fallen_back = text
        self._take(chosen)

    def _same(self) -> Chosen:
        chosen, facts = self._open_again(), self.chosen.facts
        if other := {name: value for name, value in chosen.facts.items() if value != facts[name]}:
            chosen.selection.engine.close()
            raise EngineError(f"engine {self.engine.info.backend}: it is another one by now, with {other}")
        return chosen

    def _opened(self, opens: Callable[[], Chosen], error: BaseException) -> Chosen:
        opened: list[Chosen] = []
        # Of a daemon thread: who is asked to stop waits for no opening.
        opening = Worker("engine-opening", lambda: opened.append(opens()))
        if not self._joined(opening, OPEN_S, unless=self._stopping):
            raise _as(error, f"not open after {OPEN_S:g} s")
        opening.check()
        return opened[0]

    def _take(self, chosen: Chosen) -> None:
        engine = chosen.selection.engine
        self._at_work = (self.busy_s - engine.busy_s, engine)
        self.chosen, self._open = chosen, True
        self.restarts += 1
        self._changed(self)
        self._progress.over("engine")
        info, fallback = engine.info, bool(self.fallen_back)
        log.info(
            "engine open", backend=info.backend, precision=info.precision, restarts=self.restarts, fallback=fallback
        )
        self._announce(
            "warning" if fallback else "info",
            f"engine open again: {info.backend} {info.precision}" + (" as fallback" if fallback else ""),
        )

    def _say(self, text: str, then: str) -> None:
        self._progress.trouble("engine", Phase.ENGINE_RESTARTING, text)
        log.error("engine failed", error=text)
        self._announce("error", f"{text}; {then}")

    def _give_way(self, error: BaseException, text: str) -> None:
        """Raise when the daemon was asked to stop."""
        if self._stopping():
            self._progress.over("engine")
            raise _as(error, f"{text}; asked to stop meanwhile")

    def _wait(self, pause_s: float) -> None:
        until = time.monotonic() + pause_s
        while not self._stopping() and (left := until - time.monotonic()) > 0:
            time.sleep(min(SLICE_S, left))
            # Whoever waits with a reason is not stalled.
            self._progress.worked()

    def _joined(self, worker: Worker, limit_s: float, unless: Callable[[], bool] = lambda: False) -> bool:
        until = time.monotonic() + limit_s
        while not worker.join(SLICE_S):
            if unless() or time.monotonic() > until:
                return False
            self._progress.worked()
        return True


def _as(error: BaseException, text: str) -> EngineError | EngineLostError:
    return EngineLostError(text) if isinstance(error, EngineLostError) else EngineError(text)


def told(error: BaseException) -> str:
    """An engine's fault in one line."""
    return "no memory is left" if isinstance(error, MemoryError) else first_line(error)
