"""The caller: tile images in, committed calls out."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import structlog
from numpy.typing import NDArray

from calib.normalisation import Normalisation
from calib.quality import call
from calib.registration import RegistrationError
from calib.runfolder import TileId
from daemon.assembler import MissingImage, TileImage
from daemon.ledger import CycleStatus
from daemon.output import CycleResult, RunOutput
from daemon.status import Progress
from daemon.templates import TileTemplate, make_template
from engines.bundle import QualityTable
from engines.contract import Engine, Request, Slot
from engines.errors import EngineError
from engines.readout import read_centres

log = structlog.get_logger()


@dataclass
class _Waiting:
    """A tile's cycles until its template can be made; the images lie in the spool folder."""

    images: list[int] = field(default_factory=list)
    """Cycles whose images came."""
    missing: list[MissingImage] = field(default_factory=list)


@dataclass(frozen=True)
class _InFlight:
    """A tile-cycle on its way; without a slot it needs no engine."""

    tile: TileId
    cycle: int
    slot: Slot | None
    result: CycleResult | None = None
    drift_px: NDArray[np.float32] | None = None


class Caller:
    """Calls the tile images of one run, one thread.

    A tile's first cycles wait in the spool until there are enough for a template. From then on
    every cycle is registered, run through the engine and committed; one tile-cycle is committed
    while the engine computes the next. Order is kept.
    """

    def __init__(
        self,
        engine: Engine,
        output: RunOutput,
        progress: Progress,
        *,
        quality: QualityTable,
        template_cycles: int,
        timeout_s: float,
    ) -> None:
        self._engine, self._output, self._progress = engine, output, progress
        self._quality = quality
        self._template_cycles, self._timeout_s = template_cycles, timeout_s
        self._templates = output.templates()
        self._waiting: dict[TileId, _Waiting] = {}
        self._in_flight: deque[_InFlight] = deque()

    def take(self, item: TileImage | MissingImage) -> None:
        """Start on a tile-cycle; may finish earlier ones."""
        template = self._templates.get(item.tile)
        if template is None:
            self._wait(item)
        else:
            self._start(item, template)
        while len(self._in_flight) >= self._engine.info.slots:
            self.finish_oldest()

    @property
    def busy(self) -> bool:
        """Whether a tile-cycle is on its way."""
        return bool(self._in_flight)

    def finish_oldest(self) -> None:
        """Collect and commit the tile-cycle that was started first."""
        flight = self._in_flight.popleft()
        self._output.commit(flight.tile, flight.result or self._collected(flight))

    def finish(self) -> None:
        """Commit everything that is on its way."""
        while self._in_flight:
            self.finish_oldest()

    def _start(self, item: TileImage | MissingImage, template: TileTemplate) -> None:
        if isinstance(item, MissingImage):
            self._in_flight.append(_InFlight(item.tile, item.cycle, None, _missing(item)))
            return
        try:
            drift = template.drift(item.pixels)
            request = _request(template.normalisation, positions=template.positions_in(drift))
            slot = self._submitted(item.pixels, request)
        except (RegistrationError, EngineError) as error:
            self._in_flight.append(_InFlight(item.tile, item.cycle, None, _failed(item.tile, item.cycle, str(error))))
            return
        self._in_flight.append(_InFlight(item.tile, item.cycle, slot, drift_px=drift))

    def _submitted(self, pixels: NDArray[np.uint16], request: Request) -> Slot:
        slot = self._engine.lease(self._timeout_s)
        slot.pixels[...] = pixels
        self._engine.submit(slot, request)
        return slot

    def _collected(self, flight: _InFlight) -> CycleResult:
        assert flight.slot is not None
        try:
            answer = self._engine.collect(flight.slot, self._timeout_s)
        except EngineError as error:
            return _failed(flight.tile, flight.cycle, str(error))
        assert answer.centres is not None
        return CycleResult(
            flight.cycle, CycleStatus.CALLED, call(answer.centres, self._quality), drift_px=flight.drift_px
        )

    def _wait(self, item: TileImage | MissingImage) -> None:
        waiting = self._waiting.setdefault(item.tile, _Waiting())
        if isinstance(item, MissingImage):
            waiting.missing.append(item)
        else:
            np.save(self._output.files.spooled(item.tile, item.cycle), item.pixels)
            waiting.images.append(item.cycle)
        if len(waiting.images) == self._template_cycles or item.cycle == self._output.info.cycles:
            # All slots must be free: making a template uses them too.
            self.finish()
            self._templates[item.tile] = self._template(item.tile, self._waiting.pop(item.tile))

    def _template(self, tile: TileId, waiting: _Waiting) -> TileTemplate:
        spooled = {cycle: self._output.files.spooled(tile, cycle) for cycle in waiting.images}
        images = [np.load(path) for path in spooled.values()]
        if not images:
            info = self._output.info
            images = [np.zeros((4, info.height, info.width), np.uint16)]
        try:
            template, cycles = make_template(images, self._map)
        except EngineError as error:
            raise EngineError(f"tile {tile}: no template: {error}") from error
        log.info("template", tile=str(tile), clusters=len(template.positions), cycles=len(spooled))
        results = [_missing(item) for item in waiting.missing]
        for cycle, seen in zip(waiting.images, cycles, strict=False):
            if seen.probabilities is None:
                results.append(_failed(tile, cycle, "registration: does not match the other template cycles"))
                continue
            centres = read_centres(seen.probabilities, template.positions_in(seen.drift_px))
            results.append(CycleResult(cycle, CycleStatus.CALLED, call(centres, self._quality), drift_px=seen.drift_px))
        self._output.commit_template(tile, template, sorted(results, key=lambda result: result.cycle))
        for path in spooled.values():
            with suppress(FileNotFoundError):
                path.unlink()
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


def _missing(item: MissingImage) -> CycleResult:
    log.warning("tile-cycle missing", tile=str(item.tile), cycle=item.cycle, reason=item.reason)
    return CycleResult(item.cycle, CycleStatus.MISSING, reason=item.reason)


def _failed(tile: TileId, cycle: int, reason: str) -> CycleResult:
    log.warning("tile-cycle failed", tile=str(tile), cycle=cycle, reason=reason)
    return CycleResult(cycle, CycleStatus.FAILED, reason=reason)


def take_all(caller: Caller, items: Iterator[TileImage | MissingImage | None]) -> None:
    """Call everything a source yields; None means that nothing is waiting just now."""
    for item in items:
        if item is not None:
            caller.take(item)
        elif caller.busy:
            caller.finish_oldest()
    caller.finish()
