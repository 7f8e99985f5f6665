"""Pictures of an evaluation."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calib.offline.evaluation.breakdown import DistanceBin
from calib.offline.evaluation.callerfigures import CodebookEvaluation, RunFigures

CALLER_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours by Okabe and Ito, which colour-blind readers can distinguish too."""

BASE_COLOURS = ("#009E73", "#0072B2", "#E69F00", "#D55E00")
"""Of A, C, G and T."""

SHOWN_CLUSTERS = 10
"""The share of a bin is drawn only if the bin has at least this many clusters."""


def run_figure(run: RunFigures) -> Figure:
    """Callers side by side: errors by cycle, by neighbour and by yield, and the calibration of the scores."""
    figure = Figure(figsize=(13, 7.4), layout="constrained")
    axes = figure.subplots(2, 3)
    panels = (_cycles, _right_by_distance, _errors_by_distance, _yields, _qualities, _quality_by_cycle)
    for panel, axis in zip(panels, axes.flat, strict=True):
        panel(axis, run)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=len(names), frameon=False)
    return figure


def bases_figure(run: RunFigures) -> Figure:
    """For each caller the confusion matrix and, below, the difference of its base composition from the truth."""
    figure = Figure(figsize=(max(4.2, 3.4 * len(run.callers)), 5.6), layout="constrained")
    axes = figure.subplots(2, len(run.callers), squeeze=False)
    cycles = np.arange(1, run.cycles + 1)
    for column, (name, caller) in enumerate(run.callers.items()):
        _confusion(axes[0, column], np.array(caller.confusion, float))
        axes[0, column].set_title(name)
        axis = axes[1, column]
        surplus = 100 * (np.array(caller.composition) - np.array(run.composition))
        for base, colour in enumerate(BASE_COLOURS):
            axis.plot(cycles, surplus[:, base], color=colour, label="ACGT"[base])
        axis.axhline(0, color="grey", lw=1)
        axis.set(xlabel="cycle", ylabel="% of calls − % of truth")
        axis.grid(alpha=0.25)
    axes[1, 0].legend(ncols=4, fontsize="small", frameon=False)
    return figure


def codebook_figure(evaluation: CodebookEvaluation) -> Figure:
    """Reads by mismatches to the nearest code, a panel for each run."""
    figure = Figure(figsize=(7, 3.2 * len(evaluation.runs)), layout="constrained")
    axes = figure.subplots(len(evaluation.runs), 1, squeeze=False)[:, 0]
    for axis, run in zip(axes, evaluation.runs, strict=True):
        width = 0.8 / len(run.callers)
        for index, (name, one) in enumerate(run.callers.items()):
            at = np.arange(len(one.distances)) + (index - (len(run.callers) - 1) / 2) * width
            axis.bar(at, one.distances, width, color=_colour(index), label=name)
        axis.set(title=run.run, xlabel="mismatches to the nearest code", ylabel="reads")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False)
    return figure


def _cycles(axis: Axes, run: RunFigures) -> None:
    for index, (name, caller) in enumerate(run.callers.items()):
        percent = 100 * np.array(caller.error_by_cycle)
        axis.plot(np.arange(1, run.cycles + 1), percent, color=_colour(index), label=name)
    axis.set(title="errors by cycle", xlabel="cycle", ylabel="% wrong or not called")
    axis.set_ylim(bottom=0)


def _right_by_distance(axis: Axes, run: RunFigures) -> None:
    for index, caller in enumerate(run.callers.values()):
        axis.plot(*_by_distance(caller.by_distance, "yielded"), "o-", ms=4, color=_colour(index))
    axis.set(
        title="clusters right, by distance to the nearest cluster",
        xlabel="px",
        ylabel="% of true clusters",
        ylim=(0, 101),
    )


def _errors_by_distance(axis: Axes, run: RunFigures) -> None:
    for index, caller in enumerate(run.callers.values()):
        axis.plot(*_by_distance(caller.by_distance, "error_rate"), "o-", ms=4, color=_colour(index))
    axis.set(title="errors, by distance to the nearest cluster", xlabel="px", ylabel="% wrong or not called")
    axis.set_ylim(bottom=0)


def _by_distance(bins: Sequence[DistanceBin], figure: str) -> tuple[list[float], list[float]]:
    """Return the middles of the bins with enough clusters, and their measures in per cent.

    For the last bin, which has no upper edge, the middle is taken 1 px beyond its lower edge.
    """
    held = [one for one in bins if one.clusters >= SHOWN_CLUSTERS]
    middles = [(one.low + one.high) / 2 if np.isfinite(one.high) else one.low + 1 for one in held]
    return middles, [100 * getattr(one, figure) for one in held]


def _yields(axis: Axes, run: RunFigures) -> None:
    for index, caller in enumerate(run.callers.values()):
        if caller.error_curve:
            bases, errors = np.array(caller.error_curve).T
            axis.plot(100 * bases, 100 * errors, color=_colour(index))
    if bases_true := run.clusters * run.cycles:
        axis.axvline(100 * run.equal_yield_bases / bases_true, color="grey", ls=":", lw=1)
    axis.set(title="errors by yield, best reads first", xlabel="% of true bases called", ylabel="% wrong of called")
    axis.set_ylim(bottom=0)


def _qualities(axis: Axes, run: RunFigures) -> None:
    top = 10.0
    for index, caller in enumerate(run.callers.values()):
        for one in caller.by_quality.bins:
            size = 6 + 18 * np.log10(max(1.0, one.bases / 100))
            axis.scatter(one.predicted, one.empirical, s=size, color=_colour(index), alpha=0.9 if one.judged else 0.15)
            top = max(top, one.predicted, one.empirical)
    axis.plot([0, top], [0, top], color="grey", lw=1)
    axis.set(title="quality (faint: too few bases to judge)", xlabel="predicted Phred", ylabel="empirical Phred")


def _quality_by_cycle(axis: Axes, run: RunFigures) -> None:
    for index, caller in enumerate(run.callers.values()):
        bins = caller.by_cycle.bins
        axis.plot([one.value for one in bins], [one.predicted - one.empirical for one in bins], color=_colour(index))
    axis.axhline(0, color="grey", lw=1)
    axis.set(title="overstated quality by cycle", xlabel="cycle", ylabel="predicted − empirical, Phred")


def _confusion(axis: Axes, counts: np.ndarray) -> None:
    shares = 100 * counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    # The diagonal gets no colour; otherwise the colours of the wrong calls could not be seen.
    wrong = shares.copy()
    np.fill_diagonal(wrong, 0)
    top = max(1.0, wrong.max())
    axis.imshow(wrong, cmap="Oranges", vmin=0, vmax=top)
    for (row, column), value in np.ndenumerate(shares):
        ink = "white" if wrong[row, column] > 0.6 * top else "black"
        axis.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8, color=ink)
    axis.set_xticks(range(5), list("ACGTN"))
    axis.set_yticks(range(4), list("ACGT"))
    axis.set(xlabel="called, % of row", ylabel="true")


def _colour(index: int) -> str:
    return CALLER_COLOURS[index % len(CALLER_COLOURS)]
