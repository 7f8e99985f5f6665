"""The caller: tile images in, committed calls out."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from calib.jointfit.cycle import FittedCycle
from calib.jointfit.place import Place
from calib.normalisation import Normalisation
from calib.registration import RegistrationError
from calib.runfolder import TileId
from calib.template.tile import TileTemplate, make_template
from daemon.assembler import Item, MissingImage, SpooledImage, TileImage
from daemon.ledger import CycleStatus
from daemon.output import RunOutput
from daemon.progress import Progress
from daemon.sequencer import ReadCycle, Sequencer
from engines.architecture import CHANNELS
from engines.bundle import QualityTable, Readout
from engines.contract import Engine, Request, Slot
from engines.errors import EngineError

log = structlog.get_logger()


@dataclass(frozen=True)
class _InFlight:
    """A tile-cycle on its way; without a slot it needs no engine."""

    tile: TileId
    read: ReadCycle
    slot: Slot | None = None
    fitted: FittedCycle | None = None


class Caller:
    """Reads the tile images of one run, one thread, and hands what it read to the :class:`Sequencer`.

    A tile's first cycles wait in the spool until there are enough for a template. From then on
    every cycle, those first ones to begin with, is registered, run through the engine and fitted;
    one tile-cycle is read out while the engine computes the next. Order is kept. What lies in the
    spool stays there until its calls are committed, so that a daemon that is killed finds it again.

    A tile-cycle that the engine fails at is committed as failed. A device that is lost is another matter: it would
    fail at all that is left of the run, so nothing more is committed and the run ends, to be taken up again.
    """

    def __init__(
        self,
        engine: Engine,
        place: Place,
        output: RunOutput,
        progress: Progress,
        *,
        readout: Readout,
        quality: QualityTable,
        template_cycles: int,
        timeout_s: float,
    ) -> None:
        self._engine, self._place, self._output, self._progress = engine, place, output, progress
        self._readout, self._template_cycles, self._timeout_s = readout, template_cycles, timeout_s
        self._sequencer = Sequencer(output, quality)
        self._templates = output.templates()
        for tile in self._templates:
            self._sequencer.begin(tile)
        self._waiting: dict[TileId, list[SpooledImage | MissingImage]] = {}
        """Each tile's cycles until its template can be made."""
        self._in_flight: deque[_InFlight] = deque()

    def take(self, item: Item) -> None:
        """Start on a tile-cycle; may finish earlier ones."""
        template = self._templates.get(item.tile)
        if template is None:
            self._wait(item)
        else:
            self._start(item, template)

    @property
    def busy(self) -> bool:
        """Whether a tile-cycle is on its way."""
        return bool(self._in_flight)

    def finish_oldest(self) -> None:
        """Collect and hand on the tile-cycle that was started first."""
        flight = self._in_flight.popleft()
        read, reading = flight.read, None
        try:
            centres = None if flight.slot is None else self._engine.collect(flight.slot, self._timeout_s).centres
            if read.status is CycleStatus.CALLED:
                assert read.drift_px is not None
                reading = self._templates[flight.tile].reading(flight.fitted, read.drift_px, centres)
        except EngineError as error:
            read = _failed(flight.tile, read.cycle, str(error))
        self._sequencer.take(flight.tile, read, reading)

    def finish(self) -> None:
        """Hand on everything that is on its way."""
        while self._in_flight:
            self.finish_oldest()

    def _start(self, item: Item, template: TileTemplate) -> None:
        self._in_flight.append(self._begun(item, template))
        while len(self._in_flight) >= self._engine.info.slots:
            self.finish_oldest()

    def _begun(self, item: Item, template: TileTemplate) -> _InFlight:
        if isinstance(item, MissingImage):
            return _InFlight(item.tile, _missing(item))
        pixels = item.pixels if isinstance(item, TileImage) else self._spooled(item.tile, item.cycle)
        images = template.normalisation.apply(pixels)
        try:
            drift = template.drift(images)
            slot = None
            if self._readout is not Readout.FIT or template.scene is None:
                request = _request(template.normalisation, positions=template.positions_in(drift))
                slot = self._submitted(pixels, request)
        except (RegistrationError, EngineError) as error:
            return _InFlight(item.tile, _failed(item.tile, item.cycle, str(error)))
        read, fitted = ReadCycle(item.cycle, CycleStatus.CALLED, len(CHANNELS), drift_px=drift), None
        try:
            # The engine computes meanwhile.
            fitted = None if template.scene is None else self._place.fit(images, template.scene, drift)
        except EngineError as error:
            read = _failed(item.tile, item.cycle, str(error))
        return _InFlight(item.tile, read, slot, fitted)

    def _submitted(self, pixels: NDArray[np.uint16], request: Request) -> Slot:
        slot = self._engine.lease(self._timeout_s)
        slot.pixels[...] = pixels
        self._engine.submit(slot, request)
        return slot

    def _wait(self, item: Item) -> None:
        waiting = self._waiting.setdefault(item.tile, [])
        if isinstance(item, TileImage):
            self._output.patience("spool", lambda: self._output.spool.put(item.tile, item.cycle, item.pixels))
        waiting.append(item if isinstance(item, MissingImage) else SpooledImage(item.tile, item.cycle))
        images = sum(isinstance(one, SpooledImage) for one in waiting)
        if images == self._template_cycles or item.cycle == self._output.info.cycles:
            # All slots must be free: making a template uses them too.
            self.finish()
            self._read_waiting(item.tile, self._waiting.pop(item.tile))

    def _read_waiting(self, tile: TileId, waiting: list[SpooledImage | MissingImage]) -> None:
        """Make a tile's template, then read the cycles that have waited for it."""
        cycles = [one.cycle for one in waiting if isinstance(one, SpooledImage)]
        template = self._template(tile, [self._spooled(tile, cycle) for cycle in cycles])
        self._output.commit_template(tile, template)
        self._templates[tile] = template
        self._sequencer.begin(tile)
        for one in waiting:
            self._start(one, template)

    def _spooled(self, tile: TileId, cycle: int) -> NDArray[np.uint16]:
        return self._output.patience("spool", lambda: self._output.spool.get(tile, cycle))

    def _template(self, tile: TileId, images: list[NDArray[np.uint16]]) -> TileTemplate:
        info = self._output.info
        cycles = images or [np.zeros((4, info.height, info.width), np.uint16)]
        started, busy_before = time.monotonic(), self._engine.busy_s
        try:
            template = make_template(cycles, self._map, self._readout, self._progress.worked)
        except EngineError as error:
            raise EngineError(f"tile {tile}: no template: {error}") from error
        log.info(
            "template",
            tile=str(tile),
            clusters=len(template.positions),
            cycles=len(images),
            seconds=round(time.monotonic() - started, 3),
            engine_s=round(self._engine.busy_s - busy_before, 3),
        )
        return template

    def _map(self, pixels: NDArray[np.uint16], normalisation: Normalisation) -> NDArray[np.float32]:
        slot = self._submitted(pixels, _request(normalisation, probabilities=True))
        answer = self._engine.collect(slot, self._timeout_s)
        self._progress.worked()
        assert answer.probabilities is not None
        return answer.probabilities


def _request(
    normalisation: Normalisation, *, positions: NDArray[np.float32] | None = None, probabilities: bool = False
) -> Request:
    return Request(normalisation.offset, normalisation.gain, positions=positions, probabilities=probabilities)


def _missing(item: MissingImage) -> ReadCycle:
    log.warning("tile-cycle missing", tile=str(item.tile), cycle=item.cycle, reason=item.reason)
    return ReadCycle(item.cycle, CycleStatus.MISSING, item.frames, reason=item.reason)


def _failed(tile: TileId, cycle: int, reason: str) -> ReadCycle:
    log.warning("tile-cycle failed", tile=str(tile), cycle=cycle, reason=reason)
    return ReadCycle(cycle, CycleStatus.FAILED, len(CHANNELS), reason=reason)


def take_all(caller: Caller, items: Iterator[Item | None]) -> None:
    """Call everything a source yields; None means that nothing is waiting just now."""
    for item in items:
        if item is not None:
            caller.take(item)
        elif caller.busy:
            caller.finish_oldest()
    caller.finish()
