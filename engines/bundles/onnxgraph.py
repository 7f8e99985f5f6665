"""Writing the network as an ONNX graph, and comparing the graph with PyTorch."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from seqd_client.errors import SeqdError
from torch import Tensor

from engines.bundles.golden import GoldenTile
from engines.network.deployed import InferenceNetwork, Output, OutputNetwork
from engines.network.torchnetwork import Network
from engines.openvinolibrary import openvino

Precision = Literal["f16", "f32"]
"""Precision of the weights, of the input images and of the computation."""

DTYPES: dict[Precision, torch.dtype] = {"f16": torch.float16, "f32": torch.float32}

BOUND = 1e-5
"""Largest accepted difference between the outputs of a graph and of PyTorch, divided by the larger of 1 and the largest
value. Both compute in FP32 from the same images and weights, so only rounding differs: by 1.3e-6 in the default
network."""

TRACE_PX, TRACE_POSITIONS = 96, 7
"""Size of the example that the graph is traced with; the graph takes any."""


class GraphError(SeqdError):
    """A graph cannot be written, or its answer is not the network's."""

    exit_code = 5


def write_graph(
    path: Path, network: Network, *, precision: Precision, outputs: frozenset[Output], fast_blocks: bool = True
) -> None:
    """Write a graph with dynamic height, width and number of positions.

    Inputs are ``images`` (1, 4, H, W) of the graph's precision in normalised units and, where centres are
    among the outputs, ``positions`` (4, n, 2) float32; n may be 0.

    Parameters
    ----------
    fast_blocks : if true, dense blocks have the form that is fastest in floating point, see
        :mod:`engines.network.deployed`; otherwise they have the form in which they are trained.
    """
    dtype = DTYPES[precision]
    height, width = torch.export.Dim("H", min=1), torch.export.Dim("W", min=1)
    inputs = {"images": torch.zeros(1, 4, TRACE_PX, TRACE_PX + 32, dtype=dtype)}
    shapes = {"images": {2: height, 3: width}}
    if Output.CENTRES in outputs:
        inputs["positions"] = torch.zeros(4, TRACE_POSITIONS, 2)
        shapes["positions"] = {1: torch.export.Dim("n", min=0)}
    form = (
        InferenceNetwork(network, dtype=dtype, device=torch.device("cpu"))
        if fast_blocks
        else deepcopy(network).to(dtype)
    )
    with _quiet_exporter():
        program = torch.onnx.export(
            OutputNetwork(form, outputs).eval(),
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=list(inputs),
            output_names=[output.value for output in Output if output in outputs],
            dynamic_shapes=shapes,
        )
    assert program is not None
    # The exporter writes paths of this machine's source files into each node.
    for node in program.model.graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    program.save(path)


def check_graph(
    path: Path, network: Network, tile: GoldenTile, *, precision: Precision, outputs: frozenset[Output]
) -> float:
    """Run a graph in another runtime and compare its outputs with PyTorch's, both in FP32.

    Parameters
    ----------
    network : the network that was written, in FP32, with its weights rounded to the graph's precision.
    tile : tile to compute; its images are rounded to the graph's precision.
    precision, outputs : as given to :func:`write_graph`.

    Returns
    -------
    Largest difference of any value of any output, divided by the larger of 1 and the output's largest value.

    Raises
    ------
    GraphError : the difference is larger than :data:`BOUND`.
    """
    images = torch.from_numpy(tile.images).to(DTYPES[precision])
    expected = answer(network, images.float(), tile.positions, outputs)
    inputs = {"images": images.numpy()}
    if Output.CENTRES in outputs:
        inputs["positions"] = tile.positions
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(inputs)
    worst = 0.0
    for output, values in expected.items():
        difference = float(np.abs(found[output.value] - values).max() / max(1.0, np.abs(values).max()))
        # A comparison with NaN is false, so outputs that are not numbers are refused too.
        if not difference <= BOUND:
            raise GraphError(
                f"graph {path}: {output} differ by up to {difference:.2g} from PyTorch, at most {BOUND:g} is allowed"
            )
        worst = max(worst, difference)
    return worst


def answer(
    network: Network, images: Tensor, positions: NDArray[np.float32], outputs: frozenset[Output]
) -> dict[Output, NDArray[np.float32]]:
    """The outputs of a network in PyTorch, in the shapes that :class:`Output` gives.

    Parameters
    ----------
    images : (1, 4, H, W) normalised units.
    positions : (4, n, 2), read where centres are among the outputs.
    """
    with torch.inference_mode():
        found = OutputNetwork(network, outputs).eval()(images, torch.from_numpy(positions))
    wanted = (output for output in Output if output in outputs)
    return {output: values.numpy() for output, values in zip(wanted, found, strict=True)}


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress the exporter's messages about its own libraries."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        registration.setLevel(level)
