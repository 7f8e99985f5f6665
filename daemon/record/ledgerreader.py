"""What a ledger says: rows and totals, read without a change to it."""

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
from daemon.record.ledgercopy import copied

SCHEMA_VERSION = 5


@dataclass(frozen=True)
class CycleRow:
    """A committed tile-cycle, in the order of the table's columns; the last one, the engine, the ledger knows."""

    lane: int
    tile: int
    cycle: int
    status: CycleStatus
    reason: str
    """Why it is missing or failed, else empty."""
    frames: int
    """Channel images that came of it, 0 to 4."""
    crc32: int
    """Of its bytes in the tile file."""
    chastity_crc32: int | None
    """Of its bytes in the chastity file, where it has any."""
    drift_y: float | None
    drift_x: float | None
    """Registration against the template, pixels."""
    light_own: float | None
    light_behind: float | None
    light_ahead: float | None
    """:class:`calib.phasing.NeighbourLight`."""
    engine_s: float | None
    """From the image's submission to the engine's answer."""
    committed_ns: int


@dataclass(frozen=True)
class ImageRow:
    """What was measured on one channel's image of a tile-cycle, :class:`calib.imagequality.ImageQuality`."""

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
    """An engine that a run is, or was, called with."""

    facts: dict[str, object]
    """What of it decides about the calls."""
    reason: str
    """Why it took over; empty for the one that was configured."""
    since_ns: int


@dataclass(frozen=True)
class Start:
    """A daemon took up the run."""

    seqd: str
    """Its version."""
    configuration: str
    """SHA-256 of its configuration."""
    began_ns: int


class LedgerReader:
    """An open ledger, to be read."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self.path = path
        self._database = database

    def facts(self) -> dict[str, Any]:
        """What the run is made with; ``info`` and ``sinks`` as models.

        Raises
        ------
        OutputError : the ledger is of another schema, or names no run.
        """
        with self._failures():
            stored = dict(self._database.execute("SELECT key, value FROM run").fetchall())
        try:
            facts = {key: json.loads(value) for key, value in stored.items()}
            if facts.get("schema") != SCHEMA_VERSION:
                schema = facts.get("schema")
                raise OutputError(f"ledger {self.path}: schema {schema}, this seqd reads {SCHEMA_VERSION}")
            read = {
                "info": RunInfo.model_validate(facts["info"]),
                "chastity_failures": int(facts["chastity_failures"]),
                "sinks": SinksConfig.model_validate(facts["sinks"]),
            }
            return facts | read
        except (KeyError, TypeError, ValueError) as error:
            raise OutputError(
                f"ledger {self.path}: does not say which run it is of; it was changed from outside"
            ) from error

    def tiles(self) -> dict[TileId, int]:
        """Clusters of every tile that has a template."""
        with self._failures():
            rows = self._database.execute("SELECT lane, tile, clusters FROM tile").fetchall()
        return {TileId(lane=lane, tile=tile): clusters for lane, tile, clusters in rows}

    def committed_cycles(self) -> dict[TileId, int]:
        """Last committed cycle of every tile that has one."""
        with self._failures():
            rows = self._database.execute(
                "SELECT lane, tile, max(cycle) FROM tile_cycle GROUP BY lane, tile"
            ).fetchall()
        return {TileId(lane=lane, tile=tile): cycle for lane, tile, cycle in rows}

    def neighbour_light(self, tile: TileId) -> dict[int, NeighbourLight]:
        """What strands out of step showed in each cycle of a tile that could tell."""
        with self._failures():
            rows = self._database.execute(
                "SELECT cycle, light_own, light_behind, light_ahead FROM tile_cycle "
                "WHERE lane = ? AND tile = ? AND light_own IS NOT NULL",
                (tile.lane, tile.tile),
            ).fetchall()
        return {cycle: NeighbourLight(own, behind, ahead) for cycle, own, behind, ahead in rows}

    def drift(self, tile: TileId) -> dict[int, NDArray[np.float32]]:
        """(2,) drift of each cycle of a tile that was called, in their order."""
        with self._failures():
            rows = self._database.execute(
                "SELECT cycle, drift_y, drift_x FROM tile_cycle "
                "WHERE lane = ? AND tile = ? AND status = ? ORDER BY cycle",
                (tile.lane, tile.tile, CycleStatus.CALLED.value),
            ).fetchall()
        return {cycle: np.array((y, x), np.float32) for cycle, y, x in rows}

    def totals(self) -> dict[CycleStatus, int]:
        """Number of tile-cycles by status."""
        with self._failures():
            counted = dict(self._database.execute("SELECT status, count(*) FROM tile_cycle GROUP BY status"))
        return {status: counted.get(status.value, 0) for status in CycleStatus}

    def last_committed_ns(self) -> int | None:
        """When the newest tile-cycle was committed; None where there is none."""
        with self._failures():
            found = self._database.execute("SELECT max(committed_ns) FROM tile_cycle").fetchone()
        return None if found[0] is None else int(found[0])

    def rows(self, tile: TileId, *, after: int = 0) -> list[CycleRow]:
        """The committed cycles of a tile after one, in their order."""
        found = [CycleRow(*row) for row in self._of(CycleRow, "tile_cycle", tile, after)]
        return [replace(row, status=CycleStatus(row.status)) for row in found]

    def images(self, tile: TileId, *, after: int = 0) -> list[ImageRow]:
        """What was measured on the images of a tile after a cycle."""
        return [ImageRow(*row) for row in self._of(ImageRow, "image", tile, after)]

    def _of(self, kind: type, table: str, tile: TileId, after: int) -> list[tuple[Any, ...]]:
        columns = ", ".join(field.name for field in fields(kind))
        with self._failures():
            return self._database.execute(
                f"SELECT {columns} FROM {table} WHERE lane = ? AND tile = ? AND cycle > ? ORDER BY cycle",
                (tile.lane, tile.tile, after),
            ).fetchall()

    def starts(self) -> list[Start]:
        """Every time that the run was taken up."""
        with self._failures():
            rows = self._database.execute("SELECT seqd, configuration, began_ns FROM start ORDER BY rowid").fetchall()
        return [Start(*row) for row in rows]

    def engines(self) -> list[EngineUse]:
        """The engines that the run was called with, in their order; ids in the table count from 1."""
        with self._failures():
            rows = self._database.execute("SELECT facts, reason, since_ns FROM engine ORDER BY id").fetchall()
        return [EngineUse(json.loads(facts), reason, since_ns) for facts, reason, since_ns in rows]

    def close(self) -> None:
        """Close the ledger."""
        self._database.close()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn the database's errors into ours, with nothing half done."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            with suppress(sqlite3.Error, AttributeError):
                self._database.rollback()
            raise storage_error(f"ledger {self.path}", error) from error


def follow_ledger(path: Path) -> LedgerReader:
    """A ledger as it goes on, beside the one who writes it.

    Raises
    ------
    OutputError : it cannot be opened.
    """
    try:
        database = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA query_only=1")
    except sqlite3.Error as error:
        raise storage_error(f"ledger {path}", error) from error
    return LedgerReader(path, database)


@contextmanager
def open_ledger(path: Path) -> Iterator[LedgerReader]:
    """A ledger as it stands, in a copy: no file beside it is written, no lock of it taken.

    Raises
    ------
    OutputError : it cannot be copied or read.
    """
    with copied(path) as database:
        yield LedgerReader(path, database)
