"""The golden tile of new bundles: a simulated tile for which the bundle stores the network's answer."""

import numpy as np

from calib.normalisation import estimate_normalisation
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedtile import simulate_tile
from engines.bundles.golden import GoldenTile

CONDITIONS = Conditions(
    density_k_mm2=330,
    sigma_px=(1.0, 1.15, 1.06, 1.24),
    crosstalk=((1.0, 0.3, 0.02, 0.01), (0.36, 1.0, 0.01, 0.01), (0.01, 0.01, 1.0, 0.2), (0.02, 0.01, 0.18, 1.0)),
    photons=900,
    brightness_sigma=0.3,
    background_px=(16, 24, 19, 22),
    phasing=0.001,
    prephasing=0.0014,
    decay=0.002,
    polyclonal=0.03,
    channel_shift_px=((0.2, 0.3), (-0.5, 0.2), (0.3, -0.4), (-0.1, -0.2)),
    drift_px=0.4,
)
"""The tile is crowded, so that only the finer details of the network's maps tell neighbours apart. The evaluation does
not use these conditions."""

SHAPE = (128, 160)
CYCLES, CYCLE = 5, 3
"""Number of cycles for the estimate of brightness, and the cycle that is stored."""
SEED = 11

STEP_PX = 1 / 256
"""Positions are whole multiples of this."""


def golden_tile() -> GoldenTile:
    """A crowded simulated tile, the same at every call.

    The positions are first those of all clusters, also of clusters outside the image whose light reaches into it; then
    the corners of the image, the middles of its edges, and places far away.
    """
    tile = simulate_tile(CONDITIONS, shape=SHAPE, cycles=CYCLES, seed=SEED)
    images = np.stack([tile.images(cycle) for cycle in range(1, CYCLES + 1)])
    normalisation = estimate_normalisation(images)
    clusters = np.stack([tile.channel_positions(CYCLE, channel) for channel in range(4)])
    last = np.array(SHAPE) - 1.0
    edges = np.array([(y, x) for y in (0, 0.5, 1) for x in (0, 0.5, 1) if (y, x) != (0.5, 0.5)]) * last
    beyond = np.concatenate([edges, edges + 0.5, edges - 0.5, [(-1e4, 10), (10, 1e4)]])
    positions = np.concatenate([clusters, np.broadcast_to(beyond, (4, *beyond.shape))], axis=1)
    return GoldenTile(
        pixels=images[CYCLE - 1],
        offset=normalisation.offset,
        gain=normalisation.gain,
        positions=(np.rint(positions / STEP_PX) * STEP_PX).astype(np.float32),
    )
