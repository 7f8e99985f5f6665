"""A called tile image, from which every form is drawn."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import shift
from seqd_client.runinfo import TileId

from calib.calling.scores import NO_CALL
from calib.template.tiletemplate import TileTemplate
from engines.contract import Answer


@dataclass(frozen=True)
class Clusters:
    """Called clusters; an array without another shape is (n,)."""

    positions: NDArray[np.float32]
    """(n, 2) y and x, pixels."""
    bases: NDArray[np.uint8]
    """0-3: A, C, G, T."""
    qualities: NDArray[np.uint8]
    """Phred."""


@dataclass(frozen=True)
class CalledImage:
    """The four frames of a tile in a cycle that was called, and what is known of them."""

    tile: TileId
    cycle: int
    """1-based."""
    pixels: NDArray[np.uint16]
    """(4, H, W)."""
    template: TileTemplate
    drift_px: NDArray[np.float32]
    """(2,) y and x of the cycle's drift against the template, from the ledger."""
    calls: NDArray[np.uint8]
    """(n,) bytes of the tile file, for every cluster of the template."""
    maps: Answer | None = None
    """Maps of the network, where a form needs them."""

    def clusters(self, channel: int | None) -> Clusters:
        """Clusters called as the base of a channel, at their positions in that channel.

        For None, all called clusters, at the mean position of the channels.
        """
        bases, called = self.calls & 3, self.calls != NO_CALL
        if channel is None:
            positions = self.template.positions + self.drift_px
        else:
            positions = self.template.positions_in(self.drift_px)[channel]
            called &= bases == channel
        return Clusters(positions[called], bases[called], self.calls[called] >> 2)

    def aligned(self, images: NDArray[np.uint16 | np.float32]) -> NDArray[np.float32]:
        """Images of the four channels shifted to the mean position of the channels, linearly interpolated.

        Parameters
        ----------
        images : (4, k H, k W) where (H, W) is the shape of a frame and k a whole number.
        """
        scale = images.shape[1] // self.pixels.shape[1]
        moved = [
            shift(image, -scale * by, order=1, mode="nearest", output=np.float32)
            for image, by in zip(images, self.template.channel_shift_px, strict=True)
        ]
        return np.stack(moved)
