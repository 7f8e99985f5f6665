"""Reading a ledger: its rows and totals."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo, TileId
from seqd_client.status import CycleStatus

from calib.phasing import NeighbourLight
from daemon.config import SinksConfig
from daemon.errors import OutputError, storage_error

SCHEMA_VERSION = 5


@dataclass(frozen=True)
class CycleRow:
    """A committed tile-cycle.

    The fields are the columns of the table in their order, all but the last one: the engine, which the ledger adds.
    """

    lane: int
    tile: int
    cycle: int
    status: CycleStatus
    reason: str
    """Why the tile-cycle is missing or failed, else empty."""
    frames: int
    """Channel images that came, 0 to 4."""
    crc32: int
    """CRC-32 of the cycle's bytes in the tile file."""
    chastity_crc32: int | None
    """CRC-32 of the cycle's bytes in the chastity file; None for cycles after those that decide the filter."""
    drift_y: float | None
    drift_x: float | None
    """Registration against the template, pixels."""
    light_own: float | None
    light_behind: float | None
    light_ahead: float | None
    """The three fields of :class:`calib.phasing.NeighbourLight`; None where it could not be measured."""
    engine_s: float | None
    """Seconds from the submission of the images to the engine's answer."""
    committed_ns: int


@dataclass(frozen=True)
class ImageRow:
    """The measurements of one channel image, see :class:`calib.imagequality.ImageQuality`."""

    lane: int
    tile: int
    cycle: int
    channel: int
    intensity: float
    called: float
    average: float
    focus_px: float | None


@dataclass(frozen=True)
class EngineUse:
    """An engine that read cycles of the run."""

    facts: dict[str, object]
    """The properties of the engine that decide the calls."""
    reason: str
    """Why the engine replaced another one; empty for the configured engine."""
    since_ns: int


@dataclass(frozen=True)
class Start:
    """One start of a daemon on the run."""

    seqd: str
    """Version of the daemon."""
    configuration: str
    """SHA-256 of the daemon's configuration, hexadecimal."""
    began_ns: int


class LedgerReader:
    """An open ledger, to be read. Every method raises :class:`OutputError` where the database cannot be read."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self.path = path
        self._database = database

    def facts(self) -> dict[str, Any]:
        """The settings and properties that the contents of the run's files depend on.

        ``info`` and ``sinks`` are pydantic models.

        Raises
        ------
        OutputError : the ledger has another schema, or does not say which run it belongs to.
        """
        stored = self._execute("SELECT key, value FROM run")
        try:
            facts = {key: json.loads(value) for key, value in stored}
            if facts.get("schema") != SCHEMA_VERSION:
                schema = facts.get("schema")
                raise OutputError(f"ledger {self.path}: schema {schema}, this seqd reads {SCHEMA_VERSION}")
            return facts | {
                "info": RunInfo.model_validate(facts["info"]),
                "chastity_failures": int(facts["chastity_failures"]),
                "sinks": SinksConfig.model_validate(facts["sinks"]),
            }
        except (KeyError, TypeError, ValueError) as error:
            raise OutputError(
                f"ledger {self.path}: does not say which run it is of; it was changed from outside"
            ) from error

    def tiles(self) -> dict[TileId, int]:
        """Clusters of every tile that has a template."""
        rows = self._execute("SELECT lane, tile, clusters FROM tile")
        return {TileId(lane=lane, tile=tile): clusters for lane, tile, clusters in rows}

    def committed_cycles(self) -> dict[TileId, int]:
        """Last committed cycle of every tile that has one."""
        rows = self._execute("SELECT lane, tile, max(cycle) FROM tile_cycle GROUP BY lane, tile")
        return {TileId(lane=lane, tile=tile): cycle for lane, tile, cycle in rows}

    def neighbour_light(self, tile: TileId) -> dict[int, NeighbourLight]:
        """Light of strands that are out of step, by cycle; cycles where it could not be measured are absent."""
        rows = self._execute(
            "SELECT cycle, light_own, light_behind, light_ahead FROM tile_cycle "
            "WHERE lane = ? AND tile = ? AND light_own IS NOT NULL",
            tile.lane,
            tile.tile,
        )
        return {cycle: NeighbourLight(own, behind, ahead) for cycle, own, behind, ahead in rows}

    def drift(self, tile: TileId) -> dict[int, NDArray[np.float32]]:
        """(2,) y and x drift of each called cycle of a tile, pixels, in the order of the cycles."""
        rows = self._execute(
            "SELECT cycle, drift_y, drift_x FROM tile_cycle WHERE lane = ? AND tile = ? AND status = ? ORDER BY cycle",
            tile.lane,
            tile.tile,
            CycleStatus.CALLED.value,
        )
        return {cycle: np.array((y, x), np.float32) for cycle, y, x in rows}

    def totals(self) -> dict[CycleStatus, int]:
        """Number of committed tile-cycles by status."""
        counted = dict(self._execute("SELECT status, count(*) FROM tile_cycle GROUP BY status"))
        return {status: counted.get(status.value, 0) for status in CycleStatus}

    def last_committed_ns(self) -> int | None:
        """Time of the newest commit of a tile-cycle, nanoseconds since the epoch; None where there is none."""
        ((last_ns,),) = self._execute("SELECT max(committed_ns) FROM tile_cycle")
        return None if last_ns is None else int(last_ns)

    def rows(self, tile: TileId, *, after: int = 0) -> list[CycleRow]:
        """The committed cycles of a tile that follow cycle ``after``, in their order."""
        rows = self._rows_of(CycleRow, "tile_cycle", tile, after)
        return [replace(row, status=CycleStatus(row.status)) for row in (CycleRow(*row) for row in rows)]

    def images(self, tile: TileId, *, after: int = 0) -> list[ImageRow]:
        """The measurements of a tile's images in the cycles that follow cycle ``after``."""
        return [ImageRow(*row) for row in self._rows_of(ImageRow, "image", tile, after)]

    def starts(self) -> list[Start]:
        """Every start of a daemon on the run, the first one first."""
        return [Start(*row) for row in self._execute("SELECT seqd, configuration, began_ns FROM start ORDER BY rowid")]

    def engines(self) -> list[EngineUse]:
        """The engines that read the run, in their order; their ids in the table count from 1."""
        rows = self._execute("SELECT facts, reason, since_ns FROM engine ORDER BY id")
        return [EngineUse(json.loads(facts), reason, since_ns) for facts, reason, since_ns in rows]

    def close(self) -> None:
        """Close the ledger."""
        self._database.close()

    def _rows_of(self, kind: type, table: str, tile: TileId, after: int) -> list[tuple[Any, ...]]:
        columns = ", ".join(field.name for field in fields(kind))
        command = f"SELECT {columns} FROM {table} WHERE lane = ? AND tile = ? AND cycle > ? ORDER BY cycle"
        return self._execute(command, tile.lane, tile.tile, after)

    def _execute(self, command: str, *values: object) -> list[tuple[Any, ...]]:
        """Execute one SQL command, and return all rows of its answer."""
        with self._failures():
            return self._database.execute(command, values).fetchall()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn errors of the database into :class:`OutputError`; a transaction that was begun is rolled back."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            with suppress(sqlite3.Error, AttributeError):
                self._database.rollback()
            raise storage_error(f"ledger {self.path}", error) from error


def follow_ledger(path: Path) -> LedgerReader:
    """A ledger that the daemon keeps writing through another connection; reading sees every commit.

    Raises
    ------
    OutputError : the ledger cannot be opened.
    """
    try:
        database = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA query_only=1")
    except sqlite3.Error as error:
        raise storage_error(f"ledger {path}", error) from error
    return LedgerReader(path, database)
