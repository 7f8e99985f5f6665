"""Quantisation after training, by NNCF: weights and activations of 8 bits, in OpenVINO's form of the graph."""

from engines.openvinolibrary import openvino  # before NNCF and openvino.passes, so that neither reports its use

# isort: split

import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import nncf
import numpy as np
from numpy.typing import NDArray
from openvino.passes import ConstantFolding, Manager
from seqd_client.runinfo import RunInfo

from calib.normalisation import estimate_normalisation
from calib.offline.quality.replay import TEMPLATE_CYCLES
from calib.runfolder.images import read_frames
from engines.bundles.bundle import INT8_GRAPH, NETWORK, Bundle
from engines.bundles.onnxgraph import write_graph
from engines.bundles.torchbundle import load_network
from engines.network.deployed import Output

OUTPUTS = frozenset({Output.PROBABILITIES, Output.SUPERRESOLVED})
"""Positions are read outside of the graph, see :mod:`engines.backends.openvino`."""

FLOAT_LAYERS = ("stem", "upsample", "reconstruct")
"""Layers that are not quantised: the first one, whose input is the images, and those of the super-resolved images.
With the first layer in floating point the error is a fifth smaller and the time is the same; more layers in floating
point do not reduce the error."""


def write_quantised(bundle: Bundle, patches: Sequence[NDArray[np.float32]], folder: Path) -> Path:
    """Write a bundle's network in INT8 to a folder, as ``int8.xml`` and ``int8.bin``, for images of any height and
    width.

    Dense blocks keep the form in which they were trained; there every number is rounded to 8 bits only once. The form
    that is fastest in floating point rounds partial sums, and has 32 bits between the convolutions. In INT8 it has
    twice the error and takes twice the time.

    Parameters
    ----------
    patches : (1, 4, h, w) normalised units, whose activations set the ranges.

    Returns
    -------
    Path of the graph.
    """
    trained = folder / NETWORK
    write_graph(trained, load_network(bundle), precision="f16", outputs=OUTPUTS, fast_blocks=False)
    graph = openvino.Core().read_model(trained)
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(graph)
    nncf.set_log_level(logging.ERROR)
    # NNCF prints its progress; it must not be mixed with the results on standard output.
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
    """Names of the operations with weights of :data:`FLOAT_LAYERS`."""
    weights = {f"network.{layer}.weight" for layer in FLOAT_LAYERS}
    return [
        node.get_friendly_name()
        for node in graph.get_ordered_ops()
        if any(value.get_node().get_friendly_name() in weights for value in node.input_values())
    ]


PATCHES, PATCH_PX = 60, 192
"""Number of patches over all tiles, and the longest edge of a patch, pixels."""


def calibration_patches(runs: Mapping[Path, RunInfo]) -> list[NDArray[np.float32]]:
    """Patches (1, 4, h, w) in normalised units, from random places and random template cycles.

    Every tile gives the same number of patches. The brightness is estimated from the tile's template cycles, as it is
    when the tile is called.

    Raises
    ------
    RunFolderError : an image is missing or damaged.
    """
    rng = np.random.default_rng(0)
    tiles = [(root, info, tile) for root, info in runs.items() for tile in info.tiles]
    patches = []
    for root, info, tile in tiles:
        shape = info.height, info.width
        cycles = range(1, 1 + min(TEMPLATE_CYCLES, info.cycles))
        images = np.stack([read_frames(root, tile, cycle, shape=shape) for cycle in cycles])
        normalisation = estimate_normalisation(images)
        for _ in range(-(-PATCHES // len(tiles))):
            rows, columns = (_span(edge, rng) for edge in shape)
            patches.append(normalisation.apply(rng.choice(images)[:, rows, columns])[None].astype(np.float32))
    return patches


def _span(edge: int, rng: np.random.Generator) -> slice:
    length = min(edge, PATCH_PX)
    first = int(rng.integers(edge - length + 1))
    return slice(first, first + length)
