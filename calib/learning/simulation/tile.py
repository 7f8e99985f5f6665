"""A simulated tile: clusters, their reads, and the frames that a camera takes of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.learning.simulation import background, camera, chemistry, optics
from calib.learning.simulation.conditions import Conditions

MARGIN_PX = 12
"""Clusters just outside a tile still shine into it."""


@dataclass(frozen=True)
class SimulatedTile:
    """One tile with its truth.

    Clusters lie up to ``MARGIN_PX`` outside the tile as well; ``inside`` tells them apart.
    """

    conditions: Conditions
    shape: tuple[int, int]
    positions_px: NDArray[np.float64]
    """(n, 2) y and x in the frame of the first cycle, before channel shifts."""
    reads: NDArray[np.uint8]
    """(n, cycles) bases 0-3."""
    second_reads: NDArray[np.uint8]
    """(n, cycles) reads of a polyclonal cluster's second molecule."""
    second_share: NDArray[np.float64]
    """(n,) share of the light from the second read, 0 for monoclonal clusters."""
    brightness: NDArray[np.float64]
    """(n,) relative to the median cluster."""
    drift_px: NDArray[np.float64]
    """(cycles, 2) stage position of each cycle against the first."""
    haze: NDArray[np.float64]
    """(4, H, W) structures, expected photons a pixel."""
    seed: int

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(n,) clusters whose centre lies in the tile."""
        return np.asarray(
            np.all((self.positions_px >= -0.5) & (self.positions_px < np.array(self.shape) - 0.5), axis=1)
        )

    def cluster_light(self, cycle: int) -> NDArray[np.float64]:
        """(4, n) expected photons of each cluster in each channel, 1-based cycle."""
        conditions = self.conditions
        weights = chemistry.phasing_weights(
            cycle=cycle,
            cycles=self.reads.shape[1],
            phasing=conditions.phasing,
            prephasing=conditions.prephasing,
        )
        shares = (1 - self.second_share)[:, None] * chemistry.emission(reads=self.reads, weights=weights)
        mixed = self.second_share > 0
        shares[mixed] += self.second_share[mixed, None] * chemistry.emission(
            reads=self.second_reads[mixed], weights=weights
        )
        photons = conditions.photons * self.brightness * (1 - conditions.decay) ** (cycle - 1)
        emitted = shares * np.array(conditions.channel_yield) * photons[:, None]
        return np.asarray(np.array(conditions.crosstalk) @ emitted.T)

    def channel_positions(self, cycle: int, channel: int) -> NDArray[np.float64]:
        """(n, 2) where the clusters appear in one frame."""
        shift = self.drift_px[cycle - 1] + np.array(self.conditions.channel_shift_px[channel])
        return np.asarray(self.positions_px + shift)

    def images(self, cycle: int) -> NDArray[np.uint16]:
        """(4, H, W) frames of a cycle; the same at every call."""
        conditions = self.conditions
        light = self.cluster_light(cycle)
        profile = background.illumination(shape=self.shape, falloff=conditions.falloff)
        rng = np.random.default_rng([self.seed, cycle])
        frames = []
        for channel in range(4):
            clusters = optics.spots(
                positions_px=self.channel_positions(cycle, channel),
                photons=light[channel],
                sigma_px=conditions.sigma_px[channel],
                shape=self.shape,
            )
            photons = (clusters + conditions.background_px[channel] + self.haze[channel]) * profile
            frames.append(
                camera.expose(
                    photons=photons,
                    read_noise_e=conditions.read_noise_e,
                    counts_per_e=conditions.counts_per_e,
                    offset=conditions.offset,
                    rng=rng,
                )
            )
        return np.stack(frames)


def simulate_tile(conditions: Conditions, *, shape: tuple[int, int], cycles: int, seed: int) -> SimulatedTile:
    """Scatter clusters at random (Poisson) over a tile and give each a random read."""
    rng = np.random.default_rng(seed)
    area = (shape[0] + 2 * MARGIN_PX) * (shape[1] + 2 * MARGIN_PX)
    number = rng.poisson(conditions.density_px2 * area)
    extent = np.array(shape) + 2 * MARGIN_PX
    positions = rng.uniform(0, 1, (number, 2)) * extent - MARGIN_PX - 0.5
    reads = rng.choice(4, size=(2, number, cycles), p=conditions.composition).astype(np.uint8)
    mixed = rng.random(number) < conditions.polyclonal
    steps = rng.uniform(-conditions.drift_px, conditions.drift_px, (cycles, 2))
    steps[0] = 0
    haze = np.zeros((4, *shape))
    if conditions.structures:
        colour = rng.uniform(0.1, 1, 4)
        haze = colour[:, None, None] * background.structures(
            shape=shape, number=conditions.structures, photons_px=conditions.structure_photons_px, rng=rng
        )
    return SimulatedTile(
        conditions=conditions,
        shape=shape,
        positions_px=positions,
        reads=reads[0],
        second_reads=reads[1],
        second_share=np.where(mixed, rng.uniform(0.2, 0.5, number), 0.0),
        brightness=rng.lognormal(0, conditions.brightness_sigma, number),
        drift_px=steps.cumsum(axis=0),
        haze=haze,
        seed=seed,
    )
