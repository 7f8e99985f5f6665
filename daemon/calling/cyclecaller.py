"""Signals in, committed calls out: a cycle is called when the later cycles that correct it have been read."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import TileId
from seqd_client.status import CycleStatus

from calib.calling.callcycle import call_cycle
from calib.calling.inphase import AHEAD, BACK
from calib.calling.signals import Signals
from calib.imagequality import ImageQuality
from calib.phasing import NeighbourLight, estimate_phasing
from calib.template.tiletemplate import TileTemplate
from daemon.calling.signalstore import SignalStore
from daemon.record.runrecord import CommittedCycle, CommittedTemplate, CycleResult, RunRecord
from engines.bundles.bundle import QualityTable

Observer = Callable[[CommittedTemplate | CommittedCycle], None]
"""Is told of everything that was committed, after it was."""


@dataclass(frozen=True)
class ReadOutcome:
    """The outcome of reading a tile-cycle, before it is called; a called one has signals in the store."""

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
    waiting: deque[ReadOutcome] = field(default_factory=deque)


class CycleCaller:
    """Makes the calls of cycles and commits them.

    The signals of a cycle wait until the next ones of its read are there. Earlier calls, and what strands out of step
    showed, are in the record, so that a restart finds them.
    """

    def __init__(self, record: RunRecord, quality: QualityTable, observer: Observer) -> None:
        self._record, self._quality, self._observer = record, quality, observer
        self._signals = SignalStore(record.files, record.retry)
        self._tiles: dict[TileId, _Tile] = {}

    def begin(self, tile: TileId) -> None:
        """Begin, or continue, a tile that has a committed template."""
        seen = self._record.retry("ledger", lambda: self._record.ledger.neighbour_light(tile))
        self._tiles[tile] = _Tile(seen)

    def begin_with(self, tile: TileId, template: TileTemplate) -> None:
        """Commit the template of a tile, and begin the tile."""
        self._observer(self._record.commit_template(tile, template))
        self.begin(tile)

    def take(self, tile: TileId, outcome: ReadOutcome, signals: Signals | None) -> None:
        """Take the next cycle of a tile, and commit every cycle that has waited for it.

        Raises
        ------
        OutputError : something cannot be written.
        """
        if signals is not None:
            self._signals.put(tile, outcome.cycle, signals)
        here = self._tiles[tile]
        here.waiting.append(outcome)
        while here.waiting and here.waiting[-1].cycle >= min(
            here.waiting[0].cycle + AHEAD, self._cycles_with(here.waiting[0].cycle)[-1]
        ):
            self._observer(self._record.commit(tile, self._result(tile, here)))
            self._signals.drop(tile, here.waiting.popleft().cycle)

    def _cycles_with(self, cycle: int) -> range:
        """1-based cycles of the read that a cycle is in."""
        info = self._record.info
        return next(cycles for cycles in map(info.cycles_of, info.reads) if cycle in cycles)

    def _result(self, tile: TileId, here: _Tile) -> CycleResult:
        """The calls of the cycle that has waited longest."""
        outcome, *after = here.waiting
        if outcome.status is not CycleStatus.CALLED:
            return CycleResult(outcome.cycle, outcome.status, outcome.frames, reason=outcome.reason)
        cycles = self._cycles_with(outcome.cycle)
        seen = {cycle - cycles.start + 1: light for cycle, light in here.neighbours.items() if cycle in cycles}
        called = call_cycle(
            self._signals.get(tile, outcome.cycle),
            [
                self._signals.get(tile, later.cycle) if later.status is CycleStatus.CALLED else None
                for later in after
                if later.cycle in cycles
            ],
            self._record.calls(tile, range(max(cycles.start, outcome.cycle - BACK), outcome.cycle)),
            cycle=outcome.cycle - cycles.start + 1,
            phasing=estimate_phasing(seen),
            purity=self._record.chastity(tile, outcome.cycle - 1),
            quality=self._quality,
        )
        if called.neighbours is not None:
            here.neighbours[outcome.cycle] = called.neighbours
        return CycleResult(
            outcome.cycle,
            CycleStatus.CALLED,
            outcome.frames,
            calls=called.calls,
            chastity=called.chastity,
            drift_px=outcome.drift_px,
            neighbours=called.neighbours,
            images=outcome.images,
            engine_s=outcome.engine_s,
        )
