"""The module measures whether training the super-resolution branch too improves the calls.

It compares a network trained on both branches with one trained on the calls alone.

Both networks have the same architecture, start and patches, and take the same steps; only the
weights of the loss differ.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from calib.offline.training.hardware import Process
from calib.offline.training.loss import Branches, LossSums, loss_sums
from calib.offline.training.settings import LossWeights, SettingsError, TrainingSettings
from calib.offline.training.trainingloop import Report, Training
from calib.offline.training.trainingsamples import simulated_patch, stack
from engines.network.centres import read_centres
from engines.network.torchnetwork import Network

UNSEEN = 2**31 + 2
"""The seeds of the test patches have this number in place of the step, so that neither training nor validation uses the
same patches."""


@dataclass(frozen=True)
class Result:
    """Results of one network on the test patches."""

    trained: str
    """``joint`` or ``calls alone``."""
    seed: int
    """Of the training."""
    steps: int
    """Number of steps until the end, or until validation stopped improving."""
    minutes: float
    """Time of the training, validation included."""
    cross_entropy: float
    """Cross-entropy in nats per cluster."""
    error_rate: float
    """Share of wrong bases, read at the true positions of monoclonal clusters."""
    clusters: int
    """Number of clusters from which ``error_rate`` was computed."""


def ablate(
    settings: TrainingSettings,
    *,
    process: Process,
    folder: Path,
    repeats: int,
    patches: int,
    reporter: Callable[[str], Report],
) -> list[Result]:
    """Train networks in both ways, and compare them on patches that no network was trained on.

    Checkpoints are stored in ``folder``, so that an interrupted ablation can continue; the results are
    written to ``folder/ablation.json``.

    Parameters
    ----------
    settings : settings of the joint training.
    repeats : trainings of each kind; every repeat takes the next seed.
    patches : number of test patches; they are the same for all networks.
    reporter : gets the name of a training and returns the callback for its steps.

    Raises
    ------
    SettingsError : the settings train no joint network.
    """
    if not settings.loss.trains_superresolution or settings.loss.calls == 0:
        raise SettingsError(f"loss {settings.loss}: a joint training weighs the calls and mse or ssim")
    alone = LossWeights(mse=0, ssim=0, calls=settings.loss.calls)
    results = []
    for seed in range(settings.seed, settings.seed + repeats):
        for trained, loss in (("joint", settings.loss), ("calls alone", alone)):
            training = Training(settings.model_copy(update={"loss": loss, "seed": seed}), process=process)
            checkpoint = folder / f"{trained.replace(' ', '_')}_{seed}.pt"
            if checkpoint.exists():
                training.resume(checkpoint)
            report = reporter(f"{trained}, seed {seed}")
            training.run(checkpoint=checkpoint, checkpoint_every=settings.validate_every, report=report)
            entropy, wrong, clusters = evaluate(training.best(), patches, settings)
            results.append(
                Result(trained, seed, training.step, training.seconds / 60, entropy, wrong / max(1, clusters), clusters)
            )
    written = {"settings": settings.model_dump(mode="json"), "patches": patches, "results": [*map(asdict, results)]}
    (folder / "ablation.json").write_text(json.dumps(written, indent=2) + "\n", "utf-8")
    return results


@torch.no_grad()
def evaluate(network: Network, patches: int, settings: TrainingSettings) -> tuple[float, int, int]:
    """Cross-entropy in nats a cluster, wrong bases and clusters read, on unseen simulated patches."""
    model = Branches(network, LossWeights(mse=0, ssim=0))
    total = torch.zeros(len(LossSums._fields), dtype=torch.float64)
    wrong = clusters = 0
    for index in range(patches):
        patch = simulated_patch(rng=np.random.default_rng([settings.seed, UNSEEN, index]), size=settings.patch_px)
        batch = stack([patch.sample()], torch.device("cpu"))
        logits, _ = model(batch.images)
        total += loss_sums(logits, None, batch).packed()
        tile, cycle = patch.tile, patch.cycle
        known = tile.inside & (tile.second_share == 0)
        positions = np.stack([tile.channel_positions(cycle, channel)[known] for channel in range(4)])
        centres = read_centres(torch.softmax(logits, dim=1)[0].numpy(), positions.astype(np.float32))
        wrong += int((np.argmax(centres, axis=1) != tile.reads[known, cycle - 1]).sum())
        clusters += int(known.sum())
    return LossSums.unpacked(total).means()["calls"], wrong, clusters
