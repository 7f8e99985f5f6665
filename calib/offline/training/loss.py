"""The loss of a training, and the branches of the network that it needs."""

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
        self.trains_superresolution = weights.trains_superresolution
        for part in (network.upsample, network.reconstruct):
            part.requires_grad_(self.trains_superresolution)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (N, 5, H, W) and super-resolved images (N, 4, 2H, 2W) or None."""
        if self.trains_superresolution:
            logits, superresolved = self.network(images)
            return logits, superresolved
        network = self.network
        features = network.blocks(functional.relu(network.stem(images)))
        return network.call(functional.relu(network.call_hidden(features))), None


class LossSums(NamedTuple):
    """Sums of the loss terms over patches, and the numbers to divide them by. All are scalars."""

    calls: Tensor
    """Cross-entropy over all pixels, nats."""
    centres: Tensor
    """Number of cluster centres."""
    mse: Tensor
    """Mean squared error of each patch."""
    ssim: Tensor
    """Structural similarity of each patch."""
    superresolved_patches: Tensor
    """Patches with super-resolved images."""

    def packed(self) -> Tensor:
        """(5,) float64 without gradients, to add up over steps, patches and processes."""
        return torch.stack(self).detach().double()

    @classmethod
    def unpacked(cls, values: Tensor) -> "LossSums":
        return cls(*values)

    def means(self) -> dict[str, float]:
        """The three terms; those of the super-resolution branch only where it was computed."""
        terms = {"calls": (self.calls / self.centres.clamp(min=1)).item()}
        if self.superresolved_patches > 0:
            terms |= {
                "mse": (self.mse / self.superresolved_patches).item(),
                "ssim": (self.ssim / self.superresolved_patches).item(),
            }
        return terms


def loss_sums(logits: Tensor, superresolved: Tensor | None, batch: Batch) -> LossSums:
    """The terms of a batch.

    Parameters
    ----------
    logits : (N, 5, H, W).
    superresolved : (N, 4, 2H, 2W), or None where the branch was not computed.
    """
    calls = functional.cross_entropy(logits.float(), batch.classes, reduction="sum", ignore_index=IGNORED)
    centres = (batch.classes > 0).sum().to(calls)
    if superresolved is None:
        nothing = torch.zeros_like(calls)
        return LossSums(calls, centres, nothing, nothing, nothing)
    superresolved = superresolved.float()
    mse = (superresolved - batch.superresolved).square().mean(dim=(1, 2, 3))
    ssim = structural_similarity_index_measure(
        superresolved, batch.superresolved, data_range=SSIM_RANGE, reduction="none"
    )
    assert isinstance(ssim, Tensor)
    return LossSums(
        calls,
        centres,
        mse @ batch.has_superresolved,
        ssim.view(-1) @ batch.has_superresolved,
        batch.has_superresolved.sum(),
    )


def joint_loss(own: LossSums, whole_step: LossSums, weights: LossWeights) -> Tensor:
    """``w1 MSE + w2 (1 - SSIM) + w3 CE``.

    Cross-entropy is summed over all pixels and divided by the number of cluster centres, so that
    crowded and sparse batches weigh the same per cluster and probabilities stay calibrated.

    Parameters
    ----------
    own : terms of this process's patches.
    whole_step : terms of the patches of all processes. The numbers in them divide the terms of ``own``, so that
        the losses of all processes add up to the loss of the whole step.
    """
    superresolved, centres = whole_step.superresolved_patches.clamp(min=1), whole_step.centres.clamp(min=1)
    terms = (
        weights.mse * own.mse / superresolved + weights.ssim * (own.superresolved_patches - own.ssim) / superresolved
    )
    return terms + weights.calls * own.calls / centres
