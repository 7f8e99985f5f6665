"""The ledger: one row for every tile-cycle that is committed, in SQLite.

Guaranteed: when :meth:`Ledger.commit` returns, its row is on the disk (write-ahead log, ``synchronous=FULL``). A tile
file is synced before its row is written, so a row always names bytes that are there. A commit that fails leaves
nothing, and may be tried again. Not guaranteed: anything, when the disk says that bytes are synced and they are not.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.phasing import NeighbourLight
from calib.runfolder import TileId
from daemon.errors import RunError, storage_error
from daemon.record.durable import sync_folder
from daemon.states import CycleStatus

SCHEMA_VERSION = 4

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS start (seqd TEXT NOT NULL, began_ns INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS engine (
    id INTEGER PRIMARY KEY, facts TEXT NOT NULL, reason TEXT NOT NULL, since_ns INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS tile (
    lane INTEGER, tile INTEGER, clusters INTEGER NOT NULL, locs_crc32 INTEGER NOT NULL,
    PRIMARY KEY (lane, tile)) STRICT;
CREATE TABLE IF NOT EXISTS tile_cycle (
    lane INTEGER, tile INTEGER, cycle INTEGER,
    status TEXT NOT NULL, reason TEXT NOT NULL, frames INTEGER NOT NULL,
    crc32 INTEGER NOT NULL, chastity_crc32 INTEGER,
    drift_y REAL, drift_x REAL, light_own REAL, light_behind REAL, light_ahead REAL,
    committed_ns INTEGER NOT NULL,
    engine INTEGER REFERENCES engine (id),
    PRIMARY KEY (lane, tile, cycle)) STRICT;
"""


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
    committed_ns: int


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
    began_ns: int


class Ledger:
    """A run's ledger, open for one writing thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine: int | None = None
        with self._failures():
            # The database's companions get the modes that it has.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o640))
            self._database = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            try:
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=FULL")
                self._database.executescript(_SCHEMA)
                sync_folder(path.parent)
            except BaseException:
                self._database.close()
                raise

    def begin(self, facts: dict[str, object]) -> None:
        """Record what the run is made with; a run that goes on must be made with the same.

        Raises
        ------
        RunError : the ledger was begun with something else.
        """
        fresh = _as_json({"schema": SCHEMA_VERSION, **facts})
        with self._failures():
            stored = dict(self._database.execute("SELECT key, value FROM run").fetchall())
        self._compare(stored, fresh)
        with self._failures():
            self._database.executemany("INSERT OR IGNORE INTO run VALUES (?, ?)", fresh.items())

    def start(self, seqd: str, began_ns: int) -> None:
        """Record that a daemon of a version took up the run."""
        with self._failures():
            self._database.execute("INSERT INTO start VALUES (?, ?)", (seqd, began_ns))

    def starts(self) -> list[Start]:
        """Every time that the run was taken up."""
        with self._failures():
            rows = self._database.execute("SELECT seqd, began_ns FROM start ORDER BY rowid").fetchall()
        return [Start(*row) for row in rows]

    def use_engine(self, facts: dict[str, object], *, reason: str, since_ns: int) -> None:
        """Record which engine reads the cycles that are committed from here on.

        A cycle is called when the ones it is corrected with are read: of those, the engine in its row read the last.

        Parameters
        ----------
        reason : why it took over from another one; empty where it must be the one before.

        Raises
        ------
        RunError : it is another one than before, and has no reason of its own to take over.
        """
        before = self.engines()
        if before and reason in ("", before[-1].reason):
            self._compare(_as_json(before[-1].facts), _as_json(facts))
        if not before or before[-1].facts != facts:
            content = json.dumps(facts, sort_keys=True)
            with self._failures():
                self._database.execute(
                    "INSERT INTO engine (facts, reason, since_ns) VALUES (?, ?, ?)", (content, reason, since_ns)
                )
            before = self.engines()
        self._engine = len(before)

    def engines(self) -> list[EngineUse]:
        """The engines that the run was called with, in their order; ids in the table count from 1."""
        with self._failures():
            rows = self._database.execute("SELECT facts, reason, since_ns FROM engine ORDER BY id").fetchall()
        return [EngineUse(json.loads(facts), reason, since_ns) for facts, reason, since_ns in rows]

    def _compare(self, stored: dict[str, str], fresh: dict[str, str]) -> None:
        for key in stored:
            if stored[key] != fresh.get(key, stored[key]):
                raise RunError(
                    f"run in {self.path.parent}: begun with {key} {stored[key]:.80}, now it is {fresh[key]:.80}; "
                    "go on with the same, or choose another output folder"
                )

    def commit_tile(self, tile: TileId, clusters: int, locs_crc32: int) -> None:
        """Commit that a tile has a template; the checksum is that of its ``.locs`` file."""
        with self._failures():
            self._database.execute("INSERT INTO tile VALUES (?, ?, ?, ?)", (tile.lane, tile.tile, clusters, locs_crc32))

    def commit(self, row: CycleRow) -> None:
        """Commit a tile-cycle."""
        with self._failures():
            columns = (*astuple(row), self._engine)
            self._database.execute(f"INSERT INTO tile_cycle VALUES ({', '.join('?' * len(columns))})", columns)

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


def _as_json(facts: dict[str, object]) -> dict[str, str]:
    return {key: json.dumps(value, sort_keys=True) for key, value in facts.items()}
