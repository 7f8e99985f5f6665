"""A device that does what was put on its streams as late, and in as unlucky an order, as it may."""

import random
import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from engines.devices.driver import DeviceInfo
from engines.errors import EngineError

POISON = 0xA5


@dataclass(eq=False)
class Stream:
    work: deque = field(default_factory=deque)


@dataclass(eq=False)
class Mark:
    """One recording of an event."""

    reached: bool = False


@dataclass(eq=False)
class Event:
    mark: Mark = field(default_factory=lambda: Mark(reached=True))


class AdversarialDriver:
    """A driver on host memory that runs nothing before somebody waits for it.

    Then it takes steps from random streams, in every order that streams and events allow, until what is
    waited for has happened, and no step more. Copies read and write when they run, not when they are
    asked for. Kernels are Python functions of their arguments. Memory is poisoned when it is allocated
    and when it is freed.

    Parameters
    ----------
    room : bytes that can be allocated.
    """

    info = DeviceInfo("adversary", (0, 0), 1, 0, "none")

    def __init__(self, seed, *, room=2**30):
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._streams = []
        self._memory = {}
        self._recording = None
        self.room = room

    def attach(self): ...

    def detach(self): ...

    def stream(self):
        self._streams.append(Stream())
        return self._streams[-1]

    def event(self, *, timing=False):
        return Event()

    def record(self, event, stream):
        mark = Mark()

        def reach():
            mark.reached = True

        with self._lock:
            event.mark = mark
            stream.work.append((None, reach))

    def wait_for(self, event, stream):
        with self._lock:
            stream.work.append((event.mark, lambda: None))

    def synchronize(self, event):
        with self._lock:
            mark = event.mark
            while not mark.reached:
                self._step()

    def allocate(self, size):
        if size > self.room:
            raise EngineError(f"adversary: out of memory, {size} bytes of {self.room} left")
        self.room -= size
        memory = np.full(size, POISON, np.uint8)
        self._memory[memory.ctypes.data] = memory
        return memory.ctypes.data

    def free(self, address):
        memory = self._memory.pop(address)
        memory[:] = POISON
        self.room += len(memory)

    def memory_at(self, address):
        return self._memory[address]

    def pinned(self, size):
        return np.full(size, POISON, np.uint8)

    def unpin(self, memory):
        memory[:] = POISON

    def upload(self, to, memory, stream):
        def copy():
            self._memory[to][: len(memory)] = memory

        self._put(stream, copy)

    def download(self, memory, address, stream):
        def copy():
            memory[:] = self._memory[address][: len(memory)]

        self._put(stream, copy)

    def clear(self, address, size, stream):
        def fill():
            self._memory[address][:size] = 0

        self._put(stream, fill)

    def launch(self, kernel, *, grid, block, arguments, stream, shared=0):
        self._put(stream, lambda: kernel(*arguments))

    def capture(self, stream, work):
        self._recording = graph = []
        try:
            work()
        finally:
            self._recording = None
        return graph

    def replay(self, graph, stream):
        for step in graph:
            self._put(stream, step)

    def close(self):
        self._memory.clear()

    def _put(self, stream, step):
        if self._recording is not None:
            self._recording.append(step)
            return
        with self._lock:
            stream.work.append((None, step))

    def _step(self):
        ready = [stream for stream in self._streams if stream.work and _may_run(stream.work[0])]
        assert ready, "the device waits for itself"
        _, step = self._random.choice(ready).work.popleft()
        step()


def _may_run(item):
    awaited, _ = item
    return awaited is None or awaited.reached
