"""Reading tiles: tile images in, signals of clusters out, with an engine that may fail."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import structlog
from numpy.typing import NDArray
from seqd_client.runinfo import CHANNELS, TileId
from seqd_client.status import CycleStatus

from calib.calling.signals import Signals
from calib.imagequality import image_quality
from calib.jointfit.fitcycle import FittedCycle
from calib.normalisation import Normalisation
from calib.registration import RegistrationError
from calib.template.tiletemplate import MapOf, TileTemplate, make_template
from daemon.calling.cyclecaller import CycleCaller, ReadOutcome
from daemon.calling.supervisedengine import FAULTS, SupervisedEngine, error_text
from daemon.intake.tileimages import Item, MissingImage, SpooledImage, TileImage
from daemon.record.runrecord import RunRecord
from daemon.watching.liveness import Liveness
from engines.bundles.bundle import Readout
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
    outcome: ReadOutcome | None = None
    slot: Slot | None = None
    fitted: FittedCycle | None = None
    submitted_s: float = 0.0


class TileReader:
    """Reads the tile images of one run in one thread, and hands their signals to the :class:`CycleCaller`.

    The first cycles of a tile wait in the spool until there are enough for a template. Then every cycle, the first ones
    included, is registered, run through the engine and fitted; while the engine computes one tile-cycle, the one before
    is collected. The order of cycles is kept. An image in the spool stays there until its calls are committed, so that
    a daemon that was killed finds it again.

    When the engine fails it is opened again, and the tile-cycles that were in flight are read again from their images,
    one after the other. A tile-cycle that alone makes the engine fail ``ATTEMPTS`` times is committed as failed, if the
    engine still reads a dark image; otherwise the engine is replaced.
    """

    def __init__(
        self,
        engine: SupervisedEngine,
        record: RunRecord,
        caller: CycleCaller,
        liveness: Liveness,
        *,
        readout: Readout,
        template_cycles: int,
        timeout_s: float,
    ) -> None:
        """
        Parameters
        ----------
        template_cycles : cycles whose images a template is made from.
        timeout_s : an engine that needs longer for one tile has failed.
        """
        self._engine, self._record, self._caller, self._liveness = engine, record, caller, liveness
        self._readout, self._template_cycles, self._timeout_s = readout, template_cycles, timeout_s
        self._templates = record.templates()
        for tile in self._templates:
            caller.begin(tile)
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
            outcome, signals = self._collected(flight)
        except FAULTS as error:
            self._do_again(error)
        else:
            self._in_flight.popleft()
            self._caller.take(flight.item.tile, outcome, signals)

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
        while len(self._in_flight) >= self._engine.current.info.slots:
            self.finish_oldest()

    def _begin(self, flight: _InFlight) -> None:
        """Register, submit and fit; the engine computes while the cycle is fitted."""
        item = flight.item
        if isinstance(item, MissingImage):
            flight.outcome = _missing(item)
            return
        template = self._templates[item.tile]
        pixels = item.pixels if isinstance(item, TileImage) else self._spooled(item.tile, item.cycle)
        images = template.normalisation.apply(pixels)
        try:
            drift = template.drift(images)
        except RegistrationError as error:
            flight.outcome = _failed(item, str(error))
            return
        flight.submitted_s = time.monotonic()
        flight.slot, flight.fitted = self._computed(template, pixels, images, drift)
        measured = image_quality(pixels, template.normalisation.offset, template.positions_in(drift))
        flight.outcome = ReadOutcome(item.cycle, CycleStatus.CALLED, len(CHANNELS), drift_px=drift, images=measured)
        self._liveness.worked()

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
            fitted = self._engine.fit_device.fit(images, template.scene, drift_px)
        return slot, fitted

    def _collected(self, flight: _InFlight) -> tuple[ReadOutcome, Signals | None]:
        outcome, centres = flight.outcome, None
        assert outcome is not None
        if flight.slot is not None:
            centres = self._engine.current.collect(flight.slot, self._timeout_s).centres
            outcome = replace(outcome, engine_s=time.monotonic() - flight.submitted_s)
        if outcome.status is not CycleStatus.CALLED:
            return outcome, None
        assert outcome.drift_px is not None
        return outcome, self._templates[flight.item.tile].signals(flight.fitted, outcome.drift_px, centres)

    def _do_again(self, error: BaseException) -> None:
        """Open the engine again, and finish what was in flight one by one, so that who fails it is known."""
        self._engine.restart(error)
        while self._in_flight:
            item = self._in_flight[0].item
            outcome, signals = self._read_alone(item)
            self._in_flight.popleft()
            self._caller.take(item.tile, outcome, signals)

    def _read_alone(self, item: Item) -> tuple[ReadOutcome, Signals | None]:
        while True:
            for _ in range(ATTEMPTS):
                flight = _InFlight(item)
                try:
                    self._begin(flight)
                    return self._collected(flight)
                except FAULTS as error:
                    failure = error
                    self._engine.restart(error)
            try:
                self._read_dark(item.tile)
            except FAULTS as error:
                self._engine.replace(error)
            else:
                return _failed(item, f"{ATTEMPTS} times: {error_text(failure)}"), None

    def _read_dark(self, but: TileId) -> None:
        """Read a dark image at the clusters of another tile, or where there is none, of the same one."""
        template = self._templates[next((tile for tile in self._templates if tile != but), but)]
        pixels = np.zeros((len(CHANNELS), self._record.info.height, self._record.info.width), np.uint16)
        still = np.zeros(2, np.float32)
        slot, _ = self._computed(template, pixels, template.normalisation.apply(pixels), still)
        if slot is not None:
            self._engine.current.collect(slot, self._timeout_s)

    def _submitted(self, pixels: NDArray[np.uint16], request: Request) -> Slot:
        slot = self._engine.current.lease(self._timeout_s)
        slot.pixels[...] = pixels
        self._engine.current.submit(slot, request)
        return slot

    def _wait(self, item: Item) -> None:
        waiting = self._waiting.setdefault(item.tile, [])
        if isinstance(item, TileImage):
            self._record.retry("spool", lambda: self._record.spool.put(item.tile, item.cycle, item.pixels))
        waiting.append(item if isinstance(item, MissingImage) else SpooledImage(item.tile, item.cycle))
        images = sum(isinstance(one, SpooledImage) for one in waiting)
        if images == self._template_cycles or item.cycle == self._record.info.cycles:
            # All slots must be free: making a template uses them too.
            self.finish()
            self._read_waiting(item.tile, self._waiting.pop(item.tile))

    def _read_waiting(self, tile: TileId, waiting: list[SpooledImage | MissingImage]) -> None:
        """Make a tile's template, then read the cycles that have waited for it."""
        cycles = [one.cycle for one in waiting if isinstance(one, SpooledImage)]
        template = self._template(tile, [self._spooled(tile, cycle) for cycle in cycles])
        self._caller.begin_with(tile, template)
        self._templates[tile] = template
        for one in waiting:
            self._start(one)

    def _spooled(self, tile: TileId, cycle: int) -> NDArray[np.uint16]:
        return self._record.retry("spool", lambda: self._record.spool.get(tile, cycle))

    def _template(self, tile: TileId, images: list[NDArray[np.uint16]]) -> TileTemplate:
        info = self._record.info
        cycles = images or [np.zeros((len(CHANNELS), info.height, info.width), np.uint16)]
        for _ in range(ATTEMPTS):
            started, busy_before = time.monotonic(), self._engine.busy_s
            try:
                template = make_template(cycles, self._maps(), self._readout, self._liveness.worked)
            except FAULTS as error:
                failure = error
                self._engine.restart(error)
                continue
            log.info(
                "template",
                tile=str(tile),
                clusters=len(template.positions),
                cycles=len(images),
                seconds=round(time.monotonic() - started, 3),
                engine_s=round(self._engine.busy_s - busy_before, 3),
            )
            return template
        raise EngineError(f"tile {tile}: no template, {ATTEMPTS} times: {error_text(failure)}") from failure

    def _maps(self) -> MapOf:
        """The network's maps, from an engine that is not asked any more when it has failed."""
        engine, failures = self._engine.current, list[BaseException]()

        def probability_map(pixels: NDArray[np.uint16], normalisation: Normalisation) -> NDArray[np.float32]:
            if failures:
                raise failures[0]
            try:
                slot = self._submitted(pixels, _request(normalisation, probabilities=True))
                answer = engine.collect(slot, self._timeout_s)
            except FAULTS as error:
                failures.append(error)
                raise
            self._liveness.worked()
            assert answer.probabilities is not None
            return answer.probabilities

        return probability_map


def _request(
    normalisation: Normalisation, *, positions: NDArray[np.float32] | None = None, probabilities: bool = False
) -> Request:
    return Request(normalisation.offset, normalisation.gain, positions=positions, probabilities=probabilities)


def _missing(item: MissingImage) -> ReadOutcome:
    log.warning("tile-cycle missing", tile=str(item.tile), cycle=item.cycle, reason=item.reason)
    return ReadOutcome(item.cycle, CycleStatus.MISSING, item.frames, reason=item.reason)


def _failed(item: Item, reason: str) -> ReadOutcome:
    log.warning("tile-cycle failed", tile=str(item.tile), cycle=item.cycle, reason=reason)
    return ReadOutcome(item.cycle, CycleStatus.FAILED, len(CHANNELS), reason=reason)


def read_all(reader: TileReader, items: Iterator[Item | None]) -> None:
    """Read everything that a source yields; it yields None while nothing is waiting."""
    for item in items:
        if item is not None:
            reader.take(item)
        elif reader.busy:
            reader.finish_oldest()
    reader.finish()
