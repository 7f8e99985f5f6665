"""A run as its ledger has committed it: everything that sinks and exports are made from."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo, TileId

from calib.runfolder.images import RunFolderError
from daemon.errors import OutputError, storage_error
from daemon.record.ledgercopy import copied
from daemon.record.ledgerreader import LedgerReader, follow_ledger
from daemon.record.runfiles import RunFiles, filter_cycles, read_passing
from daemon.record.tilefile import read_chunks, read_cycles, read_locs


class CommittedRun:
    """The committed part of a run, for one reading thread; it does not change before the next :meth:`refresh`.

    Everything here raises :class:`OutputError` where a file of the run cannot be read, or is not as the ledger says.
    """

    def __init__(self, files: RunFiles, ledger: LedgerReader) -> None:
        self.files, self.ledger = files, ledger
        self.facts = ledger.facts()
        """The facts that decide the bytes of the run."""
        self.info: RunInfo = self.facts["info"]
        self.filter_cycles = filter_cycles(self.info)
        self._passing: dict[TileId, NDArray[np.uint8]] = {}
        """One bit a cluster."""
        self.committed: dict[TileId, int] = {}
        """Last committed cycle of each tile of the run, 0 where there is none."""
        self.clusters: dict[TileId, int] = {}
        """Clusters of each tile that has a template."""

    def refresh(self, committed: Mapping[TileId, int] | None = None) -> None:
        """Bring this object up to date with the ledger.

        Parameters
        ----------
        committed : last committed cycles, where they are known; otherwise they are read from the ledger, row by row.
        """
        # The cycles are read before the templates, so that every committed cycle has its template.
        committed = self.ledger.committed_cycles() if committed is None else dict(committed)
        self.clusters = self.ledger.tiles()
        self.committed = {tile: committed.get(tile, 0) for tile in self.info.tiles}

    @property
    def complete(self) -> bool:
        """Whether every tile-cycle of the run is committed."""
        return min(self.committed.values()) == self.info.cycles

    def positions(self, tile: TileId) -> NDArray[np.float32]:
        """(n, 2) y and x of a tile's clusters, pixels."""
        path = self.files.locs_of(tile)
        with _reading(path):
            return read_locs(path)

    def filtered(self, tile: TileId) -> bool:
        """Whether it is known which clusters of a tile pass the filter."""
        return self.committed[tile] >= self.filter_cycles

    def passing(self, tile: TileId) -> NDArray[np.bool_]:
        """(n,) clusters of a tile that pass the chastity filter; all of them as long as that is not known."""
        if not self.filtered(tile):
            return np.ones(self.clusters.get(tile, 0), np.bool_)
        if tile not in self._passing:
            allowed = self.facts["chastity_failures"]
            with _reading(self.files.chastity_of(tile)):
                self._passing[tile] = np.packbits(read_passing(self.files, self.info, tile, failures_allowed=allowed))
        bits: NDArray[np.uint8] = np.unpackbits(self._passing[tile], count=self.clusters[tile])
        return bits.view(np.bool_)

    def calls(self, tile: TileId, cycle: int) -> NDArray[np.uint8]:
        """(n,) bytes of one committed cycle."""
        path = self.files.calls_of(tile)
        with _reading(path):
            return read_cycles(path, range(cycle, cycle + 1)).reshape(-1)

    def chunks(self, tile: TileId, cycles: range, *, calls: int) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
        """Consecutive clusters and their (cycles, clusters) bytes, about ``calls`` bytes in each chunk."""
        path, clusters = self.files.calls_of(tile), self.clusters[tile]
        last = 0
        with _reading(path):
            for part, content in read_chunks(path, cycles, calls=calls):
                last = part.stop
                if last > clusters:
                    break
                yield part, content
        if last != clusters:
            raise OutputError(
                f"tile file {path}: {last} clusters, the ledger has {clusters}; it was changed from outside"
            )


@contextmanager
def open_run(folder: Path) -> Iterator[CommittedRun]:
    """Open a run folder as it is at this moment. Nothing is written, and a daemon that writes to it is not disturbed.

    Raises
    ------
    RunFolderError : seqd wrote no run to the folder.
    OutputError : the run's ledger cannot be read.
    """
    files = RunFiles(folder)
    if not files.ledger.is_file():
        raise RunFolderError(f"run folder {folder}: there is no {files.ledger.name}; seqd did not write a run to it")
    with copied(files.ledger) as database:
        run = CommittedRun(files, LedgerReader(files.ledger, database))
        run.refresh()
        yield run


@contextmanager
def follow_run(files: RunFiles) -> Iterator[CommittedRun]:
    """The run that this daemon is writing, for another thread than the writing one.

    Raises
    ------
    OutputError : the run's ledger cannot be read.
    """
    with closing(follow_ledger(files.ledger)) as ledger:
        run = CommittedRun(files, ledger)
        run.refresh()
        yield run


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(f"file {path}", error) from error
