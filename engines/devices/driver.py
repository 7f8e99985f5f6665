"""The interface between engines and a device: memory, streams, events, kernels, graphs.

It is implemented with pycuda for GPUs and with plain memory for the host. In the thread that opens a driver, the
driver's context is current. Only that thread makes and frees memory and handles, and calls :meth:`Driver.close`.
Another thread may wait for events after it has called :meth:`Driver.attach`. Handles are opaque; TensorRT and PyTorch
accept ``int(handle)`` of a stream.
"""

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Handle = Any
"""A stream, event, kernel or graph of the driver that made it."""

Address = int
"""Address of device memory."""

DEFAULT_SHARED_BYTES = 48 * 1024
"""A kernel may use this much dynamic shared memory, bytes, without a request to the driver."""


@dataclass(frozen=True)
class DeviceInfo:
    """The device that is really in use."""

    name: str
    compute_capability: tuple[int, int]
    """(0, 0) on a host."""
    multiprocessors: int
    memory_bytes: int
    driver: str
    """Version of the device's driver."""


class Driver(Protocol):
    """A device's primary context. Every method raises :class:`engines.errors.EngineError` when the device refuses."""

    @property
    def info(self) -> DeviceInfo:
        """The device."""

    def attach(self) -> None:
        """Make the context current in the calling thread."""

    def detach(self) -> None:
        """Undo :meth:`attach`."""

    def stream(self) -> Handle:
        """A stream that does not wait for the default stream."""

    def event(self, *, timing: bool = False) -> Handle: ...

    def record(self, event: Handle, stream: Handle) -> None:
        """Mark the work put on a stream so far."""

    def wait_for(self, event: Handle, stream: Handle) -> None:
        """Make all work that is put on a stream later wait for the work that an event marks."""

    def synchronize(self, event: Handle) -> None:
        """Block the calling thread until the work that an event marks is done."""

    def elapsed_ms(self, start: Handle, stop: Handle) -> float:
        """Milliseconds between two timing events that have happened."""

    def allocate(self, size: int) -> Address:
        """Device memory, bytes; not cleared."""

    def free(self, address: Address) -> None: ...

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """(size,) host memory for copies that run during computation; freed by :meth:`close`.

        The array owns its memory: after :meth:`close` it is ordinary host memory, which may still be used.
        """

    def unpin(self, memory: NDArray[np.uint8]) -> None:
        """Free pinned memory before :meth:`close`."""

    def upload(self, to: Address, memory: NDArray[np.uint8], stream: Handle) -> None:
        """Copy pinned memory to the device; the caller must not change it until the stream has copied it."""

    def download(self, memory: NDArray[np.uint8], address: Address, stream: Handle) -> None:
        """Copy from the device to pinned memory."""

    def clear(self, address: Address, size: int, stream: Handle) -> None:
        """Zero device memory."""

    def kernels(self, ptx: bytes, names: Sequence[str]) -> dict[str, Handle]:
        """Load a module, PTX or machine code for this device, and look up kernels."""

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
        """Run a kernel. Arguments: ``np.int32``, ``np.float32``, and ``int`` for addresses.

        Parameters
        ----------
        shared : dynamic shared memory, bytes. If it exceeds :data:`DEFAULT_SHARED_BYTES`, the kernel's limit is raised.
        """

    def capture(self, stream: Handle, work: Callable[[], None]) -> Handle | None:
        """A graph of what ``work`` puts on the stream; None where the device cannot capture it."""

    def replay(self, graph: Handle, stream: Handle) -> None:
        """Run a captured graph."""

    def close(self) -> None:
        """Wait for the device, free all memory and handles, and release the context."""


def whole_pages(size: int) -> NDArray[np.uint8]:
    """Zeroed memory of at least ``size`` bytes, in whole memory pages that no other array uses."""
    length = max(1, -(-size // mmap.PAGESIZE)) * mmap.PAGESIZE
    memory = np.zeros(length + mmap.PAGESIZE, np.uint8)
    first = -memory.ctypes.data % mmap.PAGESIZE
    return memory[first : first + length]
