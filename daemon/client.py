"""A client of a running daemon: control requests, and the stream of calls in order."""

import time
from collections.abc import Iterator
from types import TracebackType

import zmq
from pydantic import ValidationError

from calib.runfolder import TileId
from daemon.errors import UnreachableError
from daemon.sockets import connect
from daemon.states import ENDED
from daemon.status import Status
from daemon.wire.codec import WireError, decode, encode
from daemon.wire.messages import (
    Calls,
    Event,
    Message,
    Refused,
    Replay,
    StatusAnswer,
    StatusQuery,
    Template,
    TilesAnswer,
    TilesQuery,
)

POLL_MS = 200


class ControlClient:
    """Asks a daemon over its control socket; for one thread."""

    def __init__(self, endpoint: str, *, timeout_s: float = 5.0) -> None:
        self._endpoint, self._timeout_s = endpoint, timeout_s
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        connect(self._socket, endpoint)

    def ask(self, request: Message) -> tuple[Message, bytes]:
        """Send a request and wait for its answer.

        Raises
        ------
        UnreachableError : no daemon answered in time.
        """
        while self._socket.poll(0):
            self._socket.recv_multipart()  # an answer that came too late
        self._socket.send_multipart(encode(request))
        if not self._socket.poll(int(self._timeout_s * 1000)):
            raise UnreachableError(
                f"control socket {self._endpoint}: no answer within {self._timeout_s:g} s; is `seqd run` running?"
            )
        try:
            return decode(self._socket.recv_multipart())
        except WireError as error:
            raise UnreachableError(
                f"control socket {self._endpoint}: {error}; is it a seqd of this version?"
            ) from error

    def status(self) -> Status:
        """The daemon's status."""
        answer, payload = self.ask(StatusQuery())
        if not isinstance(answer, StatusAnswer):
            raise UnreachableError(f"control socket {self._endpoint}: answered {answer.topic} to a status request")
        try:
            return Status.model_validate_json(payload)
        except ValidationError as error:
            raise UnreachableError(
                f"control socket {self._endpoint}: the status is of another version of seqd"
            ) from error

    def __enter__(self) -> "ControlClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()


class CallsStream:
    """The committed calls of a daemon, every tile's cycles in order and none left out.

    What was published before this consumer came, or was dropped for it, is asked for again.
    """

    def __init__(self, calls: str, control: ControlClient) -> None:
        self._control = control
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        connect(self._socket, calls)
        self._next: dict[TileId, int] = {}
        self._seq: int | None = None
        self._run = ""

    def messages(self, *, timeout_s: float) -> Iterator[tuple[Message, bytes]]:
        """Templates, calls and events until the run ends.

        Raises
        ------
        UnreachableError : nothing came for ``timeout_s`` and the daemon does not answer.
        """
        yield from self._caught_up()
        heard = time.monotonic()
        while True:
            if not self._socket.poll(POLL_MS):
                if time.monotonic() - heard > timeout_s:
                    heard = time.monotonic()
                    if self._control.status().state in ENDED:
                        yield from self._caught_up()
                        return
                continue
            heard = time.monotonic()
            try:
                message, payload = decode(self._socket.recv_multipart())
            except WireError as error:
                raise UnreachableError(f"stream of calls: {error}; is it a seqd of this version?") from error
            if not isinstance(message, Calls | Template | Event):
                continue
            self._follow(message.run)
            # The first message shows that the subscription stands; a gap, that some were dropped.
            if self._seq is None or message.seq != self._seq + 1:
                yield from self._caught_up()
            self._seq = message.seq
            match message:
                case Calls():
                    yield from self._upto(TileId(lane=message.lane, tile=message.tile), message.cycle - 1)
                    if message.cycle == self._next[TileId(lane=message.lane, tile=message.tile)]:
                        self._next[TileId(lane=message.lane, tile=message.tile)] += 1
                        yield message, payload
                case Template():
                    yield from self._upto(TileId(lane=message.lane, tile=message.tile), 0)
                case Event():
                    yield message, payload
                    if message.run_state in ENDED:
                        return

    def __enter__(self) -> "CallsStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()

    def _follow(self, run: str) -> None:
        """Another run's tiles begin anew."""
        if run != self._run:
            self._run = run
            self._next.clear()

    def _caught_up(self) -> Iterator[tuple[Message, bytes]]:
        """All that is committed and was not delivered."""
        answer, _ = self._control.ask(TilesQuery())
        if isinstance(answer, TilesAnswer):
            self._follow(answer.run)
            for tile in answer.tiles:
                if tile.cycle > 0:
                    yield from self._upto(TileId(lane=tile.lane, tile=tile.tile), tile.cycle)

    def _upto(self, tile: TileId, cycle: int) -> Iterator[tuple[Message, bytes]]:
        """Template and cycles of a tile that were not delivered, up to a cycle."""
        if tile not in self._next:
            yield self._replayed(tile, 0)
            self._next[tile] = 1
        while self._next[tile] <= cycle:
            yield self._replayed(tile, self._next[tile])
            self._next[tile] += 1

    def _replayed(self, tile: TileId, cycle: int) -> tuple[Message, bytes]:
        answer, payload = self._control.ask(Replay(lane=tile.lane, tile=tile.tile, cycle=cycle))
        if isinstance(answer, Refused):
            raise UnreachableError(f"replay of tile {tile}, cycle {cycle}: {answer.reason}")
        return answer, payload
