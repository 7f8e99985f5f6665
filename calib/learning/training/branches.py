"""Which branches of the network a training computes."""

from torch import Tensor, nn
from torch.nn import functional

from calib.learning.training.loss import LossWeights
from engines.network import Network


class Branches(nn.Module):
    """The network, or its base-call branch alone where the loss weighs nothing else.

    Weights of a branch that is left out stand still and cost nothing.
    """

    def __init__(self, network: Network, weights: LossWeights) -> None:
        super().__init__()
        self.network = network
        self.rebuild = weights.rebuild
        for part in (network.upsample, network.reconstruct):
            part.requires_grad_(self.rebuild)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (N, 5, H, W) and super-resolved images (N, 4, 2H, 2W) or None."""
        if self.rebuild:
            logits, rebuilt = self.network(images)
            return logits, rebuilt
        network = self.network
        features = network.blocks(functional.relu(network.stem(images)))
        return network.call(functional.relu(network.call_hidden(features))), None
