"""Logging: JSON lines for the journal, readable lines on a terminal."""

import logging
import sys
import threading
import time

import structlog

from daemon.config import LogConfig


def configure_logs(config: LogConfig) -> None:
    """Send structured logs to standard error."""
    as_json = config.format == "json" or (config.format == "auto" and not sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[config.level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


MAX_LINES, PERIOD_S = 20, 60.0
"""At most ``MAX_LINES`` warnings are written in ``PERIOD_S`` seconds."""

log = structlog.get_logger()


class RateLimitedLog:
    """Writes the first warnings of each period, and the number of those left out; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun_s = time.monotonic()
        self._warnings = 0

    def warning(self, event: str, **facts: object) -> None:
        """Log a warning, or count it where the period has had too many."""
        with self._lock:
            now = time.monotonic()
            if now - self._begun_s >= PERIOD_S:
                self._log_left_out()
                self._begun_s, self._warnings = now, 0
            self._warnings += 1
            if self._warnings <= MAX_LINES:
                log.warning(event, **facts)

    def close(self) -> None:
        """Log the number of warnings left out."""
        with self._lock:
            self._log_left_out()
            self._warnings = 0

    def _log_left_out(self) -> None:
        if (number := self._warnings - MAX_LINES) > 0:
            log.warning("warnings left out", number=number, in_s=round(time.monotonic() - self._begun_s))
