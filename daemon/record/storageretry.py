"""Retrying writes that fail for a passing reason: a full disk, a lost permission, a failing disk, no memory."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from seqd_client.status import Phase, StopReason

from daemon.errors import OutputError, storage_error
from daemon.watching.liveness import Liveness
from daemon.watching.troubles import Troubles

FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 5.0
"""First and longest pause between two attempts. Each pause is twice as long as the one before."""

PHASES = {
    StopReason.DISK_FULL: Phase.DISK_FULL,
    StopReason.PERMISSION_LOST: Phase.PERMISSION_LOST,
    StopReason.STORAGE_FAILED: Phase.STORAGE_FAILED,
    StopReason.OUT_OF_MEMORY: Phase.OUT_OF_MEMORY,
}
"""Reasons that may pass, and the phase that the status shows while the action is retried."""

T = TypeVar("T")

log = structlog.get_logger()


class StorageRetry:
    """Tries an action on files until it succeeds; any thread may use it.

    The action must be repeatable: after a failure half-way, doing it again must give the same result.
    """

    def __init__(
        self,
        troubles: Troubles,
        liveness: Liveness,
        announce: Callable[[str, str], None],
        stopping: Callable[[], bool],
        *,
        retry_for_s: float,
    ) -> None:
        """
        Parameters
        ----------
        announce : takes the level and the text of an event.
        stopping : whether the daemon was asked to stop; then a failing action is not tried again.
        retry_for_s : an action that has failed for this long is given up.
        """
        self._troubles, self._liveness, self._announce, self._stopping = troubles, liveness, announce, stopping
        self._retry_for_s = retry_for_s

    def __call__(self, what: str, action: Callable[[], T]) -> T:
        """Do the action, and return its result.

        Parameters
        ----------
        what : name of the files that the action is about, for the status and the log.

        Raises
        ------
        OutputError : the action did not succeed within ``retry_for_s``, or its reason does not pass by itself.
        """
        began, pause_s = None, FIRST_PAUSE_S
        while True:
            try:
                done = action()
            except (OSError, OutputError, MemoryError) as error:
                failure = error if isinstance(error, OutputError) else storage_error(what, error)
                now = time.monotonic()
                if began is None:
                    began = now
                    if failure.reason in PHASES:
                        self._report(what, failure)
                if failure.reason not in PHASES or self._stopping() or now - began > self._retry_for_s:
                    self._troubles.end(what)
                    raise failure from error
            else:
                if began is not None:
                    self._troubles.end(what)
                    waited_s = round(time.monotonic() - began, 1)
                    log.info("continues", what=what, waited_s=waited_s)
                    self._announce("info", f"{what}: continues after {waited_s:g} s")
                return done
            self._liveness.wait(pause_s, self._stopping)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    def _report(self, what: str, failure: OutputError) -> None:
        phase = PHASES[failure.reason]
        self._troubles.begin(what, phase, str(failure))
        log.error("waiting", phase=phase.value, error=str(failure), retry_for_s=self._retry_for_s)
        self._announce("error", f"{failure}; it is tried again for up to {self._retry_for_s:g} s")
