"""A GPU through pycuda.

pycuda has no graphs, cannot register memory of NumPy 2's arrays, and does not make a primary context
non-current when it releases the context. For these tasks, this module calls the driver's library directly.
"""

import ctypes
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import pycuda.driver as cuda
from numpy.typing import NDArray
from seqd_client.errors import first_line

from engines.devices.driver import DEFAULT_SHARED_BYTES, Address, DeviceInfo, Handle, whole_pages
from engines.devices.probe import DriverLibrary, probe
from engines.errors import EngineError

_CAPTURE_MODE_THREAD_LOCAL = 1
"""``CUstreamCaptureMode``."""

_NON_BLOCKING = 1
"""``CUstream_flags``; pycuda has no name for it."""


class PycudaDriver:
    """A :class:`engines.devices.driver.Driver` of one GPU, current in the thread that makes it.

    Handles are numbers, so that no object of pycuda outlives the context.

    Raises
    ------
    EngineError : no driver, no such GPU, or the GPU refuses.
    """

    def __init__(self, index: int = 0) -> None:
        found = probe()
        gpu = found.device(index)
        self._library = DriverLibrary()
        _call(cuda.init)
        device = _call(cuda.Device, index)
        self.info = DeviceInfo(
            name=gpu.name,
            compute_capability=gpu.compute_capability,
            multiprocessors=int(_call(device.get_attribute, cuda.device_attribute.MULTIPROCESSOR_COUNT)),
            memory_bytes=int(_call(device.total_memory)),
            driver=found.driver,
        )
        self._context = _call(device.retain_primary_context)
        self._closed = False
        self._streams: dict[Handle, Handle] = {}
        self._events: dict[Handle, Handle] = {}
        self._kernels: dict[Handle, Handle] = {}
        self._modules: list[Handle] = []
        self._graphs: list[int] = []
        self._memory: dict[Address, Handle] = {}
        self._pinned: dict[int, NDArray[np.uint8]] = {}
        self._shared: dict[Handle, int] = {}
        """The raised limit of dynamic shared memory, bytes, of each kernel that needs more than the default."""
        self.attach()

    def attach(self) -> None:
        _call(self._context.push)

    def detach(self) -> None:
        _call(cuda.Context.pop)

    def stream(self) -> Handle:
        stream = _call(cuda.Stream, _NON_BLOCKING)
        self._streams[stream.handle] = stream
        return stream.handle

    def event(self, *, timing: bool = False) -> Handle:
        flags = cuda.event_flags
        # A waiting thread must sleep, so that the processor is free for the joint fit.
        event = _call(cuda.Event, flags.BLOCKING_SYNC | (0 if timing else flags.DISABLE_TIMING))
        self._events[len(self._events)] = event
        return len(self._events) - 1

    def record(self, event: Handle, stream: Handle) -> None:
        _call(self._events[event].record, self._streams[stream])

    def wait_for(self, event: Handle, stream: Handle) -> None:
        _call(self._streams[stream].wait_for_event, self._events[event])

    def synchronize(self, event: Handle) -> None:
        _call(self._events[event].synchronize)

    def elapsed_ms(self, start: Handle, stop: Handle) -> float:
        return float(_call(self._events[start].time_till, self._events[stop]))

    def allocate(self, size: int) -> Address:
        memory = _call(cuda.mem_alloc, max(size, 1))
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: Address) -> None:
        _call(self._memory.pop(address).free)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        memory = whole_pages(size)
        start = memory.ctypes.data
        self._library.call("cuMemHostRegister_v2", ctypes.c_void_p(start), ctypes.c_size_t(memory.nbytes), 0)
        self._pinned[start] = memory
        return memory[:size]

    def unpin(self, memory: NDArray[np.uint8]) -> None:
        del self._pinned[memory.ctypes.data]
        self._library.call("cuMemHostUnregister", ctypes.c_void_p(memory.ctypes.data))

    def upload(self, to: Address, memory: NDArray[np.uint8], stream: Handle) -> None:
        if memory.nbytes:
            _call(cuda.memcpy_htod_async, to, memory, self._streams[stream])

    def download(self, memory: NDArray[np.uint8], address: Address, stream: Handle) -> None:
        if memory.nbytes:
            _call(cuda.memcpy_dtoh_async, memory, address, self._streams[stream])

    def clear(self, address: Address, size: int, stream: Handle) -> None:
        if size:
            _call(cuda.memset_d8_async, address, 0, size, self._streams[stream])

    def kernels(self, ptx: bytes, names: Sequence[str]) -> dict[str, Handle]:
        # The driver reads PTX up to a terminating zero; a binary states its own length.
        module = _call(cuda.module_from_buffer, ptx + b"\0")
        self._modules.append(module)
        handles = {}
        for name in names:
            handles[name] = len(self._kernels)
            self._kernels[handles[name]] = _call(module.get_function, name)
        return handles

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
        function = self._kernels[kernel]
        if shared > self._shared.get(kernel, DEFAULT_SHARED_BYTES):
            attribute = cuda.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
            _call(function.set_attribute, attribute, shared)
            self._shared[kernel] = shared
        values = [value if isinstance(value, np.generic) else np.uint64(value) for value in arguments]
        _call(function, *values, grid=grid, block=(block, 1, 1), shared=shared, stream=self._streams[stream])

    def capture(self, stream: Handle, work: Callable[[], None]) -> Handle | None:
        call, on = self._library.call, ctypes.c_void_p(stream)
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        call("cuStreamBeginCapture_v2", on, _CAPTURE_MODE_THREAD_LOCAL)
        done = False
        try:
            with suppress(EngineError):
                work()
                done = True
        finally:
            # A refused capture must be ended too, or the stream keeps capturing.
            with suppress(EngineError):
                call("cuStreamEndCapture", on, ctypes.byref(graph))
                if done:
                    call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
            if graph:
                call("cuGraphDestroy", graph)
        if executable.value is None:
            return None
        self._graphs.append(executable.value)
        return executable.value

    def replay(self, graph: Handle, stream: Handle) -> None:
        self._library.call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        call = self._library.call
        # After a failed kernel every call fails, but the context must still be released.
        with suppress(EngineError):
            _call(cuda.Context.synchronize)
        for graph in self._graphs:
            with suppress(EngineError):
                call("cuGraphExecDestroy", ctypes.c_void_p(graph))
        for pinned in self._pinned:
            with suppress(EngineError):
                call("cuMemHostUnregister", ctypes.c_void_p(pinned))
        # pycuda frees objects to which there are no references any more.
        for owned in (self._kernels, self._modules, self._events, self._streams, self._memory, self._pinned):
            owned.clear()
        with suppress(EngineError):
            self.detach()
        _call(self._context.detach)  # pycuda makes the context current again here
        with suppress(EngineError):
            call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))


def _call(function: Callable[..., Handle], *arguments: object, **options: object) -> Handle:
    """The result of a pycuda function; raises :class:`EngineError` with the call and error that pycuda names."""
    try:
        return function(*arguments, **options)
    except cuda.Error as error:
        raise EngineError(f"GPU: {first_line(error)}") from None
