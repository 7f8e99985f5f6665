"""Making a tile's template from its first cycles, and keeping it."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.normalisation import Normalisation, estimate_normalisation
from calib.registration import align, draw_reference, register, spots_only
from calib.template import Detections, detect, merge
from daemon.errors import OutputError
from daemon.tilefile import write_durably

MapOf = Callable[[NDArray[np.uint16], Normalisation], NDArray[np.float32]]
"""Runs the network: (4, H, W) pixels to the (5, H, W) probability map."""


@dataclass(frozen=True)
class TileTemplate:
    """What is known of a tile: clusters, brightness and geometry."""

    positions: NDArray[np.float32]
    """(n, 2) y and x in the cycle that the others were aligned to (the first, if it was fit), mean of the channels."""
    normalisation: Normalisation
    channel_shift_px: NDArray[np.float32]
    """(4, 2)."""
    reference: NDArray[np.float32]
    """(H, W) band-passed picture that later cycles are registered to."""

    def drift(self, pixels: NDArray[np.uint16]) -> NDArray[np.float32]:
        """(2,) shift of a cycle's images; raises :class:`calib.registration.RegistrationError`."""
        spots = spots_only(self.normalisation.apply(pixels))
        return register(self.reference, spots, self.channel_shift_px)

    def positions_in(self, drift_px: NDArray[np.float32]) -> NDArray[np.float32]:
        """(4, n, 2) where each channel of a cycle shows each cluster."""
        return (self.positions[None] + drift_px + self.channel_shift_px[:, None]).astype(np.float32)


@dataclass(frozen=True)
class TemplateCycle:
    """One cycle that went into a template."""

    drift_px: NDArray[np.float32]
    """(2,); NaN where the cycle did not match the others."""
    probabilities: NDArray[np.float32] | None
    """(5, H, W); None where the cycle did not match."""


def make_template(images: list[NDArray[np.uint16]], probability_map: MapOf) -> tuple[TileTemplate, list[TemplateCycle]]:
    """Template from the images of a tile's first cycles, at least one; and what was seen in each."""
    stack = np.stack(images)
    normalisation = estimate_normalisation(stack)
    alignment = align(np.stack([spots_only(normalisation.apply(pixels)) for pixels in images]))
    cycles: list[TemplateCycle] = []
    detections: list[Detections] = []
    for pixels, drift in zip(images, alignment.drift_px, strict=True):
        if np.isnan(drift[0]):
            cycles.append(TemplateCycle(drift, None))
            continue
        probabilities = probability_map(pixels, normalisation)
        cycles.append(TemplateCycle(drift, probabilities))
        detections.append(detect(probabilities, drift_px=drift, channel_shift_px=alignment.channel_shift_px))
    shape = (stack.shape[2], stack.shape[3])
    positions = merge(detections, shape=shape)
    template = TileTemplate(positions, normalisation, alignment.channel_shift_px, draw_reference(positions, shape))
    return template, cycles


def save_template(path: Path, template: TileTemplate) -> None:
    """Write a template durably; the reference is drawn again when it is read."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        positions=template.positions,
        offset=template.normalisation.offset,
        gain=template.normalisation.gain,
        channel_shift_px=template.channel_shift_px,
    )
    write_durably(path, buffer.getvalue())


def load_template(path: Path, shape: tuple[int, int]) -> TileTemplate:
    """Read a template written by :func:`save_template`.

    Raises
    ------
    OutputError : the file is missing or damaged.
    """
    try:
        with np.load(path) as stored:
            positions = stored["positions"]
            return TileTemplate(
                positions,
                Normalisation(stored["offset"], stored["gain"]),
                stored["channel_shift_px"],
                draw_reference(positions, shape),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise OutputError(f"template {path}: {error}; the file was changed from outside") from error
