"""Readings in, calls out: a cycle is called when the cycles that it is corrected with are read."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import structlog
from numpy.typing import NDArray
from seqd_client.runinfo import TileId
from seqd_client.status import CycleStatus

from calib.calling.callcycle import call_cycle
from calib.calling.inphase import AHEAD, BACK
from calib.calling.reading import Reading
from calib.imagequality import ImageQuality
from calib.phasing import NeighbourLight, estimate_phasing
from daemon.record.runrecord import CycleResult, RunOutput
from engines.bundles.bundle import QualityTable

log = structlog.get_logger()


@dataclass(frozen=True)
class ReadCycle:
    """What became of a tile-cycle before it is called; called ones have a reading in the spool."""

    cycle: int
    status: CycleStatus
    frames: int
    reason: str = ""
    drift_px: NDArray[np.float32] | None = None
    images: ImageQuality | None = None
    engine_s: float | None = None


@dataclass
class _Tile:
    neighbours: dict[int, NeighbourLight]
    """By cycle, of the whole run."""
    waiting: deque[ReadCycle] = field(default_factory=deque)


class Sequencer:
    """Keeps the readings of each tile in the spool until they can be called, and commits the calls.

    The calls before and what strands out of step showed are in the output; a restart finds them there.
    """

    def __init__(self, output: RunOutput, quality: QualityTable) -> None:
        self._output, self._quality = output, quality
        self._tiles: dict[TileId, _Tile] = {}

    def begin(self, tile: TileId) -> None:
        """Take up a tile whose template stands."""
        seen = self._output.patience("ledger", lambda: self._output.ledger.neighbour_light(tile))
        self._tiles[tile] = _Tile(seen)

    def take(self, tile: TileId, read: ReadCycle, reading: Reading | None) -> None:
        """Take the next cycle of a tile; commits every cycle that has waited for it."""
        if reading is not None:
            self._output.keep_reading(tile, read.cycle, reading.packed())
        here = self._tiles[tile]
        here.waiting.append(read)
        while here.waiting and here.waiting[-1].cycle >= min(
            here.waiting[0].cycle + AHEAD, self._cycles_with(here.waiting[0].cycle)[-1]
        ):
            self._output.commit(tile, self._result(tile, here))
            self._output.drop_reading(tile, here.waiting.popleft().cycle)

    def _cycles_with(self, cycle: int) -> range:
        """1-based cycles of the read that a cycle is in."""
        info = self._output.info
        return next(cycles for cycles in map(info.cycles_of, info.reads) if cycle in cycles)

    def _result(self, tile: TileId, here: _Tile) -> CycleResult:
        """The calls of the cycle that has waited longest."""
        read, *after = here.waiting
        if read.status is not CycleStatus.CALLED:
            return CycleResult(read.cycle, read.status, read.frames, reason=read.reason)
        cycles = self._cycles_with(read.cycle)
        seen = {cycle - cycles.start + 1: light for cycle, light in here.neighbours.items() if cycle in cycles}
        called = call_cycle(
            self._reading(tile, read),
            [
                self._reading(tile, later) if later.status is CycleStatus.CALLED else None
                for later in after
                if later.cycle in cycles
            ],
            self._output.calls(tile, range(max(cycles.start, read.cycle - BACK), read.cycle)),
            cycle=read.cycle - cycles.start + 1,
            phasing=estimate_phasing(seen),
            purity=self._output.purity(tile, read.cycle - 1),
            quality=self._quality,
        )
        if called.neighbours is not None:
            here.neighbours[read.cycle] = called.neighbours
        return CycleResult(
            read.cycle,
            CycleStatus.CALLED,
            read.frames,
            calls=called.calls,
            chastity=called.chastity,
            drift_px=read.drift_px,
            neighbours=called.neighbours,
            images=read.images,
            engine_s=read.engine_s,
        )

    def _reading(self, tile: TileId, read: ReadCycle) -> Reading:
        return Reading.unpacked(self._output.reading(tile, read.cycle))
