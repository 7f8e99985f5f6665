"""The paths of a run's files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo, TileId

from calib.calling.scores import CYCLES, passes_filter
from daemon.errors import RunError
from daemon.record.durable import sync_folder
from daemon.record.tilefile import read_chunks


@dataclass(frozen=True)
class RunFiles:
    """Paths in one run folder; its name, the run id, was checked to be a plain name."""

    root: Path

    def create(self) -> None:
        """Make the folders, and sync their names: a folder that exists may not be on the disk after a kill.

        Raises
        ------
        RunError : one of the folders is a link, so that its files would be written elsewhere.
        OSError : a folder cannot be made; the call may be repeated.
        """
        for folder in (self.root, self.tiles, self.spool):
            if folder.is_symlink():
                raise RunError(f"run folder {folder}: is a link to {folder.readlink()}; a real folder is needed")
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            sync_folder(folder.parent)

    @property
    def ledger(self) -> Path:
        return self.root / "run.db"

    @property
    def provenance(self) -> Path:
        return self.root / "provenance.json"

    @property
    def control(self) -> Path:
        """FASTA of the spike-in that the run was begun with, if there is one."""
        return self.root / "control.fasta"

    @property
    def tiles(self) -> Path:
        return self.root / "tiles"

    @property
    def spool(self) -> Path:
        """Folder of the images and signals of tile-cycles that are not committed yet."""
        return self.root / "spool"

    def calls_of(self, tile: TileId) -> Path:
        return self.tiles / f"s_{tile}.bcls"

    def chastity_of(self, tile: TileId) -> Path:
        return self.tiles / f"s_{tile}.chastity"

    def locs_of(self, tile: TileId) -> Path:
        return self.tiles / f"s_{tile}.locs"

    def template_of(self, tile: TileId) -> Path:
        return self.tiles / f"s_{tile}.template.npz"

    def spooled(self, tile: TileId, cycle: int) -> Path:
        return self.spool / f"s_{tile}_C{cycle}.image"

    def spooled_signals(self, tile: TileId, cycle: int) -> Path:
        return self.spool / f"s_{tile}_C{cycle}.signals.npy"


CHUNK = 2**22
"""Bytes that are read at a time."""


def filter_cycles(info: RunInfo) -> int:
    """Number of cycles that decide the filter: the first 25, fewer where the first read is shorter."""
    return min(CYCLES, info.reads[0].cycles)


def read_passing(files: RunFiles, info: RunInfo, tile: TileId, *, failures_allowed: int) -> NDArray[np.bool_]:
    """(n,) whether each cluster of a tile passes the filter, from the chastity of its first :func:`filter_cycles`.

    Parameters
    ----------
    failures_allowed : cycles below the threshold that a passing cluster may have.

    Raises
    ------
    OutputError : the chastity file does not hold these cycles.
    """
    decided = [np.zeros(0, np.bool_)]
    for _, percents in read_chunks(files.chastity_of(tile), range(1, filter_cycles(info) + 1), calls=CHUNK):
        decided.append(passes_filter(percents, failures_allowed=failures_allowed))
    return np.concatenate(decided)
