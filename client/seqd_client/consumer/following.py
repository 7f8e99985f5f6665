"""What of a daemon's calls is delivered, and what is asked for: no sockets, no clock."""

from seqd_client.consumer.answers import Published, read_status
from seqd_client.errors import UnreachableError
from seqd_client.runinfo import TileId
from seqd_client.status import ENDED, RunState
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


class MissedError(UnreachableError):
    """Calls that were not delivered can no longer be had from the daemon; they are in the files of their run."""


class Following:
    """Follows one run after the other: of every tile the template, then its cycles in order, each once.

    It is told what the daemon published and answered, and says of each message whether to deliver it. As long as
    there is a :attr:`request`, that is asked before more of the stream is read. A gap in ``seq`` has all tiles looked
    through. A cycle that is not the next of its tile shows what to ask for, whatever its ``seq``: a daemon that was
    started again counts from 0.
    """

    def __init__(self) -> None:
        self.run = ""
        """The run that is followed; empty before the first."""
        self._before = ""
        self._cycles = 0
        self._listed = False
        self._next: dict[TileId, int] = {}
        self._behind: dict[TileId, int] = {}
        self._seq: int | None = None
        self._state = ""
        self._over = False
        self._ask_status = self._ask_tiles = True

    @property
    def request(self) -> Message | None:
        """What to ask for on the control socket; None while all that is known to be committed was delivered."""
        if self._ask_status:
            return StatusQuery()
        if self._ask_tiles:
            return TilesQuery()
        for tile in self._behind:
            return Replay(lane=tile.lane, tile=tile.tile, cycle=self._next.get(tile, 0))
        return None

    @property
    def ended(self) -> bool:
        """Whether the run has ended and all that it committed was delivered."""
        return self._state in ENDED and (self.request is None or self._complete)

    def begin(self) -> None:
        """Follow what comes next: the run if it goes on, or the one after it."""
        self._over = self._over or self.ended
        self._state = ""
        self.silent()

    def silent(self) -> None:
        """Nothing came for a while, or no answer: the daemon is asked where it is, and whether anything was missed."""
        self._ask_status = self._ask_tiles = True

    def published(self, message: Published) -> bool:
        """Take a message of the stream; True if it is to be delivered."""
        gap = self._seq is None or message.seq != self._seq + 1
        self._seq = message.seq
        if message.run not in ("", self.run):
            # What waited in the stream may be older than an answer: only answers lead to another run.
            if gap or message.run != self._before:
                self.silent()
            return isinstance(message, Event)
        self._ask_tiles |= gap
        match message:
            case Calls():
                return self._take(TileId(lane=message.lane, tile=message.tile), message.cycle)
            case Template():
                return self._take(TileId(lane=message.lane, tile=message.tile), 0)
            case Event():
                if message.run:
                    self._is(message.run_state)
                return True

    def answered(self, answer: Message, payload: bytes = b"") -> bool:
        """Take the answer to a request; True if it is to be delivered.

        Raises
        ------
        MissedError : the daemon went on to another run.
        UnreachableError : it answers as no daemon of this version.
        """
        match answer:
            case StatusAnswer():
                status = read_status(answer, payload)
                if self._belongs(status.run) and status.run:
                    self._cycles = status.cycles or self._cycles
                    self._is(status.state)
                self._ask_status = False
            case TilesAnswer():
                if self._belongs(answer.run):
                    self._listed = bool(answer.tiles)
                    self._ask_status |= self._listed and not self._cycles
                    self._behind.clear()
                    for tile in answer.tiles:
                        self._show(TileId(lane=tile.lane, tile=tile.tile), tile.cycle)
                if not answer.tiles:
                    # A daemon that was started again; when it has taken up the run, it says so.
                    self._seq = None
                if not answer.run:
                    self._state = ""
                self._ask_tiles = False
            case Calls() | Template() if answer.run == self.run:
                cycle = answer.cycle if isinstance(answer, Calls) else 0
                return self._take(TileId(lane=answer.lane, tile=answer.tile), cycle)
            case Calls() | Template():
                self._ask_tiles = True
            case _:
                raise UnreachableError(f"control socket: answered {answer.topic}; is it a seqd of this version?")
        return False

    @property
    def _complete(self) -> bool:
        every = self._listed and self._cycles > 0
        return every and all(cycle > self._cycles for cycle in self._next.values())

    def _belongs(self, run: str) -> bool:
        """Whether an answer is of the run that is followed; the next run is, when this one was delivered."""
        if run in ("", self.run):
            return True
        if self.run and not self._over:
            if self._complete:
                self._state = RunState.FINISHED
                return False
            self._over = True
            raise MissedError(
                f"run {self.run}: the daemon went on to run {run} before all calls were delivered; "
                "what is missing is in the tile files"
            )
        self._before, self.run = self.run, run
        self._cycles, self._listed, self._state, self._over = 0, False, "", False
        self._next.clear()
        self._behind.clear()
        self.silent()
        return True

    def _is(self, state: str) -> None:
        """The run is in a state; the end of what was delivered to its end is no news."""
        if self._over and state in ENDED:
            return
        self._state, self._over = state, False
        if state == RunState.FINISHED and not self._complete:
            self._ask_tiles = True

    def _show(self, tile: TileId, cycle: int) -> None:
        """A tile is committed up to a cycle; 0 is none, not even its template."""
        if cycle >= max(self._next.setdefault(tile, 0), 1):
            self._behind[tile] = max(cycle, self._behind.get(tile, 0))

    def _take(self, tile: TileId, cycle: int) -> bool:
        """Whether a cycle is the next of its tile; one further on shows what was missed."""
        wanted = self._next.get(tile, 0)
        if cycle > wanted:
            self._show(tile, cycle)
        if cycle != wanted:
            return False
        self._next[tile] = cycle + 1
        self._over = False
        if self._behind.get(tile, cycle) <= cycle:
            self._behind.pop(tile, None)
        return True
