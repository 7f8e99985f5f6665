"""What daemons said in their log."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.chaos.plan import Stage


class DaemonLog:
    """The lines of one daemon, as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("ab") as file:
            # A daemon that was killed may have left a line without its end.
            file.write(b"\n")
            self._at = file.tell()
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
    """The lines of a log that are records and whole; errors are printed as plain text."""
    records = []
    for line in log.splitlines():
        with suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict)]
