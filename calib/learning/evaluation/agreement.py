"""Holding FASTQ against the truth of a simulated run, or against a codebook."""

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from calib.learning.simulation.folder import read_truth
from calib.runfolder import RunFolderError, TileId

FOUND_PX = 1.0
"""A true cluster is found when a read lies within this of it."""

WRONG_MOST = 0.05
"""Share of wrong bases up to which a read counts as right."""


@dataclass(frozen=True)
class Reads:
    """The reads of one FASTQ file."""

    positions: NDArray[np.float64]
    """(n, 2) y and x, pixels, from the read names."""
    sequences: NDArray[np.uint8]
    """(n, cycles) letters."""
    qualities: NDArray[np.uint8]
    """(n, cycles) Phred scores."""


@dataclass(frozen=True)
class Agreement:
    """How the reads of a tile compare with the truth."""

    clusters: int
    """True clusters of the tile."""
    reads: int
    found: float
    """Share of true clusters with a read within :data:`FOUND_PX`."""
    yielded: float
    """Share of true clusters found and read with at most :data:`WRONG_MOST` wrong bases."""
    real: float
    """Share of reads that lie at a true cluster, each cluster counted for one read."""
    error_rate: float
    """Wrong bases and no-calls over all bases of the clusters found."""
    q30: float
    """Share of called bases with Q >= 30."""


def read_fastq(path: Path) -> Reads:
    """Read a FASTQ file of one tile.

    Raises
    ------
    RunFolderError : it is missing or not FASTQ.
    """
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            lines = file.read().splitlines()
        names, letters, phreds = lines[0::4], lines[1::4], lines[3::4]
        fields = [name.split(" ")[0].split(":") for name in names]
        positions = np.array([(float(field[6]), float(field[5])) for field in fields]).reshape(-1, 2)
    except (OSError, ValueError, IndexError) as error:
        raise RunFolderError(f"FASTQ {path}: {error}") from error
    cycles = len(letters[0]) if letters else 0
    as_rows = (len(letters), cycles)
    return Reads(
        (positions - 1000) / 10,
        np.frombuffer("".join(letters).encode(), np.uint8).reshape(as_rows),
        np.frombuffer("".join(phreds).encode(), np.uint8).reshape(as_rows) - 33,
    )


def compare(root: Path, tile: TileId, reads: Reads) -> Agreement:
    """Compare the reads of a tile with the truth beside its images."""
    truth = read_truth(root, tile)
    letters = np.frombuffer(b"ACGT", np.uint8)[truth.reads]
    called = reads.qualities[reads.sequences != ord("N")]
    q30 = float((called >= 30).mean()) if called.size else 0.0
    if len(reads.positions) == 0 or len(truth.positions) == 0:
        return Agreement(len(truth.positions), len(reads.positions), 0.0, 0.0, 0.0, 1.0, q30)
    distance, nearest = cKDTree(reads.positions).query(truth.positions)
    found = distance <= FOUND_PX
    cycles = min(letters.shape[1], reads.sequences.shape[1])
    wrong = (letters[:, :cycles] != reads.sequences[nearest][:, :cycles]).mean(axis=1)
    return Agreement(
        clusters=len(truth.positions),
        reads=len(reads.positions),
        found=float(found.mean()),
        yielded=float((found & (wrong <= WRONG_MOST)).mean()),
        real=len(np.unique(_claimed(reads, truth.positions))) / len(reads.positions),
        error_rate=float(wrong[found].mean()) if found.any() else 1.0,
        q30=q30,
    )


def on_codebook(path: Path, reads: Reads) -> int:
    """Number of reads that are a code of a codebook: CSV with a ``code`` column."""
    with path.open(newline="", encoding="utf-8") as file:
        codes = {row["code"].encode() for row in csv.DictReader(file)}
    return sum(bytes(sequence) in codes for sequence in reads.sequences)


def _claimed(reads: Reads, truth: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the true clusters nearest to a read and within reach of it."""
    distance, nearest = cKDTree(truth).query(reads.positions)
    return np.asarray(nearest[distance <= FOUND_PX])
