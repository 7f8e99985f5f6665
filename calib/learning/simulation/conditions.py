"""The conditions of a run: every physical parameter of a simulated tile in one model."""

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

_Share = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0)]
_Amount = Annotated[float, Field(ge=0)]
Four = tuple[_Amount, _Amount, _Amount, _Amount]
Shifts = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]

IDEAL_CROSSTALK: tuple[Four, Four, Four, Four] = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))


class Conditions(BaseModel):
    """Physics of one tile. Lists of four are in channel order A, C, G, T."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    density_k_mm2: Annotated[float, Field(ge=0, le=3000)] = 100
    """Clusters, thousands a square millimetre."""
    pixel_um: _Positive = 0.375
    """Edge of a camera pixel in the sample, micrometres."""
    sigma_px: tuple[_Positive, _Positive, _Positive, _Positive] = (1.05, 1.1, 1.15, 1.2)
    """Standard deviation of each channel's point-spread function."""
    crosstalk: tuple[Four, Four, Four, Four] = (
        (1.0, 0.35, 0.01, 0.02),
        (0.3, 1.0, 0.02, 0.02),
        (0.01, 0.02, 1.0, 0.25),
        (0.01, 0.01, 0.1, 1.0),
    )
    """Light of each base (column) in each channel (row), relative to its own channel."""
    photons: _Positive = 800
    """Photons of the median cluster in its own channel and one cycle."""
    channel_yield: Four = (1, 1, 1, 1)
    """Photons of each base relative to ``photons``."""
    brightness_sigma: Annotated[float, Field(ge=0, le=1.5)] = 0.35
    """Spread of cluster brightness: standard deviation of its natural logarithm."""
    background_px: Four = (20, 20, 20, 20)
    """Even background, photons a pixel."""
    structures: Annotated[int, Field(ge=0, le=1000)] = 0
    """Lit things that are no clusters, in the whole tile."""
    structure_photons_px: Annotated[float, Field(ge=0)] = 30
    """Brightness of such a thing, photons a pixel."""
    falloff: _Share = 0.1
    """Loss of illumination from the centre to the corners."""
    phasing: _Share = 0.0015
    prephasing: _Share = 0.001
    """Strands that fall behind, or run ahead, each cycle."""
    decay: _Share = 0.003
    """Light lost each cycle."""
    polyclonal: _Share = 0.04
    """Clusters seeded by two molecules."""
    composition: Four = (0.25, 0.25, 0.25, 0.25)
    """Share of each base in the reads."""
    channel_shift_px: Shifts = ((0, 0), (0, 0), (0, 0), (0, 0))
    """Shift (y, x) of each channel's image against the sample."""
    drift_px: Annotated[float, Field(ge=0, le=20)] = 0.5
    """Largest stage drift (y and x) from a cycle to the next."""
    read_noise_e: Annotated[float, Field(ge=0)] = 1.4
    counts_per_e: _Positive = 2.0
    offset: Annotated[float, Field(ge=0)] = 100
    """Camera: read noise in electrons, counts an electron, counts without light."""

    @model_validator(mode="after")
    def _whole_composition(self) -> "Conditions":
        if abs(sum(self.composition) - 1) > 1e-6:
            raise ValueError(f"composition sums to {sum(self.composition):g}, not to 1")
        return self

    @property
    def density_px2(self) -> float:
        """Clusters a pixel."""
        return self.density_k_mm2 * 1000 * (self.pixel_um / 1000) ** 2


def random_conditions(rng: np.random.Generator) -> Conditions:
    """Conditions to train on: wide enough that an instrument lies inside, dense more often than sparse."""

    def four(low: float, high: float) -> Four:
        a, b, c, d = rng.uniform(low, high, 4)
        return (float(a), float(b), float(c), float(d))

    large = rng.random() < 0.2
    sigma = rng.uniform(1.7, 3.0) if large else rng.uniform(0.8, 1.7)
    crowding = np.exp(rng.uniform(np.log(0.02), np.log(0.9)))
    density_px2 = min(crowding / (2 * np.pi * sigma**2), 0.09)
    leak = rng.uniform(0.0, 0.06, (4, 4))
    leak[0, 1], leak[1, 0] = rng.uniform(0, 0.7), rng.uniform(0, 0.5)
    leak[2, 3], leak[3, 2] = rng.uniform(0, 0.5), rng.uniform(0, 0.4)
    if rng.random() < 0.3:
        leak[rng.integers(4), rng.integers(4)] = rng.uniform(0, 0.4)
    np.fill_diagonal(leak, 1.0)
    rows = [tuple(float(v) for v in row) for row in leak]
    composition = rng.dirichlet(np.full(4, np.exp(rng.uniform(np.log(0.5), np.log(50)))))
    photons = float(np.exp(rng.uniform(np.log(120), np.log(6000))) * max(1.0, (sigma / 1.2) ** 2))
    peak = photons / (2 * np.pi * sigma**2)
    channel_yield = np.exp(rng.normal(0, 0.35, 4))
    background = float(np.exp(rng.uniform(np.log(0.02), np.log(2))) * peak)
    return Conditions(
        density_k_mm2=density_px2 / 0.375**2 * 1000,
        sigma_px=tuple(sigma * four(0.88, 1.15)[i] for i in range(4)),
        crosstalk=rows,
        photons=photons,
        channel_yield=tuple(float(v) for v in channel_yield),
        brightness_sigma=rng.uniform(0.1, 0.55),
        background_px=tuple(background * v for v in four(0.3, 1.7)),
        structures=int(rng.integers(1, 6)) if rng.random() < 0.35 else 0,
        structure_photons_px=peak * np.exp(rng.uniform(np.log(0.1), np.log(3))),
        falloff=rng.uniform(0, 0.3),
        phasing=rng.uniform(0, 0.004),
        prephasing=rng.uniform(0, 0.003),
        decay=rng.uniform(0, 0.01),
        composition=tuple(float(v) for v in composition),
        channel_shift_px=tuple((float(y), float(x)) for y, x in rng.uniform(-0.8, 0.8, (4, 2))),
        read_noise_e=rng.uniform(0.8, 2.5),
        counts_per_e=float(np.exp(rng.uniform(np.log(0.5), np.log(4)))),
        offset=rng.uniform(0, 500),
    )
