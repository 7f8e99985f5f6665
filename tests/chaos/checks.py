"""What has to hold of a disturbed run, whatever befell it."""

import sqlite3
import zlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from seqd_client.errors import SeqdError
from seqd_client.runinfo import RunInfo, TileId
from seqd_client.status import CycleStatus, RunState, StopReason

from calib.calling.inphase import AHEAD
from daemon.outputs.reads.fastq import fastq_path
from daemon.record.runfiles import RunFiles
from daemon.verification import verify_run
from tests.chaos.ledger import Key, Row, read_ledger
from tests.support.processes import outputs

HEADER = 4
"""Bytes of a tile file before its first cycle."""


class Wrong(StrEnum):
    """What must not happen."""

    UNBALANCED = "unbalanced"
    """Cycles of a tile are not 1, 2, 3, ... to the last; received is not what became of it."""
    LOST = "lost"
    """A tile-cycle that was told of as committed, or that need not be missing, is not there."""
    DUPLICATED = "duplicated"
    """A tile-cycle was committed twice."""
    CHANGED = "changed"
    """Bytes are not those of the undisturbed run, or not those told of."""
    ENDED = "ended"
    """A process ended otherwise than it promises to."""
    HUNG = "hung"
    """It did not end in time."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong."""

    wrong: Wrong
    text: str


@dataclass(frozen=True)
class Reference:
    """The undisturbed run."""

    info: RunInfo
    outputs: dict[str, bytes]
    rows: dict[Key, Row]
    changed: tuple[str, ...]
    """Paths of all changes of the output folder, in their order."""
    template_cycles: int


def check_kept(folder: Path, told: dict[Key, int]) -> list[Finding]:
    """What consumers were told of (tile-cycle and CRC-32 of its calls) is in a run folder: ledger and bytes."""
    try:
        rows = read_ledger(folder)
    except (sqlite3.Error, ValueError) as error:
        return [Finding(Wrong.LOST, f"the ledger cannot be read: {error}")]
    found = []
    for key, crc32 in sorted(told.items()):
        if key not in rows:
            found.append(Finding(Wrong.LOST, f"{_named(key)}: was committed, and is not in the ledger"))
        elif rows[key].crc32 != crc32:
            found.append(Finding(Wrong.CHANGED, f"{_named(key)}: other calls were committed than the ledger has"))
        elif _crc32_of_bytes(folder, key) != crc32:
            found.append(Finding(Wrong.LOST, f"{_named(key)}: was committed, and its bytes are not in the tile file"))
    return found


def check_balance(rows: dict[Key, Row], info: RunInfo, ended: list[dict[str, Any]]) -> list[Finding]:
    """The books, and what the daemon said when it ended (its ``run ended`` lines)."""
    found = []
    for lane, tile in sorted({key[:2] for key in rows} | {(tile.lane, tile.tile) for tile in info.tiles}):
        cycles = sorted(key[2] for key in rows if key[:2] == (lane, tile))
        if cycles != list(range(1, len(cycles) + 1)) or TileId(lane=lane, tile=tile) not in info.tiles:
            found.append(Finding(Wrong.UNBALANCED, f"tile {lane}_{tile}: the ledger has cycles {cycles}"))
    for line in ended:
        if line["received"] != line["called"] + line["missing"] + line["failed"] + line["pending"]:
            found.append(Finding(Wrong.UNBALANCED, f"the daemon ended with {line}"))
    if ended:
        for status in CycleStatus:
            counted = sum(row.status == status for row in rows.values())
            # The last line: a daemon that is killed after another one ended says nothing.
            if ended[-1]["state"] == RunState.FINISHED and ended[-1][status] != counted:
                text = f"the ledger has {counted} {status}, the daemon ended with {ended[-1][status]}"
                found.append(Finding(Wrong.UNBALANCED, text))
    return found


def check_ends(ended: list[dict[str, Any]], typed: int) -> list[Finding]:
    """Each of the starts that ended in a typed failure said why: the disk, which is all that was made to fail."""
    reasons = [line["stop_reason"] for line in ended if line["state"] == RunState.FAILED]
    found = [Finding(Wrong.ENDED, f"{typed} daemons failed, {len(reasons)} said why")] if len(reasons) < typed else []
    return found + [
        Finding(Wrong.ENDED, f"a daemon failed with stop reason {reason!r}")
        for reason in reasons
        if reason not in (StopReason.DISK_FULL, StopReason.PERMISSION_LOST, StopReason.STORAGE_FAILED)
    ]


def check_finished(folder: Path, rows: dict[Key, Row], reference: Reference, *, may_miss: bool) -> list[Finding]:
    """The files of a run that is finished, against the undisturbed run."""
    found = [
        Finding(Wrong.LOST, f"{_named(key)}: not in the ledger of a finished run")
        for key in sorted(reference.rows.keys() - rows)
    ]
    found += [
        Finding(Wrong.LOST, f"{_named(key)}: {row.status} ({row.reason}), and nothing of it was lost for good")
        for key, row in sorted(rows.items())
        if row.status == CycleStatus.FAILED or (row.status == CycleStatus.MISSING and not may_miss)
    ]
    found += [text for tile in reference.info.tiles for text in _bytes_of_ledger(folder, tile, rows, reference.info)]
    if all(row.status == CycleStatus.CALLED for row in rows.values()):
        found += _same_files(folder, reference)
        found += [
            Finding(Wrong.CHANGED, f"{_named(key)}: CRC-32 {row.crc32}, undisturbed {reference.rows[key].crc32}")
            for key, row in rows.items()
            if key in reference.rows and row.crc32 != reference.rows[key].crc32
        ]
    else:
        found += _same_until_missing(rows, reference)
    return found


def check_verified(folder: Path) -> list[Finding]:
    """What ``seqd verify`` says of a run folder."""
    try:
        differences = verify_run(folder, progress=lambda done, of: None).differences
    except SeqdError as error:
        return [Finding(Wrong.CHANGED, f"verify: {error}")]
    return [Finding(Wrong.CHANGED, f"verify: {difference}") for difference in differences]


def _same_files(folder: Path, reference: Reference) -> list[Finding]:
    there = outputs(folder)
    return [
        Finding(Wrong.CHANGED if name in there else Wrong.LOST, f"{name}: not as in the undisturbed run")
        for name in sorted(reference.outputs.keys() | there.keys())
        if there.get(name) != reference.outputs.get(name)
    ]


def _bytes_of_ledger(folder: Path, tile: TileId, rows: dict[Key, Row], info: RunInfo) -> list[Finding]:
    """The bytes of each cycle are those that the ledger has the checksum of, and the files are of full length."""
    files = RunFiles(folder)
    path = files.calls_of(tile)
    content = path.read_bytes() if path.exists() else b""
    clusters = int.from_bytes(content[:HEADER], "little")
    found = []
    if len(content) != HEADER + clusters * info.cycles:
        text = f"{path.name}: {len(content)} bytes, {info.cycles} cycles of {clusters} clusters are more or less"
        found.append(Finding(Wrong.CHANGED, text))
    for cycle in range(1, info.cycles + 1):
        row = rows.get((tile.lane, tile.tile, cycle))
        if row and _crc32_of_bytes(folder, (tile.lane, tile.tile, cycle)) != row.crc32:
            found.append(Finding(Wrong.CHANGED, f"tile {tile}, cycle {cycle}: bytes are not those of the ledger"))
    return found + [
        Finding(Wrong.LOST, f"{path.name} is not there")
        for path in (fastq_path(folder, info, tile, read) for read in info.reads)
        if not path.exists()
    ]


def _same_until_missing(rows: dict[Key, Row], reference: Reference) -> list[Finding]:
    """Calls that looked ahead to no missing cycle; none, where the template was made without one."""
    found = []
    for tile in reference.info.tiles:
        mine = {key[2]: row for key, row in rows.items() if key[:2] == (tile.lane, tile.tile)}
        first = min(
            (cycle for cycle, row in mine.items() if row.status != CycleStatus.CALLED),
            default=reference.info.cycles + AHEAD + 1,
        )
        if first <= reference.template_cycles:
            continue
        for cycle in range(1, min(first - AHEAD, len(mine) + 1)):
            if mine[cycle].crc32 != reference.rows[tile.lane, tile.tile, cycle].crc32:
                text = (
                    f"tile {tile}, cycle {cycle}: not as in the undisturbed run, and cycle {first} is the first missing"
                )
                found.append(Finding(Wrong.CHANGED, text))
    return found


def _crc32_of_bytes(folder: Path, key: Key) -> int | None:
    """CRC-32 of a tile-cycle's bytes; None when they are not all there."""
    lane, tile, cycle = key
    path = RunFiles(folder).calls_of(TileId(lane=lane, tile=tile))
    content = path.read_bytes() if path.exists() else b""
    clusters = int.from_bytes(content[:HEADER], "little")
    end = HEADER + clusters * cycle
    return zlib.crc32(content[end - clusters : end]) if len(content) >= end else None


def _named(key: Key) -> str:
    return f"tile {key[0]}_{key[1]}, cycle {key[2]}"
