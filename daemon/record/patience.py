"""Waiting out what may pass: a full disk, a lost permission, a failing disk, a lack of memory."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from seqd_client.status import Phase, StopReason

from daemon.errors import OutputError, storage_error
from daemon.watching.progress import Progress

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
SLICE_S = 0.1
"""How soon a request to stop is seen."""

PHASES = {
    StopReason.DISK_FULL: Phase.DISK_FULL,
    StopReason.PERMISSION_LOST: Phase.PERMISSION_LOST,
    StopReason.STORAGE_FAILED: Phase.STORAGE_FAILED,
    StopReason.OUT_OF_MEMORY: Phase.OUT_OF_MEMORY,
}
"""What may pass, and how it is shown meanwhile."""

T = TypeVar("T")

log = structlog.get_logger()


class Patience:
    """Tries an action until it succeeds; for every thread.

    Actions must be such that doing one again after it failed half way does the same as doing it once.
    """

    def __init__(
        self,
        progress: Progress,
        announce: Callable[[str, str], None],
        stopping: Callable[[], bool],
        *,
        retry_for_s: float,
    ) -> None:
        """
        Parameters
        ----------
        announce : takes level and text of an event.
        stopping : whether the daemon was asked to stop; then nothing is waited for any longer.
        """
        self._progress, self._announce, self._stopping = progress, announce, stopping
        self._retry_for_s = retry_for_s

    def __call__(self, what: str, action: Callable[[], T]) -> T:
        """What the action returns.

        Raises
        ------
        OutputError : it did not succeed in time, or fails for a reason that does not pass.
        """
        since, pause_s = None, FIRST_PAUSE_S
        while True:
            try:
                done = action()
            except (OSError, OutputError, MemoryError) as error:
                failure = _failure(what, error)
                now = time.monotonic()
                if since is None:
                    since = now
                    if failure.reason in PHASES:
                        self._say(what, failure)
                if failure.reason not in PHASES or self._stopping() or now - since > self._retry_for_s:
                    self._progress.over(what)
                    raise failure from error
            else:
                if since is not None:
                    self._progress.over(what)
                    waited_s = round(time.monotonic() - since, 1)
                    log.info("goes on", what=what, waited_s=waited_s)
                    self._announce("info", f"{what}: goes on after {waited_s:g} s")
                return done
            self._wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _say(self, what: str, failure: OutputError) -> None:
        phase = PHASES[failure.reason]
        self._progress.trouble(what, phase, str(failure))
        log.error("waits", phase=phase.value, error=str(failure), retry_for_s=self._retry_for_s)
        self._announce("error", f"{failure}; tried again for {self._retry_for_s:g} s")

    def _wait(self, pause_s: float) -> None:
        until = time.monotonic() + pause_s
        while not self._stopping() and (left := until - time.monotonic()) > 0:
            time.sleep(min(SLICE_S, left))
        self._progress.waited()


def _failure(what: str, error: OSError | OutputError | MemoryError) -> OutputError:
    match error:
        case OutputError():
            return error
        case OSError():
            return storage_error(what, error)
        case _:
            return OutputError(f"{what}: no memory is left", reason=StopReason.OUT_OF_MEMORY)
