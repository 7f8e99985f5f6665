"""Samples stacked to tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from calib.learning.training.samples import Sample


@dataclass(frozen=True)
class Batch:
    """What one step of a process learns from."""

    images: Tensor
    """(N, 4, H, W) float32, normalised units."""
    classes: Tensor
    """(N, H, W) int64."""
    superresolved: Tensor
    """(N, 4, 2H, 2W) float32, normalised units; 0 where a sample has none."""
    rebuildable: Tensor
    """(N,) float32, 1 where a sample has super-resolved images."""


def stack(samples: Sequence[Sample], device: torch.device) -> Batch:
    """One batch of samples of one size."""
    missing = np.zeros((4, *(2 * edge for edge in samples[0].classes.shape)), np.float32)
    targets = [missing if sample.superresolved is None else sample.superresolved for sample in samples]
    rebuildable = [float(sample.superresolved is not None) for sample in samples]
    images = torch.from_numpy(np.stack([sample.images for sample in samples]))
    return Batch(
        images=images.to(device).contiguous(memory_format=torch.channels_last),
        classes=torch.from_numpy(np.stack([sample.classes for sample in samples])).to(device),
        superresolved=torch.from_numpy(np.stack(targets)).to(device),
        rebuildable=torch.tensor(rebuildable, device=device),
    )
