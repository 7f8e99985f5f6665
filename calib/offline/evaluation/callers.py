"""Callers to compare: folders of FASTQ, or the classical caller run here."""

import gzip
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo, TileId

from calib.offline.cli import UsageError
from calib.runfolder.images import RunFolderError


@dataclass(frozen=True)
class Reads:
    """Reads of one tile from one caller."""

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


Caller = Callable[[Path, RunInfo, TileId], Reads]
"""Gives the first read of a tile of a run folder."""

CLASSICAL = "classical"
RUN_FIELD = "{run}"
"""Replaced by the run's name in a folder that is given for several runs."""


def callers(named_folders: Sequence[str], *, classical: bool, runs: Sequence[RunInfo]) -> dict[str, Caller]:
    """Callers by name, from ``NAME=FOLDER`` arguments.

    Raises
    ------
    UsageError : an argument is not of that form, a name is used twice, or one folder is given for several runs.
    """
    chosen: dict[str, Caller] = {CLASSICAL: classical_reads} if classical else {}
    for argument in named_folders:
        name, _, folder = argument.partition("=")
        if not name or not folder:
            raise UsageError(f"--calls {argument}: NAME=FOLDER is expected")
        if len(runs) > 1 and RUN_FIELD not in folder:
            raise UsageError(f"--calls {argument}: for {len(runs)} runs the folder needs {RUN_FIELD} in it")
        if name in chosen:
            raise UsageError(f"--calls {argument}: there is a caller {name} already")
        chosen[name] = partial(fastq_reads, folder)
    return chosen


def fastq_reads(folder: str, _root: Path, info: RunInfo, tile: TileId) -> Reads:
    """Reads of ``s_<lane>_<tile>_R<read>.fastq.gz`` in a folder.

    Raises
    ------
    RunFolderError : the file is missing or not FASTQ.
    """
    return read_fastq(folder_of(folder, info) / f"s_{tile}_R{info.reads[0].number}.fastq.gz")


def classical_reads(root: Path, info: RunInfo, tile: TileId) -> Reads:
    """Reads of the classical pipeline, from the images.

    Raises
    ------
    RunFolderError : an image is missing or damaged.
    """
    from calib.offline.classical_caller.calltile import call_folder

    calls = call_folder(root, tile)
    cycles = slice(info.reads[0].cycles)
    return Reads(
        calls.positions.astype(np.float64),
        np.frombuffer(b"ACGT", np.uint8)[calls.bases[:, cycles]],
        calls.qualities[:, cycles],
        calls.passed,
    )


def folder_of(folder: str, info: RunInfo) -> Path:
    """A folder with the run's name put in for ``RUN_FIELD``."""
    return Path(folder.replace(RUN_FIELD, info.run))


FIRST_QUALITY = 33
"""The character of Phred score 0."""


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
