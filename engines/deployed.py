"""The network as engines run it: what goes into its graph, and what comes out."""

from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.inference import InferenceNetwork
from engines.network import Network
from engines.readout import OUTSIDE_PX, PADDING_PX, READ_SIGMA_PX, TAPS


class Output(StrEnum):
    """What a graph can put out, always float32, in the order of the graph's outputs."""

    PROBABILITIES = "probabilities"
    """(1, 5, H, W) background, A, C, G, T; sums to 1 over the classes."""
    SUPERRESOLVED = "superresolved"
    """(1, 4, 2H, 2W) normalised units."""
    CENTRES = "centres"
    """(n, 4) what :func:`engines.readout.read_centres` reads from the probabilities at the positions."""


class Deployed(nn.Module):
    """Probabilities instead of logits, float32 outputs whatever the network computes in, and only those asked for."""

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
    """:func:`engines.readout.read_centres` in PyTorch, of operators that every runtime of ONNX graphs has.

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
