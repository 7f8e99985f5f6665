"""Slots and threads that every engine shares: lease, submit, collect, close.

A :class:`Runner` holds the code that differs between devices. The device thread owns the runner: it opens the
device, starts every tile on the device and releases the device. The waiting thread waits for tiles in the order in
which they were started, so that the start of a tile never waits for the end of another::

    submit ──▶ [submitted] ──▶ device thread: start ──▶ [started] ──▶ waiting thread: wait ──▶ done
"""

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from seqd_client.errors import SeqdError, first_line

from engines.contract import Answer, EngineInfo, Request, Slot
from engines.errors import EngineError, EngineLostError

OPEN_TIMEOUT_S = 600.0
"""Limit of opening a device, loading a plan and compiling kernels."""

CLOSE_TIMEOUT_S = 60.0


class Buffers(Protocol):
    """The memory that a device needs for one tile image while it computes it."""

    @property
    def pixels(self) -> NDArray[np.uint16]:
        """(4, H, W) to fill."""


B = TypeVar("B", bound=Buffers)


class Runner(Protocol[B]):
    """A network on a device. Everything but ``wait`` and ``answer`` runs in the device thread."""

    @property
    def info(self) -> EngineInfo:
        """The device, precision and library that the engine uses."""

    def buffers(self) -> B:
        """Room for one more tile; called once a slot, before the first tile."""

    def start(self, buffers: B, request: Request) -> None:
        """Start the computation of a tile; raises when the device refuses."""

    def wait(self, buffers: B) -> None:
        """Wait until a started tile's answer lies in its buffers; raises when its computation failed.

        Raises :class:`EngineLostError` when every later tile would fail too.
        """

    def answer(self, buffers: B, request: Request) -> Answer:
        """The answer of a tile after :meth:`wait`, copied out of its buffers; any thread may call this, even while the
        runner is closed.
        """

    def close(self) -> None:
        """Wait for what is on the device and release it."""


@dataclass(eq=False)
class _Slot(Generic[B]):
    """Buffers and the state of the work on them."""

    buffers: B
    request: Request | None = None
    error: str | None = None
    abandoned: bool = False
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def pixels(self) -> NDArray[np.uint16]:
        return self.buffers.pixels


class SlottedEngine(Generic[B]):
    """An :class:`engines.contract.Engine` around a runner.

    Parameters
    ----------
    name : of the backend, for errors.
    open_runner : called in the device thread.

    Raises
    ------
    SeqdError : the error that the runner raised while it was opened.
    EngineError : the runner raised an error of another type, or was not open in time.
    """

    def __init__(self, name: str, open_runner: Callable[[], Runner[B]], *, slots: int) -> None:
        self._name, self._open_runner = name, open_runner
        self._free: queue.Queue[_Slot[B]] = queue.Queue()
        self._submitted: queue.Queue[_Slot[B] | None] = queue.Queue()
        self._started: queue.Queue[_Slot[B] | None] = queue.Queue()
        self._lock = threading.Lock()
        """Lock for submitting, ending and abandoning a tile, and for closing."""
        self._closed = False
        self._lost = ""
        """Reason why no more tiles are computed; empty while the engine works."""
        self._abandoned = 0
        """Number of tiles that took too long; each still holds its slot."""
        self._in_flight, self._busy_since, self._busy_before = 0, 0.0, 0.0
        self._opened: queue.Queue[Runner[B] | BaseException] = queue.Queue()
        self._waiter = threading.Thread(target=self._wait, name="engine-answers", daemon=True)
        self._device = threading.Thread(target=self._run_device, args=(slots,), name="engine", daemon=True)
        self._device.start()
        try:
            opened = self._opened.get(timeout=OPEN_TIMEOUT_S)
        except queue.Empty:
            self._submitted.put(None)  # if the runner opens later, it is released
            raise EngineError(f"engine {name}: not open after {OPEN_TIMEOUT_S:g} s") from None
        if isinstance(opened, BaseException):
            self._device.join()
            if isinstance(opened, SeqdError) or not isinstance(opened, Exception):
                raise opened
            # Runtimes and drivers may raise any type.
            raise EngineError(f"engine {name}: {first_line(opened)}") from opened
        self.info = opened.info

    def lease(self, timeout_s: float) -> Slot:
        self._check_open()
        try:
            return self._free.get(timeout=timeout_s)
        except queue.Empty:
            # All slots are held by tiles that took too long and still have not ended, so the device is lost.
            kind = EngineLostError if self._abandoned == self.info.slots else EngineError
            raise kind(f"engine {self._name}: none of {self.info.slots} slots came free in {timeout_s:g} s") from None

    def submit(self, slot: Slot, request: Request) -> None:
        assert isinstance(slot, _Slot)
        slot.request, slot.error, slot.abandoned = request, None, False
        slot.done.clear()
        with self._lock:
            self._check_open()
            if self._in_flight == 0:
                self._busy_since = time.monotonic()
            self._in_flight += 1
            self._submitted.put(slot)

    def collect(self, slot: Slot, timeout_s: float) -> Answer:
        self._check_open()
        assert isinstance(slot, _Slot)
        assert slot.request is not None
        finished = slot.done.wait(timeout_s)
        with self._lock:
            self._check_open()
            if not finished and not slot.done.is_set():
                slot.abandoned = True  # the device may still write to it
                self._abandoned += 1
                raise EngineError(f"engine {self._name}: a tile took longer than {timeout_s:g} s")
        try:
            if slot.error is not None:
                raise EngineError(f"engine {self._name}: {slot.error}")
            return self._runner.answer(slot.buffers, slot.request)
        except SeqdError:
            raise
        except Exception as error:  # For example, memory has no room for a map.
            raise EngineError(f"engine {self._name}: {first_line(error)}") from error
        finally:
            self._free.put(slot)

    @property
    def busy_s(self) -> float:
        with self._lock:
            return self._busy_before + (time.monotonic() - self._busy_since if self._in_flight else 0.0)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._submitted.put(None)
        self._device.join(CLOSE_TIMEOUT_S)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"engine {self._name}: it is closed")
        if self._lost:
            raise EngineLostError(f"engine {self._name}: {self._lost}")

    def _run_device(self, slots: int) -> None:
        """The device thread: open, start tiles until told to close, release."""
        try:
            runner = self._open_runner()
            try:
                for _ in range(slots):
                    self._free.put(_Slot(runner.buffers()))
            except BaseException:
                with suppress(Exception):
                    runner.close()
                raise
        except BaseException as error:
            self._opened.put(error)
            return
        self._runner = runner
        self._waiter.start()
        self._opened.put(runner)
        while (slot := self._submitted.get()) is not None:
            assert slot.request is not None
            try:
                _check(slot.request)
                runner.start(slot.buffers, slot.request)
            except Exception as error:  # The runtime may raise any type; only this tile fails.
                slot.error = first_line(error)
            self._started.put(slot)
        self._started.put(None)
        self._waiter.join(CLOSE_TIMEOUT_S)
        with suppress(Exception):  # The failure of every tile was already reported.
            runner.close()
        # Other objects may still refer to the engine. The slots are dropped here, so that their memory is freed.
        self._free = queue.Queue()

    def _wait(self) -> None:
        """The waiting thread: tiles end in the order in which they were started."""
        while (slot := self._started.get()) is not None:
            try:
                self._runner.wait(slot.buffers)
            except Exception as error:
                slot.error = slot.error or first_line(error)
                if isinstance(error, EngineLostError):
                    self._lost = slot.error
            with self._lock:
                self._in_flight -= 1
                if self._in_flight == 0:
                    self._busy_before += time.monotonic() - self._busy_since
                slot.done.set()
                if slot.abandoned:
                    self._abandoned -= 1
                    self._free.put(slot)


def _check(request: Request) -> None:
    """Raise :class:`EngineError` if the shapes of a request are wrong.

    With wrong shapes a device would read beyond its input or give another answer.
    """
    for name, found in (("offset", request.offset.shape), ("gain", request.gain.shape)):
        if found != (4,):
            raise EngineError(f"{name} of a request has shape {found}, (4,) is needed")
    if request.positions is not None:
        found = request.positions.shape
        if len(found) != 3 or (found[0], found[2]) != (4, 2):
            raise EngineError(f"positions of a request have shape {found}, (4, n, 2) is needed")
