"""Verifying a run folder: finished, stopped, or still being written.

Guaranteed: nothing is written into the folder and the daemon's lock is not taken; of a run that goes on, what was
committed when this began is checked. Memory holds a cycle of a tile, or a piece of a file, never a file that grows with
the run. Not guaranteed: anything about what no other file and no checksum tells of, as the times and drifts in the
ledger.
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
from daemon.record.ledgercopy import is_open
from daemon.record.runfiles import RunFiles
from daemon.record.spool import NAME
from daemon.verification.books import Books, open_books
from daemon.verification.findings import Findings, Verification
from daemon.verification.sinkfiles import check_sink_file
from daemon.verification.tilefiles import check_calls, check_template


def verify_run(folder: Path, *, progress: Callable[[int, int], None]) -> Verification:
    """Hold the files of a run against its ledger, and what sinks made against the calls.

    Parameters
    ----------
    progress : told how many tiles and files of sinks are done, and of how many.

    Raises
    ------
    RunFolderError : the folder is no output folder of a run.
    OutputError : the ledger cannot be read.
    """
    files = RunFiles(folder)
    if not files.ledger.is_file():
        raise RunFolderError(f"run folder {folder}: there is no {files.ledger.name}; seqd did not write a run to it")
    findings = Findings(folder)
    # Before the ledger is read: what a daemon has closed is written, and what is there is of committed cycles.
    closed = not is_open(files.ledger)
    there = set(folder.rglob("*"))
    with open_books(files.ledger) as books:
        info, run = books.info, CommittedRun(files, books)
        settings = run.facts["sinks"]
        root = root_of(settings, folder, info.run)
        there |= set(root.rglob("*"))
        made = list(due_files(run, root, settings, dict.fromkeys(info.tiles, info.cycles)))
        steps = len(info.tiles) + len(made)
        books.check_whole(findings)
        tiles: dict[TileId, _Tile] = {}
        for tile in info.tiles:
            tiles[tile] = _check_tile(files, books, tile, findings)
            run.committed[tile], run.clusters[tile] = tiles[tile].committed, tiles[tile].clusters
            progress(len(tiles), steps)
    totals = sum((tile.totals for tile in tiles.values()), Counter[str]())
    complete = sum(totals[status] for status in CycleStatus) == info.cycles * len(info.tiles)
    finished = complete and (closed or all(file.path.exists() for file in made))
    for done, file in enumerate(made, len(tiles) + 1):
        assert file.tile is not None
        _check_made(file, file.path in there, tiles[file.tile], findings, finished=finished)
        progress(done, steps)
    _check_strays(files, info, made, there, findings)
    _check_spool(files, info, there, findings)
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
    """Whether it has one."""
    clusters: int
    committed: int
    """Last committed cycle."""
    totals: Counter[str]
    """Cycles by status."""
    sound: bool
    """Whether its calls, chastity and positions are as committed."""


def _check_tile(files: RunFiles, books: Books, tile: TileId, findings: Findings) -> _Tile:
    before = len(findings.differences)
    template, rows = books.template(tile, findings), books.cycles(tile, findings)
    if template is not None:
        check_calls(files, books.info, tile, template, rows, findings)
    elif rows:
        findings.differs(books.path, "a template of a tile with cycles", "none", tile=tile)
    sound = len(findings.differences) == before
    if template is not None:
        check_template(files, books.info, tile, template, findings)
    return _Tile(
        template is not None,
        template.clusters if template else 0,
        max(rows, default=0),
        Counter(row.status for row in rows.values()),
        sound,
    )


def _check_made(file: SinkFile, there: bool, tile: _Tile, findings: Findings, *, finished: bool) -> None:
    if there and tile.committed < file.cycle:
        findings.differs(file.path, f"no file before cycle {file.cycle} is committed", "one", tile=file.tile)
    elif there:
        check_sink_file(file, findings, compared=tile.sound)
    elif finished and not file.path.exists():
        findings.differs(file.path, "a file of a finished run", "none", tile=file.tile)


def _check_strays(
    files: RunFiles, info: RunInfo, made: Iterable[SinkFile], there: Collection[Path], findings: Findings
) -> None:
    """Nothing else lies where tile files and sinks' files do, but for leftovers of a killed write."""
    known = {file.path for file in made}
    folders = {path.parent for path in known} | {files.tiles}
    for of in (files.calls_of, files.chastity_of, files.locs_of, files.template_of):
        known |= {of(tile) for tile in info.tiles}
    for path in sorted(path for path in there if path.parent in folders and path not in known | folders):
        if not (path.name.startswith(".") and path.name.endswith(".tmp")):
            findings.differs(path, "no such file in this run", "one")


def _check_spool(files: RunFiles, info: RunInfo, there: Collection[Path], findings: Findings) -> None:
    """Images that wait are whole, and of the run's size."""
    size = len(CHANNELS) * info.height * info.width * 2
    for path in sorted(path for path in there if path.parent == files.spool and NAME.fullmatch(path.name)):
        try:
            found = len(read_sealed(path))
        except OutputError as error:
            # One that is gone was committed meanwhile.
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
