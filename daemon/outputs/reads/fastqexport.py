"""FASTQ of a whole run, by tile, lane, run or sample, also while it goes on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.outputs.reads.conversion import (
    THREADS,
    Assignment,
    By,
    Chunk,
    Group,
    Progress,
    Records,
    Sample,
    convert,
    groups_of,
)
from daemon.outputs.reads.fastqfiles import fastq_text
from daemon.record.committed import CommittedRun


def export_fastq(
    run: CommittedRun,
    folder: Path,
    *,
    by: By = By.LANE,
    compress: bool = True,
    passing_only: bool = False,
    assign: Assignment | None = None,
    threads: int = THREADS,
    progress: Progress,
) -> list[Path]:
    """Write FASTQ files of all reads, index reads too, with as many cycles as all tiles of a file have committed.

    ``s_1_1101_R1.fastq.gz`` by tile, ``<run>_L001_R1.fastq.gz`` by lane, ``<run>_R1.fastq.gz`` by run. Samples have
    bcl-convert's names, ``<Sample>_S1_L001_R1_001.fastq.gz`` or ``<Sample>_S1_R1_001.fastq.gz``, and so has what is
    ``Undetermined_S0``. The observed index stands in the names of reads once all index reads are committed.
    :func:`daemon.outputs.reads.conversion.convert` says what the parameters mean and what is raised.

    Parameters
    ----------
    compress : gzip (BGZF), or plain text without ``.gz``.

    Raises
    ------
    ExportError : as by :func:`daemon.outputs.reads.conversion.groups_of`; nothing is written then.
    """
    return convert(
        run,
        _Fastq(folder, run.info.run, ".fastq.gz" if compress else ".fastq"),
        groups_of(run, by, samples=assign is not None),
        assign=assign,
        passing_only=passing_only,
        compress=compress,
        threads=threads,
        progress=progress,
    )


@dataclass(frozen=True)
class _Fastq:
    folder: Path
    run: str
    ending: str

    def paths(self, group: Group, sample: Sample | None) -> Sequence[Path]:
        stem, last = group.stem(self.run, sample), "" if sample is None else "_001"
        return [self.folder / f"{stem}_{part.label}{last}{self.ending}" for part in group.parts]

    def head(self, _group: Group, _sample: Sample | None) -> bytes:
        return b""

    def records(self, group: Group, chunk: Chunk) -> Sequence[Records]:
        index = [chunk.calls[part.cycles] for part in group.index]
        return [
            fastq_text(chunk.names, chunk.clusters, part.label, chunk.calls[part.cycles], index) for part in group.parts
        ]
