"""The times of a double-buffered engine's copies and computation, taken from the device's clock by its driver."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.devices.driver import Address, Driver, Handle

STREAMS = ("upload", "compute", "download")


@dataclass(frozen=True)
class Span:
    """Work of one tile on one stream, milliseconds from the first tile's upload."""

    stream: str
    tile: int
    start_ms: float
    stop_ms: float


@dataclass
class _Marks:
    """Events of one stream, at the beginning and the end of each tile's work."""

    starts: list[Handle] = field(default_factory=list)
    stops: list[Handle] = field(default_factory=list)


class TracedDriver:
    """A driver that marks where each tile's work begins and ends on the three streams; another driver does the work.

    A :class:`engines.buffered.BufferedRunner` makes its streams in the order upload, compute, download, and ends each
    tile's work on a stream by recording an event there. On the upload stream the work begins with
    the first upload; on the other streams it begins when the stream has waited for the previous stream.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._streams: list[Handle] = []
        self._marks: dict[int, _Marks] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def stream(self) -> Handle:
        stream = self._driver.stream()
        self._streams.append(stream)
        return stream

    def reset(self) -> None:
        """Forget all marks and count tiles from 0; no tile may be in flight."""
        for stream in self._streams[-len(STREAMS) :]:
            self._marks[int(stream)] = _Marks()

    def upload(self, to: Address, memory: NDArray[np.uint8], stream: Handle) -> None:
        self._begin(stream)
        self._driver.upload(to, memory, stream)

    def wait_for(self, event: Handle, stream: Handle) -> None:
        self._driver.wait_for(event, stream)
        self._begin(stream)

    def record(self, event: Handle, stream: Handle) -> None:
        self._driver.record(event, stream)
        if marks := self._marks.get(int(stream)):
            marks.stops.append(self._mark(stream))

    def spans(self) -> list[Span]:
        """The work of all tiles since :meth:`reset`; waits for the device."""
        marks = [self._marks[int(stream)] for stream in self._streams[-len(STREAMS) :]]
        for one in marks:
            for event in one.stops[-1:]:
                self._driver.synchronize(event)
        origin = marks[0].starts[0]
        return [
            Span(name, tile, self._driver.elapsed_ms(origin, start), self._driver.elapsed_ms(origin, stop))
            for name, one in zip(STREAMS, marks, strict=True)
            for tile, (start, stop) in enumerate(zip(one.starts, one.stops, strict=True))
        ]

    def _begin(self, stream: Handle) -> None:
        marks = self._marks.get(int(stream))
        if marks is not None and len(marks.starts) == len(marks.stops):
            marks.starts.append(self._mark(stream))

    def _mark(self, stream: Handle) -> Handle:
        event = self._driver.event(timing=True)
        self._driver.record(event, stream)
        return event


@dataclass(frozen=True)
class Overlap:
    """The times of a tile's parts, and of many tiles in flight together."""

    parts_ms: dict[str, float]
    """Milliseconds of a tile that is alone on the device, by stream."""
    pipelined_ms: float
    """Milliseconds of all tiles, from the beginning of the first upload to the end of the last download."""
    tiles: int
    hidden_copies: float
    """Share of the copies' time that passes while the device computes."""


def overlap(alone: Sequence[Span], pipelined: Sequence[Span]) -> Overlap:
    """Compare tiles computed one after the other with tiles in flight together."""
    parts = {
        name: float(np.median([span.stop_ms - span.start_ms for span in alone if span.stream == name]))
        for name in STREAMS
    }
    tiles, all_ms = 1 + max(span.tile for span in pipelined), max(span.stop_ms for span in pipelined)
    copies_ms = tiles * (parts["upload"] + parts["download"])
    return Overlap(parts, all_ms, tiles, hidden_copies=1 - (all_ms - tiles * parts["compute"]) / copies_ms)
