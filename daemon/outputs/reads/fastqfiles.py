"""FASTQ of one tile and read, from its tile file and positions."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import Read, RunInfo, TileId

from daemon.outputs.reads.columns import Column, constant, joined, laid_out, letters, phreds
from daemon.outputs.reads.readnames import Clusters, ReadNames
from daemon.outputs.sink import Encoding, SinkFile
from daemon.record.committed import CommittedRun

CALLS, CLUSTERS = 500_000, 50_000
"""Most calls and most clusters that are made into records at a time; what these take stays in a core's cache."""


def calls_at_a_time(cycles: int) -> int:
    """Calls of a chunk of clusters with so many cycles, for :meth:`daemon.record.committed.CommittedRun.chunks`."""
    return min(CALLS, CLUSTERS * cycles)


def fastq_path(root: Path, info: RunInfo, tile: TileId, read: Read) -> Path:
    """Where a tile's read lies under the folder of a run's outputs."""
    return root / "fastq" / f"s_{tile}_{info.label(read)}.fastq.gz"


class Fastq:
    """The sink: each read of a tile, at its end."""

    name = "FASTQ"

    def due(self, run: CommittedRun, root: Path, tile: TileId, cycle: int) -> Iterator[SinkFile]:
        """``fastq/s_<lane>_<tile>_<R1|I1|...>.fastq.gz``, when the last cycle of a read is committed."""
        for read in run.info.reads:
            if run.info.cycles_of(read)[-1] == cycle:
                yield SinkFile(
                    fastq_path(root, run.info, tile, read),
                    partial(fastq_records, run, tile, read),
                    Encoding.BGZF,
                    tile,
                    cycle,
                )


def fastq_records(run: CommittedRun, tile: TileId, read: Read) -> Iterator[bytes]:
    """The records of all clusters in the order of the template, some at a time.

    Clusters that the chastity filter takes out are there too, marked ``Y`` (filtered) as Illumina marks them.

    Raises
    ------
    OutputError : the tile's files do not hold the read.
    """
    names, cycles, label = ReadNames(run, tile), run.info.cycles_of(read), run.info.label(read)
    for part, calls in run.chunks(tile, cycles, calls=calls_at_a_time(len(cycles))):
        yield fastq_text(names, part, label, calls)[0].tobytes()


def fastq_text(
    names: ReadNames, clusters: Clusters, label: str, calls: NDArray[np.uint8], index: Sequence[NDArray[np.uint8]] = ()
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Records of some clusters of a tile: ``@<name> <1|2|...>:<N|Y>:0:<index>``, bases, ``+``, Phred scores + 33.

    Parameters
    ----------
    label : of the read; its digits are the read's number, in files of index reads too.
    calls : (cycles, n) bytes of the read.
    index : (cycles, n) bytes of each index read, where their bases belong into the names; joined by ``+``.

    Returns
    -------
    all bytes, and (n + 1,) where each record begins, and the last ends.
    """
    count = calls.shape[1]
    # Few columns: each takes time of its own, however narrow it is.
    end = "" if index else "\n"
    marks = np.array([list(f" {label[1:]}:{filtered}:0:{end}".encode()) for filtered in "YN"], np.uint8)
    observed = [Column(joined([letters(part) for part in index], b"+", count)), constant(b"\n")] if index else []
    called = np.ascontiguousarray(calls.T)
    columns = [
        *(*names.columns(clusters, before=b"@"), Column(marks.take(names.passing[clusters], axis=0)), *observed),
        *(Column(letters(called)), constant(b"\n+\n"), Column(phreds(called)), constant(b"\n")),
    ]
    return laid_out(count, columns)
