"""The control socket: status, replay and drain, answered by a thread of its own."""

import threading
from collections.abc import Callable
from types import TracebackType

import zmq

from calib.runfolder import TileId
from daemon.errors import OutputError
from daemon.locs import read_locs
from daemon.progress import Progress
from daemon.runfiles import RunFiles
from daemon.sockets import bind
from daemon.tilefile import read_cycles
from daemon.wire.codec import Refusal, WireError, decode, encode
from daemon.wire.messages import (
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

POLL_MS = 200


class Control:
    """Answers control requests, also while every worker hangs."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        progress: Progress,
        drain: Callable[[], None],
    ) -> None:
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 500)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 2**20)
        bind(self._socket, endpoint)
        self._progress, self._drain = progress, drain
        self._run: tuple[str, RunFiles] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def serve_run(self, run: str, files: RunFiles) -> None:
        """Replays are answered from this run's files."""
        self._run = (run, files)

    def __enter__(self) -> "Control":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _serve(self) -> None:
        with self._socket:
            while not self._stop.is_set():
                if self._socket.poll(POLL_MS):
                    identity, *parts = self._socket.recv_multipart()
                    answer, payload = self._answer(parts)
                    self._socket.send_multipart([identity, *encode(answer, payload)])

    def _answer(self, parts: list[bytes]) -> tuple[Message, bytes]:
        try:
            request, _ = decode(parts)
        except WireError as error:
            self._progress.refused(f"control_{error.refusal}")
            return Refused(reason=str(error)[:2000]), b""
        match request:
            case StatusQuery():
                return StatusAnswer(), self._progress.snapshot().model_dump_json().encode()
            case Drain():
                self._drain()
                return Accepted(), b""
            case TilesQuery():
                return self._tiles(), b""
            case Replay():
                return self._replay(request)
            case _:
                self._progress.refused(f"control_{Refusal.TOPIC}")
                return Refused(reason=f"{request.topic} is not a control request"), b""

    def _tiles(self) -> TilesAnswer:
        run, committed = self._progress.committed_cycles()
        tiles = tuple(TileProgress(lane=tile.lane, tile=tile.tile, cycle=cycle) for tile, cycle in committed.items())
        return TilesAnswer(run=run, tiles=tiles)

    def _replay(self, request: Replay) -> tuple[Message, bytes]:
        if self._run is None:
            return Refused(reason="there is no run"), b""
        run, files = self._run
        tile = TileId(lane=request.lane, tile=request.tile)
        refused = Refused(reason=f"tile {tile}, cycle {request.cycle}: not committed")
        # The file may hold bytes that are not committed yet, and a tile without clusters holds none.
        if self._progress.last_committed(tile) < max(request.cycle, 1):
            return refused, b""
        try:
            if request.cycle == 0:
                locs = read_locs(files.locs_of(tile))
                payload = locs[:, ::-1].astype("<f4").tobytes()
                return Template(run=run, seq=0, lane=tile.lane, tile=tile.tile, n=len(locs)), payload
            calls = read_cycles(files.calls_of(tile), range(request.cycle, request.cycle + 1))[0]
        except (OSError, OutputError):
            return refused, b""
        answer = Calls(run=run, seq=0, lane=tile.lane, tile=tile.tile, cycle=request.cycle, n=len(calls))
        return answer, calls.tobytes()
