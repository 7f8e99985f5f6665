"""What TensorRT reports while it works, and answers that mean failure."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from engines.errors import EngineError
from engines.tensorrt.api import TensorRT

T = TypeVar("T")

MOST_ERRORS = 20
"""That are kept: the first says what is wrong."""


class Log:
    """Collects errors instead of printing them; calls made through it fail with the first of them."""

    def __init__(self, trt: TensorRT) -> None:
        errors: list[str] = []
        serious = (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)

        class _Logger(trt.ILogger):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401
                if severity in serious and len(errors) < MOST_ERRORS:
                    errors.append(msg)

        self._errors = errors
        self.logger = _Logger()
        """To hand to TensorRT."""

    def made(self, what: str, make: Callable[[], T | None]) -> T:
        """What a call answers; raises :class:`EngineError` where that is nothing or the call raises."""
        self._errors.clear()
        try:
            result = make()
        except (TypeError, RuntimeError) as error:  # as pybind11 tells of a null pointer
            raise self.failure(what, str(error)) from None
        if result is None:
            raise self.failure(what)
        return result

    def done(self, what: str, do: Callable[[], bool]) -> None:
        """Raises :class:`EngineError` where a call answers that it failed."""
        if not self.made(what, do):
            raise self.failure(what)

    def failure(self, what: str, reason: str = "") -> EngineError:
        """An error with the first that was reported, or a reason, or neither."""
        with suppress(IndexError):
            reason = self._errors[0]
        first = next(iter(reason.splitlines()), "")
        return EngineError(f"TensorRT: {what} failed" + (f": {first}" if first else ""))
