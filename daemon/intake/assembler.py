"""The assembler: frames go in, and tile images come out, those of each tile in the order of its cycles.

The assembler has no sockets, threads or clock: the time is an argument.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import CHANNELS, Channel, RunInfo, TileId
from seqd_client.wire.codec import Refusal, WireError
from seqd_client.wire.messages import Frame, Gone

from daemon.intake.cycletime import CycleTime
from daemon.intake.tileimages import Item, MissingImage, SpooledImage, TileImage

REQUEST_WINDOW = 32
"""Frames that may be requested at the same time."""

SILENT_FACTOR = 4
"""The wait for a frame is this many times longer while the request cannot be sent, or the controller is silent."""

OLDEST_RESERVE = 4
"""This many tile images of the next needed cycle are accepted beyond the memory bound, so that calling continues."""


class Outcome(StrEnum):
    """The outcome of a frame that was not refused."""

    ACCEPTED = "accepted"
    """The frame is new, and is kept."""
    DUPLICATE = "duplicate"
    """The frame had come before."""
    LATE = "late"
    """The tile-cycle of the frame has left the assembler: it was called or given up."""


@dataclass(frozen=True)
class ChannelKey:
    """The name of one frame of a run."""

    tile: TileId
    cycle: int
    channel: Channel


@dataclass
class _Assembly:
    """The frames of one tile-cycle that have come. When ``pixels`` is None, all four have come and are in the spool."""

    pixels: NDArray[np.uint16] | None
    present: set[Channel] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        return len(self.present) == len(CHANNELS)


@dataclass
class _Request:
    """A request for a frame; ``first_s`` and ``last_s`` are the times of its first and last sending."""

    first_s: float
    last_s: float
    sent: bool = False
    gone: bool = False
    """Whether the controller has answered that it no longer has the frame."""


class Assembler:
    """Collects the frames of one run.

    A cycle is *due* when the controller has finished it. The assembler lists the missing frames of due cycles to be
    requested, the oldest cycle first and a bounded number at a time. When a frame does not come in time, its tile-cycle
    leaves as :class:`MissingImage`. Memory is bounded: complete images can move to the spool, and frames beyond the
    bound are refused and requested later.
    """

    def __init__(
        self,
        info: RunInfo,
        *,
        next_cycle: Mapping[TileId, int],
        spooled: Collection[tuple[TileId, int]] = (),
        refuse_above: int,
        resend_after_s: float,
        missing_after_s: float,
    ) -> None:
        """
        Parameters
        ----------
        next_cycle : for each tile, the first cycle that is not committed; 1 for a tile that is not listed.
        spooled : tile-cycles whose images are in the spool already.
        refuse_above : largest number of bytes of frames in memory.
        resend_after_s : a frame is requested when its cycle has been due for this time, and then at this interval.
        missing_after_s : a frame counts as missing when this time has passed since its first request; 0 means the time
            that :class:`CycleTime` gives.
        """
        self.info = info
        self.cycle_time = CycleTime()
        self._next = {tile: next_cycle.get(tile, 1) for tile in info.tiles}
        self._assemblies = {
            (tile, cycle): _Assembly(None, set(CHANNELS)) for tile, cycle in spooled if cycle >= self._next.get(tile, 1)
        }
        self._in_memory = 0
        """Number of assemblies with pixels."""
        self._incomplete: dict[int, dict[TileId, None]] = {}
        """For each due cycle, oldest first: the tiles that lack frames, in the order in which the run lists them."""
        self._requests: dict[ChannelKey, _Request] = {}
        self._refuse_above = refuse_above
        self._resend_after_s = resend_after_s
        self._missing_after_s = missing_after_s
        self.image_bytes = 4 * info.height * info.width * 2
        self._due = 0
        self._due_since: dict[int, float] = {}

    @property
    def bytes_held(self) -> int:
        """Bytes of the frames in memory."""
        return self._in_memory * self.image_bytes

    @property
    def bytes_waiting(self) -> int:
        """Bytes in memory that wait for calling or a missing frame; the cycle that is being imaged does not count."""
        waiting = sum(
            held.pixels is not None and (held.complete or cycle <= self._due)
            for (_, cycle), held in self._assemblies.items()
        )
        return waiting * self.image_bytes

    @property
    def spooled(self) -> int:
        """Number of images that wait in the spool."""
        return len(self._assemblies) - self._in_memory

    @property
    def complete_images(self) -> list[TileImage]:
        """Complete images in memory, the latest cycles first."""
        found = [
            TileImage(tile, cycle, held.pixels)
            for (tile, cycle), held in self._assemblies.items()
            if held.complete and held.pixels is not None
        ]
        return sorted(found, key=lambda image: image.cycle, reverse=True)

    def moved_to_spool(self, tile: TileId, cycle: int) -> None:
        """Free the memory of an image that is in the spool now; an image that has left meanwhile is ignored."""
        held = self._assemblies.get((tile, cycle))
        if held is not None and held.pixels is not None:
            held.pixels = None
            self._in_memory -= 1

    @property
    def newest_cycle(self) -> int:
        """Highest cycle that the controller is known to have finished."""
        return self._due

    @property
    def finished(self) -> bool:
        """Whether every tile-cycle of the run has left the assembler."""
        return all(cycle > self.info.cycles for cycle in self._next.values())

    def add(self, frame: Frame, payload: bytes, now_s: float) -> Outcome:
        """Take a frame in; ``payload`` is its (height, width) pixels as little-endian u16.

        Raises
        ------
        WireError : the run declares no such frame, or there is no memory for it.
        """
        key = self._checked(frame)
        self.mark_due(frame.cycle - 1, now_s)
        if frame.cycle < self._next[key.tile]:
            return Outcome.LATE
        assembly = self._assemblies.get((key.tile, frame.cycle))
        if assembly is None:
            if not self._has_room(key.tile, frame.cycle, self._oldest):
                raise WireError(
                    Refusal.MEMORY, f"tile {key.tile}, cycle {frame.cycle}: {self.bytes_held} bytes of frames are held"
                )
            shape = (len(CHANNELS), self.info.height, self.info.width)
            assembly = self._assemblies[key.tile, frame.cycle] = _Assembly(np.empty(shape, np.uint16))
            self._in_memory += 1
        self._requests.pop(key, None)
        if assembly.pixels is None or frame.channel in assembly.present:
            return Outcome.DUPLICATE
        pixels = np.frombuffer(payload, "<u2").reshape(frame.height, frame.width)
        assembly.pixels[CHANNELS.index(frame.channel)] = pixels
        assembly.present.add(frame.channel)
        if assembly.complete:
            self._remove_from_incomplete(key.tile, frame.cycle)
        return Outcome.ACCEPTED

    def mark_due(self, cycle: int, now_s: float) -> None:
        """Note that the controller has finished a cycle: from now on its missing frames are overdue."""
        if self._due < cycle <= self.info.cycles:
            self.cycle_time.finished(cycle, now_s)
        for passed in range(self._due + 1, min(cycle, self.info.cycles) + 1):
            self._due_since[passed] = now_s
            self._due = passed
            incomplete = {tile: None for tile in self.info.tiles if self._missing_channels(tile, passed)}
            if incomplete:
                self._incomplete[passed] = incomplete

    def mark_gone(self, message: Gone) -> None:
        """Note that the controller no longer has a frame."""
        key = ChannelKey(TileId(lane=message.lane, tile=message.tile), message.cycle, message.channel)
        if key in self._requests:
            self._requests[key].gone = True

    def mark_requested(self, key: ChannelKey, now_s: float) -> None:
        """Note that a request was sent; the wait for the frame begins with the first one."""
        request = self._requests[key]
        if not request.sent:
            request.sent, request.first_s = True, now_s
        request.last_s = now_s

    def forget_requests(self) -> None:
        """Forget the requests: the controller was silent, and may not have received them."""
        self._requests = {key: request for key, request in self._requests.items() if request.gone}

    def requests(self, now_s: float) -> list[ChannelKey]:
        """Frames to request now; the caller confirms each one that it has sent by :meth:`mark_requested`."""
        due_requests, oldest = [], self._oldest
        # A frame that would be refused now is requested later, and its wait begins then.
        for key in [key for key in self._requests if not self._has_room(key.tile, key.cycle, oldest)]:
            del self._requests[key]
        for key in self._overdue_frames(now_s, oldest):
            request = self._requests.get(key)
            if request is None:
                self._requests[key] = _Request(now_s, now_s)
                due_requests.append(key)
            elif not request.gone and now_s - request.last_s >= self._resend_after_s:
                due_requests.append(key)
        return due_requests

    def pop_ready(self, now_s: float, *, silent: bool = False) -> Iterator[Item]:
        """Remove and yield the tile-cycles that can be read now, those of each tile in the order of its cycles.

        Parameters
        ----------
        silent : whether the controller is silent; then it gets more time to send a frame.
        """
        for tile in self.info.tiles:
            while (cycle := self._next[tile]) <= self.info.cycles:
                item = self._finished_item(tile, cycle, now_s, silent)
                if item is None:
                    break
                self._next[tile] = cycle + 1
                left = self._assemblies.pop((tile, cycle), None)
                self._in_memory -= left is not None and left.pixels is not None
                self._remove_from_incomplete(tile, cycle)
                for channel in CHANNELS:
                    self._requests.pop(ChannelKey(tile, cycle, channel), None)
                yield item

    @property
    def _oldest(self) -> int:
        """The lowest cycle of which some tile has not been handed on."""
        return min(self._next.values())

    def _remove_from_incomplete(self, tile: TileId, cycle: int) -> None:
        incomplete = self._incomplete.get(cycle)
        if incomplete is not None:
            incomplete.pop(tile, None)
            if not incomplete:
                del self._incomplete[cycle]

    def _has_room(self, tile: TileId, cycle: int, oldest: int) -> bool:
        """Whether a frame of a tile-cycle is accepted now."""
        reserve = OLDEST_RESERVE if cycle == oldest else 0
        return (tile, cycle) in self._assemblies or (
            self.bytes_held + self.image_bytes <= self._refuse_above + reserve * self.image_bytes
        )

    def _checked(self, frame: Frame) -> ChannelKey:
        if frame.run != self.info.run:
            raise WireError(Refusal.FOREIGN_RUN, f"frame of run {frame.run}; the present run is {self.info.run}")
        tile = TileId(lane=frame.lane, tile=frame.tile)
        if tile not in self._next:
            raise WireError(Refusal.UNKNOWN_TILE, f"tile {tile}: run {self.info.run} does not declare it")
        if frame.cycle > self.info.cycles:
            raise WireError(
                Refusal.UNKNOWN_CYCLE, f"tile {tile}, cycle {frame.cycle}: the run declares {self.info.cycles} cycles"
            )
        if (frame.height, frame.width) != (self.info.height, self.info.width):
            raise WireError(
                Refusal.SIZE,
                f"tile {tile}, cycle {frame.cycle}: frame is {frame.height}×{frame.width}, "
                f"the run declares {self.info.height}×{self.info.width}",
            )
        return ChannelKey(tile, frame.cycle, frame.channel)

    def _overdue_frames(self, now_s: float, oldest: int) -> Iterator[ChannelKey]:
        """Missing frames of due cycles, the oldest cycle first, as many as may be requested at the same time."""
        left = REQUEST_WINDOW
        for tile, cycle in self._incomplete_with_room(oldest):
            if now_s - self._due_since[cycle] < self._resend_after_s:
                return
            for channel in self._missing_channels(tile, cycle):
                if left == 0:
                    return
                left -= 1
                yield ChannelKey(tile, cycle, channel)

    def _incomplete_with_room(self, oldest: int) -> Iterator[tuple[TileId, int]]:
        """Due tile-cycles that lack frames and have memory for them, the oldest cycle first."""
        # The cost must not grow with the backlog: when memory is full, only images that have begun and those of the
        # oldest cycle are accepted, so nothing else is looked at.
        if self.bytes_held + self.image_bytes <= self._refuse_above:
            yield from ((tile, cycle) for cycle, tiles in self._incomplete.items() for tile in tiles)
            return
        begun: dict[int, list[TileId]] = {}
        for (tile, cycle), held in self._assemblies.items():
            if held.pixels is not None and not held.complete and cycle <= self._due:
                begun.setdefault(cycle, []).append(tile)
        yield from ((tile, oldest) for tile in self._incomplete.get(oldest, ()) if self._has_room(tile, oldest, oldest))
        for cycle in sorted(begun):
            if cycle > oldest:
                yield from ((tile, cycle) for tile in self.info.tiles if tile in begun[cycle])

    def _missing_channels(self, tile: TileId, cycle: int) -> list[Channel]:
        if cycle < self._next[tile]:
            return []
        assembly = self._assemblies.get((tile, cycle))
        return [channel for channel in CHANNELS if assembly is None or channel not in assembly.present]

    def _finished_item(self, tile: TileId, cycle: int, now_s: float, silent: bool) -> Item | None:
        """The image of a tile-cycle, or its :class:`MissingImage`; None while its frames are waited for."""
        assembly = self._assemblies.get((tile, cycle))
        if assembly and assembly.complete:
            if assembly.pixels is None:
                return SpooledImage(tile, cycle)
            return TileImage(tile, cycle, assembly.pixels)
        missing = self._missing_channels(tile, cycle)
        requests = [self._requests.get(ChannelKey(tile, cycle, channel)) for channel in missing]
        frames, names = len(CHANNELS) - len(missing), ",".join(missing)
        if any(request and request.gone for request in requests):
            return MissingImage(tile, cycle, f"channel {names}: the controller no longer has it", frames)
        missing_after_s = self._missing_after_s or self.cycle_time.missing_after_s
        for request in filter(None, requests):
            waited_s = missing_after_s if request.sent and not silent else SILENT_FACTOR * missing_after_s
            if now_s - request.first_s >= waited_s:
                return MissingImage(tile, cycle, f"channel {names}: not sent within {waited_s:g} s", frames)
        return None
