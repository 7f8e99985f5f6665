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


LINES = 20
PERIOD_S = 60.0
"""So many lines are written in so long."""

log = structlog.get_logger()


class SparingLog:
    """Writes the first warnings of a period and says how many more there were; for every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun_s = time.monotonic()
        self._asked = 0

    def warning(self, event: str, **facts: object) -> None:
        """Log a warning, or count it."""
        with self._lock:
            now = time.monotonic()
            if now - self._begun_s >= PERIOD_S:
                self._say_left_out()
                self._begun_s, self._asked = now, 0
            self._asked += 1
            if self._asked <= LINES:
                log.warning(event, **facts)

    def close(self) -> None:
        """Say what was left out."""
        with self._lock:
            self._say_left_out()
            self._asked = 0

    def _say_left_out(self) -> None:
        if self._asked > LINES:
            log.warning("warnings left out", number=self._asked - LINES, in_s=round(time.monotonic() - self._begun_s))
