"""Counters: the numbers of frames, tile-cycles and refusals that the status shows, and whether they balance."""

import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping

from seqd_client.runinfo import CHANNELS, TileId
from seqd_client.status import CycleStatus, SinkStatus, Status


class Counters:
    """The counters of the daemon; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted = Status()
        """Contains the numbers that go into the status as they are."""
        self._refused: Counter[str] = Counter()
        self._shut_out: Counter[str] = Counter()
        self._requests_refused: Counter[str] = Counter()
        self._slowed = 0
        self._committed: dict[TileId, int] = {}
        self.began_s, self._committed_since = time.monotonic(), 0
        """When the run was started or continued, on the monotonic clock."""
        self._pending: set[tuple[TileId, int]] = set()
        self._frames: Counter[tuple[TileId, int]] = Counter()
        """Number of frames of each tile-cycle that is not committed."""

    def reset(self) -> None:
        """Begin at zero for another run; refused connections and requests count for the daemon's whole life."""
        with self._lock:
            self._counted = Status()
            for counted in (self._refused, self._pending, self._frames, self._committed):
                counted.clear()

    def begin(
        self,
        *,
        cycles: int,
        committed: Mapping[TileId, int],
        totals: Mapping[CycleStatus, int],
        clusters: int,
        passing_filter: int,
        spooled: Collection[tuple[TileId, int]],
    ) -> None:
        """Start or continue a run with the counts of its ledger.

        Parameters
        ----------
        cycles : cycles of the run.
        committed : last committed cycle of every tile of the run.
        totals : committed tile-cycles by status.
        clusters, passing_filter : clusters in the committed templates, and those known to pass the filter.
        spooled : tile-cycles whose images an earlier start left in the spool.
        """
        with self._lock:
            counted = self._counted
            self._frames = Counter({key: len(CHANNELS) for key in spooled})
            counted.frames.restored = len(CHANNELS) * len(spooled)
            self._committed = dict(committed)
            counted.clusters, counted.passing_filter = clusters, passing_filter
            counted.cycles, counted.tile_cycles.expected = cycles, cycles * len(committed)
            for status, number in totals.items():
                setattr(counted.tile_cycles, status.value, number)
            counted.tile_cycles.received = sum(totals.values())
            self.began_s, self._committed_since = time.monotonic(), 0

    def frame(self, outcome: str, tile: TileId, cycle: int) -> None:
        """Count a frame that was not refused; its outcome is ``accepted``, ``duplicate`` or ``late``."""
        with self._lock:
            self._counted.frames.received += 1
            self._add(outcome)
            if outcome == "accepted":
                self._frames[tile, cycle] += 1

    def resend(self, outcome: str) -> None:
        """Count a request for a frame, ``resend_requested``, or the answer that it no longer exists, ``gone``."""
        with self._lock:
            self._add(outcome)

    def gap(self, messages: int) -> None:
        """Count messages of the controller that did not come, by their sequence numbers."""
        with self._lock:
            self._counted.frames.gaps += messages

    def refused(self, reason: str) -> None:
        """Count a message of the controller that was refused."""
        with self._lock:
            self._refused[reason] += 1

    def connection_refused(self, socket: str) -> None:
        """Count a connection that a socket refused."""
        with self._lock:
            self._shut_out[socket] += 1

    def request_refused(self, socket: str, reason: str) -> None:
        """Count a request of a client that was refused."""
        with self._lock:
            self._requests_refused[f"{socket}_{reason}"] += 1

    def requests_delayed(self, requests: int) -> None:
        """Count requests of clients that had to wait."""
        with self._lock:
            self._slowed += requests

    def received(self, tile: TileId, cycle: int) -> None:
        """Count a tile-cycle that is to be called: its images are complete, or it was given up as missing."""
        with self._lock:
            self._counted.tile_cycles.received += 1
            self._pending.add((tile, cycle))

    def committed(self, tile: TileId, cycle: int, status: CycleStatus, *, frames: int, passing: int) -> None:
        """Count a committed tile-cycle.

        Parameters
        ----------
        frames : frames that the tile-cycle was made from.
        passing : clusters of the tile that pass the filter, if this cycle decided it; else 0.
        """
        with self._lock:
            counts = self._counted.tile_cycles
            setattr(counts, status.value, getattr(counts, status.value) + 1)
            self._pending.discard((tile, cycle))
            self._frames.pop((tile, cycle), None)
            self._counted.frames.committed += frames
            self._counted.passing_filter += passing
            self._committed[tile] = cycle
            self._committed_since += 1

    def template(self, clusters: int) -> None:
        """Count the clusters of a committed template."""
        with self._lock:
            self._counted.clusters += clusters

    def sink_written(self, name: str, files: int) -> None:
        """Count files that a sink has completed."""
        with self._lock:
            self._sink(name).files += files

    def sink_behind(self, name: str, tile_cycles: int) -> None:
        """Note how many committed tile-cycles a sink's files do not contain yet."""
        with self._lock:
            self._sink(name).behind = tile_cycles

    def stream_dropped(self) -> None:
        """Count a message that the stream had no room for."""
        with self._lock:
            self._counted.stream_dropped += 1

    def last_committed(self, tile: TileId) -> int:
        """Last committed cycle of a tile, 0 if there is none."""
        with self._lock:
            return self._committed.get(tile, 0)

    def committed_cycles(self) -> dict[TileId, int]:
        """Last committed cycle of every tile of the run."""
        with self._lock:
            return dict(self._committed)

    @property
    def committed_by_all(self) -> int:
        """Last cycle that every tile has committed."""
        with self._lock:
            return min(self._committed.values(), default=0)

    def put_into(self, status: Status) -> None:
        """Put all numbers into a status, and whether they balance."""
        with self._lock:
            counted = self._counted.model_copy(deep=True)
            for name in ("cycles", "tile_cycles", "frames", "clusters", "passing_filter", "sinks", "stream_dropped"):
                setattr(status, name, getattr(counted, name))
            counts, frames = status.tile_cycles, status.frames
            counts.pending = status.lag.tile_cycles = len(self._pending)
            counts.balanced = counts.received == counts.called + counts.missing + counts.failed + counts.pending
            frames.refused = dict(sorted(self._refused.items()))
            frames.received += self._refused.total()
            frames.pending = self._frames.total()
            frames.balanced = frames.accepted + frames.restored == frames.committed + frames.pending
            status.shut_out, status.slowed = dict(sorted(self._shut_out.items())), self._slowed
            status.requests_refused = dict(sorted(self._requests_refused.items()))
            status.cycle = min(self._committed.values(), default=0)
            elapsed = time.monotonic() - self.began_s
            status.tile_cycles_per_s = round(self._committed_since / elapsed, 3) if elapsed > 0 else 0.0

    def _add(self, outcome: str) -> None:
        frames = self._counted.frames
        setattr(frames, outcome, getattr(frames, outcome) + 1)

    def _sink(self, name: str) -> SinkStatus:
        return self._counted.sinks.setdefault(name, SinkStatus())
