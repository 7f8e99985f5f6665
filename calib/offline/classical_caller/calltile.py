"""The steps of the classical caller for a tile: spots, template, intensities, cross-talk, phasing, calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import TileId

from calib.crosstalk import brightness, estimate_crosstalk, unmix
from calib.normalisation import Normalisation, estimate_normalisation
from calib.offline.classical_caller import logspots
from calib.offline.classical_caller.callscores import chastity, passes_filter, qualities
from calib.offline.classical_caller.phasecorrection import phasing_of, undo_phasing
from calib.phasing import Phasing
from calib.registration import Alignment, RegistrationError, align, draw_reference, register, spots_only
from calib.runfolder.images import RunFolderError, read_frames, read_run_info
from calib.template.detections import Detections, merge

TEMPLATE_CYCLES = 7

SCALES_PX = (0.8, 1.0, 1.2, 1.4, 1.7, 2.2, 2.9)
"""Widths of the spot filter that are tried. A narrow filter separates neighbours, a wide one collects more light.
The width whose calls in the template cycles have the highest sum of scores is kept."""


@dataclass(frozen=True)
class ClassicalCalls:
    """Calls of the classical caller for a tile."""

    positions: NDArray[np.float32]
    """(n, 2) y and x, pixels, in the first cycle's frame and the mean of the channels."""
    bases: NDArray[np.uint8]
    """(n, cycles) 0-3; 0 where the quality is 0."""
    intensities: NDArray[np.float32]
    """(n, cycles, 4) corrected for cross-talk and phasing, 1 for the typical lit cluster; NaN where a cycle
    could not be registered or shows the cluster outside the image."""
    qualities: NDArray[np.uint8]
    """(n, cycles) Phred scores; 0 is a no-call."""
    passed: NDArray[np.bool_]
    """(n,) whether the cluster passes the chastity filter."""
    geometry: Alignment
    """Drift of every cycle and shift of every channel."""
    normalisation: Normalisation
    crosstalk: NDArray[np.float64]
    """(4, 4) rows are channels, columns bases, diagonal 1."""
    phasing: Phasing
    scale_px: float
    """Width of the spot filter."""


def call_tile(images: Sequence[NDArray[np.uint16]]) -> ClassicalCalls:
    """Call the clusters of a tile, each as if it stood alone.

    Parameters
    ----------
    images : one (4, H, W) a cycle, in order, at least one.
    """
    template_images = np.stack(images[:TEMPLATE_CYCLES])
    normalisation = estimate_normalisation(template_images)
    normalised = [normalisation.apply(pixels) for pixels in images]
    geometry = align(np.stack([spots_only(planes) for planes in normalised[:TEMPLATE_CYCLES]]))
    candidates = [_template(normalised[:TEMPLATE_CYCLES], geometry, scale_px) for scale_px in SCALES_PX]
    best = int(np.argmax([score for _, score in candidates]))
    positions, scale_px = candidates[best][0], SCALES_PX[best]
    geometry = _later(normalised, geometry, positions)
    intensities = _intensities(normalised, geometry, positions, scale_px)
    crosstalk, intensities = _corrected(intensities)
    phasing = phasing_of(intensities)
    intensities = undo_phasing(intensities, phasing)
    scores = qualities(intensities)
    strongest = np.argmax(np.nan_to_num(intensities, nan=-np.inf), axis=2)
    return ClassicalCalls(
        positions=positions,
        bases=np.where(scores > 0, strongest, 0).astype(np.uint8),
        intensities=intensities,
        qualities=scores,
        passed=passes_filter(chastity(intensities)),
        geometry=geometry,
        normalisation=normalisation,
        crosstalk=crosstalk,
        phasing=phasing,
        scale_px=scale_px,
    )


def call_folder(root: Path, tile: TileId) -> ClassicalCalls:
    """Call the first read of a tile of a run folder.

    Raises
    ------
    RunFolderError : the folder, the tile or one of its frames is missing or not as documented.
    """
    info = read_run_info(root)
    if tile not in info.tiles:
        raise RunFolderError(f"run folder {root}: tile {tile} is not one of {', '.join(map(str, info.tiles))}")
    return call_tile(
        [read_frames(root, tile, cycle, shape=(info.height, info.width)) for cycle in info.cycles_of(info.reads[0])]
    )


def _template(
    normalised: Sequence[NDArray[np.float32]], geometry: Alignment, scale_px: float
) -> tuple[NDArray[np.float32], int]:
    """Positions (n, 2) found with a spot filter, and the sum of the scores of their calls."""
    detections = []
    for planes, drift in zip(normalised, geometry.drift_px, strict=True):
        # A cycle that cannot be registered adds no spots. If most cycles cannot be registered, no clusters are found.
        found = [np.zeros((0, 2))]
        if np.isfinite(drift[0]):
            found += [
                logspots.find(logspots.response(plane, scale_px=scale_px)) - drift - shift
                for plane, shift in zip(planes, geometry.channel_shift_px, strict=True)
            ]
        seen = np.concatenate(found)
        detections.append(Detections(seen, np.ones(len(seen))))
    positions = merge(detections, shape=normalised[0].shape[1:])
    _, bases = _corrected(_intensities(normalised, geometry, positions, scale_px))
    return positions, int(qualities(bases).sum())


def _later(normalised: Sequence[NDArray[np.float32]], geometry: Alignment, positions: NDArray[np.float32]) -> Alignment:
    """The geometry of all cycles: those after the template are registered to it."""
    reference = draw_reference(positions, normalised[0].shape[1:])
    drift = np.full((len(normalised), 2), np.nan, np.float32)
    drift[: len(geometry.drift_px)] = geometry.drift_px
    for cycle in range(len(geometry.drift_px), len(normalised)):
        try:
            drift[cycle] = register(reference, spots_only(normalised[cycle]), geometry.channel_shift_px)
        except RegistrationError:
            continue  # the cycle stays NaN, so that all its calls are no-calls
    return Alignment(drift, geometry.channel_shift_px)


def _intensities(
    normalised: Sequence[NDArray[np.float32]], geometry: Alignment, positions: NDArray[np.float32], scale_px: float
) -> NDArray[np.float32]:
    """(n, cycles, 4) spot response of every cluster in every frame; NaN where a cycle is not registered."""
    intensities = np.full((len(positions), len(normalised), 4), np.nan, np.float32)
    for cycle, (planes, drift) in enumerate(zip(normalised, geometry.drift_px, strict=True)):
        if np.isnan(drift[0]):
            continue
        for channel, shift in enumerate(geometry.channel_shift_px):
            seen = logspots.response(planes[channel], scale_px=scale_px)
            intensities[:, cycle, channel] = logspots.read(seen, positions + drift + shift)
    intensities[np.isnan(intensities).any(axis=2)] = np.nan
    return intensities


def _corrected(intensities: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return the cross-talk matrix, and the intensities corrected for it with all four bases on one scale."""
    crosstalk = estimate_crosstalk(intensities)
    bases = unmix(intensities, crosstalk)
    return crosstalk, (bases / brightness(bases)).astype(np.float32)
