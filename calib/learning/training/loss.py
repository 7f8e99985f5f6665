"""The joint loss of both branches (method M7)."""

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.image import structural_similarity_index_measure


class LossWeights(BaseModel):
    """Balance of the two tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mse: float = Field(1.0, ge=0)
    """Squared error of the super-resolved images, normalised units."""
    ssim: float = Field(0.1, ge=0)
    """One minus their windowed structural similarity."""
    calls: float = Field(1.0, ge=0)
    """Cross-entropy of the calls, nats a cluster."""


SSIM_RANGE = 2.0
"""Dynamic range of normalised images for SSIM: a cluster of twice the typical brightness."""


def joint_loss(
    logits: Tensor, images: Tensor, classes: Tensor, superresolved: Tensor, weights: LossWeights
) -> tuple[Tensor, dict[str, float]]:
    """``w1 MSE + w2 (1 - SSIM) + w3 CE``.

    Cross-entropy is summed over all pixels and divided by the number of cluster centres, so that
    crowded and sparse batches weigh the same per cluster and probabilities stay calibrated.

    Returns
    -------
    The loss, and its three unweighted terms to log.
    """
    mse = functional.mse_loss(images, superresolved)
    ssim = structural_similarity_index_measure(images, superresolved, data_range=SSIM_RANGE)
    assert isinstance(ssim, Tensor)
    centres = (classes > 0).sum().clamp(min=1)
    calls = functional.cross_entropy(logits, classes, reduction="sum") / centres
    loss = weights.mse * mse + weights.ssim * (1 - ssim) + weights.calls * calls
    return loss, {"mse": mse.item(), "ssim": ssim.item(), "calls": calls.item()}
