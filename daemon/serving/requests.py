"""Requests to the daemon: status, tiles and replay on one socket, drain on another; answered by a thread of its own."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

import zmq
from seqd_client.keys import ServerKeys
from seqd_client.runinfo import TileId
from seqd_client.sockets import bind
from seqd_client.wire.codec import Refusal, WireError, decode, encode
from seqd_client.wire.messages import (
    Accepted,
    Calls,
    Drain,
    Message,
    Refused,
    Replay,
    StatusAnswer,
    StatusQuery,
    Template,
    TileProgress,
    TilesAnswer,
    TilesQuery,
)

from daemon.config import ControlConfig
from daemon.errors import OutputError
from daemon.record.runfiles import RunFiles
from daemon.record.tilefile import read_cycles, read_locs
from daemon.serving.gate import Gate
from daemon.watching.runstatus import RunStatus

POLL_MS = 200

QUEUE = 16
"""Requests of a client that wait, and answers that it has not taken."""

LARGEST_PART = 4096
"""Bytes of the largest part of a request."""

SHARE = 0.1
"""Of one processor core, that answering takes in the long run: under a flood requests wait, and calling does not."""

BURST_S = 0.5
"""Seconds of a core that it may take at once after it was idle: who catches up for a while need not wait."""

LONGEST_REST_S = 1.0

READS = (StatusQuery, TilesQuery, Replay)
COMMANDS = (Drain,)


@dataclass(frozen=True)
class _RequestSocket:
    name: str
    socket: zmq.Socket[bytes]
    taken: tuple[type[Message], ...]
    elsewhere: str
    """What to do about requests that the other socket takes."""


class RequestServer:
    """Answers requests, also while every worker hangs; those that read on one socket, commands on the other."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        config: ControlConfig,
        status: RunStatus,
        drain: Callable[[], None],
        gate: Gate,
    ) -> None:
        self._status, self._drain = status, drain
        self._run: tuple[str, RunFiles] | None = None
        self._stop = threading.Event()
        with ExitStack() as opened:
            self._sockets = tuple(
                _RequestSocket(name, _opened(opened, context, name, endpoint, keys, gate), taken, elsewhere)
                for name, endpoint, keys, taken, elsewhere in (
                    ("control", config.endpoint, gate.observers, READS, "it is a command: ask at control.command"),
                    ("command", config.command, gate.operators, COMMANDS, "it is no command: ask at control.endpoint"),
                )
            )
            self._opened = opened.pop_all()
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def serve_run(self, run: str, files: RunFiles) -> None:
        """Replays are answered from this run's files."""
        self._run = (run, files)

    def __enter__(self) -> "RequestServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _serve(self) -> None:
        poller = zmq.Poller()
        for served in self._sockets:
            poller.register(served.socket, zmq.POLLIN)
        with self._opened:
            credit_s, looked_s, rested = BURST_S, time.monotonic(), False
            while not self._stop.is_set():
                begun_s = time.thread_time()
                ready = dict(poller.poll(0 if rested else POLL_MS))
                for served in self._sockets:
                    if served.socket in ready:
                        self._answer_one(served)
                if rested:
                    self._status.counters.slowed(len(ready))
                now_s, spent_s = time.monotonic(), time.thread_time() - begun_s
                credit_s = min(BURST_S, credit_s + SHARE * (now_s - looked_s)) - spent_s
                looked_s, rested = now_s, credit_s < 0
                if rested:
                    self._stop.wait(min(-credit_s / SHARE, LONGEST_REST_S))

    def _answer_one(self, served: _RequestSocket) -> None:
        """Answer one request, so that the other socket and other clients have their turn."""
        identity, *parts = served.socket.recv_multipart()
        answer, payload = self._answer(parts, served)
        try:
            served.socket.send_multipart([identity, *encode(answer, payload)], zmq.NOBLOCK)
        except zmq.ZMQError:
            # The client went away, or asks and does not take the answers.
            self._status.counters.request_refused(served.name, "unread")

    def _answer(self, parts: list[bytes], served: _RequestSocket) -> tuple[Message, bytes]:
        try:
            request, _ = decode(parts)
        except WireError as error:
            self._status.counters.request_refused(served.name, error.refusal)
            return Refused(reason=str(error)[:2000]), b""
        if not isinstance(request, served.taken):
            self._status.counters.request_refused(served.name, Refusal.TOPIC)
            known = isinstance(request, (*READS, *COMMANDS))
            return Refused(reason=f"{request.topic}: {served.elsewhere if known else 'it is not a request'}"), b""
        match request:
            case StatusQuery():
                return StatusAnswer(), self._status.snapshot().model_dump_json().encode()
            case TilesQuery():
                return self._tiles(), b""
            case Replay():
                return self._replay(request)
            case _:
                self._drain()
                return Accepted(), b""

    def _tiles(self) -> TilesAnswer:
        run, committed = self._status.committed_cycles()
        tiles = tuple(TileProgress(lane=tile.lane, tile=tile.tile, cycle=cycle) for tile, cycle in committed.items())
        return TilesAnswer(run=run, tiles=tiles)

    def _replay(self, request: Replay) -> tuple[Message, bytes]:
        if self._run is None:
            return Refused(reason="there is no run"), b""
        run, files = self._run
        tile = TileId(lane=request.lane, tile=request.tile)
        refused = Refused(reason=f"tile {tile}, cycle {request.cycle}: not committed")
        # The file may hold bytes that are not committed yet, and a tile without clusters holds none.
        if self._status.counters.last_committed(tile) < max(request.cycle, 1):
            return refused, b""
        try:
            if request.cycle == 0:
                locs = read_locs(files.locs_of(tile))
                payload = locs[:, ::-1].astype("<f4").tobytes()
                return Template(run=run, seq=0, lane=tile.lane, tile=tile.tile, n=len(locs)), payload
            calls = read_cycles(files.calls_of(tile), range(request.cycle, request.cycle + 1))[0]
        except (OSError, OutputError, MemoryError):
            return refused, b""
        answer = Calls(run=run, seq=0, lane=tile.lane, tile=tile.tile, cycle=request.cycle, n=len(calls))
        return answer, calls.tobytes()


def _opened(
    opened: ExitStack,
    context: zmq.Context[zmq.Socket[bytes]],
    name: str,
    endpoint: str,
    keys: ServerKeys | None,
    gate: Gate,
) -> zmq.Socket[bytes]:
    socket = opened.enter_context(context.socket(zmq.ROUTER))
    socket.setsockopt(zmq.LINGER, 500)
    # An answer that cannot be sent is an error, and counted.
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    gate.watch(name, socket)
    bind(socket, endpoint, keys=keys, queue=QUEUE, largest_part=LARGEST_PART)
    return socket
