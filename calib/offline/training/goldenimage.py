"""The tile that every new bundle keeps with its network's answer."""

from pathlib import Path

import numpy as np

from calib.normalisation import estimate_normalisation
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedtile import simulate_tile
from engines.bundles.golden import GoldenTile

CONDITIONS = Path(__file__).parents[1] / "evaluation" / "conditions" / "density_284.json"
"""Crowded, so that neighbours are told apart by the finer details of the maps."""

SHAPE = (128, 160)
CYCLES, CYCLE = 5, 3
"""Cycles that brightness is estimated from, and the one that is kept."""
SEED = 7

STEP_PX = 1 / 256
"""Positions are whole multiples of it."""


def golden_tile() -> GoldenTile:
    """A crowded simulated tile, the same at every call.

    Positions are those of all clusters, also of those that lie outside and shine in, then the corners of the
    image, the middles of its edges, and places far away.
    """
    tile = simulate_tile(Conditions.model_validate_json(CONDITIONS.read_bytes()), shape=SHAPE, cycles=CYCLES, seed=SEED)
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
