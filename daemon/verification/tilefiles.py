"""Comparing the files of a tile with its rows in the ledger."""

import os
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from seqd_client.runinfo import RunInfo, TileId
from seqd_client.status import CycleStatus

from calib.calling.scores import NO_CALL, UNKNOWN
from daemon.errors import OutputError
from daemon.record import tilefile
from daemon.record.runfiles import RunFiles, filter_cycles
from daemon.record.templates import load_template
from daemon.record.tilefile import HEADER
from daemon.verification.checkedledger import Row, Template
from daemon.verification.findings import Findings


def check_calls(
    files: RunFiles, info: RunInfo, tile: TileId, template: Template, rows: Mapping[int, Row], findings: Findings
) -> None:
    """Compare calls, chastity and positions, byte by byte."""
    filtered = {
        row.cycle: replace(row, crc32=row.chastity_crc32)
        for row in rows.values()
        if row.chastity_crc32 is not None and row.cycle <= filter_cycles(info)
    }
    for path, committed, cycles, constant in (
        (files.calls_of(tile), rows, info.cycles, NO_CALL),
        (files.chastity_of(tile), filtered, filter_cycles(info), UNKNOWN),
    ):
        _check_appended(path, tile, template.clusters, committed, cycles, constant, findings)
    path = files.locs_of(tile)
    with findings.reading(path, tile):
        content = path.read_bytes()
        findings.checked(len(content))
        if (found := zlib.crc32(content)) != template.locs_crc32:
            findings.differs(path, f"CRC-32 {template.locs_crc32:08x}", f"{found:08x}", tile=tile)
        if (clusters := len(tilefile.read_locs(path))) != template.clusters:
            findings.differs(path, f"{template.clusters} clusters", f"{clusters}", tile=tile)


def check_template(files: RunFiles, info: RunInfo, tile: TileId, template: Template, findings: Findings) -> None:
    """Check that the template is undamaged, and has the committed positions: the daemon continues a run with it."""
    path = files.template_of(tile)
    with findings.reading(path, tile):
        try:
            positions = load_template(path, (info.height, info.width)).positions
        except (BadZipFile, EOFError, KeyError, ValueError) as error:
            raise OutputError(f"file {path}: not a template") from error
        findings.checked(path.stat().st_size)
        if (found := zlib.crc32(tilefile.encode_locs(positions))) != template.locs_crc32:
            findings.differs(path, f"positions of CRC-32 {template.locs_crc32:08x}", f"{found:08x}", tile=tile)


def _check_appended(
    path: Path,
    tile: TileId,
    clusters: int,
    committed: Mapping[int, Row],
    cycles: int,
    constant: int,
    findings: Findings,
) -> None:
    """Compare a file that grows by one cycle at a time with the ledger.

    Parameters
    ----------
    cycles : cycles of the complete file. Until it is complete, more bytes may follow those that are committed.
    constant : value of every byte in a cycle that was not called.
    """
    last = max(committed, default=0)
    if last == 0:
        # When the daemon continues the run, it replaces such a file.
        return
    with findings.reading(path, tile), path.open("rb") as file:
        size, whole = os.fstat(file.fileno()).st_size, HEADER.size + clusters * last
        findings.checked(min(size, whole))
        if size < whole:
            cut = 1 + max(0, size - HEADER.size) // max(1, clusters)
            findings.differs(path, f"{whole} bytes or more", f"{size}", tile=tile, cycle=cut)
        elif size > whole and last < cycles:
            findings.uncommitted_bytes += size - whole
        elif size > whole:
            findings.differs(path, f"{whole} bytes", f"{size}", tile=tile)
        if (header := file.read(HEADER.size)) != HEADER.pack(clusters):
            findings.differs(path, f"a header of {clusters} clusters", header.hex(" ") or "none", tile=tile)
        for cycle in range(1, last + 1):
            if file.tell() + clusters > size:
                break
            content = file.read(clusters)
            if (row := committed.get(cycle)) is None:
                continue
            if (found := zlib.crc32(content)) != row.crc32:
                findings.differs(path, f"CRC-32 {row.crc32:08x}", f"{found:08x}", tile=tile, cycle=cycle)
            if row.status in (CycleStatus.MISSING, CycleStatus.FAILED):
                others = int(np.count_nonzero(np.frombuffer(content, np.uint8) != constant))
                if others:
                    findings.differs(path, f"{constant} throughout", f"{others} other bytes", tile=tile, cycle=cycle)
