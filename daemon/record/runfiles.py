"""Where the files of a run lie in its output folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo, TileId

from calib.calling.scores import CYCLES, passes
from daemon.errors import RunError
from daemon.record.durable import sync_folder
from daemon.record.tilefile import read_chunks


@dataclass(frozen=True)
class RunFiles:
    """Paths of one run; the run id was checked to be a plain name."""

    root: Path

    def create(self) -> None:
        """Make the folders, durably: also those that a kill left behind before their names were on the disk.

        Raises
        ------
        RunError : one of them is a link, and what is written there would lie elsewhere.
        """
        for folder in (self.root, self.tiles, self.spool):
            if folder.is_symlink():
                raise RunError(f"run folder {folder}: a link to {folder.readlink()}; a folder of its own is needed")
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
        """FASTA of the spiked-in control that the run was begun with, if there is one."""
        return self.root / "control.fasta"

    @property
    def tiles(self) -> Path:
        return self.root / "tiles"

    @property
    def spool(self) -> Path:
        """Images that wait until their calls are committed, and signals that wait to be called."""
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
"""Values looked at at a time, however many clusters there are."""


def filter_cycles(info: RunInfo) -> int:
    """Cycles that decide about the filter: the first 25, fewer where the first read is shorter."""
    return min(CYCLES, info.reads[0].cycles)


def passing(files: RunFiles, info: RunInfo, tile: TileId, *, failures_allowed: int) -> NDArray[np.bool_]:
    """(n,) which clusters pass; known once :func:`filter_cycles` are committed.

    Raises
    ------
    OutputError : they are not.
    """
    decided = [np.zeros(0, np.bool_)]
    for _, percents in read_chunks(files.chastity_of(tile), range(1, filter_cycles(info) + 1), calls=CHUNK):
        decided.append(passes(percents, failures_allowed=failures_allowed))
    return np.concatenate(decided)
