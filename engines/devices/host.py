"""The host in the role of a device: device memory is host memory, and work on a stream is done immediately."""

import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.devices.driver import Address, DeviceInfo, Handle
from engines.errors import EngineError


class HostDriver:
    """A :class:`engines.devices.driver.Driver` without a device; it runs no PTX."""

    def __init__(self) -> None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.info = DeviceInfo(processor_name(), (0, 0), os.cpu_count() or 1, memory, "none")
        self._memory: dict[Address, NDArray[np.uint8]] = {}

    def attach(self) -> None: ...

    def detach(self) -> None: ...

    def stream(self) -> Handle:
        return 0

    def event(self, *, timing: bool = False) -> Handle:
        return 0

    def record(self, event: Handle, stream: Handle) -> None: ...

    def wait_for(self, event: Handle, stream: Handle) -> None: ...

    def synchronize(self, event: Handle) -> None: ...

    def elapsed_ms(self, start: Handle, stop: Handle) -> float:
        return 0.0

    def allocate(self, size: int) -> Address:
        memory = np.empty(max(size, 1), np.uint8)
        self._memory[memory.ctypes.data] = memory
        return int(memory.ctypes.data)

    def free(self, address: Address) -> None:
        del self._memory[address]

    def memory_at(self, address: Address) -> NDArray[np.uint8]:
        """The memory that was allocated at an address."""
        return self._memory[address]

    def pinned(self, size: int) -> NDArray[np.uint8]:
        return np.zeros(size, np.uint8)

    def unpin(self, memory: NDArray[np.uint8]) -> None: ...

    def upload(self, to: Address, memory: NDArray[np.uint8], stream: Handle) -> None:
        self._memory[to][: len(memory)] = memory

    def download(self, memory: NDArray[np.uint8], address: Address, stream: Handle) -> None:
        memory[:] = self._memory[address][: len(memory)]

    def clear(self, address: Address, size: int, stream: Handle) -> None:
        self._memory[address][:size] = 0

    def kernels(self, ptx: bytes, names: Sequence[str]) -> dict[str, Handle]:
        raise EngineError("a host runs no CUDA kernels")

    def launch(
        self,
        kernel: Handle,
        *,
        grid: tuple[int, int, int],
        block: int,
        arguments: Sequence[Address | np.generic],
        stream: Handle,
        shared: int = 0,
    ) -> None:
        raise EngineError("a host runs no CUDA kernels")

    def capture(self, stream: Handle, work: Callable[[], None]) -> Handle | None:
        return None

    def replay(self, graph: Handle, stream: Handle) -> None:
        raise EngineError("a host has no graphs")

    def close(self) -> None:
        self._memory.clear()


def processor_name() -> str:
    """Name of the processor where Linux knows one, else its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
