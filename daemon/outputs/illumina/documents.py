"""Documents of an Illumina run folder: ``RunParameters.xml``, ``RunInfo.xml``, and the markers of its completion."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from seqd_client.runinfo import RunInfo

from calib.runfolder.images import RUN_INFO, run_info_xml
from daemon.outputs.sink import SinkFile
from daemon.record.committed import CommittedRun
from daemon.record.provenance import Provenance, provenance_of


def parameter_files(run: CommittedRun, root: Path) -> Iterator[SinkFile]:
    """``RunInfo.xml`` and ``RunParameters.xml``."""
    yield SinkFile(root / RUN_INFO, lambda: (run_info_xml(run.info),))
    yield SinkFile(root / "RunParameters.xml", lambda: (run_parameters_xml(run.info, provenance_of(run.ledger)),))


def run_parameters_xml(info: RunInfo, provenance: Provenance) -> bytes:
    """Content of ``RunParameters.xml``: the elements that programs read from a MiSeq's file, and ``Provenance``."""
    first, *others = [read.cycles for read in info.reads if not read.index] or [0]
    index = [read.cycles for read in info.reads if read.index]
    setup = {
        "ApplicationName": "seqd",
        "ApplicationVersion": provenance.software.removeprefix("seqd "),
        "Read1": first,
        "Read2": sum(others),
        "Index1Read": index[0] if index else 0,
        "Index2Read": sum(index[1:]),
    }
    content = {
        "Setup": setup,
        "RunID": info.run,
        "RunNumber": info.number,
        "ScannerID": info.instrument,
        "RunStartDate": info.date,
        "RTAVersion": provenance.software,
        "Provenance": {name.capitalize(): value for name, value in provenance.hashes.items()},
    }
    return _xml("RunParameters", content)


def marker_files(run: CommittedRun, root: Path) -> Iterator[SinkFile]:
    """Files that mark a run folder as complete, to be written in this order, when everything else is on the disk.

    Programs that wait for the end of a run wait for one of the last two files.
    """
    status = {
        "CompletionStatus": "CompletedAsPlanned",
        "RunId": run.info.run,
        "StepCompleted": run.info.cycles,
        "CycleCompleted": run.info.cycles,
        "ErrorDescription": "None",
    }
    yield SinkFile(root / "RunCompletionStatus.xml", lambda: (_xml("RunCompletionStatus", status),))
    yield SinkFile(root / "SequenceComplete.txt", tuple)
    yield SinkFile(root / "RTAComplete.txt", partial(_completion_time, run))
    yield SinkFile(root / "CopyComplete.txt", tuple)


def _completion_time(run: CommittedRun) -> Iterator[bytes]:
    """Date, time and software, as Illumina's real-time analysis writes them."""
    last = run.info.cycles - 1
    last_ns = max(row.committed_ns for tile in run.info.tiles for row in run.ledger.rows(tile, after=last))
    when = datetime.fromtimestamp(last_ns // 10**9, UTC)
    yield f"{when:%m/%d/%Y},{when:%H:%M:%S}.000,{provenance_of(run.ledger).software}".encode()


def _xml(tag: str, content: Mapping[str, Any]) -> bytes:
    """An XML document. Each item of ``content`` becomes an element; a mapping becomes an element with children."""
    document = _element(tag, content)
    ElementTree.indent(document)
    return bytes(ElementTree.tostring(document, encoding="utf-8", xml_declaration=True))


def _element(tag: str, content: object) -> ElementTree.Element:
    element = ElementTree.Element(tag)
    if isinstance(content, Mapping):
        element.extend(_element(name, child) for name, child in content.items())
    else:
        element.text = str(content)
    return element
