"""FASTQ of one tile and read, from its tile file and positions."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from calib.calling.quality import NO_CALL
from calib.runfolder import Read, RunInfo, TileId
from daemon.record.committed import CommittedRun
from daemon.sinks.sinkfile import Encoding, SinkFile

NO_CALL_QUALITY = 2
"""Phred score a no-call is written with."""

CHUNK = 2_000_000
"""Calls formatted at a time, however long the reads are."""


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
                    Encoding.GZIP,
                    tile,
                    cycle,
                )


def fastq_records(run: CommittedRun, tile: TileId, read: Read) -> Iterator[bytes]:
    """The records of all clusters in the order of the template, about :data:`CHUNK` calls at a time.

    Clusters that the chastity filter takes out are there too, marked ``Y`` (filtered) as Illumina marks them.

    Raises
    ------
    OutputError : the tile's files do not hold the read.
    """
    info, positions, passing = run.info, run.positions(tile), run.passing(tile)
    # Illumina's read-name coordinates: tenths of pixels from -100 px.
    coordinates = np.rint(positions.astype(np.float64) * 10 + 1000).astype(np.int64)
    prefix = f"@{info.instrument}:{info.number}:{info.flowcell}:{tile.lane}:{tile.tile}:"
    filtered = np.where(passing, "N", "Y").tolist()
    for part, calls in run.chunks(tile, info.cycles_of(read), calls=CHUNK):
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
