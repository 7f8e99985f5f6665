"""A whole training: from settings to a bundle with its quality table and provenance."""

import platform
import tomllib
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.progress import Progress

from calib.learning.training.quality import fit_quality
from calib.learning.training.settings import SettingsError, TrainingSettings
from calib.learning.training.train import Training
from engines.export import write_bundle

SMOOTH = 0.98
"""Memory of the losses shown."""


def train_bundle(
    bundle: Path,
    *,
    checkpoint: Path,
    settings_file: Path | None,
    name: str,
    checkpoint_every: int,
    progress: Progress,
) -> None:
    """Train, or go on from a checkpoint, then fit the quality table and write the bundle."""
    settings = read_settings(settings_file)
    training = Training.resumed(settings, checkpoint) if checkpoint.exists() else Training(settings)
    losses: dict[str, float] = {}
    task = progress.add_task("steps", total=settings.steps, completed=training.step)

    def report(step: int, terms: dict[str, float]) -> None:
        for term, value in terms.items():
            losses[term] = SMOOTH * losses.get(term, value) + (1 - SMOOTH) * value
        shown = ", ".join(f"{term} {value:.4f}" for term, value in losses.items())
        progress.update(task, completed=step, description=f"steps ({shown})")

    training.run(checkpoint=checkpoint, checkpoint_every=checkpoint_every, report=report)
    quality = fit_quality(training.average, seed=settings.seed)
    write_bundle(
        bundle,
        name=name,
        architecture=settings.architecture,
        weights=training.average.state_dict(),
        quality=quality,
        training=provenance(training, losses),
    )


def read_settings(path: Path | None) -> TrainingSettings:
    """Settings from a TOML file, or the defaults.

    Raises
    ------
    SettingsError : names the setting and what is allowed.
    """
    if path is None:
        return TrainingSettings()
    try:
        return TrainingSettings.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise SettingsError(f"settings {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"settings {path}: not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SettingsError(f"settings {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def provenance(training: Training, losses: dict[str, float]) -> dict[str, Any]:
    """What made the weights: settings, data, losses, time, software."""
    return {
        "settings": training.settings.model_dump(mode="json"),
        "data": "simulated patches, calib.learning.training.samples",
        "steps": training.step,
        "hours": round(training.seconds / 3600, 3),
        "losses": {term: round(value, 5) for term, value in losses.items()},
        "software": {"torch": torch.__version__, "python": platform.python_version()},
        "machine": platform.machine(),
    }
