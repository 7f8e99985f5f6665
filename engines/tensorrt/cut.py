"""The part of a bundle's graph that a plan is built from."""

from pathlib import Path

from engines.errors import EngineError, first_line
from engines.tensorrt.cache import PlanKey


def cut_graph(network: Path, key: PlanKey) -> bytes:
    """An ONNX graph with the inputs, outputs and shapes of a plan.

    All shapes are fixed: of a plan with open ones the types of layers cannot be inspected. So reading out
    is not part of it, for how many positions there are differs from tile to tile.

    Raises
    ------
    EngineError : onnx is not installed, or the graph has not these inputs and outputs.
    """
    try:
        import onnx
        from onnx.utils import Extractor
    except ModuleNotFoundError:
        raise EngineError("building a plan needs onnx, which is not installed: `pip install onnx`") from None
    except Exception as error:  # beside another protobuf it raises what it likes
        raise EngineError(f"building a plan needs onnx, which cannot be loaded: {first_line(error)}") from error
    shapes = {"images": key.images, **key.outputs}
    try:
        model = Extractor(onnx.load(network)).extract_model(["images"], list(key.outputs))
    except Exception as error:  # whatever onnx raises is about the graph
        raise EngineError(f"graph {network}: {first_line(error)}") from error
    for value in (*model.graph.input, *model.graph.output):
        for dimension, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            dimension.dim_value = size
    # Shapes of what lies between were inferred for open ones.
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())
