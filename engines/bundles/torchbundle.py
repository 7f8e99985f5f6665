"""Writing a bundle from trained weights, and reading its network in PyTorch."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines.bundles.bundle import (
    FORMAT,
    GOLDEN,
    NETWORK,
    WEIGHTS,
    Bundle,
    Hashes,
    Model,
    file_hash,
    read_weights,
    write_model,
)
from engines.bundles.golden import Golden, GoldenTile, write_golden
from engines.bundles.onnxgraph import answer, check_graph, write_graph
from engines.network.architecture import Architecture
from engines.network.deployed import Output
from engines.network.torchnetwork import Network


def write_bundle(
    folder: Path,
    *,
    name: str,
    architecture: Architecture,
    weights: dict[str, Tensor],
    training: dict[str, Any],
    golden: GoldenTile,
) -> None:
    """Write the four files of a bundle from a network's state dictionary, without quality tables yet.

    Parameters
    ----------
    weights : stored in FP16, after rounding.
    golden : tile whose answer is stored, to be compared with the answers of engines.

    Raises
    ------
    GraphError : the graph does not answer as the network does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {key: value.half().numpy() for key, value in weights.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    (folder / WEIGHTS).write_bytes(buffer.getvalue())
    network = Network(architecture)
    network.load_state_dict(load_weights(folder))
    outputs = frozenset(Output)
    write_graph(folder / NETWORK, network, precision="f16", outputs=outputs)
    check_graph(folder / NETWORK, network, golden, precision="f16", outputs=outputs)
    known = answer(network, torch.from_numpy(golden.images), golden.positions, outputs)
    probabilities = known[Output.PROBABILITIES][0].astype(np.float16)
    write_golden(folder / GOLDEN, Golden(golden, known[Output.CENTRES], probabilities))
    hashes = Hashes(
        network=file_hash(folder / NETWORK), weights=file_hash(folder / WEIGHTS), golden=file_hash(folder / GOLDEN)
    )
    write_model(
        folder,
        Model(format=FORMAT, name=name, architecture=architecture, quality={}, training=training, hashes=hashes),
    )


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Weights of a bundle in FP32, by parameter name."""
    return {name: torch.from_numpy(values) for name, values in read_weights(folder).items()}


def load_network(bundle: Bundle) -> Network:
    """Network of a bundle in FP32."""
    network = Network(bundle.model.architecture)
    network.load_state_dict(load_weights(bundle.folder))
    return network
