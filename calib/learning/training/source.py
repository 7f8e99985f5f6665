"""Which patch is drawn when: every one from the seed, the step and its place in the step alone."""

from dataclasses import dataclass

import numpy as np

from calib.learning.training.labelled import LabelledTile, labelled_sample
from calib.learning.training.samples import Sample, simulated_sample
from calib.learning.training.settings import TrainingSettings

HELD_OUT = 2**31 + 1
"""Stands for the step in the seeds of held-out patches; no training has as many steps."""


@dataclass(frozen=True)
class Source:
    """Patches to train and to validate on, simulated or cut from labelled tiles."""

    settings: TrainingSettings
    labelled: tuple[LabelledTile, ...] = ()

    def training(self, step: int, index: int) -> Sample:
        """A patch of a 0-based step."""
        return self._draw(step, index, held_out=False)

    def held_out(self, index: int) -> Sample:
        """A patch that training never sees."""
        return self._draw(HELD_OUT, index, held_out=True)

    def _draw(self, step: int, index: int, *, held_out: bool) -> Sample:
        seed, size = [self.settings.seed, step, index], self.settings.patch_px
        rng = np.random.default_rng([*seed, 1])
        if self.labelled and rng.random() < self.settings.labelled_share:
            tile = self.labelled[rng.integers(len(self.labelled))]
            return labelled_sample(tile, rng=rng, size=size, held_out=held_out)
        return simulated_sample(seed=seed, size=size)
