"""The reads of one tile, as a FASTQ file holds them."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.runfolder import RunFolderError

FIRST_QUALITY = 33
"""The character of Phred score 0."""


@dataclass(frozen=True)
class Reads:
    """What a caller says of one tile."""

    positions: NDArray[np.float64]
    """(n, 2) y and x, pixels."""
    sequences: NDArray[np.uint8]
    """(n, cycles) letters A, C, G, T and N, ASCII."""
    qualities: NDArray[np.uint8]
    """(n, cycles) Phred scores."""
    passed: NDArray[np.bool_]
    """(n,) whether the read passed the filter (PF)."""

    def passing(self) -> "Reads":
        """Those that passed the filter."""
        return Reads(
            self.positions[self.passed],
            self.sequences[self.passed],
            self.qualities[self.passed],
            self.passed[self.passed],
        )


def read_fastq(path: Path) -> Reads:
    """Read a gzipped FASTQ file of one tile with Illumina read names.

    The name gives the position (tenths of pixels from -100 px) and the filter flag, ``Y`` for filtered out.

    Raises
    ------
    RunFolderError : it is missing or not such a FASTQ.
    """
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            lines = file.read().splitlines()
        names, letters, phreds = lines[0::4], lines[1::4], lines[3::4]
        fields = [name.replace(" ", ":").split(":") for name in names]
        positions = np.array([(float(field[6]), float(field[5])) for field in fields]).reshape(-1, 2)
        passed = np.array([field[8] == "N" for field in fields], bool)
        as_rows = (len(names), len(letters[0]) if letters else 0)
        sequences = np.frombuffer("".join(letters).encode(), np.uint8).reshape(as_rows)
        characters = np.frombuffer("".join(phreds).encode(), np.uint8).reshape(as_rows)
        if (characters < FIRST_QUALITY).any():
            raise ValueError("a quality is no printable character")
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise RunFolderError(f"FASTQ {path}: {error}") from error
    return Reads((positions - 1000) / 10, sequences, characters - np.uint8(FIRST_QUALITY), passed)
