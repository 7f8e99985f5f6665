"""FASTQ of one tile and read, from its tile file and positions."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.calling.quality import NO_CALL
from calib.runfolder import Read, RunInfo, TileId
from daemon.record.committed import CommittedRun
from daemon.sinks.columns import Column, constant, laid_out
from daemon.sinks.readnames import Clusters, ReadNames
from daemon.sinks.sinkfile import Encoding, SinkFile

NO_CALL_QUALITY = 2
"""Phred score a no-call is written with."""

_LETTERS = bytes(ord("N") if call == NO_CALL else b"ACGT"[call & 3] for call in range(256))


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
    marks = np.where(names.passing[clusters], np.uint8(ord("N")), np.uint8(ord("Y")))
    fields = [
        repeated(f" {label[1:]}:".encode(), count),
        marks[:, None],
        repeated(b":0:", count),
        joined([letters(part) for part in index], b"+", count),
        repeated(b"\n", count),
    ]
    called = np.ascontiguousarray(calls.T)
    columns = [
        *(constant(b"@"), *names.columns(clusters), Column(np.concatenate(fields, axis=1))),
        *(Column(letters(called)), constant(b"\n+\n"), Column(phreds(called)), constant(b"\n")),
    ]
    return laid_out(count, columns)


def letters(calls: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bases of calls, of any shape; N for a no-call."""
    return translated(calls, _LETTERS)


def phreds(calls: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Phred scores + 33 of calls, of any shape; a no-call's is the lowest that is given."""
    shifted = np.asarray(calls >> 2, np.uint8)
    shifted += 33
    np.maximum(shifted, 33 + NO_CALL_QUALITY, out=shifted)
    return shifted


def translated(calls: NDArray[np.uint8], table: bytes) -> NDArray[np.uint8]:
    """Each byte of calls by a table of all 256."""
    return np.frombuffer(calls.tobytes().translate(table), np.uint8).reshape(calls.shape)


def joined(reads: Sequence[NDArray[np.uint8]], separator: bytes, count: int) -> NDArray[np.uint8]:
    """(n, width) bytes of several reads of (cycles, n), with a separator between them."""
    between = repeated(separator, count)
    parts = [part for read in reads for part in (between, read.T)][1:]
    return np.concatenate(parts, axis=1) if parts else np.empty((count, 0), np.uint8)


def repeated(text: bytes, count: int) -> NDArray[np.uint8]:
    """(n, width) the same bytes so many times."""
    return np.broadcast_to(np.frombuffer(text, np.uint8), (count, len(text)))
