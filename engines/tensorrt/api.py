"""The part of TensorRT's Python API that seqd uses, its log, and loading of plans."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from seqd_client.errors import first_line

from engines.errors import EngineError

Value = Any
"""An enumerator or object of TensorRT that seqd only passes back to it."""


class HostMemory(Protocol):
    """Memory of the library; ``bytes`` copies it."""

    def __buffer__(self, flags: int, /) -> memoryview: ...


class ParserError(Protocol):
    """An error that the parser found in a graph."""

    def desc(self) -> str: ...


class OnnxParser(Protocol):
    """Fills a network from an ONNX graph."""

    @property
    def num_errors(self) -> int: ...
    def parse(self, model: bytes) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...


class TimingCache(Protocol):
    """The run times of kernels that a builder measured."""

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
    """The Python module ``tensorrt``, or its lean counterpart."""

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


T = TypeVar("T")

MAX_ERRORS = 20
"""Number of errors that are kept; the first one usually names the cause."""


class Log:
    """Collects TensorRT's errors instead of printing them; a call that fails raises the first one."""

    def __init__(self, trt: TensorRT) -> None:
        errors: list[str] = []
        serious = (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)

        class _Logger(trt.ILogger):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401
                if severity in serious and len(errors) < MAX_ERRORS:
                    errors.append(msg)

        self._errors = errors
        self.logger = _Logger()
        """The logger that TensorRT's objects are made with."""

    def result(self, what: str, make: Callable[[], T | None]) -> T:
        """The result of a call; raises :class:`EngineError` where there is no result or the call raises."""
        self._errors.clear()
        try:
            result = make()
        except (TypeError, RuntimeError) as error:  # pybind11 raises these for a null pointer
            raise self.failure(what, str(error)) from None
        if result is None:
            raise self.failure(what)
        return result

    def check(self, what: str, do: Callable[[], bool]) -> None:
        """Raises :class:`EngineError` where a call returns False."""
        if not self.result(what, do):
            raise self.failure(what)

    def failure(self, what: str, reason: str = "") -> EngineError:
        """An error with the first message that TensorRT reported, else with the reason, if there is one."""
        with suppress(IndexError):
            reason = self._errors[0]
        first = next(iter(reason.splitlines()), "")
        return EngineError(f"TensorRT: {what} failed" + (f": {first}" if first else ""))


MODULES = ("tensorrt", "tensorrt_bindings", "tensorrt_lean", "tensorrt_lean_bindings")
"""The full library comes first. Only one module is imported, since a second would define the same types."""

INSTALL = (
    "`pip install tensorrt-cu13` to build and run plans, "
    "`pip install tensorrt-lean-cu13-bindings tensorrt-lean-cu13-libs` to run them"
)


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
        except Exception as error:  # A damaged installation may raise any type.
            raise EngineError(f"TensorRT: {name} cannot be loaded: {first_line(error)}") from error
    raise EngineError(f"TensorRT is not installed: {INSTALL}")


def can_build(trt: TensorRT) -> bool:
    """Whether this is the full library."""
    return hasattr(trt, "Builder")


LEAN_LIBRARIES = "tensorrt_lean_libs"


class LoadedPlan:
    """A TensorRT engine, and the runtimes and log that must live as long as the engine.

    Raises
    ------
    EngineError : TensorRT refuses the plan.
    """

    def __init__(self, trt: TensorRT, content: bytes) -> None:
        self.log = Log(trt)
        runtime = self.log.result("making a runtime", lambda: trt.Runtime(self.log.logger))
        # The first runtime must stay alive if it loads a second one: only the first keeps their common log alive.
        self._runtimes = [runtime]
        try:
            self.engine = self._loaded(runtime, content)
        except EngineError:
            # Plans are built for the lean runtime, and the full library may have to load that runtime first.
            lean = self._lean(runtime) if can_build(trt) else None
            if lean is None:
                raise
            self._runtimes.append(lean)
            self.engine = self._loaded(lean, content)

    def _loaded(self, runtime: Runtime, content: bytes) -> CudaEngine:
        return self.log.result("loading a plan", lambda: runtime.deserialize_cuda_engine(content))

    def _lean(self, runtime: Runtime) -> Runtime | None:
        library = _lean_library()
        return None if library is None else runtime.load_runtime(str(library))


def _lean_library() -> Path | None:
    found = find_spec(LEAN_LIBRARIES)
    folders = [] if found is None else found.submodule_search_locations or []
    return next((path for folder in folders for path in sorted(Path(folder).glob("libnvinfer_lean.so.*"))), None)
