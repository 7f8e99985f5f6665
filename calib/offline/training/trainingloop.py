"""The training loop: draw a batch, step both branches, validate, keep a checkpoint."""

import copy
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from calib.offline.training.hardware import Process, choose_dtype
from calib.offline.training.history import Evaluation, best, no_longer_improves
from calib.offline.training.labelled import LabelledTile, labelled_sample
from calib.offline.training.loss import Branches, LossSums, joint_loss, loss_sums
from calib.offline.training.settings import SettingsError, TrainingSettings
from calib.offline.training.trainingsamples import Batch, Sample, simulated_sample, stack
from engines.bundles.bundle import Bundle
from engines.bundles.torchbundle import load_weights
from engines.network.torchnetwork import Network

GRADIENT_NORM = 1.0
"""Gradients are clipped to this norm; a rare crowded patch otherwise undoes many steps."""

Report = Callable[[int, dict[str, float]], None]
"""Called after every step with the number of steps done and the terms of the loss."""


class Training:
    """A training run that can be stopped after any step and resumed with the same result.

    A sample depends only on the seed, the step and the sample's index in the step. Therefore a resumed run gets the
    same samples as a run without interruption, and several processes together get the samples of a single process. On
    a CPU the resumed weights have the same bits. On a GPU they may differ, because the order of additions varies there.

    Parameters
    ----------
    process : this process among those that train together; every one makes the same ``Training``.
    start : bundle with the weights to begin with; without it, the weights are random.
    labelled : tiles to draw ``labelled_share`` of the patches from.

    Raises
    ------
    SettingsError : the bundle to start from is of another architecture, or the batch cannot be
        dealt out to the processes.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        *,
        process: Process,
        start: Bundle | None = None,
        labelled: tuple[LabelledTile, ...] = (),
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.step = 0
        self.seconds = 0.0
        self.history: list[Evaluation] = []
        self.origin = {"start": start.hash if start else "", "labelled": [tile.identity for tile in labelled]}
        self.dtype = choose_dtype(settings.precision, process.device)
        network = Network(settings.architecture)
        if start:
            if start.model.architecture != settings.architecture:
                raise SettingsError(
                    f"bundle {start.folder}: {start.model.architecture}, the settings say {settings.architecture}"
                )
            network.load_state_dict(load_weights(start.folder))
        network = network.to(process.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._process = process
        self._own = process.share(settings.batch)
        self._source = Source(settings, labelled)
        self._network = Branches(network, settings.loss)
        self._average = copy.deepcopy(self._network)
        self._best = copy.deepcopy(network.state_dict())
        self._since = torch.zeros(len(LossSums._fields), dtype=torch.float64)
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=1e-4
        )
        self._scaler = torch.amp.GradScaler(process.device.type, enabled=self.dtype is torch.float16)
        self._parallel = process.parallel(self._network)
        self._held_out: list[Batch] = []

    def resume(self, checkpoint: Path) -> None:
        """Continue from a checkpoint.

        The settings must be those of the training that wrote it, except for the number of steps.

        Raises
        ------
        SettingsError : another setting, the start or the labels differ, or the file is no checkpoint.
        """
        try:
            state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
            stored = TrainingSettings.model_validate(state["settings"])
            origin = state["origin"]
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
            raise SettingsError(f"checkpoint {checkpoint}: not a checkpoint of this seqd; move it away") from error
        if stored.model_copy(update={"steps": self.settings.steps}) != self.settings:
            raise SettingsError(f"checkpoint {checkpoint} was trained with other settings: {stored}")
        if origin != self.origin:
            raise SettingsError(f"checkpoint {checkpoint} was trained from another start or other labels: {origin}")
        self._network.network.load_state_dict(state["network"])
        self._average.network.load_state_dict(state["average"])
        self._best = state["best"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self._since = state["since"]
        self.history = [Evaluation(**row) for row in state["history"]]
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self, checkpoint: Path) -> None:
        """Write a checkpoint, in the first process; a crash during the write leaves the previous one."""
        if not self._process.first:
            return
        state = {
            "settings": self.settings.model_dump(mode="json"),
            "origin": self.origin,
            "network": self._network.network.state_dict(),
            "average": self._average.network.state_dict(),
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "since": self._since,
            "history": [asdict(row) for row in self.history],
            "step": self.step,
            "seconds": self.seconds,
        }
        fresh = checkpoint.with_suffix(".tmp")
        torch.save(state, fresh)
        fresh.replace(checkpoint)

    @property
    def finished(self) -> bool:
        """Whether all steps are done or validation has stopped improving."""
        return self.step >= self.settings.steps or no_longer_improves(self.history, self.settings.patience)

    def best(self) -> Network:
        """The averaged weights that validated best, in FP32 on the CPU."""
        network = Network(self.settings.architecture)
        network.load_state_dict(self._best)
        return network.eval()

    def run(self, *, checkpoint: Path, checkpoint_every: int, report: Report) -> None:
        """Train to the end, validating and saving on the way and at the end."""
        # The start weights of a bundle are evaluated too, because they may already be the best. A checkpoint has no
        # evaluation if it was written between two evaluations; if the training ends there, it is evaluated now.
        unknown = self.step >= self.settings.steps or (self.step == 0 and bool(self.origin["start"]))
        if unknown and not self._validated:
            self._validate()
            self.save(checkpoint)
        while not self.finished:
            started = time.monotonic()
            terms = self._train_step()
            if self.step % self.settings.validate_every == 0 or self.step == self.settings.steps:
                self._validate()
            self.seconds += time.monotonic() - started
            if self.step % checkpoint_every == 0 or self.finished:
                self.save(checkpoint)
            report(self.step, terms)

    @property
    def _validated(self) -> bool:
        return bool(self.history) and self.history[-1].step == self.step

    def _train_step(self) -> dict[str, float]:
        rate = self.settings.learning_rate_at(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        batch = stack([self._source.training(self.step, index) for index in self._own], self._process.device)
        own = self._sums(self._parallel, batch)
        whole_step = self._process.total(own.packed())
        # The library averages gradients over the processes, but these losses must be added.
        loss = self._process.size * joint_loss(own, LossSums.unpacked(whole_step), self.settings.loss)
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self._network.parameters(), GRADIENT_NORM)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.step += 1
        self._update_average()
        totals = whole_step.cpu()
        self._since += totals
        return LossSums.unpacked(totals).means()

    def _sums(self, model: Callable[[Tensor], tuple[Tensor, Tensor | None]], batch: Batch) -> LossSums:
        with torch.autocast(self._process.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            logits, superresolved = model(batch.images)
        return loss_sums(logits, superresolved, batch)

    @torch.no_grad()
    def _validate(self) -> None:
        """Evaluate the average; where it is the best so far, keep it."""
        settings, process = self.settings, self._process
        if not self._held_out:
            mine = range(process.rank, settings.validation_patches, process.size)
            # Batches of one patch give sums that do not depend on the number of processes.
            self._held_out = [stack([self._source.held_out(index)], process.device) for index in mine]
        packed = torch.zeros(len(LossSums._fields), dtype=torch.float64, device=process.device)
        for batch in self._held_out:
            packed += self._sums(self._average, batch).packed()
        found = LossSums.unpacked(process.total(packed).cpu())
        evaluation = Evaluation(
            step=self.step,
            learning_rate=settings.learning_rate_at(self.step - 1) if self.step else 0.0,
            training=LossSums.unpacked(self._since).means() if self.step else {},
            validation=found.means(),
            loss=joint_loss(found, found, settings.loss).item(),
        )
        self._since = torch.zeros_like(self._since)
        self.history.append(evaluation)
        if best(self.history) == len(self.history) - 1:
            self._best = {
                name: value.to("cpu", copy=True) for name, value in self._average.network.state_dict().items()
            }

    @torch.no_grad()
    def _update_average(self) -> None:
        # The decay is small in the first steps; otherwise the first averages would contain the random start weights.
        decay = min(self.settings.average, self.step / (self.step + 10))
        for mean, weight in zip(self._average.parameters(), self._network.parameters(), strict=True):
            mean.lerp_(weight, 1 - decay)


HELD_OUT = 2**31 + 1
"""The seeds of held-out patches have this number in place of the step; no training has as many steps."""


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
