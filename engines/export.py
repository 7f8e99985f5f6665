"""From trained weights to a graph, and to a bundle."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines.architecture import Architecture
from engines.bundle import FORMAT, NETWORK, WEIGHTS, Hashes, Model, file_hash, write_model
from engines.deployed import Deployed, Output
from engines.network import Network

TRACE_PX, TRACE_POSITIONS = 96, 7
"""Size of the example that the graph is traced with; the graph takes any."""


def export_onnx(
    network: Network,
    path: Path,
    *,
    dtype: torch.dtype = torch.float16,
    outputs: frozenset[Output] = frozenset(Output),
) -> None:
    """Write a graph with dynamic height, width and number of positions; ``network`` is converted in place.

    Inputs are ``images`` (1, 4, H, W) in normalised units and of the type the network computes in, and,
    where centres are among the outputs, ``positions`` (4, n, 2) float32; n may be 0.

    Parameters
    ----------
    dtype : type of the weights and of what the network computes, ``torch.float16`` or ``torch.float32``.
    outputs : what the graph puts out.
    """
    height, width = torch.export.Dim("H", min=1), torch.export.Dim("W", min=1)
    inputs = {"images": torch.zeros(1, 4, TRACE_PX, TRACE_PX + 32, dtype=dtype)}
    shapes = {"images": {2: height, 3: width}}
    if Output.CENTRES in outputs:
        inputs["positions"] = torch.zeros(4, TRACE_POSITIONS, 2)
        shapes["positions"] = {1: torch.export.Dim("n", min=0)}
    program = torch.onnx.export(
        Deployed(network.to(dtype), outputs).eval(),
        tuple(inputs.values()),
        dynamo=True,
        verbose=False,
        external_data=False,
        input_names=list(inputs),
        output_names=[output.value for output in Output if output in outputs],
        dynamic_shapes=shapes,
    )
    assert program is not None
    # The exporter notes where in whose source tree each node comes from.
    for node in program.model.graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    program.save(path)


def write_bundle(
    folder: Path,
    *,
    name: str,
    architecture: Architecture,
    weights: dict[str, Tensor],
    training: dict[str, Any],
) -> None:
    """Write the three files of a bundle from a network's state dictionary, without quality tables yet."""
    folder.mkdir(parents=True, exist_ok=True)
    network = Network(architecture)
    network.load_state_dict(weights)
    export_onnx(network, folder / NETWORK)
    arrays = {key: value.half().numpy() for key, value in weights.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    (folder / WEIGHTS).write_bytes(buffer.getvalue())
    hashes = Hashes(network=file_hash(folder / NETWORK), weights=file_hash(folder / WEIGHTS))
    write_model(
        folder,
        Model(format=FORMAT, name=name, architecture=architecture, quality={}, training=training, hashes=hashes),
    )


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Weights of a bundle in FP32, by parameter name."""
    with np.load(folder / WEIGHTS) as arrays:
        return {key: torch.from_numpy(arrays[key].astype(np.float32)) for key in arrays.files}
