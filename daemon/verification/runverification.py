"""Verifying a run folder: finished, stopped, or still being written.

Guaranteed: nothing is written into the folder, and the daemon's lock is not taken. A run that is still being written is
checked up to what was committed at the start. Memory holds a cycle of a tile or a piece of a file, never a whole file
that grows with the run. Not guaranteed: values that have no checksum and are in no second file are not checked, for
example the times and drifts in the ledger.
"""

import json
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from seqd_client.runinfo import CHANNELS, RunInfo, TileId
from seqd_client.status import CycleStatus

from calib.runfolder.images import RUN_INFO, RunFolderError, run_info_xml
from daemon.errors import OutputError
from daemon.outputs.sink import SinkFile
from daemon.outputs.sinks.configured import due_files, root_of
from daemon.record.committed import CommittedRun
from daemon.record.durable import read_sealed
from daemon.record.ledgercopy import copied, is_open
from daemon.record.runfiles import RunFiles
from daemon.record.spool import NAME
from daemon.verification.checkedledger import CheckedLedger
from daemon.verification.findings import Findings, Verification
from daemon.verification.sinkfiles import check_sink_file
from daemon.verification.tilefiles import check_calls, check_template


def verify_run(folder: Path, *, progress: Callable[[int, int], None]) -> Verification:
    """Compare the files of a run with its ledger, and the files of its sinks with the calls.

    Parameters
    ----------
    progress : receives how many tiles and files of sinks are done, and how many there are.

    Raises
    ------
    RunFolderError : the folder is not the output folder of a run.
    OutputError : the ledger cannot be read.
    """
    files = RunFiles(folder)
    if not files.ledger.is_file():
        raise RunFolderError(f"run folder {folder}: there is no {files.ledger.name}; seqd did not write a run to it")
    findings = Findings(folder)
    # These two lines come before the ledger is read. If the ledger is closed now, all files are written. The files that
    # exist now contain only cycles that are committed.
    closed = not is_open(files.ledger)
    existing = set(folder.rglob("*"))
    with copied(files.ledger) as database:
        ledger = CheckedLedger(files.ledger, database)
        info, run = ledger.info, CommittedRun(files, ledger)
        settings = run.facts["sinks"]
        root = root_of(settings, folder, info.run)
        existing |= set(root.rglob("*"))
        made = list(due_files(run, root, settings, dict.fromkeys(info.tiles, info.cycles)))
        steps = len(info.tiles) + len(made)
        ledger.check_whole(findings)
        tiles: dict[TileId, _Tile] = {}
        for tile in info.tiles:
            tiles[tile] = _check_tile(files, ledger, tile, findings)
            run.committed[tile], run.clusters[tile] = tiles[tile].committed, tiles[tile].clusters
            progress(len(tiles), steps)
    totals = sum((tile.totals for tile in tiles.values()), Counter[str]())
    complete = sum(totals[status] for status in CycleStatus) == info.cycles * len(info.tiles)
    finished = complete and (closed or all(file.path.exists() for file in made))
    for done, file in enumerate(made, len(tiles) + 1):
        assert file.tile is not None
        _check_expected(file, tiles[file.tile], findings, existed=file.path in existing, finished=finished)
        progress(done, steps)
    _check_unexpected(files, info, made, existing, findings)
    _check_spool(files, info, existing, findings)
    if totals.total():
        _check_run_info(files, info, findings)
        _check_provenance(files, findings)
    return Verification(
        folder=folder,
        run=info.run,
        finished=finished,
        tiles=len(info.tiles),
        templates=sum(tile.template for tile in tiles.values()),
        expected=info.cycles * len(info.tiles),
        called=totals[CycleStatus.CALLED],
        missing=totals[CycleStatus.MISSING],
        failed=totals[CycleStatus.FAILED],
        files=findings.files,
        bytes=findings.bytes,
        uncommitted_bytes=findings.uncommitted_bytes,
        not_compared=tuple(findings.not_compared),
        differences=tuple(findings.differences),
    )


@dataclass(frozen=True)
class _Tile:
    template: bool
    """Whether it has a template."""
    clusters: int
    committed: int
    """Last committed cycle."""
    totals: Counter[str]
    """Cycles by status."""
    as_committed: bool
    """Whether its calls, chastity and positions are as committed."""


def _check_tile(files: RunFiles, ledger: CheckedLedger, tile: TileId, findings: Findings) -> _Tile:
    before = len(findings.differences)
    template, rows = ledger.template(tile, findings), ledger.cycles(tile, findings)
    if template is not None:
        check_calls(files, ledger.info, tile, template, rows, findings)
    elif rows:
        findings.differs(ledger.path, "a template of a tile with cycles", "none", tile=tile)
    as_committed = len(findings.differences) == before
    if template is not None:
        check_template(files, ledger.info, tile, template, findings)
    return _Tile(
        template is not None,
        template.clusters if template else 0,
        max(rows, default=0),
        Counter(row.status for row in rows.values()),
        as_committed,
    )


def _check_expected(file: SinkFile, tile: _Tile, findings: Findings, *, existed: bool, finished: bool) -> None:
    if existed and tile.committed < file.cycle:
        findings.differs(file.path, f"no file before cycle {file.cycle} is committed", "one", tile=file.tile)
    elif existed:
        check_sink_file(file, findings, compared=tile.as_committed)
    elif finished and not file.path.exists():
        findings.differs(file.path, "a file of a finished run", "none", tile=file.tile)


def _check_unexpected(
    files: RunFiles, info: RunInfo, made: Iterable[SinkFile], existing: Collection[Path], findings: Findings
) -> None:
    """Check that the folders of tile files and sinks hold no other files, except those that a kill left unfinished."""
    known = {file.path for file in made}
    folders = {path.parent for path in known} | {files.tiles}
    for of in (files.calls_of, files.chastity_of, files.locs_of, files.template_of):
        known |= {of(tile) for tile in info.tiles}
    for path in sorted(path for path in existing if path.parent in folders and path not in known | folders):
        if not (path.name.startswith(".") and path.name.endswith(".tmp")):
            findings.differs(path, "no such file in this run", "one")


def _check_spool(files: RunFiles, info: RunInfo, existing: Collection[Path], findings: Findings) -> None:
    """Check that the spooled images are undamaged, and have the run's size."""
    size = len(CHANNELS) * info.height * info.width * 2
    for path in sorted(path for path in existing if path.parent == files.spool and NAME.fullmatch(path.name)):
        try:
            found = len(read_sealed(path))
        except OutputError as error:
            # An image that does not exist any more was committed meanwhile.
            if path.exists():
                findings.differs(path, "a whole file", str(error).partition(": ")[2])
            continue
        findings.checked(found)
        if found != size:
            findings.differs(path, f"{size} bytes of pixels", f"{found}")


def _check_run_info(files: RunFiles, info: RunInfo, findings: Findings) -> None:
    path, expected = files.root / RUN_INFO, run_info_xml(info)
    with findings.reading(path):
        found = path.read_bytes()
        findings.checked(len(found))
        if found != expected:
            findings.differs(
                path,
                f"the run of the ledger, {len(expected)} bytes of CRC-32 {zlib.crc32(expected):08x}",
                f"{len(found)} bytes of CRC-32 {zlib.crc32(found):08x}",
            )


def _check_provenance(files: RunFiles, findings: Findings) -> None:
    with findings.reading(files.provenance):
        content = files.provenance.read_bytes()
        findings.checked(len(content))
        try:
            whole = isinstance(json.loads(content), dict)
        except ValueError:
            whole = False
        if not whole:
            findings.differs(files.provenance, "a JSON object", "none that can be read")
