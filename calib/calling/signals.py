"""A reading: what one cycle shows of each cluster, before its neighbours in time are heard."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.crosstalk import unmix
from calib.jointfit.colourprior import SPREAD
from calib.jointfit.fitcycle import FittedCycle, brightness_now
from calib.jointfit.scene import Scene

MOST = 100.0
"""Shares, their errors and crowding are cut here; a cluster without light has no more to say."""

LEAST_VISIBLE = 0.005
"""A cluster that has left the image but for this share of its spot, squared, is not read."""

LEAST_EVIDENCE = 0.05
"""The network's evidence in a cycle that shows hardly anything is not scaled up to the usual."""

MISFIT = 0.02
"""Share of a cluster's brightness that the fit leaves over because spots are no perfect Gaussians; no structure."""


@dataclass(frozen=True)
class Signals:
    """What one cycle shows of a tile's clusters."""

    shares: NDArray[np.float32]
    """(n, 4) light of each base, about 1 for the base that is there; NaN for a cluster that has left the image."""
    spread: NDArray[np.float32]
    """(n, 4) standard error of the shares that the image itself shows."""
    texture: NDArray[np.float32]
    """(n,) share of what the fit left over around the cluster that is structure, neither noise nor misfit; 0-1."""
    centres: NDArray[np.float32]
    """(n, 4) the network's evidence, see :func:`engines.network.centres.read_centres`."""
    crowding: NDArray[np.float32]
    """(n,) light of other clusters, known or not, relative to what shows of its own; 0 for the network alone."""

    def packed(self) -> NDArray[np.float16]:
        """(n, 14) to be kept until the cycle can be called; calls are made from what this keeps."""
        columns = (self.shares, self.spread, self.centres, self.texture[:, None], self.crowding[:, None])
        return np.concatenate(columns, axis=1).astype(np.float16)

    @classmethod
    def unpacked(cls, stored: NDArray[np.float16]) -> "Signals":
        """What :meth:`packed` gave."""
        shares, spread, centres, texture, crowding = np.split(stored.astype(np.float32), [4, 8, 12, 13], axis=1)
        return cls(shares, spread, texture[:, 0], centres, crowding[:, 0])


def network_signals(centres: NDArray[np.float32]) -> Signals:
    """The network alone: its evidence, relative to what is usual in the cycle, stands for the light."""
    outside = centres.sum(axis=1, keepdims=True) <= 0
    usual = float(np.median(centres.max(axis=1))) if len(centres) else 0.0
    shares = np.where(outside, np.nan, centres / max(usual, LEAST_EVIDENCE)).astype(np.float32)
    nothing = np.zeros(len(shares), np.float32)
    return Signals(shares, np.zeros_like(shares), nothing, centres, nothing)


def fitted_signals(
    fitted: FittedCycle,
    scene: Scene,
    *,
    called: NDArray[np.int64],
    crowding: NDArray[np.float64],
    centres: NDArray[np.float32] | None,
) -> Signals:
    """The joint fit, with the network's evidence beside it.

    Parameters
    ----------
    fitted : of all clusters of the scene.
    called : (n,) clusters of the scene to read.
    crowding : (n,) light of other clusters on theirs, relative to their own.
    centres : (n, 4) of those; None for the fit alone.
    """
    scale = np.maximum(brightness_now(fitted.light, scene), 1e-6)[called, None]
    visible = np.maximum(fitted.visible[called, None], 1e-6)
    shares = np.clip(unmix(fitted.light[called], scene.crosstalk) / scale, -MOST, MOST)
    left_over = np.maximum(fitted.left_over[called], 1e-6)
    white = scene.noise / (np.sqrt(np.pi) * scene.sigma_px)
    explained = white**2 + (MISFIT * scale) ** 2
    structure = 1 - np.minimum(explained / left_over**2, 1).mean(axis=1)
    return Signals(
        shares=np.where(visible >= LEAST_VISIBLE, shares, np.nan).astype(np.float32),
        spread=np.minimum(left_over / scale / np.sqrt(visible), MOST).astype(np.float32),
        texture=np.zeros(len(called), np.float32) if centres is None else structure.astype(np.float32),
        centres=np.zeros_like(left_over) if centres is None else centres,
        crowding=np.minimum(crowding / visible[:, 0], MOST).astype(np.float32),
    )


FIT_LOSS = 0.8
"""Share of its weight that the fit loses where all that it left over is structure."""

NETWORK_WEIGHT = 4.0
"""Weight of the network's evidence there. Over noise alone the fit is all there is to know."""

EVIDENCE_FLOOR = 0.02
"""Evidence of the network that says nothing."""


def log_evidence(reading: Signals, shares: NDArray[np.floating], loudness: float = 1.0) -> NDArray[np.float64]:
    """(n, 4) log-likelihood of each base, up to what all four share; NaN for a cluster outside the image.

    A cluster shows its base's light with a Gaussian error of the chemistry's spread and the image's.
    Where the image has structure that no cluster explains, such as tissue, the network, which has
    learnt what clusters look like, is heard instead.

    Parameters
    ----------
    shares : (n, 4) the reading's, or the same after correction for phasing.
    loudness : factor on the variance of the shares that such a correction brings.
    """
    variance = loudness * (SPREAD**2 + reading.spread.astype(np.float64) ** 2)
    texture = reading.texture[:, None].astype(np.float64)
    heard = np.log(reading.centres.astype(np.float64) + EVIDENCE_FLOOR)
    fit = (shares - 0.5) / variance
    return np.asarray((1 - FIT_LOSS * texture) * fit + NETWORK_WEIGHT * texture**2 * heard)
