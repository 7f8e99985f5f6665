"""The overlap that the benchmark reports, on a driver whose streams take simulated time."""

from collections import defaultdict
from contextlib import closing
from itertools import count

import numpy as np
import pytest

from engines.buffered import BufferedRunner
from engines.contract import EngineInfo, Request
from engines.devices.host import HostDriver
from engines.slots import SlottedEngine
from tests.benchmarks.tracing import TracedDriver, overlap

SHAPE, TILES = (8, 8), 20
UPLOAD_MS, COMPUTE_MS, DOWNLOAD_MS = 1.0, 4.0, 0.5
INFO = EngineInfo("clocked", "none", False, "none", "f32", "none", "0" * 64, slots=2, strips=1)
REQUEST = Request(np.zeros(4, np.float32), np.ones(4, np.float32), positions=np.zeros((4, 3, 2), np.float32))


class ClockedDriver(HostDriver):
    """Work is done at once, and takes time on its stream's clock."""

    def __init__(self):
        super().__init__()
        self._names, self.clocks, self._events = count(1), defaultdict(float), {}

    def stream(self):
        return next(self._names)

    def event(self, *, timing=False):
        return next(self._names)

    def record(self, event, stream):
        self._events[event] = self.clocks[stream]

    def wait_for(self, event, stream):
        self.clocks[stream] = max(self.clocks[stream], self._events[event])

    def elapsed_ms(self, start, stop):
        return self._events[stop] - self._events[start]

    def upload(self, to, memory, stream):
        super().upload(to, memory, stream)
        # Pixels are what takes time.
        self.clocks[stream] += UPLOAD_MS if memory.nbytes == 8 * SHAPE[0] * SHAPE[1] else 0

    def download(self, memory, address, stream):
        super().download(memory, address, stream)
        self.clocks[stream] += DOWNLOAD_MS


class Waiting:
    """Computes nothing, slowly."""

    def __init__(self, driver):
        self._driver = driver

    def enqueue(self, tile, stream):
        self._driver.clocks[stream] += COMPUTE_MS

    def close(self): ...


def spans_of(clocked, in_flight):
    traced = TracedDriver(clocked)
    engine = SlottedEngine(
        "clocked", lambda: BufferedRunner(traced, Waiting(clocked), INFO, shape=SHAPE), slots=INFO.slots
    )
    with closing(engine):
        traced.reset()
        slots = []
        for _ in range(TILES):
            if len(slots) == in_flight:
                engine.collect(slots.pop(0), 10)
                # The host has seen the end of that tile: nothing of the next began before.
                if in_flight == 1:
                    clocked.clocks.update(dict.fromkeys(list(clocked.clocks), max(clocked.clocks.values())))
            slot = engine.lease(10)
            engine.submit(slot, REQUEST)
            slots.append(slot)
        for slot in slots:
            engine.collect(slot, 10)
        return traced.spans()


def test_parts_are_those_of_the_streams():
    measured = overlap(spans_of(ClockedDriver(), 1), spans_of(ClockedDriver(), 2))
    assert measured.parts_ms == {"upload": UPLOAD_MS, "compute": COMPUTE_MS, "download": DOWNLOAD_MS}
    assert measured.tiles == TILES


def test_streams_of_their_own_hide_all_copies_but_the_first_and_last():
    measured = overlap(spans_of(ClockedDriver(), 1), spans_of(ClockedDriver(), 2))
    assert measured.pipelined_ms == UPLOAD_MS + TILES * COMPUTE_MS + DOWNLOAD_MS
    assert measured.hidden_copies == pytest.approx(1 - 1 / TILES)


def test_tiles_one_after_the_other_hide_nothing():
    alone = spans_of(ClockedDriver(), 1)
    measured = overlap(alone, alone)
    assert measured.hidden_copies == pytest.approx(0)
