"""The first quality table of a bundle: fitted on simulated tiles that training never drew."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from calib.learning.simulation.tile import SimulatedTile
from calib.learning.training.samples import simulated_patch
from calib.quality import fit_table, predictor
from calib.template.detections import RESOLUTION_PX
from engines.bundle import QualityTable
from engines.network import Network
from engines.readout import read_centres

PATCHES = 500
PATCH_PX = 112
POSITION_ERROR_PX = 0.15
"""Positions are read this far (standard deviation) from the truth, as a template has them."""


def _resolved(tile: SimulatedTile) -> NDArray[np.bool_]:
    """(n,) clusters that a template can hold: no brighter one so close that the two are merged."""
    pairs = cKDTree(tile.positions_px).query_pairs(RESOLUTION_PX, output_type="ndarray")
    first_dimmer = tile.brightness[pairs[:, 0]] < tile.brightness[pairs[:, 1]]
    resolved = np.ones(len(tile.positions_px), bool)
    resolved[np.where(first_dimmer, pairs[:, 0], pairs[:, 1])] = False
    return resolved


@torch.no_grad()
def fit_quality(network: Network, *, seed: int) -> QualityTable:
    """Phred scores from the network's evidence at the true positions of fresh patches."""
    network.eval()
    predictors, wrong = [], []
    for index in range(PATCHES):
        rng = np.random.default_rng([seed, 2**31, index])
        patch = simulated_patch(rng=rng, size=PATCH_PX)
        logits, _ = network(torch.from_numpy(patch.normalised)[None])
        probabilities = torch.softmax(logits, dim=1)[0].numpy()
        inside = patch.tile.inside & (patch.tile.second_share == 0) & _resolved(patch.tile)
        positions = np.stack([patch.tile.channel_positions(patch.cycle, channel)[inside] for channel in range(4)])
        error = rng.normal(0, POSITION_ERROR_PX, positions.shape[1:])
        centres = read_centres(probabilities, (positions + error).astype(np.float32))
        called = centres.sum(axis=1) > 0
        truth = patch.tile.reads[inside, patch.cycle - 1]
        predictors.append(predictor(centres)[called])
        wrong.append((np.argmax(centres, axis=1) != truth)[called])
    return fit_table(np.concatenate(predictors), np.concatenate(wrong))
