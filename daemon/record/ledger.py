"""The ledger: one row for every tile-cycle that is committed, in SQLite.

Guaranteed: when :meth:`Ledger.commit` returns, its row is on the disk (write-ahead log, ``synchronous=FULL``). A tile
file is synced before its row is written, so every row names bytes that exist. A commit that fails changes nothing, and
may be tried again. Nothing is guaranteed on a disk that reports bytes as synced when they are not.
"""

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

from seqd_client.runinfo import TileId

from daemon.errors import RunError
from daemon.record.durable import sync_folder
from daemon.record.ledgerreader import SCHEMA_VERSION, CycleRow, ImageRow, LedgerReader, Start

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS start (
    seqd TEXT NOT NULL, configuration TEXT NOT NULL, began_ns INTEGER NOT NULL) STRICT;
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
    engine_s REAL, committed_ns INTEGER NOT NULL,
    engine INTEGER REFERENCES engine (id),
    PRIMARY KEY (lane, tile, cycle)) STRICT;
CREATE TABLE IF NOT EXISTS image (
    lane INTEGER, tile INTEGER, cycle INTEGER, channel INTEGER,
    intensity REAL NOT NULL, called REAL NOT NULL, average REAL NOT NULL, focus_px REAL,
    PRIMARY KEY (lane, tile, cycle, channel)) STRICT;
"""


class Ledger(LedgerReader):
    """A run's ledger, open for one writing thread.

    Every method raises :class:`OutputError` where the database cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine: int | None = None
        with self._failures():
            # SQLite gives the database's log and index the permissions of the database.
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

    def begin(self, facts: Mapping[str, object]) -> None:
        """Record the settings and properties that the contents of the run's files depend on.

        A run that continues must have the same.

        Raises
        ------
        RunError : the ledger has other facts.
        """
        fresh = _as_json({"schema": SCHEMA_VERSION, **facts})
        self._compare(dict(self._execute("SELECT key, value FROM run")), fresh)
        with self._failures():
            self._database.executemany("INSERT OR IGNORE INTO run VALUES (?, ?)", fresh.items())

    def start(self, start: Start) -> None:
        """Record that a daemon started or continued the run."""
        self._execute("INSERT INTO start VALUES (?, ?, ?)", *astuple(start))

    def use_engine(self, facts: Mapping[str, object], *, reason: str, since_ns: int) -> None:
        """Record the engine that reads the cycles committed from now on.

        A cycle is called when the two next cycles of its read have been read as well. The row of a cycle names the
        engine that was in use then.

        Parameters
        ----------
        facts : the properties of the engine that decide the calls.
        reason : why the engine replaced another one; empty if the engine must be the same as before.
        since_ns : time, nanoseconds since the epoch.

        Raises
        ------
        RunError : the engine differs from the previous one, and ``reason`` is empty or the reason of the previous one.
        """
        engines = self.engines()
        if engines and reason in ("", engines[-1].reason):
            self._compare(_as_json(engines[-1].facts), _as_json(facts))
        self._engine = len(engines)
        if not engines or engines[-1].facts != facts:
            content = json.dumps(facts, sort_keys=True)
            self._execute("INSERT INTO engine (facts, reason, since_ns) VALUES (?, ?, ?)", content, reason, since_ns)
            self._engine += 1

    def _compare(self, stored: dict[str, str], fresh: dict[str, str]) -> None:
        for key in stored:
            if stored[key] != fresh.get(key, stored[key]):
                before, now = _differing(json.loads(stored[key]), json.loads(fresh[key]))
                raise RunError(
                    f"run in {self.path.parent}: begun with {key} {before:.80}, this daemon has {now:.80}; "
                    "continue with the same, or choose another output folder"
                )

    def commit_tile(self, tile: TileId, clusters: int, locs_crc32: int) -> None:
        """Commit that a tile has a template; the checksum is that of its ``.locs`` file."""
        self._execute("INSERT INTO tile VALUES (?, ?, ?, ?)", tile.lane, tile.tile, clusters, locs_crc32)

    def commit(self, row: CycleRow, images: Sequence[ImageRow] = ()) -> None:
        """Commit a tile-cycle together with the measurements of its images."""
        columns = (*astuple(row), self._engine)
        with self._failures():
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(f"INSERT INTO image VALUES ({', '.join('?' * 8)})", map(astuple, images))
            self._database.execute(f"INSERT INTO tile_cycle VALUES ({', '.join('?' * len(columns))})", columns)
            self._database.execute("COMMIT")


def _differing(before: object, now: object) -> tuple[str, str]:
    """The differing parts of two values, as JSON."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
        before, now = ({key: one.get(key) for key in sorted(keys)} for one in (before, now))
    return json.dumps(before), json.dumps(now)


def _as_json(facts: Mapping[str, object]) -> dict[str, str]:
    return {key: json.dumps(value, sort_keys=True) for key, value in facts.items()}
