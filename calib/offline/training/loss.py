"""Which branches of the network a training computes."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.functional.image import structural_similarity_index_measure

from calib.offline.training.settings import LossWeights
from calib.offline.training.trainingsamples import IGNORED, Batch
from engines.network.torchnetwork import Network

SSIM_RANGE = 2.0
"""Dynamic range of normalised images for SSIM: a cluster of twice the typical brightness."""


class Branches(nn.Module):
    """The network, or only its base-call branch if no other branch has a weight in the loss.

    A branch that is left out keeps its weights and costs no time.
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


class Sums(NamedTuple):
    """Sums of the loss terms over patches, and the numbers to divide them by. All are scalars."""

    calls: Tensor
    """Cross-entropy over all pixels, nats."""
    centres: Tensor
    """Number of cluster centres."""
    mse: Tensor
    """Mean squared error of each patch."""
    ssim: Tensor
    """Structural similarity of each patch."""
    rebuilt: Tensor
    """Patches with super-resolved images."""

    def packed(self) -> Tensor:
        """(5,) float64 without gradients, to add up over steps, patches and processes."""
        return torch.stack(self).detach().double()

    @classmethod
    def unpacked(cls, values: Tensor) -> "Sums":
        return cls(*values)

    def means(self) -> dict[str, float]:
        """The three terms; those of the super-resolution branch only where it was computed."""
        terms = {"calls": (self.calls / self.centres.clamp(min=1)).item()}
        if self.rebuilt > 0:
            terms |= {"mse": (self.mse / self.rebuilt).item(), "ssim": (self.ssim / self.rebuilt).item()}
        return terms


def sums(logits: Tensor, rebuilt: Tensor | None, batch: Batch) -> Sums:
    """The terms of a batch.

    Parameters
    ----------
    logits : (N, 5, H, W).
    rebuilt : (N, 4, 2H, 2W), or None where the branch was not computed.
    """
    calls = functional.cross_entropy(logits.float(), batch.classes, reduction="sum", ignore_index=IGNORED)
    centres = (batch.classes > 0).sum().to(calls)
    if rebuilt is None:
        nothing = torch.zeros_like(calls)
        return Sums(calls, centres, nothing, nothing, nothing)
    rebuilt = rebuilt.float()
    mse = (rebuilt - batch.superresolved).square().mean(dim=(1, 2, 3))
    ssim = structural_similarity_index_measure(rebuilt, batch.superresolved, data_range=SSIM_RANGE, reduction="none")
    assert isinstance(ssim, Tensor)
    return Sums(calls, centres, mse @ batch.rebuildable, ssim.view(-1) @ batch.rebuildable, batch.rebuildable.sum())


def joint_loss(own: Sums, everyone: Sums, weights: LossWeights) -> Tensor:
    """``w1 MSE + w2 (1 - SSIM) + w3 CE``.

    Cross-entropy is summed over all pixels and divided by the number of cluster centres, so that
    crowded and sparse batches weigh the same per cluster and probabilities stay calibrated.

    Parameters
    ----------
    own : terms of this process's patches.
    everyone : terms of the whole step, by which they are divided: losses of all processes add up
        to that of the whole step.
    """
    rebuilt, centres = everyone.rebuilt.clamp(min=1), everyone.centres.clamp(min=1)
    terms = weights.mse * own.mse / rebuilt + weights.ssim * (own.rebuilt - own.ssim) / rebuilt
    return terms + weights.calls * own.calls / centres
