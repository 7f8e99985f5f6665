"""Where the files of an Illumina run folder lie."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from seqd_client.runinfo import TileId

from daemon.outputs.sink import SinkFile
from daemon.record.committed import CommittedRun
from daemon.record.provenance import provenance_of


def intensities(root: Path) -> Path:
    """Folder of positions."""
    return root / "Data" / "Intensities"


def lane_folder(root: Path, lane: int) -> Path:
    """Folder of a lane's base calls."""
    return intensities(root) / "BaseCalls" / f"L{lane:03d}"


def cycle_folder(root: Path, lane: int, cycle: int) -> Path:
    """Folder of a lane's base calls in a 1-based cycle."""
    return lane_folder(root, lane) / f"C{cycle}.1"


def bcl_path(root: Path, tile: TileId, cycle: int, ending: str) -> Path:
    """Base calls of a tile in a 1-based cycle; ``bcl`` or ``bcl.gz``."""
    return cycle_folder(root, tile.lane, cycle) / f"s_{tile}.{ending}"


def filter_path(root: Path, tile: TileId) -> Path:
    """Which clusters of a tile pass the filter."""
    return lane_folder(root, tile.lane) / f"s_{tile}.filter"


def locs_path(root: Path, tile: TileId) -> Path:
    """Positions of a tile's clusters."""
    return intensities(root) / f"L{tile.lane:03d}" / f"s_{tile}.locs"


def shared_locs_path(root: Path) -> Path:
    """Positions of every tile's clusters."""
    return intensities(root) / "s.locs"


COPY_COMPLETE = "CopyComplete.txt"


def markers(run: CommittedRun, root: Path) -> Iterator[SinkFile]:
    """To be written one after the other, each durably, when all else is."""
    yield SinkFile(root / "RunCompletionStatus.xml", partial(_status, run))
    yield SinkFile(root / "SequenceComplete.txt", tuple)
    yield SinkFile(root / "RTAComplete.txt", partial(_complete, run))
    yield SinkFile(root / COPY_COMPLETE, tuple)


def _status(run: CommittedRun) -> Iterator[bytes]:
    document = ElementTree.Element("RunCompletionStatus")
    for tag, text in (
        ("CompletionStatus", "CompletedAsPlanned"),
        ("RunId", run.info.run),
        ("StepCompleted", str(run.info.cycles)),
        ("CycleCompleted", str(run.info.cycles)),
        ("ErrorDescription", "None"),
    ):
        ElementTree.SubElement(document, tag).text = text
    ElementTree.indent(document)
    yield bytes(ElementTree.tostring(document, encoding="utf-8", xml_declaration=True))


def _complete(run: CommittedRun) -> Iterator[bytes]:
    """Date, time and software, as Illumina's real-time analysis writes them."""
    last = run.info.cycles - 1
    last_ns = max(row.committed_ns for tile in run.info.tiles for row in run.ledger.rows(tile, after=last))
    when = datetime.fromtimestamp(last_ns // 10**9, UTC)
    yield f"{when:%m/%d/%Y},{when:%H:%M:%S}.000,{provenance_of(run.ledger).software}".encode()
