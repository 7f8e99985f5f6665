"""A GPU through cuda-bindings, NVIDIA's own wrapping of the driver API."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from cuda.bindings import driver as cuda
from numpy.typing import NDArray

from engines.devices.driver import DEFAULT_SHARED_BYTES, Address, DeviceInfo, Handle, whole_pages
from engines.devices.probe import probe
from engines.errors import EngineError


class BindingsDriver:
    """A :class:`engines.devices.driver.Driver` of one GPU, current in the thread that makes it.

    Raises
    ------
    EngineError : no driver, no such GPU, or the GPU refuses.
    """

    def __init__(self, index: int = 0) -> None:
        found = probe()
        gpu = found.device(index)
        _call(cuda.cuInit, 0)
        self._device = _call(cuda.cuDeviceGet, index)
        multiprocessors = cuda.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
        self.info = DeviceInfo(
            name=gpu.name,
            compute_capability=gpu.compute_capability,
            multiprocessors=int(_call(cuda.cuDeviceGetAttribute, multiprocessors, self._device)),
            memory_bytes=int(_call(cuda.cuDeviceTotalMem, self._device)),
            driver=found.driver,
        )
        self._context = _call(cuda.cuDevicePrimaryCtxRetain, self._device)
        self._closed = False
        self._streams: list[Any] = []
        self._events: list[Any] = []
        self._modules: list[Any] = []
        self._graphs: list[Any] = []
        self._memory: set[Address] = set()
        self._pinned: dict[int, NDArray[np.uint8]] = {}
        self._shared: dict[int, int] = {}
        """Dynamic shared memory that a kernel was allowed beyond the default, bytes."""
        self.attach()

    def attach(self) -> None:
        _call(cuda.cuCtxPushCurrent, self._context)

    def detach(self) -> None:
        _call(cuda.cuCtxPopCurrent)

    def stream(self) -> Handle:
        stream = _call(cuda.cuStreamCreate, cuda.CUstream_flags.CU_STREAM_NON_BLOCKING)
        self._streams.append(stream)
        return stream

    def event(self, *, timing: bool = False) -> Handle:
        flags = cuda.CUevent_flags
        # A thread that waits sleeps: the processor has the joint fit to do.
        wanted = flags.CU_EVENT_BLOCKING_SYNC | (0 if timing else flags.CU_EVENT_DISABLE_TIMING)
        event = _call(cuda.cuEventCreate, wanted)
        self._events.append(event)
        return event

    def record(self, event: Handle, stream: Handle) -> None:
        _call(cuda.cuEventRecord, event, stream)

    def wait_for(self, event: Handle, stream: Handle) -> None:
        _call(cuda.cuStreamWaitEvent, stream, event, 0)

    def synchronize(self, event: Handle) -> None:
        _call(cuda.cuEventSynchronize, event)

    def elapsed_ms(self, start: Handle, stop: Handle) -> float:
        return float(_call(cuda.cuEventElapsedTime, start, stop))

    def allocate(self, size: int) -> Address:
        address = int(_call(cuda.cuMemAlloc, max(size, 1)))
        self._memory.add(address)
        return address

    def free(self, address: Address) -> None:
        self._memory.remove(address)
        _call(cuda.cuMemFree, address)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        memory = whole_pages(size)
        _call(cuda.cuMemHostRegister, memory.ctypes.data, memory.nbytes, 0)
        self._pinned[memory.ctypes.data] = memory
        return memory[:size]

    def unpin(self, memory: NDArray[np.uint8]) -> None:
        del self._pinned[memory.ctypes.data]
        _call(cuda.cuMemHostUnregister, memory.ctypes.data)

    def upload(self, to: Address, memory: NDArray[np.uint8], stream: Handle) -> None:
        if memory.nbytes:
            _call(cuda.cuMemcpyHtoDAsync, to, memory.ctypes.data, memory.nbytes, stream)

    def download(self, memory: NDArray[np.uint8], address: Address, stream: Handle) -> None:
        if memory.nbytes:
            _call(cuda.cuMemcpyDtoHAsync, memory.ctypes.data, address, memory.nbytes, stream)

    def clear(self, address: Address, size: int, stream: Handle) -> None:
        if size:
            _call(cuda.cuMemsetD8Async, address, 0, size, stream)

    def kernels(self, ptx: bytes, names: Sequence[str]) -> dict[str, Handle]:
        # Of PTX the driver reads to a terminating zero; a binary knows its length.
        module = _call(cuda.cuModuleLoadData, ptx + b"\0")
        self._modules.append(module)
        return {name: _call(cuda.cuModuleGetFunction, module, name.encode("ascii")) for name in names}

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
        if shared > self._shared.get(int(kernel), DEFAULT_SHARED_BYTES):
            attribute = cuda.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _call(cuda.cuFuncSetAttribute, kernel, attribute, shared)
            self._shared[int(kernel)] = shared
        values = [np.asarray(value if isinstance(value, np.generic) else np.uint64(value)) for value in arguments]
        pointers = np.array([value.ctypes.data for value in values], np.uint64)
        _call(cuda.cuLaunchKernel, kernel, *grid, block, 1, 1, shared, stream, pointers.ctypes.data, 0)

    def capture(self, stream: Handle, work: Callable[[], None]) -> Handle | None:
        _call(cuda.cuStreamBeginCapture, stream, cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        done, executable = False, None
        try:
            with suppress(EngineError):
                work()
                done = True
        finally:
            # A capture that was refused has to be ended too, or the stream stays in it.
            code, graph = cuda.cuStreamEndCapture(stream)
            if not code:
                if done:
                    code, executable = cuda.cuGraphInstantiate(graph, 0)
                cuda.cuGraphDestroy(graph)
        if not done or code:
            return None
        self._graphs.append(executable)
        return executable

    def replay(self, graph: Handle, stream: Handle) -> None:
        _call(cuda.cuGraphLaunch, graph, stream)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        # After a failed kernel every call fails, and the context goes all the same.
        cuda.cuCtxSynchronize()
        for graph in self._graphs:
            cuda.cuGraphExecDestroy(graph)
        for module in self._modules:
            cuda.cuModuleUnload(module)
        for event in self._events:
            cuda.cuEventDestroy(event)
        for stream in self._streams:
            cuda.cuStreamDestroy(stream)
        for address in self._memory:
            cuda.cuMemFree(address)
        for pinned in self._pinned:
            cuda.cuMemHostUnregister(pinned)
        self._pinned.clear()
        with suppress(EngineError):
            self.detach()
        _call(cuda.cuDevicePrimaryCtxRelease, self._device)


def _call(function: Callable[..., Any], *arguments: object) -> Handle:
    """What a driver call returns beside its code; raises :class:`EngineError` naming the call and the code."""
    code, *results = function(*arguments)
    if code:
        raise EngineError(f"GPU: {function.__name__}: {cuda.CUresult(code).name}")
    return results[0] if results else None
