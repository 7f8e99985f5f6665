"""Images that show how large the numbers inside the network become."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.learning.quality.replay import TEMPLATE_CYCLES
from calib.normalisation import estimate_normalisation
from calib.runfolder import RunInfo, read_frames

PATCHES, PATCH_PX = 60, 192
"""Of all tiles together, and the longest edge of one."""


def calibration_patches(runs: Mapping[Path, RunInfo]) -> list[NDArray[np.float32]]:
    """Patches (1, 4, h, w) in normalised units from random places and template cycles, as many of every tile.

    Brightness is taken from a tile's template cycles, as when it is called.

    Raises
    ------
    RunFolderError : an image is missing or damaged.
    """
    rng = np.random.default_rng(0)
    tiles = [(root, info, tile) for root, info in runs.items() for tile in info.tiles]
    patches = []
    for root, info, tile in tiles:
        shape = info.height, info.width
        cycles = range(1, 1 + min(TEMPLATE_CYCLES, info.cycles))
        images = np.stack([read_frames(root, tile, cycle, shape=shape) for cycle in cycles])
        normalisation = estimate_normalisation(images)
        for _ in range(-(-PATCHES // len(tiles))):
            rows, columns = (_span(edge, rng) for edge in shape)
            patches.append(normalisation.apply(rng.choice(images)[:, rows, columns])[None].astype(np.float32))
    return patches


def _span(edge: int, rng: np.random.Generator) -> slice:
    length = min(edge, PATCH_PX)
    first = int(rng.integers(edge - length + 1))
    return slice(first, first + length)
