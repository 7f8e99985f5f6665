"""Decides which of a daemon's messages are delivered and what is asked for; it has neither sockets nor a clock."""

from seqd_client.errors import UnreachableError
from seqd_client.runinfo import TileId
from seqd_client.status import ENDED, RunState, Status
from seqd_client.wire.messages import (
    Calls,
    Event,
    Message,
    Replay,
    StatusAnswer,
    StatusQuery,
    Template,
    TilesAnswer,
    TilesQuery,
)

Published = Calls | Template | Event
"""A message of the stream of calls."""


class MissedError(UnreachableError):
    """The daemon no longer replays calls that were not delivered; they are in the files of their run."""


class RunFollower:
    """Follows one run after the other.

    For every tile it delivers the template and then the cycles in order, each once. Its owner passes to it every
    message of the stream and every answer, and the follower says whether to deliver the message. While there is a
    :attr:`request`, the owner asks that request before it reads more of the stream.

    After a gap in ``seq`` the follower asks how far every tile is. It compares the cycle of each message with the
    next cycle of the tile too, because a daemon that was restarted counts ``seq`` from 0 again.
    """

    def __init__(self) -> None:
        self.run = ""
        """The run that is followed; empty before the first."""
        self._previous_run = ""
        self._cycles = 0
        self._tiles_known = False
        self._next: dict[TileId, int] = {}
        """For each tile, the cycle that is delivered next; 0 means the template."""
        self._missing: dict[TileId, int] = {}
        """The last committed cycle of each tile that needs a replay."""
        self._seq: int | None = None
        self._state = ""
        self._passed = False
        """Whether :attr:`run` was followed to its end, or given up, so that another run may come next."""
        self._ask_status = self._ask_tiles = True

    @property
    def request(self) -> Message | None:
        """The request to send on the control socket; None when everything known to be committed was delivered."""
        if self._ask_status:
            return StatusQuery()
        if self._ask_tiles:
            return TilesQuery()
        for tile in self._missing:
            return Replay(lane=tile.lane, tile=tile.tile, cycle=self._next.get(tile, 0))
        return None

    @property
    def ended(self) -> bool:
        """Whether the run has ended and all that it committed was delivered."""
        return self._state in ENDED and (self.request is None or self._all_delivered)

    def begin(self) -> None:
        """Follow what comes next: the same run if the daemon continues it, else the next run."""
        self._passed = self._passed or self.ended
        self._state = ""
        self.silent()

    def silent(self) -> None:
        """Take note that no message or no answer came for a while; the status and all tiles are asked for."""
        self._ask_status = self._ask_tiles = True

    def published(self, message: Published) -> bool:
        """Take a message of the stream; True if it is to be delivered."""
        gap = self._seq is None or message.seq != self._seq + 1
        self._seq = message.seq
        if message.run not in ("", self.run):
            # The stream may lag behind the answers, so only an answer makes the follower change to another run.
            if gap or message.run != self._previous_run:
                self.silent()
            return isinstance(message, Event)
        self._ask_tiles |= gap
        match message:
            case Calls():
                return self._take_cycle(TileId(lane=message.lane, tile=message.tile), message.cycle)
            case Template():
                return self._take_cycle(TileId(lane=message.lane, tile=message.tile), 0)
            case Event():
                if message.run:
                    self._set_state(message.run_state)
                return True

    def answered(self, answer: Message, status: Status | None = None) -> bool:
        """Take the answer to a request, and the status that it has as its payload; True if it is to be delivered.

        Raises
        ------
        MissedError : the daemon has begun another run.
        UnreachableError : the answer does not belong to any request of a follower.
        """
        match answer:
            case StatusAnswer() if status is not None:
                if self._is_followed(status.run) and status.run:
                    self._cycles = status.cycles or self._cycles
                    self._set_state(status.state)
                self._ask_status = False
            case TilesAnswer():
                if self._is_followed(answer.run):
                    self._tiles_known = bool(answer.tiles)
                    self._ask_status |= self._tiles_known and not self._cycles
                    self._missing.clear()
                    for tile in answer.tiles:
                        self._note_committed(TileId(lane=tile.lane, tile=tile.tile), tile.cycle)
                if not answer.tiles:
                    # The daemon was restarted. It publishes an event when it has taken up the run.
                    self._seq = None
                if not answer.run:
                    self._state = ""
                self._ask_tiles = False
            case Calls() | Template() if answer.run == self.run:
                cycle = answer.cycle if isinstance(answer, Calls) else 0
                return self._take_cycle(TileId(lane=answer.lane, tile=answer.tile), cycle)
            case Calls() | Template():
                self._ask_tiles = True
            case _:
                raise UnreachableError(f"control socket: answered {answer.topic}; is it a seqd of this version?")
        return False

    @property
    def _all_delivered(self) -> bool:
        """Whether the last cycle of every tile of the run was delivered."""
        known = self._tiles_known and self._cycles > 0
        return known and all(cycle > self._cycles for cycle in self._next.values())

    def _is_followed(self, run: str) -> bool:
        """Whether to use an answer about ``run``. A run is followed until all its calls were delivered."""
        if run in ("", self.run):
            return True
        if self.run and not self._passed:
            if self._all_delivered:
                self._state = RunState.FINISHED
                return False
            self._passed = True
            raise MissedError(
                f"run {self.run}: the daemon began run {run} before all calls were delivered; "
                "the missing calls are in the tile files"
            )
        self._previous_run, self.run = self.run, run
        self._cycles, self._tiles_known, self._state, self._passed = 0, False, "", False
        self._next.clear()
        self._missing.clear()
        self.silent()
        return True

    def _set_state(self, state: str) -> None:
        """Set the state of the run. After a run was followed to its end, a repeated state of its end is ignored."""
        if self._passed and state in ENDED:
            return
        self._state, self._passed = state, False
        if state == RunState.FINISHED and not self._all_delivered:
            self._ask_tiles = True

    def _note_committed(self, tile: TileId, cycle: int) -> None:
        """Note that a tile is committed up to a cycle; at 0 nothing is committed, not even its template."""
        if cycle >= max(self._next.setdefault(tile, 0), 1):
            self._missing[tile] = max(cycle, self._missing.get(tile, 0))

    def _take_cycle(self, tile: TileId, cycle: int) -> bool:
        """Whether a cycle is the next one of its tile; a later one shows that cycles were missed."""
        wanted = self._next.get(tile, 0)
        if cycle > wanted:
            self._note_committed(tile, cycle)
        if cycle != wanted:
            return False
        self._next[tile] = cycle + 1
        self._passed = False
        if self._missing.get(tile, cycle) <= cycle:
            self._missing.pop(tile, None)
        return True
