"""The files that say that a run folder is complete, in the order in which they may appear.

Software that waits for a run takes the last two for its end, so nothing of the folder is written after them.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from daemon.record.committed import CommittedRun
from daemon.record.provenance import provenance_of
from daemon.sinks.sinkfile import SinkFile

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
