"""Where the files of a run lie in its output folder."""

from dataclasses import dataclass
from pathlib import Path

from calib.runfolder import TileId
from daemon.errors import RunError
from daemon.record.durable import sync_folder


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
        """Images until their calls are committed, where they had to wait; readings until they are called."""
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

    def spooled_reading(self, tile: TileId, cycle: int) -> Path:
        return self.spool / f"s_{tile}_C{cycle}.reading.npy"
