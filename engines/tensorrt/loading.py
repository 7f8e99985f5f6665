"""From a plan's bytes to an engine."""

from importlib.util import find_spec
from pathlib import Path

from engines.errors import EngineError
from engines.tensorrt.api import CudaEngine, Runtime, TensorRT, can_build
from engines.tensorrt.log import Log

LEAN_LIBRARIES = "tensorrt_lean_libs"


class LoadedPlan:
    """An engine, and the runtimes and log that have to live as long.

    Raises
    ------
    EngineError : TensorRT refuses the plan.
    """

    def __init__(self, trt: TensorRT, content: bytes) -> None:
        self.log = Log(trt)
        runtime = self.log.made("making a runtime", lambda: trt.Runtime(self.log.logger))
        # One that loaded another has to stay: it alone holds on to the log of both.
        self._runtimes = [runtime]
        try:
            self.engine = self._loaded(runtime, content)
        except EngineError:
            # Plans are built for the lean runtime, which the full library may have to load for them.
            lean = self._lean(runtime) if can_build(trt) else None
            if lean is None:
                raise
            self._runtimes.append(lean)
            self.engine = self._loaded(lean, content)

    def _loaded(self, runtime: Runtime, content: bytes) -> CudaEngine:
        return self.log.made("loading a plan", lambda: runtime.deserialize_cuda_engine(content))

    def _lean(self, runtime: Runtime) -> Runtime | None:
        library = _lean_library()
        return None if library is None else runtime.load_runtime(str(library))


def _lean_library() -> Path | None:
    found = find_spec(LEAN_LIBRARIES)
    folders = [] if found is None else found.submodule_search_locations or []
    return next((path for folder in folders for path in sorted(Path(folder).glob("libnvinfer_lean.so.*"))), None)
