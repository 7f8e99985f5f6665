"""The few things a double-buffered engine asks of a device, and who provides them."""

from importlib.util import find_spec

from seqd_client.errors import first_line

from engines.devices.driver import Driver
from engines.devices.probe import probe
from engines.errors import EngineError


def open_cuda(index: int = 0) -> Driver:
    """A GPU, through pycuda where it is installed, else through cuda-bindings; current in the calling thread.

    Raises
    ------
    EngineError : no driver, no such GPU, no Python package for it, or the GPU refuses.
    """
    probe().device(index)
    if find_spec("pycuda") is not None:
        try:
            from engines.devices.pycuda import PycudaDriver
        except Exception as error:  # built for another driver
            raise EngineError(f"pycuda cannot be loaded: {first_line(error)}") from error
        return PycudaDriver(index)
    if find_spec("cuda") is not None and find_spec("cuda.bindings") is not None:
        try:
            from engines.devices.bindings import BindingsDriver
        except Exception as error:  # its parts are of versions that do not go together
            raise EngineError(f"cuda-bindings cannot be loaded: {first_line(error)}") from error
        return BindingsDriver(index)
    raise EngineError("no Python package for CUDA: install pycuda or cuda-bindings")
