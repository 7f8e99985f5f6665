"""A tile's template: clusters, optics and geometry, made from its first cycles."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from calib.calling.signals import Signals, fitted_signals, network_signals
from calib.jointfit.fitcycle import FittedCycle, fit_cycle
from calib.jointfit.localise import localise
from calib.jointfit.scene import Scene, crowding, crowding_beyond
from calib.jointfit.smoothing import in_parallel
from calib.normalisation import Normalisation, estimate_normalisation
from calib.registration import Alignment, align, draw_reference, register, spots_only
from calib.template.detections import detect, merge, support
from engines.bundles.bundle import Readout
from engines.network.centres import read_centres

MapOf = Callable[[NDArray[np.uint16], Normalisation], NDArray[np.float32]]
"""Runs the network: (4, H, W) pixels to the (5, H, W) probability map. Several threads call it at once."""

SEED_SUPPORT = 0.3
"""The joint localisation starts with the clusters that the network sees in at least this share of the cycles."""

MIN_EVIDENCE_IN_STRUCTURE = 0.4
"""Smallest mean evidence of the network over the cycles for a cluster whose whole residual is structure, which neither
noise nor the form of the spots explains. If only a part of the residual is structure, this is multiplied by it."""


@dataclass(frozen=True)
class TileTemplate:
    """Clusters, optics and geometry of a tile."""

    positions: NDArray[np.float32]
    """(n, 2) y and x of the clusters that are called, mean of the channels. The coordinates are those of the reference
    cycle, usually the first; all other cycles were aligned to it."""
    normalisation: Normalisation
    channel_shift_px: NDArray[np.float32]
    """(4, 2) shift of each channel, y and x."""
    reference: NDArray[np.float32]
    """(H, W) band-passed picture that later cycles are registered to."""
    scene: Scene | None = None
    """All clusters and optics for the joint fit; None where the calls are made from the network's evidence alone."""
    called: NDArray[np.int64] | None = None
    """(n,) which clusters of the scene are called."""

    def drift(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(2,) shift of a cycle's normalised images; raises :class:`calib.registration.RegistrationError`."""
        return register(self.reference, spots_only(images), self.channel_shift_px)

    def positions_in(self, drift_px: NDArray[np.float32]) -> NDArray[np.float32]:
        """(4, n, 2) where each channel of a cycle shows each cluster."""
        return (self.positions[None] + drift_px + self.channel_shift_px[:, None]).astype(np.float32)

    def signals(
        self, fitted: FittedCycle | None, drift_px: NDArray[np.float32], centres: NDArray[np.float32] | None
    ) -> Signals:
        """Signals of the called clusters in one cycle, from the fit, the network, or both."""
        if self.scene is None or self.called is None or fitted is None:
            assert centres is not None
            return network_signals(centres)
        shape = self.reference.shape
        beyond = crowding_beyond(self.scene, shape, drift_px)
        return fitted_signals(
            fitted,
            self.scene,
            called=self.called,
            crowding=(self._crowding + beyond)[self.called],
            centres=centres,
        )

    @cached_property
    def _crowding(self) -> NDArray[np.float64]:
        """(clusters of the scene,)"""
        assert self.scene is not None
        return crowding(self.scene)


def make_template(
    images: list[NDArray[np.uint16]],
    probability_map: MapOf,
    readout: Readout,
    on_progress: Callable[[], None] = lambda: None,
) -> TileTemplate:
    """Make the template from a tile's first cycles, at least one; cycles that match no other are left out.

    ``on_progress`` is called after every step, so that a watchdog sees progress.
    """
    shape = (images[0].shape[1], images[0].shape[2])
    normalisation = estimate_normalisation(np.stack(images))
    alignment = align(np.stack([spots_only(normalisation.apply(pixels)) for pixels in images]))
    matched = np.flatnonzero(np.isfinite(alignment.drift_px[:, 0]))
    maps = in_parallel(
        lambda index: probability_map(images[index], normalisation), [(int(index),) for index in matched]
    )
    alignment = Alignment(alignment.drift_px[matched], alignment.channel_shift_px)
    if readout is Readout.NETWORK or len(matched) == 0:
        positions = _merged(maps, alignment, shape)
        return TileTemplate(positions, normalisation, alignment.channel_shift_px, draw_reference(positions, shape))
    whole = np.stack([normalisation.apply(images[index]) for index in matched])
    scene = localise(
        whole,
        drift_px=alignment.drift_px,
        channel_shift_px=alignment.channel_shift_px,
        seeds=_merged(maps, alignment, shape, min_support=SEED_SUPPORT),
        support=support(maps, drift_px=alignment.drift_px, channel_shift_px=alignment.channel_shift_px),
        on_progress=on_progress,
    )
    positions = scene.positions.astype(np.float32)
    inside = np.flatnonzero(_inside(positions, shape))
    template = TileTemplate(
        positions=positions[inside],
        normalisation=normalisation,
        channel_shift_px=scene.channel_shift_px.astype(np.float32),
        reference=draw_reference(positions, shape),
        scene=scene,
        called=inside,
    )
    kept = _clusters(template, whole, maps, alignment.drift_px, on_progress)
    return replace(template, positions=template.positions[kept], called=inside[kept])


def _clusters(
    template: TileTemplate,
    images: NDArray[np.float32],
    maps: list[NDArray[np.float32]],
    drift_px: NDArray[np.float32],
    on_progress: Callable[[], None],
) -> NDArray[np.bool_]:
    """(n,) whether a candidate is a cluster: the more of the residual around it is structure, the more evidence of the
    network it needs, see :data:`MIN_EVIDENCE_IN_STRUCTURE`.
    """
    assert template.scene is not None
    scene = template.scene

    def read(index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the evidence for any base and the texture around the cluster, (n,) each."""
        drift = drift_px[index]
        centres = read_centres(maps[index], template.positions_in(drift))
        on_progress()
        return centres.sum(axis=1), template.signals(fit_cycle(images[index], scene, drift), drift, centres).texture

    seen, texture = zip(*in_parallel(read, [(index,) for index in range(len(images))]), strict=True)
    return np.asarray(np.mean(seen, axis=0) >= MIN_EVIDENCE_IN_STRUCTURE * np.mean(texture, axis=0))


def _inside(positions: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.asarray(np.all((positions >= -0.5) & (positions < np.array(shape) - 0.5), axis=1))


def _merged(
    maps: list[NDArray[np.float32]], alignment: Alignment, shape: tuple[int, int], **min_support: float
) -> NDArray[np.float32]:
    channel_shift_px = alignment.channel_shift_px
    found = [
        detect(seen, drift_px=drift, channel_shift_px=channel_shift_px)
        for seen, drift in zip(maps, alignment.drift_px, strict=True)
    ]
    return merge(found, shape=shape, **min_support)
