"""The output of a run: tile files, templates and ledger, committed together."""

import time
import zlib
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo, TileId
from seqd_client.status import CycleStatus
from seqd_client.wire.messages import Calls, Template

from calib.calling.scores import NO_CALL, UNKNOWN
from calib.imagequality import ImageQuality
from calib.phasing import NeighbourLight
from calib.runfolder.images import RUN_INFO, run_info_xml
from calib.template.tiletemplate import TileTemplate
from daemon.record.durable import locked, write_durably
from daemon.record.ledger import Ledger
from daemon.record.ledgerreader import CycleRow, ImageRow
from daemon.record.patience import Patience
from daemon.record.runfiles import RunFiles, filter_cycles, passing
from daemon.record.spool import Spool
from daemon.record.templates import load_template, save_template
from daemon.record.tilefile import TileFile, encode_locs, open_tile_file, read_cycles
from daemon.serving.stream import Stream
from daemon.watching.progress import Progress


@dataclass(frozen=True)
class CycleResult:
    """What became of one tile-cycle; ``calls`` is None for no-calls throughout."""

    cycle: int
    status: CycleStatus
    frames: int
    """Channel images that came of it."""
    calls: NDArray[np.uint8] | None = None
    """(n,) bytes."""
    reason: str = ""
    chastity: NDArray[np.uint8] | None = None
    """(n,) percent; None where nothing was read."""
    drift_px: NDArray[np.float32] | None = None
    neighbours: NeighbourLight | None = None
    images: ImageQuality | None = None
    engine_s: float | None = None
    """From the image's submission to the engine's answer."""


class RunOutput:
    """Commits results: tile file synced, then ledger row, then progress and stream.

    One thread commits. What was committed before a kill is found again; what was not is cut off and
    done again, with the same result. What cannot be written for a while is written when it can be:
    every step is tried with patience, and only when it is done comes the next.
    """

    def __init__(
        self,
        files: RunFiles,
        info: RunInfo,
        facts: dict[str, object],
        progress: Progress,
        stream: Stream,
        patience: Patience,
        *,
        chastity_failures: int,
    ) -> None:
        self.files, self.info, self.patience = files, info, patience
        self._chastity_failures = chastity_failures
        self._progress, self._stream = progress, stream
        self._calls: dict[TileId, TileFile] = {}
        self._chastity: dict[TileId, TileFile] = {}
        self._filter_cycles = filter_cycles(info)
        patience("run folder", files.create)
        with ExitStack() as opened:
            opened.enter_context(locked(files.root))
            self.ledger = patience("ledger", lambda: Ledger(files.ledger))
            opened.callback(self.ledger.close)
            patience("ledger", lambda: self.ledger.begin(facts))
            patience("run folder", lambda: write_durably(files.root / RUN_INFO, run_info_xml(info)))
            self.committed = patience("ledger", self.ledger.committed_cycles)
            self.spool = Spool(files, info)
            self.spooled = patience("spool", lambda: self.spool.recovered(self.committed))
            """Images that an earlier start left in the spool."""
            self._clusters = patience("ledger", self.ledger.tiles)
            for tile, clusters in self._clusters.items():
                cycles = self.committed.get(tile, 0)
                patience("tile files", partial(self._open, opened, tile, clusters, cycles))
            self._opened = opened.pop_all()

    def templates(self) -> dict[TileId, TileTemplate]:
        """Templates that stand."""
        shape = (self.info.height, self.info.width)
        return {
            tile: self.patience("templates", partial(load_template, self.files.template_of(tile), shape))
            for tile in self._clusters
        }

    def keep_reading(self, tile: TileId, cycle: int, reading: NDArray[np.float16]) -> None:
        """Keep a reading until it is called or the run is taken up anew; not synced.

        Raises
        ------
        OutputError : it cannot be written.
        """
        path = self.files.spooled_reading(tile, cycle)
        self.patience("spool", lambda: np.save(path, reading, allow_pickle=False))

    def reading(self, tile: TileId, cycle: int) -> NDArray[np.float16]:
        """What :meth:`keep_reading` kept."""
        return self.patience("spool", lambda: np.load(self.files.spooled_reading(tile, cycle)))

    def drop_reading(self, tile: TileId, cycle: int) -> None:
        """Remove a reading, if there is one."""
        self.patience("spool", lambda: self.files.spooled_reading(tile, cycle).unlink(missing_ok=True))

    def calls(self, tile: TileId, cycles: range) -> NDArray[np.uint8]:
        """(cycles, n) committed calls of consecutive 1-based cycles."""
        return self.patience("tile files", lambda: read_cycles(self.files.calls_of(tile), cycles))

    def purity(self, tile: TileId, cycles: int) -> NDArray[np.uint8]:
        """(k, n) chastity of a tile's first cycles, at most those that decide about the filter."""
        first = range(1, 1 + min(cycles, self._filter_cycles))
        return self.patience("tile files", lambda: read_cycles(self.files.chastity_of(tile), first))

    def passing(self, tile: TileId) -> NDArray[np.bool_]:
        """(n,) clusters of a tile that pass the filter, once its first cycles are committed."""
        allowed = self._chastity_failures
        return self.patience("tile files", lambda: passing(self.files, self.info, tile, failures_allowed=allowed))

    @property
    def passing_total(self) -> int:
        """Clusters of all tiles that are known to pass the filter."""
        known = [tile for tile, cycle in self.committed.items() if cycle >= self._filter_cycles]
        return sum(int(np.count_nonzero(self.passing(tile))) for tile in known)

    def commit_template(self, tile: TileId, template: TileTemplate) -> None:
        """Commit a template, before any cycle."""
        positions = template.positions
        locs = encode_locs(positions)
        self.patience("templates", lambda: save_template(self.files.template_of(tile), template))
        self.patience("templates", lambda: write_durably(self.files.locs_of(tile), locs))
        self.patience("tile files", lambda: self._open(self._opened, tile, len(positions), 0))
        self.patience("ledger", lambda: self.ledger.commit_tile(tile, len(positions), zlib.crc32(locs)))
        self._progress.template(len(positions))
        header = Template(run=self.info.run, seq=0, lane=tile.lane, tile=tile.tile, n=len(positions))
        self._stream.send(header, positions[:, ::-1].astype("<f4").tobytes())

    def commit(self, tile: TileId, result: CycleResult) -> None:
        """Commit the next cycle of a tile whose template stands."""
        file = self._calls[tile]
        calls = result.calls if result.calls is not None else np.full(file.clusters, NO_CALL, np.uint8)
        chastity = None
        if result.cycle <= self._filter_cycles:
            chastity = result.chastity if result.chastity is not None else np.full(file.clusters, UNKNOWN, np.uint8)
            self.patience("tile files", partial(self._chastity[tile].put, result.cycle, chastity))
        self.patience("tile files", partial(file.put, result.cycle, calls))
        drift = (None, None) if result.drift_px is None else tuple(float(value) for value in result.drift_px)
        light = result.neighbours
        row = CycleRow(
            lane=tile.lane,
            tile=tile.tile,
            cycle=result.cycle,
            status=result.status,
            reason=result.reason,
            frames=result.frames,
            crc32=zlib.crc32(calls.tobytes()),
            chastity_crc32=None if chastity is None else zlib.crc32(chastity.tobytes()),
            drift_y=drift[0],
            drift_x=drift[1],
            light_own=light.own if light else None,
            light_behind=light.behind if light else None,
            light_ahead=light.ahead if light else None,
            engine_s=result.engine_s,
            committed_ns=time.time_ns(),
        )
        images = _image_rows(tile, result)
        self.patience("ledger", lambda: self.ledger.commit(row, images))
        self._progress.committed(tile, result.cycle, result.status, frames=result.frames)
        # Before its image is dropped: whoever puts one later sees that it is of no use.
        self.committed[tile] = result.cycle
        self.patience("spool", lambda: self.spool.drop(tile, result.cycle))
        if result.cycle == self._filter_cycles:
            self._progress.filtered(int(np.count_nonzero(self.passing(tile))))
        header = Calls(run=self.info.run, seq=0, lane=tile.lane, tile=tile.tile, cycle=result.cycle, n=len(calls))
        self._stream.send(header, calls.tobytes())

    def _open(self, opened: ExitStack, tile: TileId, clusters: int, cycles: int) -> None:
        for files, path, kept in (
            (self._calls, self.files.calls_of(tile), cycles),
            (self._chastity, self.files.chastity_of(tile), min(cycles, self._filter_cycles)),
        ):
            if tile not in files:
                files[tile] = open_tile_file(path, clusters=clusters, cycles=kept)
                opened.callback(files[tile].close)

    def abandon(self) -> None:
        """Leave the files open when closing: a thread that cannot be stopped may still write."""
        self._opened.pop_all()

    def close(self) -> None:
        """Close the files."""
        self._opened.close()


def _image_rows(tile: TileId, result: CycleResult) -> list[ImageRow]:
    if result.images is None:
        return []
    columns = astuple(result.images)
    return [
        ImageRow(
            lane=tile.lane,
            tile=tile.tile,
            cycle=result.cycle,
            channel=channel,
            intensity=float(intensity),
            called=float(called),
            average=float(average),
            focus_px=None if np.isnan(focus) else float(focus),
        )
        for channel, (intensity, called, average, focus) in enumerate(zip(*columns, strict=True))
    ]
