"""The simulated imaging controller: publishes an archived run, answers on the recovery socket."""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import zmq

from calib.runfolder import RunFolderError, RunInfo, TileId, image_path, read_image
from daemon.camera.faults import Faults
from daemon.errors import UnreachableError
from daemon.sockets import bind
from daemon.wire.codec import WireError, decode, encode
from daemon.wire.messages import (
    CycleEnd,
    Done,
    Frame,
    Gone,
    Hold,
    Message,
    Position,
    Release,
    Resend,
    RunEnd,
    RunStart,
    Sync,
)
from engines.architecture import CHANNELS

QUEUE = 64
"""Messages kept for the daemon; the controller waits when it is full."""

POLL_MS = 20


@dataclass(frozen=True)
class Pace:
    """How the controller behaves in time."""

    tile_s: float = 0.0
    """Seconds between tile images; 0 is as fast as the daemon takes them."""
    wait_s: float = 60.0
    """Seconds to wait for a daemon to subscribe."""
    linger_s: float = 60.0
    """Seconds to stay after the last frame without hearing from the daemon."""


class Controller:
    """Publishes every frame of a run, cycle by cycle, tile by tile."""

    def __init__(
        self, root: Path, info: RunInfo, *, frames: str, recovery: str, pace: Pace, faults: Faults, keep_cycles: int
    ) -> None:
        self._root, self._info, self._pace, self._faults = root, info, pace, faults
        self._keep_cycles = keep_cycles
        self._rng = np.random.default_rng(faults.seed)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # XPUB tells when a daemon subscribes, and can wait for a slow one instead of dropping.
        self._frames = self._context.socket(zmq.XPUB)
        self._frames.setsockopt(zmq.SNDHWM, QUEUE)
        self._frames.setsockopt(zmq.XPUB_NODROP, 1)
        self._recovery = self._context.socket(zmq.ROUTER)
        for socket, endpoint in ((self._frames, frames), (self._recovery, recovery)):
            socket.setsockopt(zmq.LINGER, 1000)
            bind(socket, endpoint)
        self._seq, self._cycle, self._ended = 0, 0, False
        self._holding, self._done = False, False
        self._heard_s = time.monotonic()

    def run(self, progress: Callable[[int], None]) -> None:
        """Publish the run and stay until the daemon is done; ``progress`` gets the tile images sent.

        Raises
        ------
        UnreachableError : no daemon came.
        RunFolderError : an image is not a frame.
        """
        self._await_daemon()
        self._publish([self._encoded(RunStart(run=self._info.run, seq=self._seq, info=self._info))])
        sent = 0
        for cycle in range(1, self._info.cycles + 1):
            for tile in self._info.tiles:
                self._serve_until(time.monotonic() + self._pace.tile_s)
                self._publish(self._faults.applied(self._rng, self._tile_frames(tile, cycle)))
                sent += 1
                progress(sent)
                if self._done:
                    return
            self._cycle = cycle
            self._publish([self._encoded(CycleEnd(run=self._info.run, seq=self._seq, cycle=cycle))])
        self._ended = True
        self._publish([self._encoded(RunEnd(run=self._info.run, seq=self._seq))])
        self._heard_s = time.monotonic()
        while not self._done and time.monotonic() - self._heard_s < self._pace.linger_s:
            self._serve(POLL_MS)

    def __enter__(self) -> "Controller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._frames.close()
        self._recovery.close()
        self._context.term()

    def _await_daemon(self) -> None:
        deadline = time.monotonic() + self._pace.wait_s
        while time.monotonic() < deadline:
            if self._frames.poll(POLL_MS):
                self._frames.recv()
                return
            self._answer_requests(0)
        raise UnreachableError(
            f"controller: no daemon subscribed within {self._pace.wait_s:g} s; start `seqd run` with the same addresses"
        )

    def _tile_frames(self, tile: TileId, cycle: int) -> list[list[bytes]]:
        frames = []
        for channel in CHANNELS:
            message = self._frame(tile, cycle, channel, seq=self._seq)
            self._seq += 1
            if message is not None:
                frames.append(message)
        return frames

    def _frame(self, tile: TileId, cycle: int, channel: str, *, seq: int) -> list[bytes] | None:
        """An encoded frame; None when the archive lacks it."""
        path = image_path(self._root, tile, cycle, channel)
        if not path.exists():
            return None
        image = read_image(path)
        payload = image.astype("<u2").tobytes()
        header = Frame.model_validate(
            {
                "run": self._info.run,
                "seq": seq,
                "lane": tile.lane,
                "tile": tile.tile,
                "cycle": cycle,
                "channel": channel,
                "height": image.shape[0],
                "width": image.shape[1],
                "t_ns": time.time_ns(),
                "crc32": zlib.crc32(payload),
            }
        )
        return [bytes(part) for part in encode(header, payload)]

    def _encoded(self, message: Message) -> list[bytes]:
        self._seq += 1
        return [bytes(part) for part in encode(message)]

    def _publish(self, messages: list[list[bytes]]) -> None:
        for parts in messages:
            while True:
                self._serve(0)
                if self._holding and not self._done:
                    self._serve(POLL_MS)
                    continue
                try:
                    self._frames.send_multipart(parts, zmq.NOBLOCK)
                    break
                except zmq.Again:
                    self._serve(POLL_MS)

    def _serve_until(self, moment_s: float) -> None:
        while (left := moment_s - time.monotonic()) > 0:
            self._serve(min(POLL_MS, int(left * 1000)))

    def _serve(self, timeout_ms: int) -> None:
        """Answer what came on the recovery socket; waits at most so long for the first request."""
        while self._frames.poll(0):
            self._frames.recv()  # subscriptions come and go
        self._answer_requests(timeout_ms)

    def _answer_requests(self, timeout_ms: int) -> None:
        while self._recovery.poll(timeout_ms):
            timeout_ms = 0
            identity, *parts = self._recovery.recv_multipart()
            self._heard_s = time.monotonic()
            try:
                request, _ = decode(parts)
            except WireError:
                continue  # not a daemon of this protocol: nothing to answer
            for answer in self._answers(request):
                self._recovery.send_multipart([identity, *answer])

    def _answers(self, request: Message) -> list[list[bytes]]:
        run = self._info.run
        match request:
            case Sync():
                start = RunStart(run=run, seq=0, info=self._info)
                position = Position(run=run, seq=max(0, self._seq - 1), cycle=self._cycle, ended=self._ended)
                return [[bytes(part) for part in encode(message)] for message in (start, position)]
            case Resend() if request.run == run:
                return [self._again(request)]
            case Hold() if request.run == run:
                self._holding = True
            case Release() if request.run == run:
                self._holding = False
            case Done() if request.run == run:
                self._done = True
            case _:
                pass
        return []

    def _again(self, request: Resend) -> list[bytes]:
        tile = TileId(lane=request.lane, tile=request.tile)
        kept = request.cycle > self._cycle - self._keep_cycles
        message = None
        if kept and tile in self._info.tiles and request.cycle <= self._info.cycles:
            message = self._frame(tile, request.cycle, request.channel, seq=0)
        if message is None:
            gone = Gone(run=request.run, lane=tile.lane, tile=tile.tile, cycle=request.cycle, channel=request.channel)
            return [bytes(part) for part in encode(gone)]
        return message


def check_archive(root: Path, info: RunInfo) -> None:
    """Look at the first image before a run is begun with a wrong folder.

    Raises
    ------
    RunFolderError : cycle 1 has no image, or its first one is not of the size that ``RunInfo.xml`` says.
    """
    first = [image_path(root, tile, 1, channel) for tile in info.tiles for channel in CHANNELS]
    present = next((path for path in first if path.exists()), None)
    if present is None:
        raise RunFolderError(f"run folder {root}: no image of cycle 1, expected {first[0].relative_to(root)}")
    height, width = read_image(present).shape
    if (height, width) != (info.height, info.width):
        raise RunFolderError(f"image {present}: {height}×{width} px, RunInfo.xml declares {info.height}×{info.width}")
