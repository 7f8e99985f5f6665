"""The cycle caller makes calls from signals and commits them. It waits for the two next cycles of the same read."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from seqd_client.runinfo import TileId
from seqd_client.status import CycleStatus

from calib.calling.callcycle import CalledCycle, call_cycle
from calib.calling.inphase import AHEAD, BACK
from calib.calling.signals import Signals
from calib.phasing import NeighbourLight, estimate_phasing
from calib.template.tiletemplate import TileTemplate
from daemon.calling.signalstore import SignalStore
from daemon.record.runrecord import CommittedCycle, CommittedTemplate, ReadOutcome, RunRecord
from engines.bundles.bundle import QualityTable

Observer = Callable[[CommittedTemplate | CommittedCycle], None]
"""A function that is called with every template and every tile-cycle after it was committed."""


@dataclass
class _TileProgress:
    neighbours: dict[int, NeighbourLight]
    """Light from phasing and prephasing, by cycle of the run, for the cycles in which it could be measured."""
    waiting: deque[ReadOutcome] = field(default_factory=deque)
    """Cycles that are read and not committed."""


class CycleCaller:
    """Makes the calls of cycles and commits them.

    The signals of a cycle wait until the next ``AHEAD`` cycles of its read have signals too. The calls of
    earlier cycles, and the light from phasing and prephasing, are read from the record, so that a restarted daemon
    has them too.
    """

    def __init__(self, record: RunRecord, quality: QualityTable, observer: Observer) -> None:
        self._record, self._quality, self._observer = record, quality, observer
        self._signals = SignalStore(record.files, record.retry)
        self._tiles: dict[TileId, _TileProgress] = {}

    def begin(self, tile: TileId) -> None:
        """Begin, or continue, a tile that has a committed template."""
        neighbours = self._record.retry("ledger", lambda: self._record.ledger.neighbour_light(tile))
        self._tiles[tile] = _TileProgress(neighbours)

    def begin_with(self, tile: TileId, template: TileTemplate) -> None:
        """Commit the template of a tile, and begin the tile."""
        self._observer(self._record.commit_template(tile, template))
        self.begin(tile)

    def add(self, tile: TileId, outcome: ReadOutcome, signals: Signals | None) -> None:
        """Take the next cycle of a tile, and commit the cycles that can be called now.

        Parameters
        ----------
        signals : the signals of a cycle with the status ``CALLED``, else None.

        Raises
        ------
        OutputError : a file cannot be written.
        """
        if signals is not None:
            self._signals.put(tile, outcome.cycle, signals)
        progress = self._tiles[tile]
        progress.waiting.append(outcome)
        while progress.waiting and outcome.cycle >= self._last_needed(progress.waiting[0].cycle):
            committed = self._record.commit(tile, progress.waiting[0], self._called(tile, progress))
            self._observer(committed)
            self._signals.drop(tile, progress.waiting.popleft().cycle)

    def _cycles_of_same_read(self, cycle: int) -> range:
        """The 1-based cycles of the read that contains a cycle."""
        info = self._record.info
        return next(cycles for cycles in map(info.cycles_of, info.reads) if cycle in cycles)

    def _last_needed(self, cycle: int) -> int:
        """The last cycle that has to be read before a cycle is called."""
        return min(cycle + AHEAD, self._cycles_of_same_read(cycle)[-1])

    def _called(self, tile: TileId, progress: _TileProgress) -> CalledCycle | None:
        """Call the cycle that has waited longest; None where it is missing or failed."""
        outcome, *later = progress.waiting
        if outcome.status is not CycleStatus.CALLED:
            return None
        cycles = self._cycles_of_same_read(outcome.cycle)
        seen = {cycle - cycles.start + 1: light for cycle, light in progress.neighbours.items() if cycle in cycles}
        called = call_cycle(
            self._signals.get(tile, outcome.cycle),
            [
                self._signals.get(tile, after.cycle) if after.status is CycleStatus.CALLED else None
                for after in later
                if after.cycle in cycles
            ],
            self._record.calls(tile, range(max(cycles.start, outcome.cycle - BACK), outcome.cycle)),
            cycle=outcome.cycle - cycles.start + 1,
            phasing=estimate_phasing(seen),
            purity=self._record.chastity(tile, outcome.cycle - 1),
            quality=self._quality,
        )
        if called.neighbours is not None:
            progress.neighbours[outcome.cycle] = called.neighbours
        return called
