"""The first quality table of a bundle: fitted on simulated tiles that training never drew."""

import numpy as np
import torch

from calib.learning.training.samples import simulated_patch
from calib.quality import NO_CALL_BELOW, fit_table, predictor
from engines.bundle import QualityTable
from engines.network import Network
from engines.readout import read_centres

PATCHES = 500
PATCH_PX = 112
POSITION_ERROR_PX = 0.15
"""Positions are read this far (standard deviation) from the truth, as a template has them."""


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
        inside = patch.tile.inside & (patch.tile.second_share == 0)
        positions = np.stack([patch.tile.channel_positions(patch.cycle, channel)[inside] for channel in range(4)])
        error = rng.normal(0, POSITION_ERROR_PX, positions.shape[1:])
        centres = read_centres(probabilities, (positions + error).astype(np.float32))
        called = centres.sum(axis=1) >= NO_CALL_BELOW
        truth = patch.tile.reads[inside, patch.cycle - 1]
        predictors.append(predictor(centres)[called])
        wrong.append((np.argmax(centres, axis=1) != truth)[called])
    return fit_table(np.concatenate(predictors), np.concatenate(wrong))
