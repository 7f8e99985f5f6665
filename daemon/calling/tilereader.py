"""The tile reader: tile images in, signals of clusters out, with an engine that may fail."""

import time
from collections import deque
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
from daemon.calling.cyclecaller import CycleCaller
from daemon.calling.supervisedengine import FAULTS, SupervisedEngine, error_text
from daemon.intake.tileimages import Item, MissingImage, SpooledImage, TileImage
from daemon.record.runrecord import ReadOutcome, RunRecord
from daemon.watching.liveness import Liveness
from engines.bundles.bundle import Readout
from engines.contract import Request, Slot
from engines.errors import EngineError

log = structlog.get_logger()

ATTEMPTS = 3
"""A tile-cycle is given up after this many failures of the engine. In each attempt the engine was opened anew, and no
other tile-cycle was in flight. The making of a template is given up after the same number of failures."""


@dataclass
class _InFlight:
    """A tile-cycle that was started and is not read yet."""

    item: Item
    """Kept for the case that the engine fails and the tile-cycle has to be read again."""
    outcome: ReadOutcome | None = None
    slot: Slot | None = None
    """The engine's slot that computes the tile-cycle; None where it needs no engine."""
    fitted: FittedCycle | None = None
    submitted_s: float = 0.0


class TileReader:
    """Reads the tile images of one run, and gives their signals to the :class:`CycleCaller`; one thread uses it.

    The first cycles of a tile wait in the spool until there are enough for a template. Then every cycle, including the
    first ones, is read: its images are registered against the template, run through the engine, and fitted. While the
    engine computes one tile-cycle, the one before is collected. The cycles of a tile are read in their order. An image
    stays in the spool until its calls are committed, so that a restart finds it.

    When the engine fails it is opened again, and the tile-cycles in flight are read again from their images, one after
    the other. If the engine then fails ``ATTEMPTS`` times at the same tile-cycle, the engine is tried on a dark
    image. If the engine can read the dark image, the tile-cycle is committed as failed; otherwise the engine is
    replaced.
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
        template_cycles : number of cycles whose images a template is made from.
        timeout_s : an engine that needs longer for one tile has failed.
        """
        self._engine, self._record, self._caller, self._liveness = engine, record, caller, liveness
        self._readout, self._template_cycles, self._timeout_s = readout, template_cycles, timeout_s
        self._templates = record.templates()
        for tile in self._templates:
            caller.begin(tile)
        self._waiting: dict[TileId, list[SpooledImage | MissingImage]] = {}
        """The cycles of each tile that wait for its template."""
        self._in_flight: deque[_InFlight] = deque()

    def add(self, item: Item) -> None:
        """Start to read a tile-cycle; earlier ones may be finished before this returns.

        Raises
        ------
        EngineError, EngineLostError : no engine can be opened, or the engine cannot make the tile's template.
        OutputError : a file cannot be written.
        """
        if item.tile in self._templates:
            self._start(item)
        else:
            self._wait_for_template(item)

    @property
    def busy(self) -> bool:
        """Whether a tile-cycle is in flight."""
        return bool(self._in_flight)

    def finish_oldest(self) -> None:
        """Collect the tile-cycle that was started first, and give its signals to the caller."""
        flight = self._in_flight[0]
        try:
            outcome, signals = self._collect(flight)
        except FAULTS as error:
            self._read_again(error)
        else:
            self._in_flight.popleft()
            self._caller.add(flight.item.tile, outcome, signals)

    def finish(self) -> None:
        """Finish all tile-cycles in flight."""
        while self._in_flight:
            self.finish_oldest()

    def _start(self, item: Item) -> None:
        flight = _InFlight(item)
        self._in_flight.append(flight)
        try:
            self._submit(flight)
        except FAULTS as error:
            self._read_again(error)
        while len(self._in_flight) >= self._engine.current.info.slots:
            self.finish_oldest()

    def _submit(self, flight: _InFlight) -> None:
        """Register a tile-cycle, submit it to the engine, and fit it while the engine computes."""
        item = flight.item
        if isinstance(item, MissingImage):
            flight.outcome = _not_called(item, CycleStatus.MISSING, item.frames, item.reason)
            return
        template = self._templates[item.tile]
        pixels = item.pixels if isinstance(item, TileImage) else self._spooled(item.tile, item.cycle)
        images = template.normalisation.apply(pixels)
        try:
            drift = template.drift(images)
        except RegistrationError as error:
            flight.outcome = _not_called(item, CycleStatus.FAILED, len(CHANNELS), str(error))
            return
        flight.submitted_s = time.monotonic()
        flight.slot, flight.fitted = self._compute(template, pixels, images, drift)
        measured = image_quality(pixels, template.normalisation.offset, template.positions_in(drift))
        flight.outcome = ReadOutcome(item.cycle, CycleStatus.CALLED, len(CHANNELS), drift_px=drift, images=measured)
        self._liveness.note_work()

    def _compute(
        self,
        template: TileTemplate,
        pixels: NDArray[np.uint16],
        images: NDArray[np.float32],
        drift_px: NDArray[np.float32],
    ) -> tuple[Slot | None, FittedCycle | None]:
        """Submit an image to the engine if the readout needs evidence; fit the image if the readout needs the fit."""
        slot = fitted = None
        if self._readout is not Readout.FIT or template.scene is None:
            slot = self._submit_image(pixels, template.normalisation, positions=template.positions_in(drift_px))
        if template.scene is not None:
            fitted = self._engine.fit_device.fit(images, template.scene, drift_px)
        return slot, fitted

    def _submit_image(
        self,
        pixels: NDArray[np.uint16],
        normalisation: Normalisation,
        *,
        positions: NDArray[np.float32] | None = None,
        probabilities: bool = False,
    ) -> Slot:
        """Lease a slot of the engine and submit a (4, H, W) image in it."""
        slot = self._engine.current.lease(self._timeout_s)
        slot.pixels[...] = pixels
        request = Request(normalisation.offset, normalisation.gain, positions=positions, probabilities=probabilities)
        self._engine.current.submit(slot, request)
        return slot

    def _collect(self, flight: _InFlight) -> tuple[ReadOutcome, Signals | None]:
        outcome, centres = flight.outcome, None
        assert outcome is not None
        if flight.slot is not None:
            centres = self._engine.current.collect(flight.slot, self._timeout_s).centres
            outcome = replace(outcome, engine_s=time.monotonic() - flight.submitted_s)
        if outcome.drift_px is None:
            return outcome, None
        return outcome, self._templates[flight.item.tile].signals(flight.fitted, outcome.drift_px, centres)

    def _read_again(self, error: BaseException) -> None:
        """Open the engine again, and read the tile-cycles in flight one by one, to find the one that fails."""
        self._engine.restart(error)
        while self._in_flight:
            item = self._in_flight[0].item
            outcome, signals = self._read_alone(item)
            self._in_flight.popleft()
            self._caller.add(item.tile, outcome, signals)

    def _read_alone(self, item: Item) -> tuple[ReadOutcome, Signals | None]:
        """Read a tile-cycle with no other one in flight. If that fails, find out whether the engine can read a tile."""
        while True:
            for _ in range(ATTEMPTS):
                flight = _InFlight(item)
                try:
                    self._submit(flight)
                    return self._collect(flight)
                except FAULTS as error:
                    failure = error
                    self._engine.restart(error)
            try:
                self._read_dark_image(item.tile)
            except FAULTS as error:
                self._engine.replace(error)
            else:
                reason = f"the engine failed {ATTEMPTS} times: {error_text(failure)}"
                return _not_called(item, CycleStatus.FAILED, len(CHANNELS), reason), None

    def _read_dark_image(self, failed: TileId) -> None:
        """Read a dark image with the template of another tile than the failed one, if there is another template."""
        template = self._templates[next((tile for tile in self._templates if tile != failed), failed)]
        pixels, no_drift = self._dark_image(), np.zeros(2, np.float32)
        slot, _ = self._compute(template, pixels, template.normalisation.apply(pixels), no_drift)
        if slot is not None:
            self._engine.current.collect(slot, self._timeout_s)

    def _dark_image(self) -> NDArray[np.uint16]:
        return np.zeros((len(CHANNELS), self._record.info.height, self._record.info.width), np.uint16)

    def _wait_for_template(self, item: Item) -> None:
        """Keep a cycle until its tile can have a template; then make the template, and read the cycles kept so far."""
        waiting = self._waiting.setdefault(item.tile, [])
        if isinstance(item, TileImage):
            self._record.retry("spool", lambda: self._record.spool.put(item.tile, item.cycle, item.pixels))
        waiting.append(item if isinstance(item, MissingImage) else SpooledImage(item.tile, item.cycle))
        cycles = [one.cycle for one in waiting if isinstance(one, SpooledImage)]
        if len(cycles) < self._template_cycles and item.cycle < self._record.info.cycles:
            return
        # All slots must be free: making a template uses them too.
        self.finish()
        template = self._make_template(item.tile, [self._spooled(item.tile, cycle) for cycle in cycles])
        self._caller.begin_with(item.tile, template)
        self._templates[item.tile] = template
        for one in self._waiting.pop(item.tile):
            self._start(one)

    def _spooled(self, tile: TileId, cycle: int) -> NDArray[np.uint16]:
        return self._record.retry("spool", lambda: self._record.spool.get(tile, cycle))

    def _make_template(self, tile: TileId, images: list[NDArray[np.uint16]]) -> TileTemplate:
        for _ in range(ATTEMPTS):
            started, busy_before = time.monotonic(), self._engine.busy_s
            try:
                template = make_template(
                    images or [self._dark_image()], self._probability_maps(), self._readout, self._liveness.note_work
                )
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
        raise EngineError(
            f"tile {tile}: the template could not be made in {ATTEMPTS} attempts: {error_text(failure)}"
        ) from failure

    def _probability_maps(self) -> MapOf:
        """A function that computes the network's maps; once the engine has failed, it only repeats the error."""
        engine, failures = self._engine.current, list[BaseException]()

        def probability_map(pixels: NDArray[np.uint16], normalisation: Normalisation) -> NDArray[np.float32]:
            if failures:
                raise failures[0]
            try:
                slot = self._submit_image(pixels, normalisation, probabilities=True)
                answer = engine.collect(slot, self._timeout_s)
            except FAULTS as error:
                failures.append(error)
                raise
            self._liveness.note_work()
            assert answer.probabilities is not None
            return answer.probabilities

        return probability_map


def _not_called(item: Item, status: CycleStatus, frames: int, reason: str) -> ReadOutcome:
    """The outcome of a missing or failed tile-cycle, which has no signals."""
    log.warning(f"tile-cycle {status}", tile=str(item.tile), cycle=item.cycle, reason=reason)
    return ReadOutcome(item.cycle, status, frames, reason=reason)
