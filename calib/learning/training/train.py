"""The training loop: simulate a batch, step both branches, keep a checkpoint."""

import copy
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from calib.learning.training.loss import joint_loss
from calib.learning.training.samples import simulated_sample
from calib.learning.training.settings import SettingsError, TrainingSettings
from engines.network import Network

GRADIENT_NORM = 1.0
"""Gradients are clipped to this norm; a rare crowded patch otherwise undoes many steps."""

Report = Callable[[int, dict[str, float]], None]
"""Called after every step with the number of steps done and the terms of the loss."""


class Training:
    """A training run that can be stopped after any step and resumed with the same result.

    Samples are drawn from ``(seed, step)`` alone, so a resumed run sees what an undisturbed one
    would have seen.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.step = 0
        self.seconds = 0.0
        self.network = Network(settings.architecture).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=1e-4
        )

    @classmethod
    def resumed(cls, settings: TrainingSettings, checkpoint: Path) -> "Training":
        """Go on from a checkpoint; ``settings`` may change the number of steps only.

        Raises
        ------
        SettingsError : another setting differs.
        """
        try:
            state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
            stored = TrainingSettings.model_validate(state["settings"])
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
            raise SettingsError(f"checkpoint {checkpoint}: not a checkpoint of this seqd; move it away") from error
        if stored.model_copy(update={"steps": settings.steps}) != settings:
            raise SettingsError(f"checkpoint {checkpoint} was trained with other settings: {stored}")
        training = cls(settings)
        training.network.load_state_dict(state["network"])
        training.average.load_state_dict(state["average"])
        training.optimizer.load_state_dict(state["optimizer"])
        training.step, training.seconds = state["step"], state["seconds"]
        return training

    def save(self, checkpoint: Path) -> None:
        """Write a checkpoint; a crash while writing leaves the one before."""
        state = {
            "settings": self.settings.model_dump(),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        fresh = checkpoint.with_suffix(".tmp")
        torch.save(state, fresh)
        fresh.replace(checkpoint)

    def run(self, *, checkpoint: Path, checkpoint_every: int, report: Report) -> None:
        """Train to the last step, saving on the way and at the end."""
        while self.step < self.settings.steps:
            started = time.monotonic()
            terms = self._train_step()
            self.seconds += time.monotonic() - started
            if self.step % checkpoint_every == 0 or self.step == self.settings.steps:
                self.save(checkpoint)
            report(self.step, terms)

    def _train_step(self) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate_at(self.step)
        images, classes, superresolved = self._batch()
        logits, rebuilt = self.network(images)
        loss, terms = joint_loss(logits, rebuilt, classes, superresolved, self.settings.loss)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return terms

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        settings = self.settings
        samples = [
            simulated_sample(seed=[settings.seed, self.step, index], size=settings.patch_px)
            for index in range(settings.batch)
        ]
        images = torch.from_numpy(np.stack([sample.images for sample in samples]))
        classes = torch.from_numpy(np.stack([sample.classes for sample in samples]))
        superresolved = torch.from_numpy(np.stack([sample.superresolved for sample in samples]))
        return images.contiguous(memory_format=torch.channels_last), classes, superresolved

    @torch.no_grad()
    def _update_average(self) -> None:
        # The first averages would otherwise remember the random start.
        decay = min(self.settings.average, self.step / (self.step + 10))
        for mean, weight in zip(self.average.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(weight, 1 - decay)
