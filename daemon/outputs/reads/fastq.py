"""FASTQ: one tile and read as the daemon's sink, and a whole run by tile, lane, run or sample, at any time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import Read, RunInfo, TileId

from daemon.outputs.reads.conversion import (
    Chunk,
    Group,
    NumberedSample,
    Options,
    Records,
    calls_at_a_time,
    convert,
)
from daemon.outputs.reads.readnames import Clusters, ReadNames
from daemon.outputs.reads.recordbytes import Column, constant, join_reads, letters, phreds, put_together
from daemon.outputs.sink import Encoding, SinkFile
from daemon.record.committed import CommittedRun


def fastq_path(root: Path, info: RunInfo, tile: TileId, read: Read) -> Path:
    """The sink's file of a tile's read, below the folder of a run's outputs."""
    return root / "fastq" / f"s_{tile}_{info.label(read)}.fastq.gz"


def fastq_due(run: CommittedRun, root: Path, tile: TileId, cycle: int) -> Iterator[SinkFile]:
    """Give ``fastq/s_<lane>_<tile>_<R1|I1|...>.fastq.gz`` when the last cycle of a read is committed."""
    for read in run.info.reads:
        if run.info.cycles_of(read)[-1] == cycle:
            path, content = fastq_path(root, run.info, tile, read), partial(fastq_records, run, tile, read)
            yield SinkFile(path, content, Encoding.BGZF, tile, cycle)


def fastq_records(run: CommittedRun, tile: TileId, read: Read) -> Iterator[bytes]:
    """The records of all clusters in the order of the template, some at a time.

    Clusters that fail the chastity filter are included, marked ``Y`` (filtered) as Illumina marks them.

    Raises
    ------
    OutputError : the tile's files do not hold the read.
    """
    names, cycles, label = ReadNames(run, tile), run.info.cycles_of(read), run.info.label(read)
    for part, calls in run.chunks(tile, cycles, calls=calls_at_a_time(len(cycles))):
        yield fastq_text(names, part, label, calls)[0].tobytes()


def fastq_text(
    names: ReadNames, clusters: Clusters, label: str, calls: NDArray[np.uint8], index: Sequence[NDArray[np.uint8]] = ()
) -> Records:
    """Records of some clusters of a tile: ``@<name> <1|2|...>:<N|Y>:0:<index>``, bases, ``+``, Phred scores + 33.

    Parameters
    ----------
    label : of the read, such as R1 or I2. Its digits are the read's number in the records, also for index reads.
    calls : (cycles, n) bytes of the read.
    index : (cycles, n) bytes of each index read. The names contain the bases of these reads, joined by ``+``.
    """
    count = calls.shape[1]
    # Few columns are faster: the time that a column takes hardly depends on its width.
    end = "" if index else "\n"
    marks = np.array([list(f" {label[1:]}:{filtered}:0:{end}".encode()) for filtered in "YN"], np.uint8)
    observed = [Column(join_reads([letters(part) for part in index], b"+", count)), constant(b"\n")] if index else []
    called = np.ascontiguousarray(calls.T)
    columns = [
        *(*names.columns(clusters, before=b"@"), Column(marks.take(names.passing[clusters], axis=0)), *observed),
        *(Column(letters(called)), constant(b"\n+\n"), Column(phreds(called)), constant(b"\n")),
    ]
    return put_together(count, columns)


def export_fastq(run: CommittedRun, folder: Path, *, compress: bool = True, **options: Unpack[Options]) -> list[Path]:
    """Write FASTQ files of all reads, index reads too, with as many cycles as all tiles of a file have committed.

    Files are named ``s_1_1101_R1.fastq.gz`` by tile, ``<run>_L001_R1.fastq.gz`` by lane and ``<run>_R1.fastq.gz`` by
    run. Those of samples have bcl-convert's names, ``<Sample>_S1_L001_R1_001.fastq.gz`` or
    ``<Sample>_S1_R1_001.fastq.gz``, and undetermined clusters go to the sample ``Undetermined_S0``. The names of reads
    contain the observed index once all index reads are committed.

    Parameters
    ----------
    compress : write gzip (BGZF); else plain text, without ``.gz``.

    Raises
    ------
    ExportError, OutputError : as :func:`daemon.outputs.reads.conversion.convert`.
    """
    form = _Fastq(folder, run.info.run, ".fastq.gz" if compress else ".fastq")
    return convert(run, form, compress=compress, **options)


@dataclass(frozen=True)
class _Fastq:
    folder: Path
    run: str
    ending: str

    def check(self, _group: Group) -> None:
        """FASTQ can be written of every group."""

    def paths(self, group: Group, sample: NumberedSample | None) -> Sequence[Path]:
        stem, last = group.stem(self.run, sample), "" if sample is None else "_001"
        return [self.folder / f"{stem}_{part.label}{last}{self.ending}" for part in group.parts]

    def head(self, _group: Group, _sample: NumberedSample | None) -> bytes:
        return b""

    def records(self, group: Group, chunk: Chunk) -> Sequence[Records]:
        index = [chunk.calls[part.cycles] for part in group.index]
        return [
            fastq_text(chunk.names, chunk.clusters, part.label, chunk.calls[part.cycles], index) for part in group.parts
        ]
