"""From frames to tile images: the four channels of one tile and cycle, cycles in order, nothing lost.

The assembler has no sockets and no threads: frames go in, tile images come out, and the time is an argument.
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
"""Frames that may be asked for at the same time."""

SILENT_FACTOR = 4
"""A frame is waited for this many times longer while the controller cannot be asked for it, or says nothing."""

OLDEST_RESERVE = 4
"""Tile images of the oldest cycle that may be held beyond the memory bound, so that waiting ends."""


class Outcome(StrEnum):
    """What happened to a frame that was not refused."""

    ACCEPTED = "accepted"
    """The frame fills an empty place."""
    DUPLICATE = "duplicate"
    """The frame was there already."""
    LATE = "late"
    """The tile-cycle of the frame has been called or given up."""


@dataclass(frozen=True)
class ChannelKey:
    """Names one frame of a run."""

    tile: TileId
    cycle: int
    channel: Channel


@dataclass
class _Assembly:
    """The frames of one tile-cycle so far; an assembly without pixels is whole and in the spool."""

    pixels: NDArray[np.uint16] | None
    present: set[Channel] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        return len(self.present) == len(CHANNELS)


@dataclass
class _Request:
    """A frame that has to be asked for; ``sent`` says whether it was."""

    first_s: float
    last_s: float
    sent: bool = False
    gone: bool = False


class Assembler:
    """Collects the frames of one run.

    A tile-cycle is *due* when the controller has passed it. The assembler asks for the frames that a due tile-cycle
    lacks, the oldest cycle first and a bounded number at a time. A frame that does not come is given up, and its
    tile-cycle leaves as :class:`MissingImage`. The images of a tile leave in the order of its cycles. Memory is
    bounded: whole images can move to the spool, and frames beyond the bound are refused and asked for later.
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
        next_cycle : first cycle of each tile that is not committed.
        spooled : tile-cycles whose images are in the spool already.
        refuse_above : bytes of frames that are held at most.
        resend_after_s : a frame that is overdue by so long is asked for, and again each time this passes.
        missing_after_s : a frame that was asked for so long ago is missing; 0 for the time that :class:`CycleTime`
            gives.
        """
        self.info = info
        self.cycle_time = CycleTime()
        self._next = {tile: next_cycle.get(tile, 1) for tile in info.tiles}
        self._assemblies = {
            (tile, cycle): _Assembly(None, set(CHANNELS)) for tile, cycle in spooled if cycle >= self._next.get(tile, 1)
        }
        self._in_memory = 0
        """Assemblies with pixels."""
        self._incomplete: dict[int, dict[TileId, None]] = {}
        """By due cycle, the oldest first: the tiles that lack frames, in the order of the run."""
        self._requests: dict[ChannelKey, _Request] = {}
        self._refuse_above = refuse_above
        self._resend_after_s = resend_after_s
        self._missing_after_s = missing_after_s
        self.image_bytes = 4 * info.height * info.width * 2
        self._due = 0
        self._due_since: dict[int, float] = {}

    @property
    def bytes_held(self) -> int:
        """Memory of the frames that are here."""
        return self._in_memory * self.image_bytes

    @property
    def bytes_waiting(self) -> int:
        """Memory that calling or a missing frame will free; the cycle that is being imaged does not count."""
        waiting = sum(
            held.pixels is not None and (held.complete or cycle <= self._due)
            for (_, cycle), held in self._assemblies.items()
        )
        return waiting * self.image_bytes

    @property
    def spooled(self) -> int:
        """Images in the spool that wait to be called."""
        return len(self._assemblies) - self._in_memory

    @property
    def whole(self) -> list[TileImage]:
        """Complete images in memory, the latest cycles first."""
        found = [
            TileImage(tile, cycle, held.pixels)
            for (tile, cycle), held in self._assemblies.items()
            if held.complete and held.pixels is not None
        ]
        return sorted(found, key=lambda image: image.cycle, reverse=True)

    def moved_to_spool(self, tile: TileId, cycle: int) -> None:
        """Free the memory of an image that is in the spool now; it may have left meanwhile."""
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
        """Whether every tile-cycle of the run has left."""
        return all(cycle > self.info.cycles for cycle in self._next.values())

    def add(self, frame: Frame, payload: bytes, now_s: float) -> Outcome:
        """Take a frame in.

        Raises
        ------
        WireError : the frame is of another run, tile, cycle or size, or there is no memory for it.
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
            self._no_longer_incomplete(key.tile, frame.cycle)
        return Outcome.ACCEPTED

    def mark_due(self, cycle: int, now_s: float) -> None:
        """Note that the controller has passed ``cycle``: frames of it that are not here are overdue."""
        if self._due < cycle <= self.info.cycles:
            self.cycle_time.passed(cycle, now_s)
        for passed in range(self._due + 1, min(cycle, self.info.cycles) + 1):
            self._due_since[passed] = now_s
            self._due = passed
            lacking = {tile: None for tile in self.info.tiles if self._absent(tile, passed)}
            if lacking:
                self._incomplete[passed] = lacking

    def gone(self, message: Gone) -> None:
        """Note that the controller no longer has a frame."""
        key = ChannelKey(TileId(lane=message.lane, tile=message.tile), message.cycle, message.channel)
        if key in self._requests:
            self._requests[key].gone = True

    def sent(self, key: ChannelKey, now_s: float) -> None:
        """Note that a frame was asked for; the time that it is waited for begins with the first request."""
        request = self._requests[key]
        if not request.sent:
            request.sent, request.first_s = True, now_s
        request.last_s = now_s

    def ask_anew(self) -> None:
        """Forget what was asked for: the controller was silent, and may not have heard the requests."""
        self._requests = {key: request for key, request in self._requests.items() if request.gone}

    def requests(self, now_s: float) -> list[ChannelKey]:
        """Frames to ask for now; :meth:`sent` says which of them were asked for."""
        asked, oldest = [], self._oldest
        # A frame that would be refused now is asked for later; until then its time does not run.
        for key in [key for key in self._requests if not self._has_room(key.tile, key.cycle, oldest)]:
            del self._requests[key]
        for key in self._lacking(now_s, oldest):
            request = self._requests.get(key)
            if request is None:
                self._requests[key] = _Request(now_s, now_s)
                asked.append(key)
            elif not request.gone and now_s - request.last_s >= self._resend_after_s:
                asked.append(key)
        return asked

    def ready(self, now_s: float, *, silent: bool = False) -> Iterator[Item]:
        """Tile images that can be read now, those of each tile in the order of its cycles.

        Parameters
        ----------
        silent : whether the controller says nothing, so that it gets longer to send a frame.
        """
        for tile in self.info.tiles:
            while (cycle := self._next[tile]) <= self.info.cycles:
                leaving = self._leaving(tile, cycle, now_s, silent)
                if leaving is None:
                    break
                self._next[tile] = cycle + 1
                left = self._assemblies.pop((tile, cycle), None)
                self._in_memory -= left is not None and left.pixels is not None
                self._no_longer_incomplete(tile, cycle)
                for channel in CHANNELS:
                    self._requests.pop(ChannelKey(tile, cycle, channel), None)
                yield leaving

    @property
    def _oldest(self) -> int:
        """Lowest cycle that a tile waits for."""
        return min(self._next.values())

    def _no_longer_incomplete(self, tile: TileId, cycle: int) -> None:
        lacking = self._incomplete.get(cycle)
        if lacking is not None:
            lacking.pop(tile, None)
            if not lacking:
                del self._incomplete[cycle]

    def _has_room(self, tile: TileId, cycle: int, oldest: int) -> bool:
        """Whether a frame of a tile-cycle may come in now."""
        reserve = OLDEST_RESERVE if cycle == oldest else 0
        return (tile, cycle) in self._assemblies or (
            self.bytes_held + self.image_bytes <= self._refuse_above + reserve * self.image_bytes
        )

    def _checked(self, frame: Frame) -> ChannelKey:
        if frame.run != self.info.run:
            raise WireError(Refusal.FOREIGN_RUN, f"frame of run {frame.run}, this is run {self.info.run}")
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

    def _lacking(self, now_s: float, oldest: int) -> Iterator[ChannelKey]:
        """Overdue frames, the oldest cycle first, as many as may be asked for at the same time."""
        left = REQUEST_WINDOW
        for tile, cycle in self._open_places(oldest):
            if now_s - self._due_since[cycle] < self._resend_after_s:
                return
            for channel in self._absent(tile, cycle):
                if left == 0:
                    return
                left -= 1
                yield ChannelKey(tile, cycle, channel)

    def _open_places(self, oldest: int) -> Iterator[tuple[TileId, int]]:
        """Due tile-cycles that lack frames and have room for them, the oldest cycle first."""
        # A turn must not cost a look at every tile of a long backlog: where memory is full, only the cycles before and
        # the images that have begun may come in, and their number is bounded.
        full = not self.bytes_held + self.image_bytes <= self._refuse_above
        if not full:
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

    def _absent(self, tile: TileId, cycle: int) -> list[Channel]:
        if cycle < self._next[tile]:
            return []
        assembly = self._assemblies.get((tile, cycle))
        present = assembly.present if assembly else set()
        return [channel for channel in CHANNELS if channel not in present]

    def _leaving(self, tile: TileId, cycle: int, now_s: float, silent: bool) -> Item | None:
        assembly = self._assemblies.get((tile, cycle))
        if assembly and assembly.complete:
            if assembly.pixels is None:
                return SpooledImage(tile, cycle)
            return TileImage(tile, cycle, assembly.pixels)
        absent = self._absent(tile, cycle)
        requests = [self._requests.get(ChannelKey(tile, cycle, channel)) for channel in absent]
        frames, names = len(CHANNELS) - len(absent), ",".join(absent)
        if any(request and request.gone for request in requests):
            return MissingImage(tile, cycle, f"channel {names}: gone at the controller", frames)
        missing_after_s = self._missing_after_s or self.cycle_time.missing_after_s
        for request in filter(None, requests):
            waited_s = missing_after_s if request.sent and not silent else SILENT_FACTOR * missing_after_s
            if now_s - request.first_s >= waited_s:
                return MissingImage(tile, cycle, f"channel {names}: not sent within {waited_s:g} s", frames)
        return None
