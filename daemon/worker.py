"""A worker thread whose failure is seen by the thread that waits for it."""

import threading
from collections.abc import Callable


class Worker:
    """Runs a function in a thread and keeps the error it ended with."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it is still at work."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Raise what the worker ended with, in the thread that asks."""
        if self.error is not None:
            raise self.error

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; False when it is still at work."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # kept for `check`, nothing is lost
            self.error = error
