"""Building plans; needs the full library of TensorRT."""

from time import monotonic

from engines.errors import EngineError
from engines.tensorrt.api import BuilderConfig, TensorRT, can_build
from engines.tensorrt.cache import BuiltPlan
from engines.tensorrt.inspection import Inspected, inspect_layers
from engines.tensorrt.loading import LoadedPlan
from engines.tensorrt.log import Log


def build_plan(trt: TensorRT, graph: bytes, *, workspace_bytes: int, timing: bytes) -> BuiltPlan:
    """A plan of an FP16 graph with fixed shapes, for the lean runtime too, inspected layer by layer.

    TensorRT 11 computes in the types of the graph; TensorRT 10 does so when it is told to.

    Parameters
    ----------
    graph : ONNX.
    workspace_bytes : the most device memory that a layer may use beside its inputs and outputs.
    timing : measurements of builds before, may be empty.

    Raises
    ------
    EngineError : this is the lean runtime, TensorRT refuses something (its first error is named), or a
        convolution would not compute in FP16.
    """
    if not can_build(trt):
        raise EngineError("TensorRT: only the lean runtime is installed, it cannot build: `pip install tensorrt-cu13`")
    start, log = monotonic(), Log(trt)
    builder = log.made("making a builder", lambda: trt.Builder(log.logger))
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = log.made("making a network", lambda: builder.create_network(flags))
    parser = log.made("making a parser", lambda: trt.OnnxParser(network, log.logger))
    if not log.made("parsing the graph", lambda: parser.parse(graph)):
        raise log.failure("parsing the graph", parser.get_error(0).desc() if parser.num_errors else "")
    config = log.made("making a configuration", builder.create_builder_config)
    config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    _set_timing(config, timing, log)
    content = bytes(log.made("building a plan", lambda: builder.build_serialized_network(network, config)))
    return BuiltPlan(content, _timing(config, log), _inspected(trt, content), monotonic() - start)


def _set_timing(config: BuilderConfig, timing: bytes, log: Log) -> None:
    try:
        cache = log.made("reading the timing cache", lambda: config.create_timing_cache(timing))
        log.done("using the timing cache", lambda: config.set_timing_cache(cache, False))
    except EngineError:
        if not timing:
            raise
        _set_timing(config, b"", log)  # of another TensorRT or GPU: measured anew


def _timing(config: BuilderConfig, log: Log) -> bytes:
    cache = log.made("the timing cache", config.get_timing_cache)
    return bytes(log.made("writing the timing cache", cache.serialize))


def _inspected(trt: TensorRT, content: bytes) -> Inspected:
    plan = LoadedPlan(trt, content)
    inspector = plan.log.made("inspecting the plan", plan.engine.create_engine_inspector)
    report = plan.log.made(
        "inspecting the plan", lambda: inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    )
    return inspect_layers(report)
