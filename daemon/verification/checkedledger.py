"""The ledger of a run that is verified: its rows, each of which is checked for contradictions."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seqd_client.runinfo import CHANNELS, RunInfo, TileId
from seqd_client.status import CycleStatus

from daemon.errors import OutputError
from daemon.record.ledgerreader import LedgerReader
from daemon.record.runfiles import filter_cycles
from daemon.verification.findings import Findings

MAX_CLUSTERS = 2**32 - 1
"""Highest number that a tile file's header can hold."""


@dataclass(frozen=True)
class Template:
    """The ledger's row of a tile."""

    clusters: int
    locs_crc32: int


@dataclass(frozen=True)
class Row:
    """Some columns of a tile-cycle's row, as :class:`daemon.record.ledgerreader.CycleRow` but unchecked."""

    cycle: int
    status: str
    reason: str
    frames: int
    crc32: int
    chastity_crc32: int | None


class CheckedLedger(LedgerReader):
    """A ledger whose rows are checked."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        """
        Parameters
        ----------
        path : of the ledger, for messages.
        database : a copy of the ledger.

        Raises
        ------
        OutputError : it is not a ledger, or one of another version.
        """
        super().__init__(path, database)
        facts = self.facts()
        strict = {name for (name,) in database.execute("SELECT name FROM pragma_table_list WHERE strict")}
        if altered := {"tile", "tile_cycle", "image"} - strict:
            raise OutputError(f"ledger {path}: seqd did not create table {min(altered)}; it was changed from outside")
        self.info: RunInfo = facts["info"]

    def check_whole(self, findings: Findings) -> None:
        """Check that the database is undamaged, and that every row is about a tile of the run."""
        for (text,) in self._database.execute("PRAGMA integrity_check"):
            if text != "ok":
                findings.differs(self.path, "a whole database", str(text))
        unknown = "SELECT count(*) FROM tile_cycle WHERE engine NOT IN (SELECT id FROM engine)"
        if (number := self._database.execute(unknown).fetchone()[0]) > 0:
            findings.differs(
                self.path, "a listed engine for every tile-cycle", f"tile-cycles with another engine: {number}"
            )
        declared = {(tile.lane, tile.tile) for tile in self.info.tiles}
        for table in ("tile", "tile_cycle", "image"):
            for lane, tile in self._database.execute(f"SELECT DISTINCT lane, tile FROM {table}"):
                if (lane, tile) not in declared:
                    findings.differs(self.path, "tiles of the run", f"rows in {table}", tile=f"{lane}_{tile}")

    def template(self, tile: TileId, findings: Findings) -> Template | None:
        """A tile's template; None where there is none, or its row is impossible."""
        rows = self._database.execute(
            "SELECT clusters, locs_crc32 FROM tile WHERE lane = ? AND tile = ?", (tile.lane, tile.tile)
        ).fetchall()
        if len(rows) > 1:
            findings.differs(self.path, "one template", f"{len(rows)}", tile=tile)
        if not rows:
            return None
        template = Template(*rows[0])
        if template.clusters is None or not 0 <= template.clusters <= MAX_CLUSTERS:
            findings.differs(self.path, f"0 to {MAX_CLUSTERS} clusters", f"{template.clusters}", tile=tile)
            return None
        return template

    def cycles(self, tile: TileId, findings: Findings) -> dict[int, Row]:
        """The rows of a tile by cycle; check that cycles 1 to the last have one row each, without contradictions."""
        rows: dict[int, Row] = {}
        for columns in self._database.execute(
            "SELECT cycle, status, reason, frames, crc32, chastity_crc32 FROM tile_cycle "
            "WHERE lane = ? AND tile = ? ORDER BY cycle",
            (tile.lane, tile.tile),
        ):
            row = Row(*columns)
            if row.cycle in rows:
                findings.differs(self.path, "one row", "another", tile=tile, cycle=row.cycle)
            elif row.cycle not in range(1, self.info.cycles + 1):
                findings.differs(self.path, f"cycles 1 to {self.info.cycles}", "a row", tile=tile, cycle=row.cycle)
            else:
                rows[row.cycle] = row
                for expected, found in self._contradictions(row):
                    findings.differs(self.path, expected, found, tile=tile, cycle=row.cycle)
        for cycle in sorted(set(range(1, max(rows, default=0))) - rows.keys()):
            findings.differs(self.path, "a row, because later cycles have a row", "none", tile=tile, cycle=cycle)
        return rows

    def _contradictions(self, row: Row) -> Iterator[tuple[str, str]]:
        """Expected and found values that contradict each other in a row."""
        if row.status not in set(CycleStatus):
            yield f"status {', '.join(CycleStatus)}", repr(row.status)
            return
        if row.status == CycleStatus.MISSING and row.frames not in range(len(CHANNELS)):
            yield f"fewer than {len(CHANNELS)} frames of a missing tile-cycle", f"{row.frames}"
        elif row.status != CycleStatus.MISSING and row.frames != len(CHANNELS):
            yield f"{len(CHANNELS)} frames of a {row.status} tile-cycle", f"{row.frames}"
        if row.status != CycleStatus.CALLED and not row.reason:
            yield f"a reason why it is {row.status}", "none"
        elif row.status == CycleStatus.CALLED and row.reason:
            yield "no reason, it was called", repr(row.reason)
        if (row.chastity_crc32 is not None) != (row.cycle <= filter_cycles(self.info)):
            yield (
                f"a chastity checksum up to cycle {filter_cycles(self.info)} and none in later cycles",
                "none" if row.chastity_crc32 is None else f"{row.chastity_crc32:08x}",
            )
