"""The caller: tile images in, committed calls out."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import structlog
from numpy.typing import NDArray
from seqd_client.runinfo import CHANNELS, TileId
from seqd_client.status import CycleStatus

from calib.calling.reading import Reading
from calib.imagequality import image_quality
from calib.jointfit.fitcycle import FittedCycle
from calib.normalisation import Normalisation
from calib.registration import RegistrationError
from calib.template.tiletemplate import MapOf, TileTemplate, make_template
from daemon.calling.cyclecaller import ReadCycle, Sequencer
from daemon.calling.supervisedengine import FAULTS, LastingEngine, told
from daemon.intake.assembler import Item, MissingImage, SpooledImage, TileImage
from daemon.record.runrecord import RunOutput
from daemon.watching.progress import Progress
from engines.bundles.bundle import QualityTable, Readout
from engines.contract import Request, Slot
from engines.errors import EngineError

log = structlog.get_logger()


ATTEMPTS = 3
"""A tile-cycle that an engine fails at so often, fresh and with nothing beside it, is given up; so is a template."""


@dataclass
class _InFlight:
    """A tile-cycle on its way; without a slot it needs no engine."""

    item: Item
    """Kept until it is read: an engine that fails has to do it again."""
    read: ReadCycle | None = None
    slot: Slot | None = None
    fitted: FittedCycle | None = None
    submitted_s: float = 0.0


class Caller:
    """Reads the tile images of one run, one thread, and hands what it read to the :class:`Sequencer`.

    A tile's first cycles wait in the spool until there are enough for a template. From then on
    every cycle, those first ones to begin with, is registered, run through the engine and fitted;
    one tile-cycle is read out while the engine computes the next. Order is kept. What lies in the
    spool stays there until its calls are committed, so that a daemon that is killed finds it again.

    When the engine fails it is opened again, and what was on its way is done again from its images, one after the
    other: a tile-cycle that fails it ``ATTEMPTS`` times by itself is committed as failed, if the engine reads a dark
    image; else the engine is of no use.
    """

    def __init__(
        self,
        engine: LastingEngine,
        output: RunOutput,
        progress: Progress,
        *,
        readout: Readout,
        quality: QualityTable,
        template_cycles: int,
        timeout_s: float,
    ) -> None:
        self._lasting, self._output, self._progress = engine, output, progress
        self._readout, self._template_cycles, self._timeout_s = readout, template_cycles, timeout_s
        self._sequencer = Sequencer(output, quality)
        self._templates = output.templates()
        for tile in self._templates:
            self._sequencer.begin(tile)
        self._waiting: dict[TileId, list[SpooledImage | MissingImage]] = {}
        """Each tile's cycles until its template can be made."""
        self._in_flight: deque[_InFlight] = deque()

    def take(self, item: Item) -> None:
        """Start on a tile-cycle; may finish earlier ones.

        Raises
        ------
        EngineError, EngineLostError : no engine works, or makes a tile's template.
        OutputError : something cannot be written.
        """
        if item.tile in self._templates:
            self._start(item)
        else:
            self._wait(item)

    @property
    def busy(self) -> bool:
        """Whether a tile-cycle is on its way."""
        return bool(self._in_flight)

    def finish_oldest(self) -> None:
        """Collect and hand on the tile-cycle that was started first."""
        flight = self._in_flight[0]
        try:
            read, reading = self._collected(flight)
        except FAULTS as error:
            self._do_again(error)
        else:
            self._in_flight.popleft()
            self._sequencer.take(flight.item.tile, read, reading)

    def finish(self) -> None:
        """Hand on everything that is on its way."""
        while self._in_flight:
            self.finish_oldest()

    def _start(self, item: Item) -> None:
        flight = _InFlight(item)
        self._in_flight.append(flight)
        try:
            self._begin(flight)
        except FAULTS as error:
            self._do_again(error)
        while len(self._in_flight) >= self._lasting.engine.info.slots:
            self.finish_oldest()

    def _begin(self, flight: _InFlight) -> None:
        """Register, submit and fit; the engine computes while the cycle is fitted."""
        item = flight.item
        if isinstance(item, MissingImage):
            flight.read = _missing(item)
            return
        template = self._templates[item.tile]
        pixels = item.pixels if isinstance(item, TileImage) else self._spooled(item.tile, item.cycle)
        images = template.normalisation.apply(pixels)
        try:
            drift = template.drift(images)
        except RegistrationError as error:
            flight.read = _failed(item, str(error))
            return
        flight.submitted_s = time.monotonic()
        flight.slot, flight.fitted = self._computed(template, pixels, images, drift)
        measured = image_quality(pixels, template.normalisation.offset, template.positions_in(drift))
        flight.read = ReadCycle(item.cycle, CycleStatus.CALLED, len(CHANNELS), drift_px=drift, images=measured)
        self._progress.worked()

    def _computed(
        self,
        template: TileTemplate,
        pixels: NDArray[np.uint16],
        images: NDArray[np.float32],
        drift_px: NDArray[np.float32],
    ) -> tuple[Slot | None, FittedCycle | None]:
        slot = fitted = None
        if self._readout is not Readout.FIT or template.scene is None:
            request = _request(template.normalisation, positions=template.positions_in(drift_px))
            slot = self._submitted(pixels, request)
        if template.scene is not None:
            fitted = self._lasting.place.fit(images, template.scene, drift_px)
        return slot, fitted

    def _collected(self, flight: _InFlight) -> tuple[ReadCycle, Reading | None]:
        read, centres = flight.read, None
        assert read is not None
        if flight.slot is not None:
            centres = self._lasting.engine.collect(flight.slot, self._timeout_s).centres
            read = replace(read, engine_s=time.monotonic() - flight.submitted_s)
        if read.status is not CycleStatus.CALLED:
            return read, None
        assert read.drift_px is not None
        return read, self._templates[flight.item.tile].reading(flight.fitted, read.drift_px, centres)

    def _do_again(self, error: BaseException) -> None:
        """Open the engine again, and finish what was in flight one by one, so that who fails it is known."""
        self._lasting.restart(error)
        while self._in_flight:
            item = self._in_flight[0].item
            read, reading = self._read_alone(item)
            self._in_flight.popleft()
            self._sequencer.take(item.tile, read, reading)

    def _read_alone(self, item: Item) -> tuple[ReadCycle, Reading | None]:
        while True:
            for _ in range(ATTEMPTS):
                flight = _InFlight(item)
                try:
                    self._begin(flight)
                    return self._collected(flight)
                except FAULTS as error:
                    failure = error
                    self._lasting.restart(error)
            try:
                self._read_dark(item.tile)
            except FAULTS as error:
                self._lasting.replace(error)
            else:
                return _failed(item, f"{ATTEMPTS} times: {told(failure)}"), None

    def _read_dark(self, but: TileId) -> None:
        """Read a dark image at the clusters of another tile, or where there is none, of the same one."""
        template = self._templates[next((tile for tile in self._templates if tile != but), but)]
        pixels = np.zeros((len(CHANNELS), self._output.info.height, self._output.info.width), np.uint16)
        still = np.zeros(2, np.float32)
        slot, _ = self._computed(template, pixels, template.normalisation.apply(pixels), still)
        if slot is not None:
            self._lasting.engine.collect(slot, self._timeout_s)

    def _submitted(self, pixels: NDArray[np.uint16], request: Request) -> Slot:
        slot = self._lasting.engine.lease(self._timeout_s)
        slot.pixels[...] = pixels
        self._lasting.engine.submit(slot, request)
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
            self._start(one)

    def _spooled(self, tile: TileId, cycle: int) -> NDArray[np.uint16]:
        return self._output.patience("spool", lambda: self._output.spool.get(tile, cycle))

    def _template(self, tile: TileId, images: list[NDArray[np.uint16]]) -> TileTemplate:
        info = self._output.info
        cycles = images or [np.zeros((len(CHANNELS), info.height, info.width), np.uint16)]
        for _ in range(ATTEMPTS):
            started, busy_before = time.monotonic(), self._lasting.busy_s
            try:
                template = make_template(cycles, self._maps(), self._readout, self._progress.worked)
            except FAULTS as error:
                failure = error
                self._lasting.restart(error)
                continue
            log.info(
                "template",
                tile=str(tile),
                clusters=len(template.positions),
                cycles=len(images),
                seconds=round(time.monotonic() - started, 3),
                engine_s=round(self._lasting.busy_s - busy_before, 3),
            )
            return template
        raise EngineError(f"tile {tile}: no template, {ATTEMPTS} times: {told(failure)}") from failure

    def _maps(self) -> MapOf:
        """The network's maps, from an engine that is not asked any more when it has failed."""
        engine, failures = self._lasting.engine, list[BaseException]()

        def probability_map(pixels: NDArray[np.uint16], normalisation: Normalisation) -> NDArray[np.float32]:
            if failures:
                raise failures[0]
            try:
                slot = self._submitted(pixels, _request(normalisation, probabilities=True))
                answer = engine.collect(slot, self._timeout_s)
            except FAULTS as error:
                failures.append(error)
                raise
            self._progress.worked()
            assert answer.probabilities is not None
            return answer.probabilities

        return probability_map


def _request(
    normalisation: Normalisation, *, positions: NDArray[np.float32] | None = None, probabilities: bool = False
) -> Request:
    return Request(normalisation.offset, normalisation.gain, positions=positions, probabilities=probabilities)


def _missing(item: MissingImage) -> ReadCycle:
    log.warning("tile-cycle missing", tile=str(item.tile), cycle=item.cycle, reason=item.reason)
    return ReadCycle(item.cycle, CycleStatus.MISSING, item.frames, reason=item.reason)


def _failed(item: Item, reason: str) -> ReadCycle:
    log.warning("tile-cycle failed", tile=str(item.tile), cycle=item.cycle, reason=reason)
    return ReadCycle(item.cycle, CycleStatus.FAILED, len(CHANNELS), reason=reason)


def take_all(caller: Caller, items: Iterator[Item | None]) -> None:
    """Call everything a source yields; None means that nothing is waiting just now."""
    for item in items:
        if item is not None:
            caller.take(item)
        elif caller.busy:
            caller.finish_oldest()
    caller.finish()
