"""The work of the training commands: a training that starts with settings and ends with a bundle, and the ablation."""

import platform
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.progress import Progress

from calib.offline.quality.fittables import fit_bundle, simulate_runs, tile_cycles
from calib.offline.training.ablation import Result, ablate
from calib.offline.training.goldenimage import golden_tile
from calib.offline.training.hardware import Process, choose_device, join_processes
from calib.offline.training.history import best, write_history
from calib.offline.training.labelled import read_labelled
from calib.offline.training.settings import SettingsError, read_settings
from calib.offline.training.trainingloop import Report, Training
from engines.bundles.bundle import load_bundle
from engines.bundles.torchbundle import write_bundle

SMOOTH = 0.98
"""Decay of the running mean of the losses that are shown."""


def train_bundle(
    bundle: Path,
    *,
    checkpoint: Path,
    settings_file: Path | None,
    name: str,
    checkpoint_every: int,
    start: Path | None,
    labelled: Sequence[Path],
    progress: Progress,
) -> bool:
    """Train, or continue from a checkpoint, then write the bundle and fit its quality tables.

    Under ``torchrun`` all processes train together and the first one writes.

    Returns
    -------
    Whether this process is the one that writes.

    Raises
    ------
    SettingsError, RunFolderError, BundleError : the settings, a labelled run folder or the bundle cannot be used.
    """
    settings = read_settings(settings_file)
    begun = load_bundle(start) if start else None
    if begun and "architecture" not in settings.model_fields_set:
        settings = settings.model_copy(update={"architecture": begun.model.architecture})
    tiles = read_labelled(labelled, patch_px=settings.patch_px)
    with join_processes(settings.device) as process:
        training = Training(settings, process=process, start=begun, labelled=tiles)
        if checkpoint.exists():
            training.resume(checkpoint)
        report: Report = _silent
        if process.first:
            _make_folder(checkpoint.parent)
            report = _shown(training, checkpoint, progress)
        training.run(checkpoint=checkpoint, checkpoint_every=checkpoint_every, report=report)
        if not process.first:
            return False
    network = training.best()
    write_bundle(
        bundle,
        name=name,
        architecture=settings.architecture,
        weights=network.state_dict(),
        training=provenance(training),
        golden=golden_tile(),
    )
    with TemporaryDirectory(prefix="seqd-quality-") as scratch:
        roots = simulate_runs(Path(scratch), runs=settings.quality_runs, size=settings.quality_px, seed=settings.seed)
        task = progress.add_task("quality", total=tile_cycles(roots))
        fit_bundle(bundle, roots, progress=lambda: progress.advance(task))
    return True


def compare_losses(
    folder: Path, *, settings_file: Path | None, repeats: int, patches: int, progress: Progress
) -> list[Result]:
    """Run the ablation of :mod:`calib.offline.training.ablation` in one process.

    Raises
    ------
    SettingsError : the settings cannot be used.
    """
    settings = read_settings(settings_file)
    process = Process(choose_device(settings.device))
    _make_folder(folder)

    def reporter(trained: str) -> Report:
        task = progress.add_task(trained, total=settings.steps)
        return lambda step, _: progress.update(task, completed=step)

    return ablate(settings, process=process, folder=folder, repeats=repeats, patches=patches, reporter=reporter)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"folder {folder}: {error.strerror}") from error


def _silent(step: int, terms: dict[str, float]) -> None:
    """Callback of the processes that show no progress."""


def _shown(training: Training, checkpoint: Path, progress: Progress) -> Report:
    """Report to a progress bar, and after every evaluation to the learning curve beside the checkpoint."""
    losses: dict[str, float] = {}
    task = progress.add_task("steps", total=training.settings.steps, completed=training.step)

    def report(step: int, terms: dict[str, float]) -> None:
        for term, value in terms.items():
            losses[term] = SMOOTH * losses.get(term, value) + (1 - SMOOTH) * value
        shown = ", ".join(f"{term} {value:.3f}" for term, value in losses.items())
        if training.history:
            chosen = training.history[best(training.history)]
            shown += f"; best {chosen.loss:.3f} at {chosen.step}"
            if training.history[-1].step == step:
                write_history(training.history, checkpoint)
        progress.update(task, completed=step, description=f"steps ({shown})")

    return report


def provenance(training: Training) -> dict[str, Any]:
    """Provenance of the weights: settings, data, losses, time, software."""
    chosen = training.history[best(training.history)]
    return {
        "settings": training.settings.model_dump(mode="json"),
        "data": "simulated patches, calib.offline.training.trainingsamples",
        **training.origin,
        "steps": training.step,
        "best_step": chosen.step,
        "hours": round(training.seconds / 3600, 3),
        "losses": {term: round(value, 5) for term, value in chosen.training.items()},
        "held_out": {term: round(value, 5) for term, value in chosen.validation.items()},
        "precision": str(training.dtype).removeprefix("torch."),
        "software": {"torch": torch.__version__, "python": platform.python_version()},
        "machine": platform.machine(),
    }
