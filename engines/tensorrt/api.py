"""The part of TensorRT's Python API that is used here, and finding it.

The full library builds and runs plans, the lean runtime runs them; both have the same names for what
both can do. Neither comes with types, so these protocols say what is relied on. Most calls answer
``None`` or ``False`` where they fail: see :class:`engines.tensorrt.log.Log`.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, cast

from engines.errors import EngineError, first_line

MODULES = ("tensorrt", "tensorrt_bindings", "tensorrt_lean", "tensorrt_lean_bindings")
"""The full library first. Only one is imported: their types are the same to the interpreter."""

INSTALL = (
    "`pip install tensorrt-cu13` to build and run plans, "
    "`pip install tensorrt-lean-cu13-bindings tensorrt-lean-cu13-libs` to run them"
)

Value = Any
"""An enumerator or object of TensorRT's that is only handed on."""


class HostMemory(Protocol):
    """Memory of the library; ``bytes`` copies it."""

    def __buffer__(self, flags: int, /) -> memoryview: ...


class ParserError(Protocol):
    """What a parser found wrong."""

    def desc(self) -> str: ...


class OnnxParser(Protocol):
    """Fills a network from an ONNX graph."""

    @property
    def num_errors(self) -> int: ...
    def parse(self, model: bytes) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...


class TimingCache(Protocol):
    """What a builder measured."""

    def serialize(self) -> HostMemory | None: ...


class BuilderConfig(Protocol):
    """How a plan is built."""

    profiling_verbosity: Value

    def set_flag(self, flag: Value) -> None: ...
    def set_memory_pool_limit(self, pool: Value, pool_size: int) -> None: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None: ...
    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool: ...
    def get_timing_cache(self) -> TimingCache | None: ...


class Builder(Protocol):
    """Builds plans."""

    def create_network(self, flags: int) -> Value: ...
    def create_builder_config(self) -> BuilderConfig | None: ...
    def build_serialized_network(self, network: Value, config: BuilderConfig) -> HostMemory | None: ...


class Inspector(Protocol):
    """Describes the layers of an engine."""

    def get_engine_information(self, format: Value) -> str: ...


class Context(Protocol):
    """An engine with scratch memory, ready to run."""

    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...


class CudaEngine(Protocol):
    """A plan that is loaded."""

    @property
    def num_io_tensors(self) -> int: ...
    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_shape(self, name: str) -> Sequence[int]: ...
    def get_tensor_dtype(self, name: str) -> Value: ...
    def create_execution_context(self) -> Context | None: ...
    def create_engine_inspector(self) -> Inspector | None: ...


class Runtime(Protocol):
    """Loads plans."""

    def load_runtime(self, path: str) -> "Runtime | None": ...
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> CudaEngine | None: ...


class TensorRT(Protocol):
    """The module."""

    __version__: str
    ILogger: type[Any]
    DataType: Value
    LayerInformationFormat: Value
    BuilderFlag: Value
    MemoryPoolType: Value
    ProfilingVerbosity: Value
    NetworkDefinitionCreationFlag: Value

    def Runtime(self, logger: Value) -> Runtime | None: ...
    def Builder(self, logger: Value) -> Builder | None: ...
    def OnnxParser(self, network: Value, logger: Value) -> OnnxParser | None: ...


def load_tensorrt() -> TensorRT:
    """The full library where it is installed, else the lean runtime.

    A runtime must not be made where there is no driver: open a device first.

    Raises
    ------
    EngineError : neither is installed, or what is installed cannot be loaded.
    """
    for name in MODULES:
        if find_spec(name) is None:
            continue
        try:
            return cast("TensorRT", import_module(name))
        except Exception as error:  # half installed, it raises what it likes
            raise EngineError(f"TensorRT: {name} cannot be loaded: {first_line(error)}") from error
    raise EngineError(f"TensorRT is not installed: {INSTALL}")


def can_build(trt: TensorRT) -> bool:
    """Whether this is the full library."""
    return hasattr(trt, "Builder")
