"""Who called: folders of FASTQ, or the classical pipeline run here."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from calib.learning.cli import UsageError
from calib.learning.evaluation.reads import Reads, read_fastq
from calib.runfolder import RunInfo, TileId

Caller = Callable[[Path, RunInfo, TileId], Reads]
"""Gives the first read of a tile of a run folder."""

CLASSICAL = "classical"
RUN_FIELD = "{run}"
"""Stands for the run's name in a folder given for several runs."""


def callers(named_folders: Sequence[str], *, classical: bool, runs: Sequence[RunInfo]) -> dict[str, Caller]:
    """Callers by name, from ``NAME=FOLDER`` arguments.

    Raises
    ------
    UsageError : an argument is not of that form, a name is used twice, or one folder would serve several runs.
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
    from calib.learning.classical.pipeline import call_folder

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
