"""FASTQ of one tile and read, from its tile file and positions."""

import gzip
import io

import numpy as np
from numpy.typing import NDArray

from calib.calling.quality import NO_CALL
from calib.runfolder import Read, RunInfo, TileId
from daemon.durable import write_durably
from daemon.locs import read_locs
from daemon.runfiles import RunFiles
from daemon.tilefile import read_cycles

NO_CALL_QUALITY = 2
"""Phred score a no-call is written with."""

CHUNK = 20_000
"""Clusters formatted at a time."""


def write_fastq(files: RunFiles, info: RunInfo, tile: TileId, read: Read, *, passing: NDArray[np.bool_]) -> None:
    """Write ``s_<lane>_<tile>_R<read>.fastq.gz`` whole or not at all; same calls, same bytes.

    Clusters that the chastity filter takes out are there too, marked ``Y`` (filtered) as Illumina marks them.

    Parameters
    ----------
    passing : (n,) from :func:`daemon.filter.passing`.
    """
    calls = read_cycles(files.calls_of(tile), info.cycles_of(read))
    positions = read_locs(files.locs_of(tile))
    letters = np.where(calls == NO_CALL, ord("N"), np.frombuffer(b"ACGT", np.uint8)[calls & 3]).astype(np.uint8)
    scores = (np.where(calls == NO_CALL, NO_CALL_QUALITY, calls >> 2) + 33).astype(np.uint8)
    # Illumina's read-name coordinates: tenths of pixels from -100 px.
    coordinates = np.rint(positions.astype(np.float64) * 10 + 1000).astype(np.int64)
    prefix = f"@{info.instrument}:{info.number}:{info.flowcell}:{tile.lane}:{tile.tile}:"
    filtered = np.where(passing, "N", "Y").tolist()
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=4, mtime=0, filename="") as file:
        for start in range(0, len(positions), CHUNK):
            part = slice(start, start + CHUNK)
            bases, phreds = letters[:, part].T.tobytes().decode("ascii"), scores[:, part].T.tobytes().decode("ascii")
            length = len(calls)
            records = [
                f"{prefix}{x}:{y} {read.number}:{mark}:0:\n{bases[at : at + length]}\n+\n{phreds[at : at + length]}\n"
                for at, (y, x), mark in zip(
                    range(0, len(bases), length), coordinates[part].tolist(), filtered[part], strict=True
                )
            ]
            file.write("".join(records).encode("ascii"))
    write_durably(files.fastq_of(tile, read), buffer.getvalue())
