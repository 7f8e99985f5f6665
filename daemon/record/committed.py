"""A run as it is committed: all that a sink is made of."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo, TileId

from calib.runfolder.images import RunFolderError
from daemon.errors import OutputError, storage_error
from daemon.record.ledgerreader import LedgerReader, follow_ledger, open_ledger
from daemon.record.runfiles import RunFiles, filter_cycles, passing
from daemon.record.tilefile import read_chunks, read_cycles, read_locs


class CommittedRun:
    """What is committed of a run, to be read by one thread; nothing else of it can be seen from here.

    It stands as it was when it was last refreshed.
    """

    def __init__(self, files: RunFiles, ledger: LedgerReader) -> None:
        """
        Raises
        ------
        OutputError : the ledger cannot be read, or is none.
        """
        self.files, self.ledger = files, ledger
        self.facts = ledger.facts()
        """What the run is made with."""
        self.info: RunInfo = self.facts["info"]
        self.filter_cycles = filter_cycles(self.info)
        self._passing: dict[TileId, NDArray[np.uint8]] = {}
        """Eight clusters a byte."""
        self.committed: dict[TileId, int] = {}
        """Last committed cycle of each tile of the run, 0 where there is none."""
        self.clusters: dict[TileId, int] = {}
        """Of each tile that has a template."""

    def refresh(self, committed: Mapping[TileId, int] | None = None) -> None:
        """Take in what was committed since.

        Parameters
        ----------
        committed : last committed cycles, where they are known; else the ledger is asked, row by row.
        """
        # Cycles first: each is of a tile whose template stands.
        committed = self.ledger.committed_cycles() if committed is None else dict(committed)
        self.clusters = self.ledger.tiles()
        self.committed = {tile: committed.get(tile, 0) for tile in self.info.tiles}

    @property
    def complete(self) -> bool:
        """Whether every tile-cycle of the run is committed."""
        return min(self.committed.values()) == self.info.cycles

    def positions(self, tile: TileId) -> NDArray[np.float32]:
        """(n, 2) y and x of a tile's clusters, pixels.

        Raises
        ------
        OutputError : they cannot be read.
        """
        path = self.files.locs_of(tile)
        with _reading(path):
            return read_locs(path)

    def filtered(self, tile: TileId) -> bool:
        """Whether it is known which clusters of a tile pass the filter."""
        return self.committed[tile] >= self.filter_cycles

    def passing(self, tile: TileId) -> NDArray[np.bool_]:
        """(n,) clusters of a tile that pass the chastity filter; all of them as long as that is not known.

        Raises
        ------
        OutputError : it cannot be read.
        """
        if not self.filtered(tile):
            return np.ones(self.clusters.get(tile, 0), np.bool_)
        if tile not in self._passing:
            allowed = self.facts["chastity_failures"]
            with _reading(self.files.chastity_of(tile)):
                self._passing[tile] = np.packbits(passing(self.files, self.info, tile, failures_allowed=allowed))
        bits: NDArray[np.uint8] = np.unpackbits(self._passing[tile], count=self.clusters[tile])
        return bits.view(np.bool_)

    def calls(self, tile: TileId, cycle: int) -> NDArray[np.uint8]:
        """(n,) bytes of one committed cycle.

        Raises
        ------
        OutputError : they cannot be read.
        """
        path = self.files.calls_of(tile)
        with _reading(path):
            return read_cycles(path, range(cycle, cycle + 1)).reshape(-1)

    def chunks(self, tile: TileId, cycles: range, *, calls: int) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
        """Consecutive clusters and their (cycles, clusters) bytes, about so many calls at a time.

        Raises
        ------
        OutputError : the tile's file cannot be read, does not hold the cycles, or is of another number of clusters than
            the ledger.
        """
        path, there = self.files.calls_of(tile), self.clusters[tile]
        last = 0
        with _reading(path):
            for part, content in read_chunks(path, cycles, calls=calls):
                last = part.stop
                if last > there:
                    break
                yield part, content
        if last != there:
            raise OutputError(f"tile file {path}: {last} clusters, the ledger has {there}; it was changed from outside")


@contextmanager
def open_run(folder: Path) -> Iterator[CommittedRun]:
    """A run folder as it stands; nothing is written to it, and who writes it is not disturbed.

    Raises
    ------
    RunFolderError : seqd wrote no run to the folder.
    OutputError : its ledger cannot be read.
    """
    files = RunFiles(folder)
    if not files.ledger.is_file():
        raise RunFolderError(f"run folder {folder}: there is no {files.ledger.name}; seqd did not write a run to it")
    with open_ledger(files.ledger) as ledger:
        run = CommittedRun(files, ledger)
        run.refresh()
        yield run


@contextmanager
def follow_run(files: RunFiles) -> Iterator[CommittedRun]:
    """A run that goes on, for a thread of the daemon that writes it."""
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
