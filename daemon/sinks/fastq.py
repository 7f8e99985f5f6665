"""FASTQ of one tile and read, from its tile file and positions."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from calib.calling.quality import NO_CALL
from calib.runfolder import Read, RunInfo, TileId
from daemon.record.durable import write_durably
from daemon.record.filter import passing as passing_filter
from daemon.record.locs import read_locs
from daemon.record.runfiles import RunFiles
from daemon.record.tilefile import read_chunks
from daemon.sinks.sinkfile import SinkFile, gzipped

NO_CALL_QUALITY = 2
"""Phred score a no-call is written with."""

CHUNK = 2_000_000
"""Calls formatted at a time, however long the reads are."""


def write_fastq(files: RunFiles, info: RunInfo, tile: TileId, read: Read, *, passing: NDArray[np.bool_]) -> None:
    """Write ``s_<lane>_<tile>_R<read>.fastq.gz`` whole or not at all; same calls, same bytes.

    Parameters
    ----------
    passing : (n,) from :func:`daemon.record.filter.passing`.
    """
    write_durably(files.fastq_of(tile, read), gzipped(fastq_records(files, info, tile, read, passing=passing)))


def fastq_files(files: RunFiles, info: RunInfo, chastity_failures: int) -> Iterator[SinkFile]:
    """The FASTQ files of a finished run, as a :data:`daemon.sinks.sinkfile.Sink`."""

    def content(tile: TileId, read: Read) -> Iterator[bytes]:
        passing = passing_filter(files, info, tile, failures_allowed=chastity_failures)
        return fastq_records(files, info, tile, read, passing=passing)

    for read in info.reads:
        for tile in info.tiles:
            yield SinkFile(
                files.fastq_of(tile, read), tile, info.cycles_of(read)[-1], content=partial(content, tile, read)
            )


def fastq_records(
    files: RunFiles, info: RunInfo, tile: TileId, read: Read, *, passing: NDArray[np.bool_]
) -> Iterator[bytes]:
    """The records of all clusters in the order of the template, about :data:`CHUNK` calls at a time.

    Clusters that the chastity filter takes out are there too, marked ``Y`` (filtered) as Illumina marks them.

    Parameters
    ----------
    passing : (n,) from :func:`daemon.record.filter.passing`.

    Raises
    ------
    OutputError : the tile's files do not hold the read.
    """
    positions = read_locs(files.locs_of(tile))
    # Illumina's read-name coordinates: tenths of pixels from -100 px.
    coordinates = np.rint(positions.astype(np.float64) * 10 + 1000).astype(np.int64)
    prefix = f"@{info.instrument}:{info.number}:{info.flowcell}:{tile.lane}:{tile.tile}:"
    filtered = np.where(passing, "N", "Y").tolist()
    for part, calls in read_chunks(files.calls_of(tile), info.cycles_of(read), calls=CHUNK):
        letters = np.where(calls == NO_CALL, ord("N"), np.frombuffer(b"ACGT", np.uint8)[calls & 3]).astype(np.uint8)
        scores = (np.where(calls == NO_CALL, NO_CALL_QUALITY, calls >> 2) + 33).astype(np.uint8)
        bases, phreds = letters.T.tobytes().decode("ascii"), scores.T.tobytes().decode("ascii")
        length = len(calls)
        records = [
            f"{prefix}{x}:{y} {read.number}:{mark}:0:\n{bases[at : at + length]}\n+\n{phreds[at : at + length]}\n"
            for at, (y, x), mark in zip(
                range(0, len(bases), length), coordinates[part].tolist(), filtered[part], strict=True
            )
        ]
        yield "".join(records).encode("ascii")
