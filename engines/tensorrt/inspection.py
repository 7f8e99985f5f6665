"""Whether a plan computes in the precision that it should: what TensorRT says about its layers."""

import json
from dataclasses import dataclass
from typing import Any

from engines.errors import EngineError


@dataclass(frozen=True)
class Inspected:
    """Layers of a plan."""

    layers: int
    convolutions: int


def inspect_layers(report: str) -> Inspected:
    """Read the engine inspector's JSON and hold the convolutions to half precision.

    TensorRT 11 gives a tensor's ``DataType``, TensorRT 10 a ``Format/Datatype`` that may be spelt
    ``Half`` or lie within ``Channel major FP16 format where channel % 8 == 0``.

    Raises
    ------
    EngineError : a convolution reads or has weights that are not FP16, or none can be seen.
    """
    try:
        layers = json.loads(report)["Layers"]
    except (ValueError, KeyError, TypeError):
        raise EngineError("TensorRT: the plan's layers cannot be inspected: no list of layers") from None
    convolutions = [layer for layer in layers if isinstance(layer, dict) and _is_convolution(layer)]
    if not convolutions:
        raise EngineError("TensorRT: the plan's precision cannot be told: no convolution among its layers")
    for layer in convolutions:
        for kind in _types(layer):
            if not _is_half(kind):
                name = layer.get("Name", "without a name")
                raise EngineError(f"TensorRT: the plan is not FP16: convolution {name} computes from {kind}")
    return Inspected(len(layers), len(convolutions))


def _is_convolution(layer: dict[str, Any]) -> bool:
    """Deconvolutions too; a reformat beside one carries its name, but not its type."""
    kinds = (str(layer.get("LayerType", "")), str(layer.get("ParameterType", "")))
    return any("conv" in kind.lower() for kind in kinds)


def _types(layer: dict[str, Any]) -> list[str]:
    """Of what a convolution multiplies: the images that it reads, and its weights where they are told."""
    images = layer.get("Inputs", [{}])[:1] or [{}]
    keys = {key.lower(): str(value) for key, value in images[0].items()}
    types = [keys.get("datatype") or keys.get("format/datatype") or "an unknown type"]
    weights = layer.get("Weights")
    if isinstance(weights, dict) and "Type" in weights:
        types.append(str(weights["Type"]))
    return types


def _is_half(kind: str) -> bool:
    return bool({"half", "fp16", "float16"} & set(kind.lower().replace(",", " ").split()))
