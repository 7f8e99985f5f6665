"""Reading a run's ledger without touching it: a copy is read, as a database is changed by being opened."""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

Key = tuple[int, int, int]
"""Lane, tile, cycle."""


@dataclass(frozen=True)
class Row:
    """What the ledger says of a tile-cycle."""

    status: str
    reason: str
    crc32: int


def read_ledger(folder: Path) -> dict[Key, Row]:
    """The tile-cycles of a run folder that are committed; none where there is no ledger.

    Raises
    ------
    sqlite3.Error : it cannot be read.
    ValueError : a tile-cycle is there twice.
    """
    with TemporaryDirectory(prefix="seqd-") as scratch:
        for name in ("run.db", "run.db-wal", "run.db-journal"):
            if (folder / name).exists():
                shutil.copy(folder / name, scratch)
        with closing(sqlite3.connect(Path(scratch) / "run.db")) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'tile_cycle'").fetchone():
                return {}
            found = database.execute("SELECT lane, tile, cycle, status, reason, crc32 FROM tile_cycle").fetchall()
    rows = {(lane, tile, cycle): Row(status, reason, crc32) for lane, tile, cycle, status, reason, crc32 in found}
    if len(rows) < len(found):
        raise ValueError(f"ledger in {folder}: {len(found)} rows, {len(rows)} tile-cycles")
    return rows
