"""The child process of a qualification: it tries one candidate and reports every step.

The parent runs it as a program with a file name for its reports, and sends a :class:`Trial` as JSON to its
standard input. Each report is one line of JSON, so that a crash or a hang leaves the name of the step behind.
"""

import gc
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from seqd_client.errors import SeqdError, first_line

from calib.jointfit.fitdevice import NO_DRIFT, TRIAL_DENSITY_K_MM2, check_trial, cpu_device, crowded_tile, open_gpu
from daemon.qualification.qualificationrecord import Measured
from engines.bundles.bundle import Bundle, load_bundle
from engines.bundles.golden import check_golden, load_golden
from engines.contract import Engine, EngineOptions, Request, Slot
from engines.devices import open_cuda
from engines.devices.probe import probe
from engines.errors import EngineError, WrongAnswerError

SMALL_SIZE = (61, 83)
"""Height and width of the small tiles, pixels; no vector or block size divides them."""

TIMEOUT_S = 300.0
"""Limit of one tile."""

SUBMITS, SETTLED_AFTER = 200, 50
"""Number of small tiles that are computed one after the other. Memory and threads at the end are compared with those
after ``SETTLED_AFTER`` tiles."""

FITS, FITS_SETTLED_AFTER = 40, 10

MAX_GROWTH_BYTES = 12e6
"""Memory that may be added while small tiles are computed. A leak of one probability map for each tile is larger."""

CLUSTERS_PER_PX = 0.04
"""Clusters of a crowded tile."""

MIN_TIMED, MAX_TIMED, TIMED_S = 3, 50, 5.0
"""Speed is measured over this many tiles, and no further tile is begun after this time."""


class Trial(BaseModel):
    """What the child has to try."""

    module: str
    """Module whose ``open_engine`` opens the engine; empty for the joint fit."""
    gpu: bool
    bundle: Path
    size: tuple[int, int]
    """Height and width of the full tiles, pixels."""
    precision: str = "auto"
    threads: int = 0
    strip_px: int = 0


class Reports:
    """The file that the parent reads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self.step = ""

    def begin(self, step: str) -> None:
        """Report the step that begins now."""
        self.step = step
        self.send(step=step)

    def send(self, **facts: object) -> None:
        """Report facts by name."""
        self._file.write(json.dumps(facts) + "\n")
        self._file.flush()


OPENING = "the opening"


def try_engine(trial: Trial, reports: Reports) -> Measured:
    """Try an engine with small and full tiles.

    Raises
    ------
    WrongAnswerError : an answer differs from what the network gives, or two answers for the same tile differ.
    EngineError, EngineLostError : the engine cannot be opened, or it fails.
    """
    bundle = load_bundle(trial.bundle)
    backend = import_module(trial.module)
    options = EngineOptions(precision=trial.precision, threads=trial.threads, strip_px=trial.strip_px, gpu=trial.gpu)

    @contextmanager
    def opened(shape: tuple[int, int]) -> Iterator[Engine]:
        reports.begin(OPENING)
        with closing(backend.open_engine(bundle, shape=shape, options=options)) as engine:
            reports.begin(f"the golden tile in tiles of {shape[0]}×{shape[1]} px")
            check_golden(engine, bundle)
            yield engine

    with opened(SMALL_SIZE) as engine:
        reports.begin(f"{SUBMITS} small tiles")
        expected = _compute_many(engine, bundle)
        reports.begin("the golden tile after errors")
        _provoke_errors(engine, bundle)
        check_golden(engine, bundle)
        if (_collected(engine, _submitted(engine, bundle)) != expected).any():
            raise WrongAnswerError("the same tile has another answer after an error")
    with opened(trial.size) as engine:
        reports.begin("measuring speed")
        alone = _seconds(lambda: _collected(engine, _submitted(engine, bundle)))
        return Measured(
            software=engine.info.software,
            precision=engine.info.precision,
            ms_per_tile=round(1e3 * float(np.median(alone)), 3),
            tile_cycles_per_s=round(_throughput(engine, bundle, len(alone)), 3),
            copies_ms=round(_copies_ms(trial.size), 3) if trial.gpu else None,
        )


def try_fit(trial: Trial, reports: Reports) -> Measured:
    """Try the joint fit on a device.

    Raises
    ------
    WrongAnswerError : the fitted light differs from what NumPy computes, or between two fits of the same images.
    EngineError, EngineLostError : the device cannot be used, or it fails.
    """
    reports.begin(OPENING)
    device = open_gpu() if trial.gpu else cpu_device("")
    for shape in (SMALL_SIZE, trial.size):
        reports.begin(f"the trial tile of {shape[0]}×{shape[1]} px")
        check_trial(device, shape)
    images, scene = crowded_tile(max(SMALL_SIZE), TRIAL_DENSITY_K_MM2)
    reports.begin(f"{FITS} small fits")
    growth = Growth(FITS_SETTLED_AFTER)
    for _ in range(FITS):
        device.fit(images, scene, NO_DRIFT)
        growth.count()
    growth.check()
    reports.begin("the trial tile after an error")
    with suppress(EngineError, ArithmeticError, ValueError), np.errstate(all="ignore"):
        device.fit(np.full_like(images, np.nan), scene, NO_DRIFT)
    check_trial(device)
    reports.begin("measuring speed")
    images, scene = crowded_tile(max(trial.size), TRIAL_DENSITY_K_MM2)
    height, width = trial.size
    images = np.ascontiguousarray(images[:, :height, :width])
    median_s = float(np.median(_seconds(lambda: device.fit(images, scene, NO_DRIFT))))
    return Measured(ms_per_tile=round(1e3 * median_s, 3), tile_cycles_per_s=round(1 / median_s, 3))


class Growth:
    """Measures how memory and threads of this process grow after the first ``settled_after`` tiles."""

    def __init__(self, settled_after: int) -> None:
        self._settled_after, self._tiles = settled_after, 0

    def count(self) -> None:
        """Note that a tile was computed."""
        self._tiles += 1
        if self._tiles == self._settled_after:
            self._bytes, self._threads = _used()

    def check(self) -> None:
        """Compare with the start.

        Raises
        ------
        EngineError : more threads run, or more memory is held, than the first tiles needed.
        """
        resident, threads = _used()
        if threads > self._threads:
            raise EngineError(f"threads grew from {self._threads} to {threads}")
        if resident - self._bytes > MAX_GROWTH_BYTES:
            raise EngineError(f"memory grew by {(resident - self._bytes) / 1e6:.0f} MB")


def _used() -> tuple[int, int]:
    """Resident bytes and threads of this process, with those of libraries."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path("/proc/self/task").iterdir()))


def _submitted(engine: Engine, bundle: Bundle) -> Slot:
    """A slot with the golden image, submitted with as many positions as a crowded tile has."""
    golden, slot = load_golden(bundle).tile, engine.lease(TIMEOUT_S)
    shape = slot.pixels.shape[1:]
    repeats = (1, *(-(-size // edge) for size, edge in zip(shape, golden.pixels.shape[1:], strict=True)))
    slot.pixels[...] = np.tile(golden.pixels, repeats)[:, : shape[0], : shape[1]]
    number = round(CLUSTERS_PER_PX * shape[0] * shape[1])
    positions = np.random.default_rng(1).uniform(-1, shape, (4, number, 2)).astype(np.float32)
    engine.submit(slot, Request(golden.offset, golden.gain, positions=positions))
    return slot


def _collected(engine: Engine, slot: Slot) -> NDArray[np.float32]:
    centres = engine.collect(slot, TIMEOUT_S).centres
    assert centres is not None
    return centres


def _compute_many(engine: Engine, bundle: Bundle) -> NDArray[np.float32]:
    """Compute the same tile often and return its (n, 4) evidence."""
    expected = _collected(engine, _submitted(engine, bundle))
    growth, in_flight = Growth(SETTLED_AFTER), deque[Slot]()
    for _ in range(SUBMITS):
        if len(in_flight) == engine.info.slots:
            if (_collected(engine, in_flight.popleft()) != expected).any():
                raise WrongAnswerError("the same tile has two answers")
            growth.count()
        in_flight.append(_submitted(engine, bundle))
    while in_flight:
        _collected(engine, in_flight.popleft())
    growth.check()
    return expected


def _provoke_errors(engine: Engine, bundle: Bundle) -> None:
    """Submit requests that must fail, requests with values such as NaN, and one request whose answer is not awaited.

    Raises
    ------
    EngineError : a request with positions of a wrong shape was answered.
    """
    tile = load_golden(bundle).tile
    slot = engine.lease(TIMEOUT_S)
    engine.submit(slot, Request(tile.offset, tile.gain, positions=np.zeros((3, 5, 2), np.float32)))
    try:
        engine.collect(slot, TIMEOUT_S)
    except EngineError:
        pass
    else:
        raise EngineError("a request with positions of a wrong shape was answered; it must be refused")
    for gain, position in ((np.nan, 0.0), (1.0, 1e9), (1.0, np.nan)):
        slot = engine.lease(TIMEOUT_S)
        positions = np.full((4, 5, 2), position, np.float32)
        engine.submit(slot, Request(tile.offset, np.full(4, gain, np.float32), positions=positions))
        with suppress(EngineError):
            engine.collect(slot, TIMEOUT_S)
    slot = _submitted(engine, bundle)
    with suppress(EngineError):
        engine.collect(slot, 0)


def _seconds(work: Callable[[], object]) -> list[float]:
    """Durations of repeated work, after a first run that is not timed."""
    work()
    durations: list[float] = []
    while len(durations) < MIN_TIMED or (len(durations) < MAX_TIMED and sum(durations) < TIMED_S):
        started = time.perf_counter()
        work()
        durations.append(time.perf_counter() - started)
    return durations


def _throughput(engine: Engine, bundle: Bundle, tiles: int) -> float:
    """Tiles a second with all slots in use."""
    started, in_flight = time.perf_counter(), deque[Slot]()
    for _ in range(tiles):
        if len(in_flight) == engine.info.slots:
            _collected(engine, in_flight.popleft())
        in_flight.append(_submitted(engine, bundle))
    while in_flight:
        _collected(engine, in_flight.popleft())
    return tiles / (time.perf_counter() - started)


def _copies_ms(size: tuple[int, int]) -> float:
    """Time of copying a tile's pixels to the GPU and its evidence back."""
    pixels = size[0] * size[1]
    with closing(open_cuda()) as driver:
        stream, start, stop = driver.stream(), driver.event(timing=True), driver.event(timing=True)
        images, centres = driver.pinned(8 * pixels), driver.pinned(round(16 * CLUSTERS_PER_PX * pixels))
        address = driver.allocate(images.nbytes)
        for _ in range(2):  # The first copies are slower than all others.
            driver.record(start, stream)
            driver.upload(address, images, stream)
            driver.download(centres, address, stream)
            driver.record(stop, stream)
            driver.synchronize(stop)
        return driver.elapsed_ms(start, stop)


def main() -> None:
    """Try a candidate and report its result."""
    reports = Reports(Path(sys.argv[1]))
    trial = Trial.model_validate_json(sys.stdin.read())
    reports.begin(OPENING)
    try:
        if trial.gpu:
            cuda = probe()
            reports.send(gpu={"driver": cuda.driver, "version": cuda.version, "devices": [*map(vars, cuda.devices)]})
        measured = try_engine(trial, reports) if trial.module else try_fit(trial, reports)
    except WrongAnswerError as error:
        reports.send(result="wrong answer", reason=f"wrong answer: {first_line(error)}")
    except ModuleNotFoundError as error:
        reports.send(result="not opened", reason=f"{error.name} is not installed")
    except SeqdError as error:
        reports.send(result="not opened" if reports.step == OPENING else "failed", reason=first_line(error))
    except Exception as error:  # Packages may raise any type.
        reason = f"{type(error).__name__}: {first_line(error)}"
        reports.send(result="not opened" if reports.step == OPENING else "failed", reason=reason)
    else:
        reports.send(result="qualified", measured=measured.model_dump())


if __name__ == "__main__":
    main()
