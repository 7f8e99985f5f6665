"""Signals: the light and the network's evidence of every cluster in one cycle, not yet corrected for phasing.

``docs/benchmarks/template-constants.md`` shows how much each constant matters.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.crosstalk import unmix
from calib.jointfit.colourprior import SPREAD
from calib.jointfit.fitcycle import FittedCycle, brightness_now
from calib.jointfit.scene import Scene

MAX_SHARE = 100.0
"""Shares, their errors and crowding are clipped at this value; larger values come from clusters without light."""

MIN_VISIBLE = 0.005
"""A cluster is read if the images contain at least this share of the sum of its spot's squared pixel values."""

MIN_USUAL_EVIDENCE = 0.05
"""The evidence is divided by the median over the clusters of their strongest evidence in the cycle, but at least by
this, so that an empty cycle shows no calls."""

MISFIT = 0.02
"""Real spots are no perfect Gaussians; therefore the fit leaves this residual, as a share of a cluster's brightness."""


@dataclass(frozen=True)
class Signals:
    """Light, errors and evidence of a tile's clusters in one cycle."""

    shares: NDArray[np.float32]
    """(n, 4) light of each base, about 1 for the base that is there; NaN for a cluster that has left the image."""
    spread: NDArray[np.float32]
    """(n, 4) standard error of the shares, from the residual of the image around each cluster."""
    texture: NDArray[np.float32]
    """(n,) 0-1, share of the residual around the cluster that neither noise nor :data:`MISFIT` explains."""
    centres: NDArray[np.float32]
    """(n, 4) the network's evidence, see :func:`engines.network.centres.read_centres`."""
    crowding: NDArray[np.float32]
    """(n,) light of other clusters, relative to the visible light of the cluster; 0 where the calls are made from the
    network's evidence alone."""

    def packed(self) -> NDArray[np.float16]:
        """Return the (n, 14) array that is stored until the cycle can be called."""
        columns = (self.shares, self.spread, self.centres, self.texture[:, None], self.crowding[:, None])
        return np.concatenate(columns, axis=1).astype(np.float16)

    @classmethod
    def unpacked(cls, stored: NDArray[np.float16]) -> "Signals":
        """Restore signals from the array of :meth:`packed`."""
        shares, spread, centres, texture, crowding = np.split(stored.astype(np.float32), [4, 8, 12, 13], axis=1)
        return cls(shares, spread, texture[:, 0], centres, crowding[:, 0])


def network_signals(centres: NDArray[np.float32]) -> Signals:
    """Signals of the network alone: its (n, 4) evidence, relative to the cycle's usual evidence, is the light."""
    outside = centres.sum(axis=1, keepdims=True) <= 0
    usual = float(np.median(centres.max(axis=1))) if len(centres) else 0.0
    shares = np.where(outside, np.nan, centres / max(usual, MIN_USUAL_EVIDENCE)).astype(np.float32)
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
    """Signals of the joint fit, together with the network's evidence.

    Parameters
    ----------
    fitted : fit of all clusters of the scene.
    called : (n,) indices of the scene's clusters that are to be called.
    crowding : (n,) light of other clusters in the spot of each cluster, relative to the cluster's own light.
    centres : (n, 4) the network's evidence for these clusters; None if the calls are made from the fit alone.
    """
    scale = np.maximum(brightness_now(fitted.light, scene), 1e-6)[called, None]
    visible = np.maximum(fitted.visible[called, None], 1e-6)
    shares = np.clip(unmix(fitted.light[called], scene.crosstalk) / scale, -MAX_SHARE, MAX_SHARE)
    left_over = np.maximum(fitted.left_over[called], 1e-6)
    white = scene.noise / (np.sqrt(np.pi) * scene.sigma_px)
    explained = white**2 + (MISFIT * scale) ** 2
    structure = 1 - np.minimum(explained / left_over**2, 1).mean(axis=1)
    return Signals(
        shares=np.where(visible >= MIN_VISIBLE, shares, np.nan).astype(np.float32),
        spread=np.minimum(left_over / scale / np.sqrt(visible), MAX_SHARE).astype(np.float32),
        texture=np.zeros(len(called), np.float32) if centres is None else structure.astype(np.float32),
        centres=np.zeros_like(left_over) if centres is None else centres,
        crowding=np.minimum(crowding / visible[:, 0], MAX_SHARE).astype(np.float32),
    )


FIT_LOSS = 0.8
"""Share of its weight that the fit loses if its whole residual is structure, which means that neither noise nor
:data:`MISFIT` explains the residual."""

NETWORK_WEIGHT = 4.0
"""Weight of the network's evidence if the whole residual is structure. If it is only noise, the fit alone decides."""

EVIDENCE_FLOOR = 0.02
"""This is added to the network's evidence before the logarithm, so that weaker evidence hardly changes a call."""


def log_evidence(reading: Signals, shares: NDArray[np.floating], variance_factor: float = 1.0) -> NDArray[np.float64]:
    """(n, 4) log-likelihood of each base, except for a term that is equal for all four; NaN outside the image.

    The light of a cluster's base has a Gaussian error; its variance is that of the chemistry plus that of the image.
    Where the image has structure that no cluster explains, such as tissue, the network's evidence counts instead,
    because the network has learnt how clusters look.

    Parameters
    ----------
    shares : (n, 4) shares of the signals, or the same after correction for phasing.
    variance_factor : factor by which that correction raises the variance of the shares.
    """
    variance = variance_factor * (SPREAD**2 + reading.spread.astype(np.float64) ** 2)
    texture = reading.texture[:, None].astype(np.float64)
    network = np.log(reading.centres.astype(np.float64) + EVIDENCE_FLOOR)
    fit = (shares - 0.5) / variance
    return np.asarray((1 - FIT_LOSS * texture) * fit + NETWORK_WEIGHT * texture**2 * network)
