"""A worker thread whose error is raised in the thread that waits for it."""

import threading
from collections.abc import Callable


class Worker:
    """Runs a function in a thread, and keeps the error with which the function ends."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the function is still running."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Raise the error with which the function ended, if there is one."""
        if self.error is not None:
            raise self.error

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the function; False when it is still running after the timeout."""
        self._thread.join(timeout_s)
        return not self.alive

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # `check` raises it
            self.error = error
