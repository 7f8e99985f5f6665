"""The controller that instrument software uses. Its thread answers the daemon while the instrument takes images."""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np
import zmq
from numpy.typing import NDArray

from seqd_client.errors import ControllerError, UnreachableError
from seqd_client.keys import ServerKeys
from seqd_client.publisher import FrameKey, Parts, Publisher, encoded, frame_message
from seqd_client.runinfo import CHANNELS, Channel, RunInfo, TileId
from seqd_client.sockets import FRAMES, RECOVERY
from seqd_client.wire.messages import Frame

WAITING_MESSAGES = 4
"""Messages that wait for the thread: the frames of one tile."""

RETRY_MS = 10
"""Milliseconds after which the thread tries again to send a message that the daemon did not take."""
IDLE_MS = 1000
"""Milliseconds of one wait of the thread for requests. A message that is to be sent ends the wait."""
LINGER_S = 1.0
"""Seconds in which the last messages can still be sent when the controller is closed."""


class Controller:
    """Publishes the frames of runs, one run after the other, and answers the daemon from a thread of its own.

    ::

        with Controller(frames, recovery) as controller:
            controller.start(info)
            for cycle in range(1, info.cycles + 1):
                for tile in info.tiles:
                    for channel in CHANNELS:
                        controller.publish(tile, cycle, channel, image)
                controller.end_cycle(cycle)
            controller.end_run()
            controller.wait_done(timeout_s=600)

    Any thread may call the methods. An error of the controller's thread is raised by the next call.

    Parameters
    ----------
    frames, recovery : addresses to bind; the daemon's ``controller.frames`` and ``controller.recovery``.
    keys : the controller's keys and those of the daemons that it allows, for addresses on the network
        (:func:`seqd_client.load_server_keys`).
    timeout_s : seconds that the daemon may be silent while a method waits for it. The daemon is silent for minutes
        while it builds an engine plan.
    ring_bytes : number of bytes of the newest frames, which are kept so that they can be sent again. A restarted daemon
        asks for all frames after the last ``kept`` message that it sent; usually these are three cycles.
    on_hold, on_release : called when the daemon asks to stop imaging and keep the flow cell safe, and when imaging may
        continue. They run in the controller's thread, so they must return at once and call none of its methods.

    Raises
    ------
    SocketError : an address is in use or cannot be made.
    """

    def __init__(
        self,
        frames: str = FRAMES,
        recovery: str = RECOVERY,
        *,
        keys: ServerKeys | None = None,
        timeout_s: float = 900.0,
        ring_bytes: int = 2**31,
        on_hold: Callable[[], None] | None = None,
        on_release: Callable[[], None] | None = None,
    ) -> None:
        self._timeout_s, self._on_hold, self._on_release = timeout_s, on_hold, on_release
        self._info: RunInfo | None = None
        self._tiles: frozenset[TileId] = frozenset()
        self._cycle, self._ended = 0, False
        self._waiting: deque[Callable[[], Parts]] = deque()
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._closing = False
        self._publisher = Publisher(frames, recovery, keys=keys, ring_limit=ring_bytes)
        # A message from one of these two sockets to the other ends the thread's wait for requests.
        self._wake_sender, self._wake_receiver = (self._publisher.context.socket(zmq.PAIR) for _ in range(2))
        self._wake_receiver.bind("inproc://wake")
        self._wake_sender.connect("inproc://wake")
        self._publisher.poller.register(self._wake_receiver, zmq.POLLIN)
        self._thread = threading.Thread(target=self._serve, name="seqd controller", daemon=True)
        self._thread.start()

    @property
    def holding(self) -> bool:
        """Whether the daemon asks to stop imaging; :meth:`publish` waits meanwhile."""
        return self._publisher.holding

    @property
    def done(self) -> bool:
        """Whether the daemon has written all files of the run and needs nothing more of it."""
        return self._publisher.done

    def start(self, info: RunInfo, *, cycle: int = 0, timeout_s: float = 60.0) -> None:
        """Wait for a daemon to subscribe and start a run.

        Parameters
        ----------
        cycle : after a restart of the controller in the middle of the run, the last cycle that was published wholly.
        timeout_s : seconds to wait for a daemon.

        Raises
        ------
        ControllerError : the run before was not ended.
        UnreachableError : no daemon subscribed.
        """
        if self._info is not None and not (self._ended or self.done):
            raise ControllerError(f"run {self._info.run}: it has not ended; call end_run() before the next start")
        with self._changed:
            self._wait_until(lambda: self._publisher.subscribed, timeout_s)
            self._info, self._tiles, self._cycle, self._ended = info, frozenset(info.tiles), cycle, False
            self._hand_over(partial(self._publisher.start, info, cycle=cycle))
            self._wait_until(lambda: not self._waiting)

    def publish(
        self, tile: TileId, cycle: int, channel: Channel, image: NDArray[np.uint16], *, t_ns: int | None = None
    ) -> None:
        """Publish an image; waits while the daemon takes no more frames, or asks to hold.

        Parameters
        ----------
        cycle : 1-based cycle of the run.
        image : (H, W) pixels as uint16; they are copied.
        t_ns : time of the exposure, nanoseconds since 1970; by default the present time.

        Raises
        ------
        ControllerError : the run does not declare the tile, cycle or channel, or the image is not of its size.
        UnreachableError : the controller waited, and the daemon was silent for too long.
        """
        info = self._running()
        place, shape = f"run {info.run}, tile {tile}, cycle {cycle}, channel {channel}", (info.height, info.width)
        if tile not in self._tiles or not 1 <= cycle <= info.cycles or channel not in CHANNELS:
            allowed = f"its {len(self._tiles)} tiles, cycles 1 to {info.cycles} and channels {', '.join(CHANNELS)}"
            raise ControllerError(f"{place}: not a frame of the run; allowed are {allowed}")
        if not isinstance(image, np.ndarray) or image.dtype != np.uint16 or image.shape != shape:
            found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ControllerError(f"{place}: the image is {found}; a NumPy array of uint16 {shape} is needed")
        key = FrameKey(tile, cycle, channel)
        frame, payload = frame_message(info.run, key, image, seq=0, t_ns=time.time_ns() if t_ns is None else t_ns)
        with self._changed:
            self._wait_until(lambda: not self.holding)
            self._hand_over(partial(self._frame, key, frame, payload))

    def end_cycle(self, cycle: int) -> None:
        """Say that all frames of a cycle have been published; the cycles of a run end in rising order.

        Raises
        ------
        ControllerError : the run does not declare the cycle, or a later cycle has ended.
        UnreachableError : as for :meth:`publish`.
        """
        info = self._running()
        if not self._cycle < cycle <= info.cycles:
            allowed = f"{self._cycle + 1} to {info.cycles}"
            raise ControllerError(f"run {info.run}, end of cycle {cycle}: allowed are cycles {allowed}")
        with self._changed:
            self._cycle = cycle
            self._hand_over(partial(self._publisher.end_cycle, cycle))

    def end_run(self) -> None:
        """Say that all frames of the run have been published.

        Raises
        ------
        ControllerError : no run was started.
        UnreachableError : as for :meth:`publish`.
        """
        self._running()
        with self._changed:
            self._ended = True
            self._hand_over(self._publisher.end_run)
            self._wait_until(lambda: not self._waiting)

    def wait_done(self, timeout_s: float) -> None:
        """Wait until the daemon has written all files of the run; the thread sends frames again meanwhile.

        Raises
        ------
        ControllerError : the run was not ended.
        UnreachableError : the daemon did not finish the run within ``timeout_s``.
        """
        if not (self._ended or self.done):
            raise ControllerError("controller: the run has not ended; call end_run() first")
        with self._changed:
            self._changed.wait_for(lambda: self.done or self._failure, timeout_s)
        self._raise_failure()
        if not self.done:
            raise UnreachableError(f"controller: the daemon did not finish the run within {timeout_s:g} s; see its log")

    def close(self) -> None:
        """End the thread and close the sockets. Sending the messages that wait is tried for at most a second."""
        if self._closing:
            return
        with self._changed:
            self._closing = True
            self._wake_thread()
        self._thread.join()
        self._publisher.close(linger_s=LINGER_S)

    def __enter__(self) -> "Controller":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if kind is None:
            self._raise_failure()

    def _running(self) -> RunInfo:
        if self._info is None or self._ended or self._closing:
            raise ControllerError("controller: no run is under way; call start() first")
        return self._info

    def _hand_over(self, message: Callable[[], Parts]) -> None:
        """Let the thread make a message and send it."""
        self._wait_until(lambda: len(self._waiting) < WAITING_MESSAGES)
        self._waiting.append(message)
        self._wake_thread()

    def _wait_until(self, ready: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Wait for the thread; raises its error, and UnreachableError when the daemon was silent for too long."""
        since_s = time.monotonic()
        self._raise_failure()
        while not ready():
            self._publisher.check_daemon(since_s, self._timeout_s if timeout_s is None else timeout_s)
            self._changed.wait(0.1)
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _wake_thread(self) -> None:
        with suppress(zmq.Again):  # Enough such messages wait for the thread already.
            self._wake_sender.send(b"", zmq.NOBLOCK)

    def _frame(self, key: FrameKey, frame: Frame, payload: bytes) -> Parts:
        parts = encoded(frame.model_copy(update={"seq": self._publisher.next_seq()}), payload)
        self._publisher.ring.keep(key, lambda: parts, size=len(payload))
        return parts

    def _serve(self) -> None:
        """Send the waiting messages and answer the daemon, until the controller is closed."""
        parts: Parts | None = None
        was_holding = False
        try:
            while not self._closing:
                if parts is None and self._waiting:
                    parts = self._waiting[0]()
                if parts is not None and self._publisher.send(parts):
                    parts = None
                    self._waiting.popleft()
                self._publisher.serve(RETRY_MS if parts else 0 if self._waiting else IDLE_MS)
                while self._wake_receiver.poll(0):
                    self._wake_receiver.recv()
                if self.holding != was_holding:
                    was_holding = not was_holding
                    if callback := self._on_hold if was_holding else self._on_release:
                        callback()
                with self._changed:
                    self._changed.notify_all()
        except BaseException as error:
            self._failure = error
