"""The caller: tile images in, committed calls out."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
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
from daemon.assembler import MissingImage, TileImage
from daemon.ledger import CycleStatus
from daemon.output import RunOutput
from daemon.progress import Progress
from daemon.sequencer import ReadCycle, Sequencer
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
    one tile-cycle is read out while the engine computes the next. Order is kept.

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
        self._waiting: dict[TileId, list[int | MissingImage]] = {}
        """Each tile's cycles until its template can be made; images lie in the spool."""
        self._in_flight: deque[_InFlight] = deque()

    def take(self, item: TileImage | MissingImage) -> None:
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

    def _start(self, item: TileImage | MissingImage, template: TileTemplate) -> None:
        self._in_flight.append(
            _InFlight(item.tile, _missing(item)) if isinstance(item, MissingImage) else self._begun(item, template)
        )
        while len(self._in_flight) >= self._engine.info.slots:
            self.finish_oldest()

    def _begun(self, item: TileImage, template: TileTemplate) -> _InFlight:
        images = template.normalisation.apply(item.pixels)
        try:
            drift = template.drift(images)
            slot = None
            if self._readout is not Readout.FIT or template.scene is None:
                request = _request(template.normalisation, positions=template.positions_in(drift))
                slot = self._submitted(item.pixels, request)
        except (RegistrationError, EngineError) as error:
            return _InFlight(item.tile, _failed(item.tile, item.cycle, str(error)))
        read, fitted = ReadCycle(item.cycle, CycleStatus.CALLED, drift_px=drift), None
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

    def _wait(self, item: TileImage | MissingImage) -> None:
        waiting = self._waiting.setdefault(item.tile, [])
        if isinstance(item, MissingImage):
            waiting.append(item)
        else:
            self._output.spool(self._output.files.spooled(item.tile, item.cycle), item.pixels)
            waiting.append(item.cycle)
        images = sum(isinstance(one, int) for one in waiting)
        if images == self._template_cycles or item.cycle == self._output.info.cycles:
            # All slots must be free: making a template uses them too.
            self.finish()
            self._read_waiting(item.tile, self._waiting.pop(item.tile))

    def _read_waiting(self, tile: TileId, waiting: list[int | MissingImage]) -> None:
        """Make a tile's template, then read the cycles that have waited for it."""
        spooled = {one: self._output.files.spooled(tile, one) for one in waiting if isinstance(one, int)}
        template = self._template(tile, [np.load(path) for path in spooled.values()])
        self._output.commit_template(tile, template)
        self._templates[tile] = template
        self._sequencer.begin(tile)
        for one in waiting:
            if isinstance(one, MissingImage):
                self._start(one, template)
                continue
            self._start(TileImage(tile, one, np.load(spooled[one])), template)
            with suppress(FileNotFoundError):
                spooled[one].unlink()

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
    return ReadCycle(item.cycle, CycleStatus.MISSING, reason=item.reason)


def _failed(tile: TileId, cycle: int, reason: str) -> ReadCycle:
    log.warning("tile-cycle failed", tile=str(tile), cycle=cycle, reason=reason)
    return ReadCycle(cycle, CycleStatus.FAILED, reason=reason)


def take_all(caller: Caller, items: Iterator[TileImage | MissingImage | None]) -> None:
    """Call everything a source yields; None means that nothing is waiting just now."""
    for item in items:
        if item is not None:
            caller.take(item)
        elif caller.busy:
            caller.finish_oldest()
    caller.finish()
