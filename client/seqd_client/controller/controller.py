"""The controller's side for instrument software: publish frames, and let a thread answer the daemon."""

import math
import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from seqd_client.controller.link import Link
from seqd_client.controller.ring import Ring
from seqd_client.controller.session import ControllerSession, Parts, answers_to, check_declared, encoded, frame_of
from seqd_client.errors import PublishError, UnreachableError
from seqd_client.keys import ServerKeys
from seqd_client.runinfo import Channel, RunInfo, TileId
from seqd_client.sockets import FRAMES, RECOVERY
from seqd_client.wire.codec import WireError, decode
from seqd_client.wire.messages import Resend

QUEUE = 8
"""Messages that wait for the thread; each frame among them is in memory once, for sending and for resending."""

POLL_MS, POLL_S = 5, 0.005
"""Time between two looks of the thread at its queue, and of a method at what it waits for."""

LEAVE_S = 1.0
"""Seconds that the last messages get to leave."""


class Controller:
    """The imaging controller of one run after the other.

    A thread publishes the messages and answers the daemon: where the run is, frames that are asked for again, hold and
    release. The methods are for one thread; they wait while the daemon takes no more frames or holds the flow cell.

    Parameters
    ----------
    frames, recovery : addresses to bind, ``[controller] frames`` and ``recovery`` of the daemon's configuration.
    keys : CURVE keys, for ``tcp://``; see :func:`seqd_client.keys.load_server_keys`.
    ring_bytes : memory of frames that are held to be sent again; the daemon says which cycles need not be held.
    on_hold, on_release : are called from the thread when the daemon asks to hold the flow cell or to release it.
    wait_s : how long :meth:`start` waits for a daemon.
    stuck_s : how long a method waits for a daemon that says nothing.

    Raises
    ------
    SocketError : an address is in use or cannot be used.
    """

    def __init__(
        self,
        frames: str = FRAMES,
        recovery: str = RECOVERY,
        *,
        keys: ServerKeys | None = None,
        ring_bytes: int = 2**31,
        on_hold: Callable[[], None] = lambda: None,
        on_release: Callable[[], None] = lambda: None,
        wait_s: float = 60.0,
        stuck_s: float = 900.0,
    ) -> None:
        self._on_hold, self._on_release = on_hold, on_release
        self._ring_bytes, self._wait_s, self._stuck_s = ring_bytes, wait_s, stuck_s
        self._link = Link(frames, recovery, keys)
        self._session: ControllerSession | None = None
        self._ring = Ring(ring_bytes)
        self._lock = threading.Lock()
        """Guards session and ring, which both threads use."""
        self._messages: queue.Queue[Parts] = queue.Queue(QUEUE)
        self._heard_s = time.monotonic()
        self._closing, self._error = threading.Event(), list[BaseException]()
        self._thread = threading.Thread(target=self._serve, name="controller", daemon=True)
        self._thread.start()

    @property
    def holding(self) -> bool:
        """Whether the daemon asks to hold the flow cell."""
        return self._session is not None and self._session.holding

    @property
    def done(self) -> bool:
        """Whether the daemon needs nothing more of the run."""
        return self._session is not None and self._session.done

    def start(self, info: RunInfo) -> None:
        """Wait for a daemon, and declare a run to it.

        Raises
        ------
        UnreachableError : no daemon subscribed in time.
        """
        self._wait_until(lambda: self._link.subscribed, self._wait_s, "no daemon subscribed")
        with self._lock:
            self._ring = Ring(self._ring_bytes)
            self._session = ControllerSession(info, resent=self._resent, kept=lambda cycle: self._ring.release(cycle))
            start = self._session.start()
        self._send(start)

    def publish(
        self, tile: TileId, cycle: int, channel: Channel, image: NDArray[np.uint16], *, t_ns: int | None = None
    ) -> None:
        """Publish a frame; waits while the daemon holds or takes no more.

        Parameters
        ----------
        cycle : 1-based.
        image : (H, W) uint16 of the size that the run declares; it is copied.
        t_ns : time of exposure, nanoseconds since 1970; now if it is not given.

        Raises
        ------
        PublishError : the run does not declare such a frame, or no run was started.
        UnreachableError : the daemon holds or takes no frames, and says nothing.
        """
        session = self._running()
        check_declared(session.info, tile, cycle, channel, image.shape)
        exposed_ns = time.time_ns() if t_ns is None else t_ns
        frame, pixels = frame_of(session.info.run, tile, cycle, channel, image, t_ns=exposed_ns)
        self._wait_until(
            lambda: session.done or not session.holding,
            self._stuck_s,
            "the daemon holds the flow cell and says nothing",
        )
        with self._lock:
            self._ring.hold(frame, pixels)
            numbered = encoded(frame.model_copy(update={"seq": session.next_seq()}), pixels)
        self._send(numbered)

    def end_cycle(self, cycle: int) -> None:
        """Say that all frames of a 1-based cycle were published; errors as of :meth:`publish`."""
        with self._lock:
            message = self._running().end_cycle(cycle)
        self._send(message)

    def end_run(self) -> None:
        """Say that all frames of the run were published; errors as of :meth:`publish`."""
        with self._lock:
            message = self._running().end_run()
        self._send(message)

    def wait_done(self, timeout_s: float = 3600.0) -> None:
        """Wait until the daemon needs nothing more of the run.

        Raises
        ------
        PublishError : no run was started.
        UnreachableError : the daemon said nothing for ``timeout_s``.
        """
        session = self._running()
        self._wait_until(lambda: session.done, timeout_s, "the daemon is not done with the run and says nothing")

    def close(self) -> None:
        """Stop the thread and close the sockets; messages that wait get a second to leave."""
        self._closing.set()
        self._thread.join()

    def __enter__(self) -> "Controller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _running(self) -> ControllerSession:
        if self._session is None:
            raise PublishError("controller: no run was started")
        return self._session

    def _send(self, message: Parts) -> None:
        """Give a message to the thread; a daemon that is done with the run gets no more of it."""
        session = self._running()
        self._wait_until(lambda: session.done or not self._messages.full(), self._stuck_s, "the daemon takes no frames")
        if not session.done:
            # Only this thread puts messages, so the room that was there is still there.
            self._messages.put_nowait(message)

    def _wait_until(self, ready: Callable[[], bool], limit_s: float, complaint: str) -> None:
        since_s = time.monotonic()
        while True:
            if self._error:
                raise UnreachableError(f"controller: its thread ended: {self._error[0]}") from self._error[0]
            if ready():
                return
            if time.monotonic() - max(since_s, self._heard_s) > limit_s:
                raise UnreachableError(f"controller: {complaint}, for {limit_s:g} s; is `seqd run` running?")
            time.sleep(POLL_S)

    def _serve(self) -> None:
        """The thread: publish what waits, and answer requests."""
        waiting: Parts | None = None
        leave_s = math.inf
        try:
            while True:
                idle = waiting is None and self._messages.empty()
                if self._closing.is_set():
                    leave_s = min(leave_s, time.monotonic() + LEAVE_S)
                    if idle or time.monotonic() > leave_s:
                        return
                self._answer_requests(POLL_MS if idle or waiting is not None else 0)
                if waiting is None and not idle:
                    waiting = self._messages.get_nowait()
                if waiting is not None and self._link.publish(waiting):
                    waiting = None
        except BaseException as error:  # raised in the thread that uses the controller
            self._error.append(error)
        finally:
            self._link.close(linger_s=LEAVE_S)

    def _answer_requests(self, timeout_ms: int) -> None:
        for sender, parts in self._link.requests(timeout_ms):
            self._heard_s = time.monotonic()
            try:
                request, _ = decode(parts)
            except WireError:
                continue  # not a daemon of this protocol: there is nothing to answer
            before = self.holding
            with self._lock:
                answers = answers_to(request, self._session)
            for answer in answers:
                self._link.answer(sender, answer)
            if self.holding != before:
                (self._on_hold if self.holding else self._on_release)()

    def _resent(self, request: Resend) -> Parts | None:
        held = self._ring.find(request)
        return None if held is None else encoded(*held)
