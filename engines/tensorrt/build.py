"""Building a plan from a part of a bundle's graph, and inspecting its layers."""

import json
from pathlib import Path
from time import monotonic
from typing import Any

from seqd_client.errors import first_line

from engines.errors import EngineError
from engines.tensorrt.api import BuilderConfig, LoadedPlan, Log, TensorRT, can_build
from engines.tensorrt.cache import BuiltPlan, Inspected, PlanKey


def cut_graph(network: Path, key: PlanKey) -> bytes:
    """An ONNX graph with the inputs, outputs and shapes of a plan.

    All shapes are fixed, because the types of layers cannot be inspected in a plan with dynamic shapes. The
    reading of centres is left out, because the number of positions differs from tile to tile.

    Raises
    ------
    EngineError : onnx is not installed, or the graph does not have these inputs and outputs.
    """
    try:
        import onnx
        from onnx.utils import Extractor
    except ModuleNotFoundError:
        raise EngineError("building a plan needs onnx, which is not installed: `pip install onnx`") from None
    except Exception as error:  # With an unsuitable version of protobuf the import of onnx may raise any type.
        raise EngineError(f"building a plan needs onnx, which cannot be loaded: {first_line(error)}") from error
    shapes = {"images": key.images, **key.outputs}
    try:
        model = Extractor(onnx.load(network)).extract_model(["images"], list(key.outputs))
    except Exception as error:  # onnx may raise any type for a graph that it cannot use.
        raise EngineError(f"graph {network}: {first_line(error)}") from error
    for value in (*model.graph.input, *model.graph.output):
        for dimension, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            dimension.dim_value = size
    # The shapes of inner values were inferred from dynamic inputs.
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


def build_plan(trt: TensorRT, graph: bytes, *, workspace_bytes: int, timing: bytes) -> BuiltPlan:
    """Build a plan of an FP16 graph with fixed shapes and inspect its layers; the lean runtime can load it too.

    TensorRT 11 always computes in the types of the graph; TensorRT 10 needs the flag STRONGLY_TYPED for that.

    Parameters
    ----------
    graph : ONNX.
    workspace_bytes : the most device memory that a layer may use beside its inputs and outputs.
    timing : measurements of earlier builds; may be empty.

    Raises
    ------
    EngineError : this is the lean runtime, TensorRT refuses something (its first error is named), or a
        convolution would not compute in FP16.
    """
    if not can_build(trt):
        raise EngineError("TensorRT: only the lean runtime is installed, it cannot build: `pip install tensorrt-cu13`")
    start, log = monotonic(), Log(trt)
    builder = log.result("making a builder", lambda: trt.Builder(log.logger))
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = log.result("making a network", lambda: builder.create_network(flags))
    parser = log.result("making a parser", lambda: trt.OnnxParser(network, log.logger))
    if not log.result("parsing the graph", lambda: parser.parse(graph)):
        raise log.failure("parsing the graph", parser.get_error(0).desc() if parser.num_errors else "")
    config = log.result("making a configuration", builder.create_builder_config)
    config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    _set_timing(config, timing, log)
    content = bytes(log.result("building a plan", lambda: builder.build_serialized_network(network, config)))
    return BuiltPlan(content, _timing(config, log), _inspected(trt, content), monotonic() - start)


def _set_timing(config: BuilderConfig, timing: bytes, log: Log) -> None:
    try:
        cache = log.result("reading the timing cache", lambda: config.create_timing_cache(timing))
        log.check("using the timing cache", lambda: config.set_timing_cache(cache, False))
    except EngineError:
        if not timing:
            raise
        _set_timing(config, b"", log)  # The measurements are of another TensorRT or GPU.


def _timing(config: BuilderConfig, log: Log) -> bytes:
    cache = log.result("the timing cache", config.get_timing_cache)
    return bytes(log.result("writing the timing cache", cache.serialize))


def _inspected(trt: TensorRT, content: bytes) -> Inspected:
    plan = LoadedPlan(trt, content)
    inspector = plan.log.result("inspecting the plan", plan.engine.create_engine_inspector)
    report = plan.log.result(
        "inspecting the plan", lambda: inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    )
    return inspect_layers(report)


def inspect_layers(report: str) -> Inspected:
    """Read the engine inspector's JSON and check that all convolutions compute in half precision.

    TensorRT 11 gives a tensor's ``DataType``. TensorRT 10 gives a ``Format/Datatype``, which may be ``Half`` or a
    longer text that contains the type, such as ``Channel major FP16 format where channel % 8 == 0``.

    Raises
    ------
    EngineError : the images or weights of a convolution are not FP16, or the report has no convolution.
    """
    try:
        layers = json.loads(report)["Layers"]
    except (ValueError, KeyError, TypeError):
        raise EngineError("TensorRT: the plan's layers cannot be inspected: no list of layers") from None
    convolutions = [layer for layer in layers if isinstance(layer, dict) and _is_convolution(layer)]
    if not convolutions:
        raise EngineError("TensorRT: the plan's precision is unknown: no convolution among its layers")
    for layer in convolutions:
        for kind in _types(layer):
            if not _is_half(kind):
                name = layer.get("Name", "without a name")
                raise EngineError(f"TensorRT: the plan is not FP16: convolution {name} computes from {kind}")
    return Inspected(len(layers), len(convolutions))


def _is_convolution(layer: dict[str, Any]) -> bool:
    """Whether a layer is a convolution or deconvolution, by its type: the name of a reformat layer may contain the name
    of a convolution.
    """
    kinds = (str(layer.get("LayerType", "")), str(layer.get("ParameterType", "")))
    return any("conv" in kind.lower() for kind in kinds)


def _types(layer: dict[str, Any]) -> list[str]:
    """Types of a convolution's input images and, where the report has them, of its weights."""
    images = layer.get("Inputs", [{}])[:1] or [{}]
    keys = {key.lower(): str(value) for key, value in images[0].items()}
    types = [keys.get("datatype") or keys.get("format/datatype") or "an unknown type"]
    weights = layer.get("Weights")
    if isinstance(weights, dict) and "Type" in weights:
        types.append(str(weights["Type"]))
    return types


def _is_half(kind: str) -> bool:
    return bool({"half", "fp16", "float16"} & set(kind.lower().replace(",", " ").split()))
