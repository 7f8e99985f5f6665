"""The driver's own library, for what has to be asked without a CUDA binding or is missing in one."""

import ctypes

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
            said = name.value.decode("ascii", "replace") if name.value else f"error {code}"
            raise EngineError(f"GPU: {function.partition('_v')[0]}: {said}")
