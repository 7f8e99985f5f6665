"""From trained weights to a bundle."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engines.architecture import Architecture
from engines.bundle import FORMAT, NETWORK, WEIGHTS, Hashes, Model, file_hash, write_model
from engines.network import Network

TRACE_PX = 96
"""Edge of the example image the graph is traced with; the graph takes any size."""


class _Deployed(nn.Module):
    """The network as engines run it: FP16 inside, FP32 outside, probabilities instead of logits."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network.half()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, superresolved = self.network(images.half())
        return torch.softmax(logits.float(), dim=1), superresolved.float()


def export_onnx(network: Network, path: Path) -> None:
    """Write the FP16 graph with dynamic height and width; ``network`` is converted in place."""
    height, width = torch.export.Dim("H", min=1), torch.export.Dim("W", min=1)
    program = torch.onnx.export(
        _Deployed(network).eval(),
        (torch.zeros(1, 4, TRACE_PX, TRACE_PX + 32),),
        dynamo=True,
        verbose=False,
        external_data=False,
        input_names=["images"],
        output_names=["probabilities", "superresolved"],
        dynamic_shapes=({2: height, 3: width},),
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
