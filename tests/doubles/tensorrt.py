"""A double of TensorRT, which needs a GPU: its manners, with OpenVINO computing on memory of the host.

It answers ``None`` and ``False`` where it fails and tells why only to its logger; its plans do not load when
they were altered; its inspector writes as version 10 or 11 does. ``refuse`` names calls that fail.
"""

import ctypes
import hashlib
import json
from enum import IntEnum
from math import prod

import numpy as np
import onnx

from engines.openvinolibrary import openvino

MAGIC = b"ftrt"


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2

    INTERNAL_ERROR, ERROR, WARNING = Severity


class DataType(IntEnum):
    FLOAT = 0
    HALF = 1


class LayerInformationFormat(IntEnum):
    JSON = 1


class BuilderFlag(IntEnum):
    VERSION_COMPATIBLE = 12
    EXCLUDE_LEAN_RUNTIME = 13


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class ProfilingVerbosity(IntEnum):
    LAYER_NAMES_ONLY = 0
    DETAILED = 2


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class Lean:
    """The lean runtime."""

    ILogger, DataType, LayerInformationFormat = ILogger, DataType, LayerInformationFormat
    BuilderFlag, MemoryPoolType, ProfilingVerbosity = BuilderFlag, MemoryPoolType, ProfilingVerbosity

    def __init__(self, version="11.4.0.106", refuse=(), says="", weights="Half", through_lean=False):
        self.__version__, self.refuse, self.says, self.weights = version, set(refuse), says, weights
        self.through_lean, self.built, self.workspace = through_lean, 0, None

    def Runtime(self, logger):
        return _Runtime(self, logger) if self.agrees("Runtime", logger) else None

    def agrees(self, call, logger):
        if call not in self.refuse:
            return True
        if self.says:
            logger.log(ILogger.WARNING, "something else")
            logger.log(ILogger.ERROR, self.says)
            logger.log(ILogger.ERROR, "what follows from it")
        return False


class Full(Lean):
    """The full library."""

    NetworkDefinitionCreationFlag = NetworkDefinitionCreationFlag

    def Builder(self, logger):
        if not self.agrees("Builder", logger):
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return _Builder(self, logger)

    def OnnxParser(self, network, logger):
        return _Parser(self, network, logger) if self.agrees("OnnxParser", logger) else None


class _Network:
    def __init__(self, typed):
        self.typed, self.graph = typed, None


class _Parser:
    def __init__(self, trt, network, logger):
        self._trt, self._network, self._logger, self._errors = trt, network, logger, []

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]

    def parse(self, model):
        try:
            onnx.checker.check_model(onnx.load_model_from_string(model))
        except Exception as error:
            self._errors.append(_ParserError(str(error)))
            return False
        self._network.graph = model
        return self._trt.agrees("parse", self._logger)


class _ParserError:
    def __init__(self, text):
        self._text = text

    def desc(self):
        return self._text


class _TimingCache:
    def __init__(self, content):
        self.content = content

    def serialize(self):
        return bytearray(self.content)


class _Config:
    def __init__(self, trt, logger):
        self._trt, self._logger = trt, logger
        self.profiling_verbosity, self.flags, self._cache = ProfilingVerbosity.LAYER_NAMES_ONLY, set(), None

    def set_flag(self, flag):
        self.flags.add(flag)

    def set_memory_pool_limit(self, pool, pool_size):
        self._trt.workspace = (pool, pool_size)

    def create_timing_cache(self, serialized_timing_cache):
        known = not serialized_timing_cache or serialized_timing_cache.startswith(b"measured")
        return _TimingCache(serialized_timing_cache) if known else None

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        self._cache = cache
        return self._trt.agrees("set_timing_cache", self._logger)

    def get_timing_cache(self):
        return self._cache


class _Builder:
    def __init__(self, trt, logger):
        self._trt, self._logger = trt, logger

    def create_network(self, flags):
        return _Network(typed=bool(flags & 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED))

    def create_builder_config(self):
        return _Config(self._trt, self._logger)

    def build_serialized_network(self, network, config):
        if not self._trt.agrees("build_serialized_network", self._logger):
            return None
        assert {BuilderFlag.VERSION_COMPATIBLE, BuilderFlag.EXCLUDE_LEAN_RUNTIME} <= config.flags
        config.get_timing_cache().content += b"measured"
        self._trt.built += 1
        head = json.dumps({"typed": network.typed, "verbosity": config.profiling_verbosity}).encode() + b"\n"
        return bytearray(MAGIC + hashlib.sha256(head + network.graph).digest() + head + network.graph)


class _Runtime:
    def __init__(self, trt, logger, lean=False):
        self._trt, self._logger, self._lean = trt, logger, lean

    def load_runtime(self, path):
        assert "libnvinfer_lean.so" in path
        return _Runtime(self._trt, self._logger, lean=True) if self._trt.through_lean else None

    def deserialize_cuda_engine(self, serialized_engine):
        if not self._trt.agrees("deserialize_cuda_engine", self._logger):
            return None
        if self._trt.through_lean and not self._lean:
            self._logger.log(ILogger.ERROR, "the plan needs the lean runtime")
            return None
        plan = bytes(serialized_engine)
        content = plan[len(MAGIC) + 32 :]
        if not plan.startswith(MAGIC + hashlib.sha256(content).digest()):
            self._logger.log(ILogger.ERROR, "Error Code 1: Serialization (magic tag does not match)")
            return None
        head, graph = content.split(b"\n", 1)
        return _Engine(self._trt, self._logger, json.loads(head), graph)


class _Engine:
    def __init__(self, trt, logger, head, graph):
        self._trt, self._logger, self._head = trt, logger, head
        self._graph, self._model = graph, onnx.load_model_from_string(graph)

    @property
    def _tensors(self):
        return [*self._model.graph.input, *self._model.graph.output]

    @property
    def num_io_tensors(self):
        return len(self._tensors)

    def get_tensor_name(self, index):
        return self._tensors[index].name

    def _type(self, name):
        return next(value.type.tensor_type for value in self._tensors if value.name == name)

    def get_tensor_shape(self, name):
        return [dimension.dim_value for dimension in self._type(name).shape.dim]

    def get_tensor_dtype(self, name):
        return DataType.HALF if self._type(name).elem_type == onnx.TensorProto.FLOAT16 else DataType.FLOAT

    def create_execution_context(self):
        if not self._trt.agrees("create_execution_context", self._logger):
            return None
        return _Context(self._trt, self._logger, self)

    def create_engine_inspector(self):
        return _Inspector(self._trt, self._head, self._model)


class _Inspector:
    def __init__(self, trt, head, model):
        self._trt, self._head, self._model = trt, head, model

    def get_engine_information(self, format):
        assert format is LayerInformationFormat.JSON
        names = [node.name for node in self._model.graph.node]
        if self._head["verbosity"] != ProfilingVerbosity.DETAILED:
            return json.dumps({"Layers": names, "Bindings": []})
        kinds = {
            node.name: "CaskConvolution" if "Conv" in node.op_type else node.op_type for node in self._model.graph.node
        }
        return json.dumps({"Layers": [self._layer(name, kind) for name, kind in kinds.items()]})

    def _layer(self, name, kind):
        # Version 10 chooses types of its own where it is not held to the graph's.
        half = self._head["typed"] or not self._trt.__version__.startswith("10.")
        if self._trt.__version__.startswith("10."):
            text = "Channel major FP16 format where channel % 8 == 0" if half else "Row major linear FP32"
            tensor = {"Name": "x", "Format/Datatype": text}
        else:
            tensor = {"Name": "x", "DataType": "Half" if half else "Float", "Format": "Channel major"}
        layer = {"Name": name, "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor]}
        return layer | ({"Weights": {"Type": self._trt.weights, "Count": 9}} if kind == "CaskConvolution" else {})


class _Context:
    def __init__(self, trt, logger, engine):
        self._trt, self._logger, self._engine, self._addresses = trt, logger, engine, {}
        core = openvino.Core()
        config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
        self._compiled = core.compile_model(core.read_model(engine._graph), "CPU", config)

    def set_tensor_address(self, name, memory):
        assert memory
        self._addresses[name] = memory
        return self._trt.agrees("set_tensor_address", self._logger)

    def execute_async_v3(self, stream_handle):
        assert isinstance(stream_handle, int)
        if not self._trt.agrees("execute_async_v3", self._logger):
            return False
        answers = self._compiled([self._array("images")])
        for output, values in zip(self._engine._model.graph.output, answers.values(), strict=True):
            self._array(output.name)[...] = values
        return True

    def _array(self, name):
        shape = self._engine.get_tensor_shape(name)
        kind = np.float16 if self._engine.get_tensor_dtype(name) is DataType.HALF else np.float32
        size = prod(shape) * np.dtype(kind).itemsize
        memory = (ctypes.c_uint8 * size).from_address(self._addresses[name])
        return np.frombuffer(memory, kind).reshape(shape)
