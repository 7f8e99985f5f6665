"""The network as it runs fastest: the same numbers from fewer, wider convolutions."""

from collections.abc import Sequence
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.network import DenseBlock, Network


class PushedBlock(nn.Module):
    """A dense block in which every output is added to all layers that read it, as soon as it is there.

    A layer of :class:`engines.network.DenseBlock` reads the concatenation of what was before it, and a
    convolution of a concatenation is a sum of convolutions of its parts. So the block's input goes
    through one convolution to the sums of all layers, and each layer's output through one to those of
    all layers after it: few channels out become many.
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
    """A :class:`engines.network.Network` for inference only, in channels-last order of memory.

    Parameters
    ----------
    network : whose weights are copied.
    dtype : of the weights and of what is computed.
    device : where it runs.
    """

    def __init__(self, network: Network, *, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.stem = deepcopy(network.stem)
        self.blocks = nn.Sequential(*(PushedBlock(cast("DenseBlock", block)) for block in network.blocks))
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
    """One convolution with the outputs of several."""
    kernel = torch.cat(list(kernels))
    outputs, inputs, size, _ = kernel.shape
    convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias is not None)
    convolution.weight = nn.Parameter(kernel, requires_grad=False)
    if bias is not None:
        convolution.bias = nn.Parameter(bias, requires_grad=False)
    return convolution
