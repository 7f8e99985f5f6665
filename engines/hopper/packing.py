"""Weights as the kernels of ``engines/kernels/hopper.cu`` read them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.architecture import Architecture

Weights = dict[str, NDArray[np.float32]]
"""By parameter name of :class:`engines.network.Network`."""


@dataclass(frozen=True)
class Convolution:
    """Weights and biases of one launch."""

    weights: NDArray[np.float16]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class PackedBlock:
    """A dense block: what its input gives to all layers, and what the layers give each other."""

    wide: Convolution
    tail: NDArray[np.float16]


@dataclass(frozen=True)
class PackedNetwork:
    """The whole network."""

    stem: Convolution
    blocks: list[PackedBlock]
    hidden: Convolution
    call: Convolution
    upsample: list[Convolution]
    """Of the four phases (0, 0), (0, 1), (1, 0), (1, 1)."""
    reconstruct: Convolution


def fits(architecture: Architecture) -> bool:
    """Whether the kernels compute a network of these widths."""
    fixed = Architecture(blocks=architecture.blocks)
    return architecture == fixed


def pack(architecture: Architecture, weights: Weights) -> PackedNetwork:
    """Order the weights of a network that :func:`fits`."""
    return PackedNetwork(
        stem=_convolution(weights, "stem"),
        blocks=[_block(weights, index, architecture) for index in range(architecture.blocks)],
        hidden=_convolution(weights, "call_hidden"),
        call=_convolution(weights, "call"),
        upsample=[_phase(weights, y, x) for y in (0, 1) for x in (0, 1)],
        reconstruct=_convolution(weights, "reconstruct"),
    )


def pack_taps(weights: NDArray[np.float32]) -> NDArray[np.float16]:
    """Order the taps of a convolution.

    Parameters
    ----------
    weights : (sums, channels, taps, taps).

    Returns
    -------
    (taps², channels / 16, 2, sums, 8): sums and channels are filled up with zeros to multiples of 8 and 16.
    """
    sums, channels, height, width = weights.shape
    filled = np.zeros((-(-sums // 8) * 8, -(-channels // 16) * 16, height, width), np.float32)
    filled[:sums, :channels] = weights
    cores = filled.reshape(len(filled), -1, 2, 8, height * width)
    return np.ascontiguousarray(cores.transpose(4, 1, 2, 0, 3)).astype(np.float16)


def _convolution(weights: Weights, name: str) -> Convolution:
    return _packed(weights[f"{name}.weight"], weights[f"{name}.bias"])


def _packed(taps: NDArray[np.float32], bias: NDArray[np.float32]) -> Convolution:
    filled = np.zeros(-(-len(bias) // 8) * 8, np.float32)
    filled[: len(bias)] = bias
    return Convolution(pack_taps(taps), filled)


def _block(weights: Weights, index: int, architecture: Architecture) -> PackedBlock:
    layers = [f"blocks.{index}.convolutions.{layer}" for layer in range(architecture.layers)]
    inputs = architecture.block_width if index else architecture.stem
    wide = np.concatenate([weights[f"{layer}.weight"][:, :inputs] for layer in layers])
    bias = np.concatenate([weights[f"{layer}.bias"] for layer in layers])
    tail = [pack_taps(weights[f"{layer}.weight"][:, inputs:]).ravel() for layer in layers[1:]]
    return PackedBlock(_packed(wide, bias), np.concatenate(tail))


def _phase(weights: Weights, y: int, x: int) -> Convolution:
    """Of a transposed convolution with 4 × 4 taps, stride 2 and padding 1, output ``2 i + phase`` reads inputs
    ``i + phase - 1`` and ``i + phase`` through taps ``3 - phase`` and ``1 - phase``.
    """
    taps = weights["upsample.weight"][:, :, [3 - y, 1 - y]][:, :, :, [3 - x, 1 - x]]
    return _packed(taps.transpose(1, 0, 2, 3), weights["upsample.bias"])
