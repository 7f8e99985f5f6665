"""``RunParameters.xml``, and ``RunInfo.xml`` where the run folder is not the daemon's own."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from seqd_client.runinfo import RunInfo

from calib.runfolder.images import RUN_INFO, run_info_xml
from daemon.outputs.sink import SinkFile
from daemon.record.committed import CommittedRun
from daemon.record.provenance import Provenance, provenance_of

RUN_PARAMETERS = "RunParameters.xml"


class Parameters:
    """The view of what a run is, and what it is made with."""

    name = "run parameters"

    def __init__(self, run: CommittedRun) -> None:
        self._run = run

    def files(self, root: Path) -> Iterator[SinkFile]:
        """Both files."""
        run = self._run
        yield SinkFile(root / RUN_INFO, lambda: (run_info_xml(run.info),))
        yield SinkFile(root / RUN_PARAMETERS, partial(_content, run))


def _content(run: CommittedRun) -> Iterator[bytes]:
    yield run_parameters_xml(run.info, provenance_of(run.ledger))


def run_parameters_xml(info: RunInfo, provenance: Provenance) -> bytes:
    """Content of ``RunParameters.xml``: the elements that readers of a MiSeq's look for, and ``Provenance``."""
    document = ElementTree.Element("RunParameters")
    setup = ElementTree.SubElement(document, "Setup")
    for tag, text in (("ApplicationName", "seqd"), ("ApplicationVersion", provenance.software.removeprefix("seqd "))):
        ElementTree.SubElement(setup, tag).text = text
    first, *others = [read.cycles for read in info.reads if not read.index] or [0]
    index = [read.cycles for read in info.reads if read.index]
    for tag, cycles in (
        ("Read1", first),
        ("Read2", sum(others)),
        ("Index1Read", index[0] if index else 0),
        ("Index2Read", sum(index[1:])),
    ):
        ElementTree.SubElement(setup, tag).text = str(cycles)
    for tag, text in (
        ("RunID", info.run),
        ("RunNumber", str(info.number)),
        ("ScannerID", info.instrument),
        ("RunStartDate", info.date),
        ("RTAVersion", provenance.software),
    ):
        ElementTree.SubElement(document, tag).text = text
    made = ElementTree.SubElement(document, "Provenance")
    for name, value in provenance.hashes.items():
        ElementTree.SubElement(made, name.capitalize()).text = value
    ElementTree.indent(document)
    return bytes(ElementTree.tostring(document, encoding="utf-8", xml_declaration=True))
