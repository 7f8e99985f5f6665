"""Quantisation after training, by NNCF: weights and activations of 8 bits, in OpenVINO's form of the graph."""

import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.backends.quiet import openvino  # before NNCF, which reports to the same makers

# isort: split
import nncf
from openvino.passes import ConstantFolding, Manager

from engines.bundle import INT8_GRAPH, NETWORK, Bundle
from engines.deployed import Output
from engines.graph import write_graph
from engines.network import load_network

OUTPUTS = frozenset({Output.PROBABILITIES, Output.SUPERRESOLVED})
"""Positions are read outside of the graph, see :mod:`engines.backends.openvino`."""

IN_FLOAT = ("stem", "upsample", "reconstruct")
"""Layers that are not quantised: the first one, whose input is the images, and those of the super-resolved images.
Others gain nothing in accuracy; the first one gains a fifth and costs no time."""


def write_quantised(bundle: Bundle, patches: Sequence[NDArray[np.float32]], folder: Path) -> Path:
    """Write a bundle's network in INT8 to a folder, as ``int8.xml`` and ``int8.bin``; height and width stay free.

    Dense blocks are as they were trained: there every number is rounded to 8 bits once. In the form that is
    fastest in floating point sums of sums are, and what lies between the convolutions stays in 32 bits: twice
    the error, and twice the time.

    Parameters
    ----------
    patches : (1, 4, h, w) normalised units, whose activations set the ranges.

    Returns
    -------
    Path of the graph.
    """
    trained = folder / NETWORK
    write_graph(trained, load_network(bundle), precision="f16", outputs=OUTPUTS, wide=False)
    graph = openvino.Core().read_model(trained)
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(graph)
    nncf.set_log_level(logging.ERROR)
    # What it tells of its progress is no result of a command.
    with redirect_stdout(sys.stderr):
        quantised = nncf.quantize(
            graph,
            nncf.Dataset([patch.astype(np.float16) for patch in patches]),
            subset_size=len(patches),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=_in_float(graph)),
        )
    path = folder / INT8_GRAPH
    openvino.save_model(quantised, path, compress_to_fp16=False)
    return path


def _in_float(graph: openvino.Model) -> list[str]:
    """Names of the operations with weights of :data:`IN_FLOAT`."""
    weights = {f"network.{layer}.weight" for layer in IN_FLOAT}
    return [
        node.get_friendly_name()
        for node in graph.get_ordered_ops()
        if any(value.get_node().get_friendly_name() in weights for value in node.input_values())
    ]
