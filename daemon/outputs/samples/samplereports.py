"""Reports of demultiplexing, as bcl-convert 4 writes them and MultiQC reads them.

They count only clusters that pass the filter.

::

    Reports/RunInfo.xml                 MultiQC takes the run's name from here
    Reports/Demultiplex_Stats.csv       a line for each lane and sample
    Reports/Quality_Metrics.csv         a line for each lane, sample and template read
    Reports/Top_Unknown_Barcodes.csv    the most frequent barcodes that belong to no sample, by lane

A sample with several barcodes has one line, in which semicolons separate them. Shares (``%``) are fractions of one, as
in bcl-convert's reports. Source: Illumina, "BCL Convert: Metrics Output"; MultiQC 1.35, ``modules/bclconvert``.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from calib.runfolder.images import RUN_INFO, run_info_xml
from daemon.outputs.samples.barcodes import UNDETERMINED
from daemon.outputs.samples.samplecounts import SampleCounts
from daemon.outputs.samples.samples import Sample
from daemon.outputs.sink import SinkFile

TOP_UNKNOWN = 1000
"""Maximum number of unknown barcodes that are reported for a lane. bcl-convert has the same limit."""

Table = Iterable[list[object]]

KINDS = ("Perfect", "One Mismatch", "Two Mismatch")


def report_files(stats: SampleCounts, root: Path) -> Iterator[SinkFile]:
    """The files of ``Reports`` below a folder."""
    reports = root / "Reports"
    tables: dict[str, Callable[[SampleCounts], Table]] = {
        "Demultiplex_Stats.csv": _demultiplexed,
        "Quality_Metrics.csv": _qualities,
        "Top_Unknown_Barcodes.csv": _unknown,
    }
    yield SinkFile(reports / RUN_INFO, lambda: [run_info_xml(stats.info)])
    for name, table in tables.items():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(table(stats))
        yield SinkFile(reports / name, partial(tuple, [text.getvalue().encode()]))


@dataclass(frozen=True)
class _Row:
    """A sample in a lane, or the lane's undetermined clusters."""

    lane_index: int
    lane: int
    sample: int
    """Index, or :data:`daemon.outputs.samples.barcodes.UNDETERMINED`."""
    name: str
    entries: Sequence[Sample] = ()
    """The sample's entries in the samples file, one for each of its barcodes."""


def _rows(stats: SampleCounts) -> Iterator[_Row]:
    """The samples of each lane in the order of the samples file, then the undetermined clusters."""
    numbers = {name: number for number, name in enumerate(stats.demultiplexer.names)}
    for at, lane in enumerate(stats.lanes):
        declared: dict[str, list[Sample]] = {}
        for sample in stats.demultiplexer.lanes[lane].declared:
            declared.setdefault(sample.name, []).append(sample)
        for name, samples in declared.items():
            yield _Row(at, lane, numbers[name], name, samples)
        yield _Row(at, lane, UNDETERMINED, "Undetermined")


def _demultiplexed(stats: SampleCounts) -> Table:
    yield [
        *("Lane", "SampleID", "Sample_Project", "Index", "# Reads"),
        *(f"# {kind} Index Reads" for kind in KINDS),
        "% Reads",
        *(f"% {kind} Index Reads" for kind in KINDS),
    ]
    for row in _rows(stats):
        passed = stats.clusters[row.lane_index, row.sample, 1].tolist()
        by_mismatches = [0] * len(KINDS) if row.sample == UNDETERMINED else passed[: len(KINDS)]
        yield [
            *(row.lane, row.name, row.entries[0].project if row.entries else ""),
            *(";".join(sample.barcode for sample in row.entries), sum(passed), *by_mismatches),
            _share(sum(passed), int(stats.clusters[row.lane_index, :, 1].sum())),
            *(_share(number, sum(passed)) for number in by_mismatches),
        ]


def _qualities(stats: SampleCounts) -> Table:
    yield [
        *("Lane", "SampleID", "index", "index2", "ReadNumber", "Yield", "YieldQ30", "QualityScoreSum"),
        *("Mean Quality Score (PF)", "% Q30"),
    ]
    for row in _rows(stats):
        barcodes = [";".join(filter(None, (sample.barcodes[read] for sample in row.entries))) for read in range(2)]
        for read in range(len(stats.reads)):
            of = row.lane_index, row.sample, read
            bases, good, scores = int(stats.bases[of]), int(stats.good[of]), int(stats.scores[of])
            mean = f"{scores / bases if bases else 0:.2f}"
            yield [row.lane, row.name, *barcodes, read + 1, bases, good, scores, mean, _share(good, bases)]


def _unknown(stats: SampleCounts) -> Table:
    yield ["Lane", "index", "index2", "# Reads", "% of Unknown Barcodes", "% of All Reads"]
    for at, lane in enumerate(stats.lanes):
        passed = stats.clusters[at, :, 1].sum(axis=1).tolist()
        first = stats.demultiplexer.lanes[lane].parts[0]
        length = first.stop - first.start
        # By count, then by letters, so that the order of counting does not matter.
        ordered = sorted(stats.unknown[lane].items(), key=lambda item: (-item[1], item[0]))
        for barcode, count in ordered[:TOP_UNKNOWN]:
            index, index2 = barcode[:length].decode("ascii"), barcode[length:].decode("ascii")
            yield [lane, index, index2, count, _share(count, passed[UNDETERMINED]), _share(count, sum(passed))]


def _share(part: int, whole: int) -> str:
    return f"{part / whole if whole else 0:.6f}"
