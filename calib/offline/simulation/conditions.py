"""The conditions of a run: every physical parameter of a simulated tile in one model."""

from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

_Share = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0)]
_Amount = Annotated[float, Field(ge=0)]
Four = tuple[_Amount, _Amount, _Amount, _Amount]
Signed = tuple[float, float, float, float]
Shifts = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]

IDEAL_CROSSTALK: tuple[Four, Four, Four, Four] = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))


class Grid(BaseModel):
    """Patterned flow cell: a square grid of spots that hold one cluster or nanoball each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pitch_um: _Positive
    """Distance of neighbouring spots."""
    jitter_um: _Amount = 0
    """Standard deviation of a cluster's place on its spot, in y and in x."""
    occupancy: _Share = 1
    """Share of the spots that hold a cluster."""
    angle_deg: float = 0
    """Rotation of the grid against the camera."""


class Pattern(BaseModel):
    """Stripes of a structured illumination, in three orientations 60 degrees apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    period_um: _Positive = 1.25
    """Distance of neighbouring stripes in the sample."""
    modulation: _Share = 0.8
    angle_deg: float = 10
    """Direction across the first orientation's stripes: its angle from the x axis, counted towards the y axis."""
    start_phase_rad: tuple[float, float, float] = (0.3, 1.1, 2.0)
    """Phase of each orientation's first step; each further step adds a third of a period."""


class Conditions(BaseModel):
    """Physics of one tile. Lists of four are in channel order A, C, G, T."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    density_k_mm2: Annotated[float, Field(ge=0, le=3000)] = 100
    """Clusters at random places, thousands per square millimetre; ignored if there is a grid."""
    grid: Grid | None = None
    """Layout of a patterned flow cell, in place of a random one."""
    pixel_um: _Positive = 0.375
    """Edge of a camera pixel in the sample, micrometres."""
    sigma_px: tuple[_Positive, _Positive, _Positive, _Positive] = (1.05, 1.1, 1.15, 1.2)
    """Standard deviation of each channel's point-spread function, in focus."""
    airy_tail: tuple[_Share, _Share, _Share, _Share] = (0, 0, 0, 0)
    """Share of each channel's light in the rings of diffraction; 0.24 is that of a perfect lens."""
    defocus_um: Signed = (0, 0, 0, 0)
    """Distance of each channel's focal plane from the clusters."""
    focus_drift_um: Annotated[float, Field(ge=0, le=10)] = 0
    """Largest change of focus from a cycle to the next."""
    focal_depth_um: _Positive = 1.0
    """Distance from focus at which spots have grown by the square root of two."""
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
    """Number of bright objects in the whole tile that are no clusters."""
    structure_photons_px: Annotated[float, Field(ge=0)] = 30
    """Brightness of an object counted by ``structures``, photons a pixel."""
    falloff: _Share = 0.1
    """Loss of illumination from the centre to the corners."""
    pattern: Pattern = Pattern()
    """Stripes, where structured illumination is asked for."""
    bubbles: Annotated[float, Field(ge=0, le=100)] = 0
    """Bubbles expected in a cycle, in the whole tile."""
    bubble_radius_px: _Positive = 30
    """Median radius of a bubble."""
    bubble_light: _Share = 0.3
    """Share of the light that a bubble lets through."""
    bubble_blur_px: _Positive = 2.5
    """Standard deviation of the blur under a bubble."""
    dust: Annotated[int, Field(ge=0, le=1000)] = 0
    """Dark or glowing specks that stay, in the whole tile."""
    dust_photons_px: _Amount = 200
    """Brightness of a glowing speck, photons a pixel."""
    phasing: _Share = 0.0015
    prephasing: _Share = 0.001
    """Shares of the strands that fall behind, or run ahead, in each cycle."""
    t_accumulation: Annotated[float, Field(ge=0, lt=1)] = 0
    """Light of a T that stays on its strands from a cycle to the next."""
    first_cycle: _Positive = 1
    """Light of the first cycle of a read, relative to the decay curve of the other cycles."""
    decay: _Share = 0.003
    """Share of light lost in each cycle of a read; the next read starts with full light."""
    polyclonal: _Share = 0.04
    """Share of clusters that grew from two molecules."""
    composition: Four = (0.25, 0.25, 0.25, 0.25)
    """Share of each base in the random reads, or in the reference if one is simulated."""
    channel_shift_px: Shifts = ((0, 0), (0, 0), (0, 0), (0, 0))
    """Shift (y, x) of each channel's image against the sample."""
    channel_magnification: tuple[_Positive, _Positive, _Positive, _Positive] = (1, 1, 1, 1)
    """Scale of each channel's image about its centre."""
    drift_px: Annotated[float, Field(ge=0, le=20)] = 0.5
    """Largest stage drift (y and x) from a cycle to the next."""
    read_noise_e: Annotated[float, Field(ge=0)] = 1.4
    """Read noise of the camera, electrons."""
    counts_per_e: _Positive = 2.0
    offset: Annotated[float, Field(ge=0)] = 100
    """Counts of a camera pixel without light."""
    read_noise_spread: Annotated[float, Field(ge=0, le=2)] = 0
    """Spread of the logarithm of the read noise over the pixels."""
    gain_spread: _Share = 0
    """Spread of the gain over the pixels, relative to its mean."""
    offset_spread: _Amount = 0
    """Spread of the offset over the pixels, counts."""

    @model_validator(mode="after")
    def _whole_composition(self) -> "Conditions":
        if abs(sum(self.composition) - 1) > 1e-6:
            raise ValueError(f"composition sums to {sum(self.composition):g}, not to 1")
        return self

    @property
    def density_px2(self) -> float:
        """Clusters a pixel."""
        if self.grid is not None:
            return self.grid.occupancy * (self.pixel_um / self.grid.pitch_um) ** 2
        return self.density_k_mm2 * 1000 * (self.pixel_um / 1000) ** 2


PIXEL_UM = 0.375
"""Pixel of random conditions; the network depends on sizes in pixels only."""


def random_conditions(rng: np.random.Generator) -> Conditions:
    """Random conditions for training. Their range includes real instruments; dense tiles are more frequent than
    sparse.
    """

    def four(low: float, high: float) -> Four:
        a, b, c, d = rng.uniform(low, high, 4)
        return (float(a), float(b), float(c), float(d))

    large = rng.random() < 0.2
    sigma = rng.uniform(1.7, 3.0) if large else rng.uniform(0.8, 1.7)
    crowding = np.exp(rng.uniform(np.log(0.02), np.log(1.1)))
    density_px2 = min(crowding / (2 * np.pi * sigma**2), 0.145)
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
        density_k_mm2=density_px2 / PIXEL_UM**2 * 1000,
        pixel_um=PIXEL_UM,
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
        **_rare_effects(rng, density_px2=density_px2, peak_photons_px=peak),
    )


def _rare_effects(rng: np.random.Generator, *, density_px2: float, peak_photons_px: float) -> dict[str, Any]:
    """Draw effects that are weak or rare on most instruments; most draws leave each of them out."""
    drawn: dict[str, Any] = {"channel_magnification": tuple(rng.uniform(0.999, 1.001, 4))}
    if rng.random() < 0.15:
        occupancy = rng.uniform(0.6, 1)
        pitch_um = PIXEL_UM * (occupancy / density_px2) ** 0.5
        drawn["grid"] = Grid(
            pitch_um=pitch_um,
            jitter_um=pitch_um * rng.uniform(0, 0.1),
            occupancy=occupancy,
            angle_deg=rng.uniform(-3, 3),
        )
    if rng.random() < 0.15:
        drawn["airy_tail"] = tuple(rng.uniform(0, 0.25, 4))
    if rng.random() < 0.25:
        drawn |= {"defocus_um": tuple(rng.uniform(-0.5, 0.5, 4)), "focus_drift_um": rng.uniform(0, 0.1)}
    if rng.random() < 0.25:
        drawn |= {"t_accumulation": rng.uniform(0, 0.1), "first_cycle": rng.uniform(0.7, 1)}
    if rng.random() < 0.03:
        drawn |= {"bubbles": 0.7, "bubble_radius_px": rng.uniform(10, 60), "bubble_light": rng.uniform(0.1, 0.7)}
    if rng.random() < 0.1:
        drawn |= {"dust": int(rng.integers(1, 4)), "dust_photons_px": peak_photons_px * rng.uniform(0.3, 4)}
    if rng.random() < 0.3:
        drawn |= {"read_noise_spread": 0.3, "gain_spread": rng.uniform(0, 0.03), "offset_spread": rng.uniform(0, 4)}
    return drawn
