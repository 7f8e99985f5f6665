"""Training samples from simulated patches, and their batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calib.offline.simulation.conditions import random_conditions
from calib.offline.simulation.simulatedtile import SimulatedTile, simulate_tile, superresolved

READ_LENGTH = 60


IGNORED = -1
"""Class of a pixel whose true class is not known; the loss leaves it out."""


@dataclass(frozen=True)
class Sample:
    """One cycle of one patch."""

    images: NDArray[np.float32]
    """(4, H, W) in normalised units: 0 is background, 1 the peak of a typical lit cluster."""
    classes: NDArray[np.int64]
    """(H, W) class of the pixel: 0, 1-4 where a cluster of that base is centred, or :data:`IGNORED`.

    A base's centre is marked where its own channel shows it, so channel shifts need no resampling.
    """
    superresolved: NDArray[np.float32] | None
    """(4, 2H, 2W) the same light without noise and background and with half the spot width; None if unknown."""


@dataclass(frozen=True)
class Batch:
    """What one step of a process learns from."""

    images: Tensor
    """(N, 4, H, W) float32, normalised units."""
    classes: Tensor
    """(N, H, W) int64."""
    superresolved: Tensor
    """(N, 4, 2H, 2W) float32, normalised units; 0 where a sample has none."""
    has_superresolved: Tensor
    """(N,) float32, 1 where a sample has super-resolved images."""


def stack(samples: Sequence[Sample], device: torch.device) -> Batch:
    """One batch of samples of one size."""
    missing = np.zeros((4, *(2 * edge for edge in samples[0].classes.shape)), np.float32)
    targets = [missing if sample.superresolved is None else sample.superresolved for sample in samples]
    has_superresolved = [float(sample.superresolved is not None) for sample in samples]
    images = torch.from_numpy(np.stack([sample.images for sample in samples]))
    return Batch(
        images=images.to(device).contiguous(memory_format=torch.channels_last),
        classes=torch.from_numpy(np.stack([sample.classes for sample in samples])).to(device),
        superresolved=torch.from_numpy(np.stack(targets)).to(device),
        has_superresolved=torch.tensor(has_superresolved, device=device),
    )


@dataclass(frozen=True)
class Patch:
    """One cycle of a simulated patch, with errors of normalisation like those at run time."""

    tile: SimulatedTile
    cycle: int
    normalised: NDArray[np.float32]
    """(4, H, W)."""
    units_per_photon: NDArray[np.float64]
    """(4,)."""

    def sample(self) -> Sample:
        """Images of the patch, and their truth."""
        return Sample(
            images=self.normalised,
            classes=_classes(self.tile, self.cycle),
            superresolved=superresolved(self.tile, self.cycle, gain=self.units_per_photon),
        )


def simulated_patch(*, rng: np.random.Generator, size: int) -> Patch:
    """A cycle of a tile of ``size`` × ``size`` pixels under random conditions."""
    conditions = random_conditions(rng)
    tile = simulate_tile(conditions, shape=(size, size), cycles=READ_LENGTH, seed=int(rng.integers(2**31)))
    cycle = int(rng.integers(1, READ_LENGTH + 1))
    raw = tile.images(cycle).astype(np.float32)
    sigma = np.array(conditions.sigma_px)
    peak_photons = conditions.photons * np.array(conditions.channel_yield) / (2 * np.pi * sigma**2)
    decay = (1 - conditions.decay) ** (cycle - 1)
    unit = peak_photons * conditions.counts_per_e * decay
    # At run time, unit and offset are estimated from the images; the network learns to accept such errors.
    unit = unit * rng.lognormal(0, 0.2) * rng.lognormal(0, 0.12, 4)
    offset = np.median(raw, axis=(1, 2)) - unit * rng.uniform(-0.05, 0.15)
    gain = 1 / unit
    normalised = ((raw - offset[:, None, None]) * gain[:, None, None]).astype(np.float32)
    return Patch(tile, cycle, normalised, gain * conditions.counts_per_e)


def simulated_sample(*, seed: list[int], size: int) -> Sample:
    """A random patch of ``size`` × ``size`` pixels; the same seed gives the same sample."""
    return simulated_patch(rng=np.random.default_rng(seed), size=size).sample()


def _classes(tile: SimulatedTile, cycle: int) -> NDArray[np.int64]:
    """(H, W) class of each pixel: 0 for background, 1 + base for a cluster's centre. If two clusters have their centres
    in one pixel, it has the class of the brighter one.
    """
    classes = np.zeros(tile.shape, np.int64)
    order = np.argsort(tile.brightness, kind="stable")
    base = tile.reads[order, cycle - 1]
    positions = np.stack([tile.channel_positions(cycle, channel) for channel in range(4)])
    pixels = np.rint(positions[base, order]).astype(np.int64)
    inside = np.all((pixels >= 0) & (pixels < np.array(tile.shape)), axis=1)
    classes[tuple(pixels[inside].T)] = base[inside] + 1
    return classes
