"""One tile of a run folder through the modules of the run-time, without the daemon around them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.calling.chastity import CYCLES, UNKNOWN
from calib.calling.inphase import AHEAD, BACK
from calib.calling.quality import NO_CALL
from calib.calling.reading import Reading
from calib.calling.sequence import CalledCycle, call_cycle
from calib.jointfit.cycle import fit_cycle
from calib.normalisation import Normalisation
from calib.phasing import NeighbourLight, estimate_phasing
from calib.registration import RegistrationError
from calib.runfolder import RunInfo, TileId, read_frames
from calib.template.tile import TileTemplate, make_template
from engines.bundle import QualityTable, Readout
from engines.contract import Answer, Engine, Request

TIMEOUT_S = 600.0
TEMPLATE_CYCLES = 10


@dataclass(frozen=True)
class Replayed:
    """The first read of a tile, called."""

    positions: NDArray[np.float32]
    """(n, 2)."""
    calls: NDArray[np.uint8]
    """(cycles, n) bytes."""
    features: NDArray[np.float32]
    """(cycles, n, features); 0 where nothing was called."""


def replay(
    root: Path,
    info: RunInfo,
    tile: TileId,
    *,
    engine: Engine,
    readout: Readout,
    quality: QualityTable,
    progress: Callable[[], None],
) -> Replayed:
    """Call the first read of a tile as the daemon would.

    Parameters
    ----------
    engine : for tiles of this run's shape.
    progress : called for every cycle.

    Raises
    ------
    RunFolderError : an image is missing or damaged.
    EngineError : the engine failed.
    """
    shape = (info.height, info.width)
    cycles = info.cycles_of(info.reads[0])

    def map_of(pixels: NDArray[np.uint16], normalisation: Normalisation) -> NDArray[np.float32]:
        request = Request(normalisation.offset, normalisation.gain, probabilities=True)
        probabilities = _answer(engine, pixels, request).probabilities
        assert probabilities is not None
        return probabilities

    first = [read_frames(root, tile, cycle, shape=shape) for cycle in cycles[:TEMPLATE_CYCLES]]
    template = make_template(first, map_of, readout)
    readings: list[Reading | None] = []
    for cycle in cycles:
        pixels = first[cycle - 1] if cycle <= len(first) else read_frames(root, tile, cycle, shape=shape)
        readings.append(_read(pixels, template, engine, readout))
        progress()
    return _called(template, readings, quality)


def _read(pixels: NDArray[np.uint16], template: TileTemplate, engine: Engine, readout: Readout) -> Reading | None:
    """What a cycle shows; None where it does not match the template."""
    normalisation = template.normalisation
    images = normalisation.apply(pixels)
    try:
        drift = template.drift(images)
    except RegistrationError:
        return None
    centres = None
    if readout is not Readout.FIT:
        positions = template.positions_in(drift)
        centres = _answer(
            engine, pixels, Request(normalisation.offset, normalisation.gain, positions=positions)
        ).centres
    fitted = None if template.scene is None else fit_cycle(images, template.scene, drift)
    return template.reading(fitted, drift, centres)


def _answer(engine: Engine, pixels: NDArray[np.uint16], request: Request) -> Answer:
    slot = engine.lease(TIMEOUT_S)
    slot.pixels[...] = pixels
    engine.submit(slot, request)
    return engine.collect(slot, TIMEOUT_S)


def _called(template: TileTemplate, readings: list[Reading | None], quality: QualityTable) -> Replayed:
    number = len(template.positions)
    seen: dict[int, NeighbourLight] = {}
    calls = np.full((len(readings), number), NO_CALL, np.uint8)
    purity = np.full((len(readings), number), UNKNOWN, np.uint8)
    features = np.zeros((len(readings), number, len(quality.weights)), np.float32)
    for index, reading in enumerate(readings):
        if reading is None:
            continue
        called: CalledCycle = call_cycle(
            reading,
            readings[index + 1 : index + 1 + AHEAD],
            calls[max(0, index - BACK) : index],
            cycle=index + 1,
            phasing=estimate_phasing(seen),
            purity=purity[: min(index, CYCLES)],
            crowding=template.crowding,
            quality=quality,
        )
        calls[index], purity[index], features[index] = called.calls, called.chastity, called.features
        if called.neighbours is not None:
            seen[index + 1] = called.neighbours
    return Replayed(template.positions, calls, features)
