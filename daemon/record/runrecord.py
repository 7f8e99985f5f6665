"""The record of a run: tile files, templates and ledger, committed together."""

import time
import zlib
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo, TileId
from seqd_client.status import CycleStatus

from calib.calling.callcycle import CalledCycle
from calib.calling.scores import NO_CALL, UNKNOWN
from calib.imagequality import ImageQuality
from calib.runfolder.images import RUN_INFO, run_info_xml
from calib.template.tiletemplate import TileTemplate
from daemon.record.durable import locked, write_durably
from daemon.record.ledger import Ledger
from daemon.record.ledgerreader import CycleRow, ImageRow
from daemon.record.runfiles import RunFiles, filter_cycles, read_passing
from daemon.record.spool import Spool
from daemon.record.storageretry import StorageRetry
from daemon.record.templates import load_template, save_template
from daemon.record.tilefile import TileFile, encode_locs, open_tile_file, read_cycles


@dataclass(frozen=True)
class ReadOutcome:
    """The outcome of reading a tile-cycle, before the cycle is called."""

    cycle: int
    status: CycleStatus
    """``CALLED`` for a tile-cycle that has signals, which can be called."""
    frames: int
    """Channel images that came, 0 to 4."""
    reason: str = ""
    """Why the tile-cycle is missing or failed, else empty."""
    drift_px: NDArray[np.float32] | None = None
    """(2,) y and x against the template."""
    images: ImageQuality | None = None
    engine_s: float | None = None
    """Seconds from the submission of the images to the engine's answer."""


@dataclass(frozen=True)
class CommittedTemplate:
    """The template of a tile that was committed."""

    tile: TileId
    positions: NDArray[np.float32]
    """(n, 2) y and x of the tile's clusters, pixels."""


@dataclass(frozen=True)
class CommittedCycle:
    """A tile-cycle that was committed."""

    tile: TileId
    outcome: ReadOutcome
    calls: NDArray[np.uint8]
    """(n,) bytes."""
    passing: int
    """Clusters of the tile that pass the filter, if this cycle decided it; else 0."""


class RunRecord:
    """Commits results: the bytes are synced in the tile file, then their row is written to the ledger.

    A commit only stores, and returns what was committed. One thread commits. After a kill, the next start finds all
    committed cycles; bytes that were not committed are cut off, and their cycles are done again with the same result. A
    step that fails for a reason that may pass is retried before the next step begins. Everything here raises
    :class:`OutputError` where a file of the run cannot be written or read, or is not as the ledger says.
    """

    def __init__(
        self,
        files: RunFiles,
        info: RunInfo,
        facts: dict[str, object],
        retry: StorageRetry,
        *,
        chastity_failures: int,
    ) -> None:
        """
        Parameters
        ----------
        facts : the facts that decide the bytes of the run; a run that continues must have the same.
        chastity_failures : cycles below the threshold that the chastity filter allows a cluster.

        Raises
        ------
        RunError : the ledger has other facts, or another process writes to the folder.
        """
        self.files, self.info, self.retry = files, info, retry
        self._chastity_failures = chastity_failures
        self._calls: dict[TileId, TileFile] = {}
        self._chastity: dict[TileId, TileFile] = {}
        self._filter_cycles = filter_cycles(info)
        retry("run folder", files.create)
        with ExitStack() as opened:
            opened.enter_context(locked(files.root))
            self.ledger = retry("ledger", lambda: Ledger(files.ledger))
            opened.callback(self.ledger.close)
            retry("ledger", lambda: self.ledger.begin(facts))
            retry("run folder", lambda: write_durably(files.root / RUN_INFO, run_info_xml(info)))
            self.committed = retry("ledger", self.ledger.committed_cycles)
            self.spool = Spool(files, info)
            self.spooled = retry("spool", lambda: self.spool.recovered(self.committed))
            """Tile-cycles whose images an earlier start left in the spool."""
            self._clusters = retry("ledger", self.ledger.tiles)
            for tile, clusters in self._clusters.items():
                cycles = self.committed.get(tile, 0)
                retry("tile files", partial(self._open_tile, opened, tile, clusters, cycles))
            self._opened = opened.pop_all()

    def templates(self) -> dict[TileId, TileTemplate]:
        """The templates that were committed before this start."""
        shape = (self.info.height, self.info.width)
        return {
            tile: self.retry("templates", partial(load_template, self.files.template_of(tile), shape))
            for tile in self._clusters
        }

    def calls(self, tile: TileId, cycles: range) -> NDArray[np.uint8]:
        """(cycles, n) committed calls of consecutive 1-based cycles."""
        return self.retry("tile files", lambda: read_cycles(self.files.calls_of(tile), cycles))

    def chastity(self, tile: TileId, cycles: int) -> NDArray[np.uint8]:
        """(k, n) chastity, percent, of a tile's first ``cycles`` cycles, as far as these decide the filter."""
        first = range(1, 1 + min(cycles, self._filter_cycles))
        return self.retry("tile files", lambda: read_cycles(self.files.chastity_of(tile), first))

    @property
    def passing_total(self) -> int:
        """Clusters of all tiles that are known to pass the filter."""
        return sum(self._passing(tile) for tile, cycle in self.committed.items() if cycle >= self._filter_cycles)

    def commit_template(self, tile: TileId, template: TileTemplate) -> CommittedTemplate:
        """Commit a template, before any cycle of its tile."""
        positions = template.positions
        locs = encode_locs(positions)
        self.retry("templates", lambda: save_template(self.files.template_of(tile), template))
        self.retry("templates", lambda: write_durably(self.files.locs_of(tile), locs))
        self.retry("tile files", lambda: self._open_tile(self._opened, tile, len(positions), 0))
        self.retry("ledger", lambda: self.ledger.commit_tile(tile, len(positions), zlib.crc32(locs)))
        return CommittedTemplate(tile, positions)

    def commit(self, tile: TileId, outcome: ReadOutcome, called: CalledCycle | None) -> CommittedCycle:
        """Commit the next cycle of a tile that has a template.

        Parameters
        ----------
        called : the calls; None for a missing or failed tile-cycle, where every cluster is a no-call.
        """
        file, cycle = self._calls[tile], outcome.cycle
        calls = called.calls if called else np.full(file.clusters, NO_CALL, np.uint8)
        chastity = None
        if cycle <= self._filter_cycles:
            chastity = called.chastity if called else np.full(file.clusters, UNKNOWN, np.uint8)
            self.retry("tile files", partial(self._chastity[tile].put, cycle, chastity))
        self.retry("tile files", partial(file.put, cycle, calls))
        row = _cycle_row(tile, outcome, called, calls, chastity)
        self.retry("ledger", lambda: self.ledger.commit(row, _image_rows(tile, outcome)))
        # This line has to come before the image is dropped. A thread that is late to spool the image then sees that the
        # image is not needed.
        self.committed[tile] = cycle
        self.retry("spool", lambda: self.spool.drop(tile, cycle))
        return CommittedCycle(tile, outcome, calls, self._passing(tile) if cycle == self._filter_cycles else 0)

    def abandon(self) -> None:
        """Leave the files open when closing: a thread that cannot be stopped may still write."""
        self._opened.pop_all()

    def close(self) -> None:
        """Close the files."""
        self._opened.close()

    def _passing(self, tile: TileId) -> int:
        """Clusters of a tile that pass the filter, once its first cycles are committed."""
        allowed = self._chastity_failures
        passing = self.retry("tile files", lambda: read_passing(self.files, self.info, tile, failures_allowed=allowed))
        return int(np.count_nonzero(passing))

    def _open_tile(self, opened: ExitStack, tile: TileId, clusters: int, cycles: int) -> None:
        """Open the two files of a tile, and cut them off after the committed cycles."""
        for files, path, kept in (
            (self._calls, self.files.calls_of(tile), cycles),
            (self._chastity, self.files.chastity_of(tile), min(cycles, self._filter_cycles)),
        ):
            if tile not in files:
                files[tile] = open_tile_file(path, clusters=clusters, cycles=kept)
                opened.callback(files[tile].close)


def _cycle_row(
    tile: TileId,
    outcome: ReadOutcome,
    called: CalledCycle | None,
    calls: NDArray[np.uint8],
    chastity: NDArray[np.uint8] | None,
) -> CycleRow:
    drift = (None, None) if outcome.drift_px is None else tuple(map(float, outcome.drift_px))
    light = called.neighbours if called else None
    return CycleRow(
        lane=tile.lane,
        tile=tile.tile,
        cycle=outcome.cycle,
        status=outcome.status,
        reason=outcome.reason,
        frames=outcome.frames,
        crc32=zlib.crc32(calls.tobytes()),
        chastity_crc32=None if chastity is None else zlib.crc32(chastity.tobytes()),
        drift_y=drift[0],
        drift_x=drift[1],
        light_own=light.own if light else None,
        light_behind=light.behind if light else None,
        light_ahead=light.ahead if light else None,
        engine_s=outcome.engine_s,
        committed_ns=time.time_ns(),
    )


def _image_rows(tile: TileId, outcome: ReadOutcome) -> list[ImageRow]:
    if outcome.images is None:
        return []
    return [
        ImageRow(
            tile.lane,
            tile.tile,
            outcome.cycle,
            channel,
            float(intensity),
            float(called),
            float(average),
            focus_px=None if np.isnan(focus) else float(focus),
        )
        for channel, (intensity, called, average, focus) in enumerate(zip(*astuple(outcome.images), strict=True))
    ]
