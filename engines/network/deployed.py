"""The network in its fastest form: fewer, wider convolutions give the same numbers."""

from collections.abc import Sequence
from copy import deepcopy
from enum import StrEnum
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.network.centres import OUTSIDE_PX, PADDING_PX, READ_SIGMA_PX, TAPS
from engines.network.torchnetwork import DenseBlock, Network


class SummingBlock(nn.Module):
    """A dense block that adds each layer's contribution to the sums of all later layers at once.

    A layer of :class:`engines.network.torchnetwork.DenseBlock` reads the concatenation of all earlier outputs. A
    convolution of a concatenation is the sum of the convolutions of its parts. Therefore this block convolves its input
    once, for all layers together, and each layer's output once, for all later layers together. The results are added
    to the sums of these layers. Such a convolution has many output channels instead of few, which is faster.
    """

    def __init__(self, block: DenseBlock) -> None:
        super().__init__()
        layers = [cast("nn.Conv2d", layer) for layer in block.convolutions]
        kernels = [layer.weight.detach() for layer in layers]
        self.growth, inputs = kernels[0].shape[:2]
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.first = _convolution([kernel[:, :inputs] for kernel in kernels], torch.cat(biases))
        starts = range(inputs, kernels[-1].shape[1], self.growth)
        self.pushes = nn.ModuleList(
            _convolution([kernel[:, start : start + self.growth] for kernel in kernels[layer + 1 :]])
            for layer, start in enumerate(starts)
        )

    def forward(self, features: Tensor) -> Tensor:
        sums: Tensor = self.first(features)
        outputs = []
        for push in self.pushes:
            outputs.append(functional.relu(sums[:, : self.growth]))
            sums = sums[:, self.growth :] + push(outputs[-1])
        return torch.cat([*outputs, functional.relu(sums)], dim=1)


class InferenceNetwork(nn.Module):
    """A :class:`engines.network.torchnetwork.Network` for inference only, in channels-last order of memory.

    Parameters
    ----------
    network : the network whose weights are copied.
    dtype : type of the weights and of the computation.
    device : device that runs the network.
    """

    def __init__(self, network: Network, *, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.stem = deepcopy(network.stem)
        self.blocks = nn.Sequential(*(SummingBlock(cast("DenseBlock", block)) for block in network.blocks))
        self.call_hidden, self.call = deepcopy(network.call_hidden), deepcopy(network.call)
        self.upsample, self.reconstruct = deepcopy(network.upsample), deepcopy(network.reconstruct)
        self.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor, *, superresolve: bool = True) -> tuple[Tensor, Tensor | None]:
        """Logits (N, 5, H, W) and, where wanted, super-resolved images (N, 4, 2H, 2W).

        Parameters
        ----------
        images : (N, 4, H, W) normalised units, of the network's type; fastest channels-last.
        """
        features = self.blocks(functional.relu(self.stem(images)))
        logits = self.call(functional.relu(self.call_hidden(features)))
        if not superresolve:
            return logits, None
        return logits, self.reconstruct(functional.relu(self.upsample(features)))


def _convolution(kernels: Sequence[Tensor], bias: Tensor | None = None) -> nn.Conv2d:
    """One convolution that computes the output channels of several convolutions."""
    kernel = torch.cat(list(kernels))
    outputs, inputs, size, _ = kernel.shape
    convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias is not None)
    convolution.weight = nn.Parameter(kernel, requires_grad=False)
    if bias is not None:
        convolution.bias = nn.Parameter(bias, requires_grad=False)
    return convolution


class Output(StrEnum):
    """The outputs that a graph can have, in their order; all are float32."""

    PROBABILITIES = "probabilities"
    """(1, 5, H, W) background, A, C, G, T; sums to 1 over the classes."""
    SUPERRESOLVED = "superresolved"
    """(1, 4, 2H, 2W) normalised units."""
    CENTRES = "centres"
    """(n, 4) evidence at the positions, as :func:`engines.network.centres.read_centres` reads it."""


class OutputNetwork(nn.Module):
    """A network that returns probabilities instead of logits, all outputs in float32, and only those asked for."""

    def __init__(self, network: Network | InferenceNetwork, outputs: frozenset[Output]) -> None:
        super().__init__()
        self.network = network
        self.outputs = outputs

    def forward(self, images: Tensor, positions: Tensor | None = None) -> tuple[Tensor, ...]:
        """Outputs asked for, in the order of :class:`Output`.

        Parameters
        ----------
        images : (1, 4, H, W) normalised units, of the network's type.
        positions : (4, n, 2) float32 y and x of every cluster in each channel's image; needed for centres.
        """
        logits, superresolved = self.network(images)
        probabilities = torch.softmax(logits.float(), dim=1)
        found = {Output.PROBABILITIES: probabilities, Output.SUPERRESOLVED: superresolved.float()}
        if Output.CENTRES in self.outputs:
            assert positions is not None
            found[Output.CENTRES] = centres_at(probabilities, positions)
        return tuple(found[output] for output in Output if output in self.outputs)


def centres_at(probabilities: Tensor, positions: Tensor) -> Tensor:
    """Compute :func:`engines.network.centres.read_centres` in PyTorch, with operators that all ONNX runtimes have.

    Parameters
    ----------
    probabilities : (1, 5, H, W) float32.
    positions : (4, n, 2) float32; n may be 0.

    Returns
    -------
    (n, 4) float32.
    """
    planes = functional.pad(probabilities[0, 1:], (PADDING_PX,) * 4)
    taps = torch.arange(TAPS[0], TAPS[-1] + 1, device=positions.device)
    indices, weights = [], []
    for axis in (0, 1):
        last = probabilities.shape[2 + axis] - 1
        near = positions[..., axis].clamp(-OUTSIDE_PX, last + OUTSIDE_PX)
        corner = torch.floor(near)
        distance = taps - (near - corner)[..., None]
        weights.append(torch.exp(distance * distance / (-2 * READ_SIGMA_PX**2)))
        indices.append(corner.long()[..., None] + (taps + PADDING_PX))
    index = indices[0][..., :, None] * planes.shape[2] + indices[1][..., None, :]
    patches = planes.flatten(1).gather(1, index.flatten(1)).reshape(index.shape)
    return (patches * weights[0][..., :, None] * weights[1][..., None, :]).sum(dim=(2, 3)).T
