"""Tests of the overlap that the benchmark reports, with a driver that counts simulated time for each stream."""

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
    """A driver that does all work immediately and adds simulated time to the clock of the work's stream."""

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
        # Only the upload of the pixels takes simulated time; headers and positions are small.
        self.clocks[stream] += UPLOAD_MS if memory.nbytes == 8 * SHAPE[0] * SHAPE[1] else 0

    def download(self, memory, address, stream):
        super().download(memory, address, stream)
        self.clocks[stream] += DOWNLOAD_MS


class ClockProgram:
    """A program that computes nothing and only adds time to the stream's clock."""

    def __init__(self, driver):
        self._driver = driver

    def enqueue(self, tile, stream):
        self._driver.clocks[stream] += COMPUTE_MS

    def close(self): ...


def spans_of(clocked, in_flight):
    traced = TracedDriver(clocked)
    engine = SlottedEngine(
        "clocked", lambda: BufferedRunner(traced, ClockProgram(clocked), INFO, shape=SHAPE), slots=INFO.slots
    )
    with closing(engine):
        traced.reset()
        slots = []
        for _ in range(TILES):
            if len(slots) == in_flight:
                engine.collect(slots.pop(0), 10)
                # The next tile starts only after the host has seen the end of this tile, so all clocks are set to it.
                if in_flight == 1:
                    clocked.clocks.update(dict.fromkeys(list(clocked.clocks), max(clocked.clocks.values())))
            slot = engine.lease(10)
            engine.submit(slot, REQUEST)
            slots.append(slot)
        for slot in slots:
            engine.collect(slot, 10)
        return traced.spans()


def test_parts_are_the_times_of_the_streams():
    measured = overlap(spans_of(ClockedDriver(), 1), spans_of(ClockedDriver(), 2))
    assert measured.parts_ms == {"upload": UPLOAD_MS, "compute": COMPUTE_MS, "download": DOWNLOAD_MS}
    assert measured.tiles == TILES


def test_separate_streams_hide_all_copies_except_the_first_and_last():
    measured = overlap(spans_of(ClockedDriver(), 1), spans_of(ClockedDriver(), 2))
    assert measured.pipelined_ms == UPLOAD_MS + TILES * COMPUTE_MS + DOWNLOAD_MS
    assert measured.hidden_copies == pytest.approx(1 - 1 / TILES)


def test_tiles_one_after_the_other_hide_nothing():
    alone = spans_of(ClockedDriver(), 1)
    measured = overlap(alone, alone)
    assert measured.hidden_copies == pytest.approx(0)
