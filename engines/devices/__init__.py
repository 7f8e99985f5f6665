"""Devices for double-buffered engines: a GPU through pycuda, and the host."""

from seqd_client.errors import first_line

from engines.devices.driver import Driver
from engines.devices.probe import probe
from engines.errors import EngineError


def open_cuda(index: int = 0) -> Driver:
    """Open a GPU through pycuda; its context is current in the calling thread.

    Raises
    ------
    EngineError : there is no driver or no such GPU, pycuda is not installed or cannot be loaded, or the GPU refuses.
    """
    probe().device(index)
    try:
        from engines.devices.pycuda import PycudaDriver
    except ModuleNotFoundError:
        raise EngineError("no Python package for CUDA: install pycuda") from None
    except Exception as error:  # It may have been built for another driver.
        raise EngineError(f"pycuda cannot be loaded: {first_line(error)}") from error
    return PycudaDriver(index)
