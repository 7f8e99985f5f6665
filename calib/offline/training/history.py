"""The history of a training: the losses at every evaluation, as numbers, as CSV and as a curve."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class Evaluation:
    """The network after a number of steps."""

    step: int
    learning_rate: float
    """Value of the last step; 0 before the first."""
    training: dict[str, float]
    """Unweighted terms of the loss over all patches since the previous evaluation; empty before the first step."""
    validation: dict[str, float]
    """The same terms of the averaged weights on the held-out patches."""
    loss: float
    """Weighted sum of the validation terms."""


def best(history: Sequence[Evaluation]) -> int:
    """Index of the evaluation with the lowest loss, the first of equal ones; a loss that is NaN is never the best."""
    return min(range(len(history)), key=lambda index: _ordered(history[index].loss))


def no_longer_improves(history: Sequence[Evaluation], patience: int) -> bool:
    """Whether none of the last ``patience`` evaluations was better than the best evaluation before them."""
    return len(history) > patience and best(history) < len(history) - patience


def _ordered(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def write_history(history: Sequence[Evaluation], stem: Path) -> None:
    """Write ``<stem>.csv``, one row per evaluation, and ``<stem>.png``, the learning curve."""
    with stem.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        terms = list(history[-1].validation)
        names = [f"{part}_{term}" for part in ("training", "validation") for term in terms]
        writer.writerow(["step", "learning_rate", *names, "validation_loss"])
        for row in history:
            values = [part.get(term, "") for part in (row.training, row.validation) for term in terms]
            writer.writerow([row.step, row.learning_rate, *values, row.loss])
    _learning_curve(history).savefig(stem.with_suffix(".png"), dpi=120)


LABELS = {"calls": "cross-entropy, nats a cluster", "mse": "mean squared error", "ssim": "SSIM"}


def _learning_curve(history: Sequence[Evaluation]) -> Figure:
    """Draw one panel per term; the evaluation whose weights go into the bundle is marked."""
    terms = list(history[-1].validation)
    figure = Figure(figsize=(4 * len(terms), 3.2), layout="constrained")
    chosen = history[best(history)].step
    steps = [row.step for row in history]
    for axes, term in zip(figure.subplots(1, len(terms), squeeze=False)[0], terms, strict=True):
        axes.plot(steps, [row.training.get(term, math.nan) for row in history], label="training")
        axes.plot(steps, [row.validation[term] for row in history], label="held out, averaged weights")
        axes.axvline(chosen, color="0.6", linestyle=":", label=f"best: step {chosen}")
        axes.set(xlabel="step", ylabel=LABELS[term])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.axes[0].legend(fontsize="small")
    return figure
