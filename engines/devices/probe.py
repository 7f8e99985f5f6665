"""NVIDIA's driver library, called without a Python package for CUDA."""

import ctypes
from dataclasses import dataclass

from engines.errors import EngineError

DRIVER_LIBRARY = "libcuda.so.1"


class DriverLibrary:
    """``libcuda``.

    Raises
    ------
    EngineError : there is no NVIDIA driver.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(DRIVER_LIBRARY)
        except OSError:
            raise EngineError(f"no NVIDIA driver: {DRIVER_LIBRARY} not found") from None

    def call(self, function: str, *arguments: object) -> None:
        """Call a function by its name in the library; pointers and sizes are ctypes objects.

        Raises
        ------
        EngineError : names the call and what the driver says, such as ``CUDA_ERROR_OUT_OF_MEMORY``.
        """
        code = int(getattr(self._library, function)(*arguments))
        if code:
            name = ctypes.c_char_p()
            self._library.cuGetErrorName(code, ctypes.byref(name))
            error = name.value.decode("ascii", "replace") if name.value else f"error {code}"
            raise EngineError(f"GPU: {function.partition('_v')[0]}: {error}")


MANAGEMENT_LIBRARY = "libnvidia-ml.so.1"

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76
"""``CUdevice_attribute``."""


@dataclass(frozen=True)
class CudaDevice:
    """One GPU."""

    name: str
    compute_capability: tuple[int, int]


@dataclass(frozen=True)
class Cuda:
    """The driver and its devices."""

    driver: str
    """Version of the driver, such as ``580.159.04``, or, if only the version of CUDA is known, for example
    ``CUDA 13.0``."""
    version: tuple[int, int]
    """Newest CUDA that the driver knows."""
    devices: tuple[CudaDevice, ...]
    """At least one."""

    def device(self, index: int) -> CudaDevice:
        """One of the devices; raises :class:`EngineError` where there are not that many."""
        if not 0 <= index < len(self.devices):
            raise EngineError(f"no GPU {index}: there are {len(self.devices)}, counted from 0")
        return self.devices[index]


def probe() -> Cuda:
    """Load the driver and count its devices.

    Raises
    ------
    EngineError : there is no driver, it does not start, or it has no device.
    """
    library = DriverLibrary()
    library.call("cuInit", 0)
    version, number = ctypes.c_int(), ctypes.c_int()
    library.call("cuDriverGetVersion", ctypes.byref(version))
    library.call("cuDeviceGetCount", ctypes.byref(number))
    if number.value == 0:
        raise EngineError("no GPU: the NVIDIA driver has no device")
    cuda = (version.value // 1000, version.value % 1000 // 10)
    devices = tuple(_device(library, index) for index in range(number.value))
    return Cuda(_driver_version() or f"CUDA {cuda[0]}.{cuda[1]}", cuda, devices)


def _device(library: DriverLibrary, index: int) -> CudaDevice:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    library.call("cuDeviceGet", ctypes.byref(device), index)
    library.call("cuDeviceGetName", name, len(name), device)
    library.call("cuDeviceGetAttribute", ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, device)
    library.call("cuDeviceGetAttribute", ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, device)
    return CudaDevice(name.value.decode("utf-8", "replace"), (major.value, minor.value))


def _driver_version() -> str | None:
    """Version of the kernel's driver; CUDA itself gives only the version of CUDA."""
    version = ctypes.create_string_buffer(96)
    try:
        library = ctypes.CDLL(MANAGEMENT_LIBRARY)
        if library.nvmlInit_v2():
            return None
        try:
            return None if library.nvmlSystemGetDriverVersion(version, len(version)) else version.value.decode("ascii")
        finally:
            library.nvmlShutdown()
    except (OSError, AttributeError, UnicodeDecodeError):
        return None
