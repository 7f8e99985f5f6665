"""When a double-buffered engine copies and computes: a driver that notes it by the device's clock."""

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
    """Of one stream: events at the beginning and end of each tile's work."""

    starts: list[Handle] = field(default_factory=list)
    stops: list[Handle] = field(default_factory=list)


class TracedDriver:
    """Passes everything on to a driver and marks where each tile's work begins and ends on the three streams.

    A :class:`engines.buffered.BufferedRunner` makes its streams upload, compute, download in a row, and ends each
    tile's work on a stream by recording an event there. It begins with the first upload, or where the stream
    has waited for the one before.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._streams: list[Handle] = []
        self._marks: dict[int, _Marks] = {}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._driver, name)

    def stream(self) -> Handle:
        stream = self._driver.stream()
        self._streams.append(stream)
        return stream

    def forget(self) -> None:
        """Begin to count tiles anew; nothing is in flight."""
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
        """What was noted since :meth:`forget`; waits for the device."""
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
    """How much of the copies' time computation hides."""

    parts_ms: dict[str, float]
    """Of a tile that is alone on the device, by stream."""
    pipelined_ms: float
    """Of all tiles, from the first upload's beginning to the last download's end."""
    tiles: int

    @property
    def hidden(self) -> float:
        """Share of the copies' time that passes while the device computes."""
        copies = self.tiles * (self.parts_ms["upload"] + self.parts_ms["download"])
        return 1 - (self.pipelined_ms - self.tiles * self.parts_ms["compute"]) / copies

    @property
    def of_the_sum(self) -> float:
        """Pipelined time over the sum of the parts."""
        return self.pipelined_ms / (self.tiles * sum(self.parts_ms.values()))


def overlap(alone: Sequence[Span], pipelined: Sequence[Span]) -> Overlap:
    """Compare tiles computed one after the other with tiles in flight together."""
    parts = {
        name: float(np.median([span.stop_ms - span.start_ms for span in alone if span.stream == name]))
        for name in STREAMS
    }
    return Overlap(parts, max(span.stop_ms for span in pipelined), 1 + max(span.tile for span in pipelined))
