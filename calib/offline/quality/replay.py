"""The module calls the first read of a tile of a run folder with the daemon's calling modules, but without a daemon."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo, TileId

from calib.calling.callcycle import CalledCycle, call_cycle
from calib.calling.inphase import AHEAD, BACK
from calib.calling.scores import CYCLES, NO_CALL, UNKNOWN
from calib.calling.signals import Signals
from calib.jointfit.fitcycle import fit_cycle
from calib.normalisation import Normalisation
from calib.offline.evaluation.callers import Reads
from calib.phasing import NeighbourLight, estimate_phasing
from calib.registration import RegistrationError
from calib.runfolder.images import read_frames
from calib.template.tiletemplate import MapOf, TileTemplate, make_template
from engines.bundles.bundle import QualityTable, Readout
from engines.contract import Engine, Request
from engines.network.centres import read_centres

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

    def reads(self) -> Reads:
        """Return all reads; the filter is not applied."""
        letters = np.frombuffer(b"ACGT", np.uint8)[self.calls & 3]
        return Reads(
            positions=self.positions.astype(np.float64),
            sequences=np.where(self.calls == NO_CALL, ord("N"), letters).astype(np.uint8).T,
            qualities=(self.calls >> 2).astype(np.uint8).T,
            passed=np.ones(len(self.positions), bool),
        )


def replay(
    root: Path, info: RunInfo, tile: TileId, *, map_of: MapOf, quality: QualityTable, progress: Callable[[], None]
) -> dict[Readout, Replayed]:
    """Call the first read of a tile as the daemon would, with every readout; the network runs once for every cycle.

    Parameters
    ----------
    map_of : :func:`engine_map` of an engine for tiles of this run's shape.
    progress : called for every cycle.

    Raises
    ------
    RunFolderError : an image is missing or damaged.
    EngineError : the engine failed.
    """
    shape = (info.height, info.width)
    cycles = info.cycles_of(info.reads[0])
    first = {
        cycle: read_frames(root, tile, cycle, shape=shape) for cycle in range(1, 1 + min(TEMPLATE_CYCLES, info.cycles))
    }
    maps: dict[int, NDArray[np.float32]] = {}

    def kept_map(pixels: NDArray[np.uint16], normalisation: Normalisation) -> NDArray[np.float32]:
        if id(pixels) not in maps:
            maps[id(pixels)] = map_of(pixels, normalisation)
        return maps[id(pixels)]

    by_network = make_template(list(first.values()), kept_map, Readout.NETWORK)
    by_fit = make_template(list(first.values()), kept_map, Readout.FUSED)
    readings: dict[Readout, list[Signals | None]] = {readout: [] for readout in Readout}
    for cycle in cycles:
        pixels = first[cycle] if cycle in first else read_frames(root, tile, cycle, shape=shape)
        seen = maps[id(pixels)] if id(pixels) in maps else map_of(pixels, by_network.normalisation)
        for template, readouts in ((by_network, (Readout.NETWORK,)), (by_fit, (Readout.FIT, Readout.FUSED))):
            for readout, reading in _read(pixels, seen, template, readouts).items():
                readings[readout].append(None if reading is None else Signals.unpacked(reading.packed()))
        progress()
    templates = {Readout.NETWORK: by_network, Readout.FIT: by_fit, Readout.FUSED: by_fit}
    return {readout: _called(templates[readout], readings[readout], quality) for readout in Readout}


def _read(
    pixels: NDArray[np.uint16], seen: NDArray[np.float32], template: TileTemplate, readouts: tuple[Readout, ...]
) -> dict[Readout, Signals | None]:
    """Signals of a cycle with each readout of a template; None if the cycle cannot be registered."""
    images = template.normalisation.apply(pixels)
    try:
        drift = template.drift(images)
    except RegistrationError:
        return dict.fromkeys(readouts)
    centres = read_centres(seen, template.positions_in(drift))
    fitted = None if template.scene is None else fit_cycle(images, template.scene, drift)
    return {
        readout: template.signals(fitted, drift, None if readout is Readout.FIT and fitted else centres)
        for readout in readouts
    }


def engine_map(engine: Engine, pixels: NDArray[np.uint16], normalisation: Normalisation) -> NDArray[np.float32]:
    """(5, H, W) the network's probabilities of a cycle's (4, H, W) images; raises :class:`EngineError`."""
    slot = engine.lease(TIMEOUT_S)
    slot.pixels[...] = pixels
    engine.submit(slot, Request(normalisation.offset, normalisation.gain, probabilities=True))
    probabilities = engine.collect(slot, TIMEOUT_S).probabilities
    assert probabilities is not None
    return probabilities


def _called(template: TileTemplate, readings: list[Signals | None], quality: QualityTable) -> Replayed:
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
            quality=quality,
        )
        calls[index], purity[index], features[index] = called.calls, called.chastity, called.features
        if called.neighbours is not None:
            seen[index + 1] = called.neighbours
    return Replayed(template.positions, calls, features)
