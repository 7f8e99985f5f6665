"""Everything that decides what a training run ends with."""

from pydantic import BaseModel, ConfigDict, Field

from calib.learning.training.loss import LossWeights
from engines.architecture import Architecture
from engines.errors import SeqdError


class SettingsError(SeqdError):
    """The training settings cannot be used."""

    exit_code = 2


class TrainingSettings(BaseModel):
    """A training run; kept in the bundle as its provenance."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Architecture = Architecture()
    loss: LossWeights = LossWeights()
    steps: int = Field(2500, ge=1)
    """Optimiser steps."""
    batch: int = Field(3, ge=1, le=1024)
    """Patches a step."""
    patch_px: int = Field(80, ge=16, le=1024)
    """Edge of a patch."""
    learning_rate: float = Field(1.5e-3, gt=0)
    """Peak learning rate of AdamW."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear rise to the peak."""
    decay_share: float = Field(0.4, ge=0, le=1)
    """Last share of the steps, over which the learning rate falls linearly to zero."""
    average: float = Field(0.995, ge=0, lt=1)
    """Decay of the running average of the weights; the average is what ships."""
    seed: int = Field(1, ge=0)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a 0-based step."""
        rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        left = (self.steps - step) / max(1.0, self.decay_share * self.steps)
        return self.learning_rate * min(rise, 1.0, left)
