"""What daemons said in their log."""

import json
from pathlib import Path
from typing import Any

from tests.chaos.plan import Stage


class DaemonLog:
    """The lines of one daemon, as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = path.stat().st_size if path.exists() else 0
        self._lines: list[dict[str, Any]] = []

    def reached(self, stage: Stage) -> bool:
        """Whether a stage has begun."""
        self._read()
        return not stage.event or any(
            line["event"] == stage.event and (not stage.last_cycle or line["cycle"] == line["of"])
            for line in self._lines
        )

    def _read(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._at)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._at += len(whole) + len(newline)
        self._lines += events(whole)


def events(log: bytes) -> list[dict[str, Any]]:
    """The lines of a log that are records; errors are printed as plain text."""
    return [json.loads(line) for line in log.splitlines() if line.startswith(b"{") and line.endswith(b"}")]
