"""Answers to requests, in a separate thread: status, tiles and replay on one socket, drain on another."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import zmq
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
"""Maximum number of requests of one client that wait, and of answers that the client has not received."""

MAX_PART = 4096
"""Bytes that the largest part of a request may have."""

SHARE = 0.1
"""Share of one processor core that answering takes in the long run. With too many requests, the requests wait, and
calling does not wait."""

BURST_S = 0.5
"""Processor time, in seconds, that answering may take without a pause after a time without requests, so that short
bursts of requests do not wait."""

MAX_REST_S = 1.0

QUERIES = (StatusQuery, TilesQuery, Replay)
COMMANDS = (Drain,)


@dataclass(frozen=True)
class _RequestSocket:
    name: str
    socket: zmq.Socket[bytes]
    accepted: tuple[type[Message], ...]
    hint: str
    """Part of the answer to a request that belongs on the other socket."""


class RequestServer:
    """Answers requests, even while every worker hangs: queries on one socket, commands on the other.

    Parameters
    ----------
    drain : is called when a client asks for it.
    """

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
        self._sockets: list[_RequestSocket] = []
        with ExitStack() as opened:
            for name, endpoint, keys, accepted, hint in (
                ("control", config.endpoint, gate.observers, QUERIES, "this is a command: ask at control.command"),
                ("command", config.command, gate.operators, COMMANDS, "this is not a command: ask at control.endpoint"),
            ):
                socket = opened.enter_context(context.socket(zmq.ROUTER))
                socket.setsockopt(zmq.LINGER, 500)
                # An answer that cannot be sent raises an error, and is counted.
                socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
                gate.watch(name, socket)
                bind(socket, endpoint, keys=keys, queue=QUEUE, largest_part=MAX_PART)
                self._sockets.append(_RequestSocket(name, socket, accepted, hint))
            self._opened = opened.pop_all()
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def serve_run(self, run: str, files: RunFiles) -> None:
        """Set the run whose files answer replays."""
        self._run = (run, files)

    def __enter__(self) -> "RequestServer":
        return self

    def __exit__(self, *error: object) -> None:
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
                    self._status.counters.requests_delayed(len(ready))
                now_s, spent_s = time.monotonic(), time.thread_time() - begun_s
                credit_s = min(BURST_S, credit_s + SHARE * (now_s - looked_s)) - spent_s
                looked_s, rested = now_s, credit_s < 0
                if rested:
                    self._stop.wait(min(-credit_s / SHARE, MAX_REST_S))

    def _answer_one(self, served: _RequestSocket) -> None:
        """Answer one request only; the next one may be of the other socket or of another client."""
        identity, *parts = served.socket.recv_multipart()
        answer, payload = self._answer(parts, served)
        try:
            served.socket.send_multipart([identity, *encode(answer, payload)], zmq.NOBLOCK)
        except zmq.ZMQError:
            # The client has disconnected, or does not receive its answers.
            self._status.counters.request_refused(served.name, "unread")

    def _answer(self, parts: list[bytes], served: _RequestSocket) -> tuple[Message, bytes]:
        try:
            request, _ = decode(parts)
        except WireError as error:
            self._status.counters.request_refused(served.name, error.refusal)
            return Refused(reason=str(error)[:2000]), b""
        if not isinstance(request, served.accepted):
            self._status.counters.request_refused(served.name, Refusal.TOPIC)
            known = isinstance(request, (*QUERIES, *COMMANDS))
            return Refused(reason=f"{request.topic}: {served.hint if known else 'this is not a request'}"), b""
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
