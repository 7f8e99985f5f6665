"""All settings that the result of a training depends on."""

import tomllib
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from seqd_client.errors import SeqdError, validation_text

from engines.network.architecture import Architecture


class LossWeights(BaseModel):
    """Balance of the two tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mse: float = Field(1.0, ge=0)
    """Squared error of the super-resolved images, normalised units."""
    ssim: float = Field(0.1, ge=0)
    """One minus their windowed structural similarity."""
    calls: float = Field(1.0, ge=0)
    """Cross-entropy of the calls, nats a cluster."""

    @property
    def trains_superresolution(self) -> bool:
        """Whether the super-resolution branch has a weight in the loss; otherwise it is not computed."""
        return self.mse > 0 or self.ssim > 0


class SettingsError(SeqdError):
    """The training settings cannot be used."""

    exit_code = 2


class Device(StrEnum):
    """What a training computes on."""

    AUTO = "auto"
    """A GPU where there is one."""
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """Precision of the convolutions; weights, loss and optimiser are always in FP32."""

    AUTO = "auto"
    """BF16 where the hardware computes in it, FP32 elsewhere."""
    F32 = "f32"
    BF16 = "bf16"
    F16 = "f16"
    """FP16 with the loss scaled, so that small gradients do not vanish."""


class TrainingSettings(BaseModel):
    """A training run; kept in the bundle as its provenance."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Architecture = Architecture()
    loss: LossWeights = LossWeights()
    steps: int = Field(2500, ge=1, le=10**8)
    """Optimiser steps at most; training stops earlier when validation no longer improves."""
    batch: int = Field(3, ge=1, le=1024)
    """Patches a step, over all processes together."""
    patch_px: int = Field(80, ge=16, le=1024)
    """Edge of a patch."""
    learning_rate: float = Field(1.5e-3, gt=0, le=1)
    """Peak learning rate of AdamW."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear rise to the peak."""
    decay_share: float = Field(0.4, ge=0, le=1)
    """Share of the steps, at the end, during which the learning rate falls linearly to zero."""
    average: float = Field(0.995, ge=0, lt=1)
    """Decay of the running average of the weights; the bundle gets the average."""
    validate_every: int = Field(250, ge=1)
    """Steps between evaluations of the average on held-out patches."""
    validation_patches: int = Field(48, ge=1, le=100_000)
    """Held-out patches, the same at every evaluation."""
    patience: int = Field(8, ge=1)
    """Training stops after this many evaluations without a better one."""
    labelled_share: float = Field(0.5, ge=0, le=1)
    """Share of the patches drawn from labelled runs, where any are given; the rest is simulated."""
    quality_runs: int = Field(9, ge=1, le=10_000)
    """Simulated tiles that the bundle's quality scores are fitted on afterwards, 40 cycles each."""
    quality_px: int = Field(256, ge=32, le=4096)
    """Edge of such a tile."""
    device: Device = Device.AUTO
    precision: Precision = Precision.AUTO
    seed: int = Field(1, ge=0, lt=2**32)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a 0-based step."""
        rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        left = (self.steps - step) / max(1.0, self.decay_share * self.steps)
        return self.learning_rate * min(rise, 1.0, left)


def read_settings(path: Path | None) -> TrainingSettings:
    """Settings from a TOML file, or the defaults.

    Raises
    ------
    SettingsError : a setting is not valid; the message names it and the allowed values.
    """
    if path is None:
        return TrainingSettings()
    try:
        return TrainingSettings.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise SettingsError(f"settings {path}: {error.strerror}") from error
    except ValidationError as error:
        raise SettingsError(f"settings {path}: {validation_text(error)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings {path}: not TOML: {error}") from error
