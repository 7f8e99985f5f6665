"""Sinks: what is made of a run while it goes on, and again at any time later."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from calib.runfolder import TileId
from daemon.record.committed import CommittedRun
from daemon.sinks.sinkfile import SinkFile


class Sink(Protocol):
    """Makes files that stand once they are made."""

    name: str
    """For people."""

    def due(self, run: CommittedRun, root: Path, tile: TileId, cycle: int) -> Iterable[SinkFile]:
        """The files that can be made once a cycle of a tile is committed, and could not before.

        Parameters
        ----------
        root : folder of the run's outputs; the run's own, if not configured otherwise.
        """


class View(Protocol):
    """Makes files that are made anew as the run goes on."""

    name: str
    """For people."""

    def files(self, root: Path) -> Iterable[SinkFile]:
        """Every file, of what is committed now."""
