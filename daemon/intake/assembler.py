"""From frames to tile images: four channels of one tile and cycle, cycles in order, nothing lost.

No sockets and no threads: frames go in, tile images come out, time is an argument.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import CHANNELS, Channel, RunInfo, TileId
from seqd_client.wire.codec import Refusal, WireError
from seqd_client.wire.messages import Frame, Gone

from daemon.intake.cycletime import ImagingTime

REQUEST_WINDOW = 32
"""Frames that may be asked for again at once."""

SILENT_FACTOR = 4
"""How many times as long a frame is waited for while the controller cannot be asked for it, or says nothing."""

OLDEST_RESERVE = 4
"""Tile images of the oldest cycle that is waited for that are held beyond the bound."""


class Outcome(StrEnum):
    """What became of a frame that was not refused."""

    ACCEPTED = "accepted"
    """It fills a place that was empty."""
    DUPLICATE = "duplicate"
    """It was there already."""
    LATE = "late"
    """Its tile-cycle has been called or given up."""


@dataclass(frozen=True)
class TileImage:
    """All four channels of a tile in a cycle."""

    tile: TileId
    cycle: int
    pixels: NDArray[np.uint16]
    """(4, H, W)."""


@dataclass(frozen=True)
class SpooledImage:
    """All four channels of a tile in a cycle; they lie in the spool."""

    tile: TileId
    cycle: int


@dataclass(frozen=True)
class MissingImage:
    """A tile-cycle that did not come."""

    tile: TileId
    cycle: int
    reason: str
    frames: int
    """Channels that came all the same."""


Item = TileImage | SpooledImage | MissingImage
"""What leaves the assembler."""


@dataclass(frozen=True)
class ChannelKey:
    """Names one frame of a run."""

    tile: TileId
    cycle: int
    channel: Channel


@dataclass
class _Assembly:
    """The frames of one tile-cycle so far; without pixels they lie in the spool."""

    pixels: NDArray[np.uint16] | None
    present: set[Channel] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        return len(self.present) == len(CHANNELS)


@dataclass
class _Request:
    """A frame that is to be asked for again, and was if it is ``sent``."""

    first_s: float
    last_s: float
    sent: bool = False
    gone: bool = False


class Assembler:
    """Collects the frames of one run.

    A tile-cycle is *due* when the controller has gone past it. The frames a due tile-cycle lacks
    are asked for again, a bounded number at a time, oldest cycle first; one that stays away is
    given up and the tile-cycle leaves as :class:`MissingImage`. Images leave in the order of
    their cycles, tile by tile. Memory is bounded: whole images can be moved to the spool, and frames
    beyond the bound are refused, to be asked for again.
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
        spooled : images that are in the spool from before.
        refuse_above : bytes of frames that are held at most.
        missing_after_s : a frame that was asked for so long ago is missing; 0 for what :class:`ImagingTime` says.
        """
        self.info = info
        self.imaging = ImagingTime()
        self._next = {tile: next_cycle.get(tile, 1) for tile in info.tiles}
        self._assemblies = {
            (tile, cycle): _Assembly(None, set(CHANNELS)) for tile, cycle in spooled if cycle >= self._next.get(tile, 1)
        }
        self._in_memory = 0
        """Assemblies with pixels."""
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
        """Memory that calling, or a frame sent again, will free; a cycle still being imaged is not in it."""
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
        """Images in memory that lack nothing, those that will be called last first."""
        found = [
            TileImage(tile, cycle, held.pixels)
            for (tile, cycle), held in self._assemblies.items()
            if held.complete and held.pixels is not None
        ]
        return sorted(found, key=lambda image: image.cycle, reverse=True)

    def moved_to_spool(self, tile: TileId, cycle: int) -> None:
        """An image is in the spool; its memory is freed, if it has not left meanwhile."""
        held = self._assemblies.get((tile, cycle))
        if held is not None and held.pixels is not None:
            held.pixels = None
            self._in_memory -= 1

    @property
    def newest_cycle(self) -> int:
        """Highest cycle the controller is known to have finished."""
        return self._due

    @property
    def finished(self) -> bool:
        """Whether every tile-cycle of the run has left."""
        return all(cycle > self.info.cycles for cycle in self._next.values())

    def add(self, frame: Frame, payload: bytes, now_s: float) -> Outcome:
        """Take a frame in.

        Raises
        ------
        WireError : it is of another run, tile, cycle or size, or no memory is left for it.
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
        return Outcome.ACCEPTED

    def mark_due(self, cycle: int, now_s: float) -> None:
        """The controller is past ``cycle``: what is not here by now is overdue."""
        if self._due < cycle <= self.info.cycles:
            self.imaging.over(cycle, now_s)
        for passed in range(self._due + 1, min(cycle, self.info.cycles) + 1):
            self._due_since[passed] = now_s
            self._due = passed

    def gone(self, message: Gone) -> None:
        """The controller no longer holds a frame."""
        key = ChannelKey(TileId(lane=message.lane, tile=message.tile), message.cycle, message.channel)
        if key in self._requests:
            self._requests[key].gone = True

    def sent(self, key: ChannelKey, now_s: float) -> None:
        """A frame was asked for; from the first time on it is waited for."""
        request = self._requests[key]
        if not request.sent:
            request.sent, request.first_s = True, now_s
        request.last_s = now_s

    def ask_anew(self) -> None:
        """The controller is heard again after a silence: what it was asked for meanwhile it may not have heard."""
        self._requests = {key: request for key, request in self._requests.items() if request.gone}

    def requests(self, now_s: float) -> list[ChannelKey]:
        """Frames to ask for now; :meth:`sent` says which of them were."""
        asked, oldest = [], self._oldest
        # What would be refused now is asked for afresh later; until then its time does not run.
        for key in [key for key in self._requests if not self._has_room(key.tile, key.cycle, oldest)]:
            del self._requests[key]
        for key in self._lacking(now_s):
            request = self._requests.get(key)
            if request is None:
                self._requests[key] = _Request(now_s, now_s)
                asked.append(key)
            elif not request.gone and now_s - request.last_s >= self._resend_after_s:
                asked.append(key)
        return asked

    def ready(self, now_s: float, *, silent: bool = False) -> Iterator[Item]:
        """Tile images that can go on, each tile's in the order of its cycles.

        Parameters
        ----------
        silent : whether nothing is heard of the controller, which then is given longer to send a frame.
        """
        for tile in self.info.tiles:
            while (cycle := self._next[tile]) <= self.info.cycles:
                leaving = self._leaving(tile, cycle, now_s, silent)
                if leaving is None:
                    break
                self._next[tile] = cycle + 1
                left = self._assemblies.pop((tile, cycle), None)
                self._in_memory -= left is not None and left.pixels is not None
                for channel in CHANNELS:
                    self._requests.pop(ChannelKey(tile, cycle, channel), None)
                yield leaving

    @property
    def _oldest(self) -> int:
        """Lowest cycle that a tile waits for."""
        return min(self._next.values())

    def _has_room(self, tile: TileId, cycle: int, oldest: int) -> bool:
        """Whether a frame is let in; a few of the cycle that all others wait for always are, so that waiting ends."""
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

    def _lacking(self, now_s: float) -> Iterator[ChannelKey]:
        """Overdue frames, oldest cycle first, as many as may be asked for at once."""
        left, oldest = REQUEST_WINDOW, self._oldest
        for cycle in range(oldest, self._due + 1):
            if now_s - self._due_since[cycle] < self._resend_after_s:
                return
            for tile in self.info.tiles:
                if not self._has_room(tile, cycle, oldest):
                    continue
                for channel in self._absent(tile, cycle):
                    if left == 0:
                        return
                    left -= 1
                    yield ChannelKey(tile, cycle, channel)

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
        missing_after_s = self._missing_after_s or self.imaging.missing_after_s
        for request in filter(None, requests):
            waited_s = missing_after_s if request.sent and not silent else SILENT_FACTOR * missing_after_s
            if now_s - request.first_s >= waited_s:
                return MissingImage(tile, cycle, f"channel {names}: not sent within {waited_s:g} s", frames)
        return None
