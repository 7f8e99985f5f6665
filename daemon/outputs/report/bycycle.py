"""Plots of the report over the cycles: quality, bases, intensity, focus, errors, phasing, drift."""

import numpy as np
from markupsafe import Markup
from matplotlib.colors import LogNorm
from numpy.typing import NDArray
from seqd_client.runinfo import CHANNELS

from daemon.outputs.figures.runmetrics import SCORES, RunMetrics, yields
from daemon.outputs.figures.spikein import SpikeInErrors
from daemon.outputs.report.cycleaxes import (
    FULL,
    ONE,
    OTHER,
    LineStyle,
    axes_over_cycles,
    draw,
    median,
    note_if_empty,
    over_tiles,
    share,
)
from daemon.outputs.report.svg import ACCENT, MUTED, colour_bar, inline

BASES = {
    "A": LineStyle("#2a9d5c"),
    "C": LineStyle("#2f7fd6", (0, (6, 1.5))),
    "G": LineStyle("#d99a00", (0, (4, 1.2, 1, 1.2))),
    "T": LineStyle("#d64550", (0, (1.6, 1))),
}
"""Line of each base in every plot. The lines can be distinguished without their colours too."""

SHARES = (0.01, 0.1, 1, 10, 100)
"""Percentages on the colour scale of scores. The scale is logarithmic, so that rare scores are visible too."""

MAX_SINGLE_TILES = 12
"""Up to this many tiles, each tile has its own line. If there are more, their range is drawn."""


def quality(metrics: RunMetrics) -> Markup:
    """Share of calls of Q30 and more; mean and median score."""
    figure, (above, scores) = axes_over_cycles(metrics.info, width=FULL, height=4.2, rows=2)
    counts = metrics.quality.sum(axis=0, dtype=np.int64)
    calls = counts.sum(axis=1)
    q30 = share(yields(metrics, 30).sum(axis=0), calls)
    mean = share(counts @ np.arange(SCORES), calls) / 100
    middle = np.where(calls > 0, np.argmax(counts.cumsum(axis=1) * 2 >= calls[:, None], axis=1), np.nan)
    draw(above, q30, "≥ Q30")
    above.set(ylabel="calls ≥ Q30, %", ylim=(min(80.0, 10 * np.floor(_min(q30) / 10)), 100.5))
    note_if_empty(above, q30)
    draw(scores, mean, "mean")
    draw(scores, middle, "median", OTHER)
    scores.set(ylabel="score, Phred", ylim=(0, 1.08 * max(40, float(np.nanmax(middle, initial=0)))))
    scores.legend(ncols=2, loc="lower left")
    return inline(figure, "quality", "Quality by cycle: calls of Q30 and more, mean and median score")


def scores(metrics: RunMetrics) -> Markup:
    """Frequency of each score by cycle."""
    figure, (axes,) = axes_over_cycles(metrics.info)
    counts = metrics.quality.sum(axis=0, dtype=np.int64)
    shares = share(counts, np.repeat(counts.sum(axis=1)[:, None], SCORES, axis=1))
    used = np.flatnonzero(counts.any(axis=0))
    top = int(used[-1]) if len(used) else 40
    shown = np.where(shares > 0, shares, np.nan).T[: top + 1]
    image = axes.imshow(
        shown,
        origin="lower",
        aspect="auto",
        interpolation="none",
        cmap="viridis",
        norm=LogNorm(SHARES[0], SHARES[-1], clip=True),
        extent=(0.5, metrics.info.cycles + 0.5, -0.5, top + 0.5),
    )
    axes.set_ylabel("score, Phred")
    bar = colour_bar(image, height=2.4, label="calls, %")
    bar.set_ticks(SHARES, labels=[f"{each:g}" for each in SHARES])
    bar.minorticks_off()
    note_if_empty(axes, shown)
    return inline(figure, "scores", "Share of calls by score and cycle")


def bases(metrics: RunMetrics) -> Markup:
    """Share of each base among the called bases, and of no-calls among all calls."""
    figure, (axes,) = axes_over_cycles(metrics.info)
    counts = metrics.bases.sum(axis=0, dtype=np.int64)
    called = counts[:, :4].sum(axis=1)
    no_calls = share(counts[:, 4], counts.sum(axis=1))
    shares = [share(counts[:, number], called) for number in range(4)]
    for style, shown in zip(BASES.items(), shares, strict=True):
        draw(axes, shown, *style)
    draw(axes, no_calls, "N", LineStyle(MUTED, width=1.1))
    axes.set(ylabel="bases, %", ylim=(0, max(50.0, 1.15 * _max(no_calls, *shares))))
    axes.legend(ncols=5, loc="upper right", columnspacing=1.2)
    note_if_empty(axes, no_calls)
    return inline(figure, "bases", "Base composition by cycle")


def intensity(metrics: RunMetrics) -> Markup:
    """Intensity of the clusters in each channel."""
    return _channels(metrics, metrics.intensity, "intensity", "intensity, counts", "Intensity of each channel by cycle")


def focus(metrics: RunMetrics) -> Markup:
    """Width of the spots in each channel."""
    return _channels(metrics, metrics.focus_px, "focus", "width of spots, px", "Focus of each channel by cycle")


def errors(metrics: RunMetrics, spike_in: SpikeInErrors) -> Markup:
    """Share of wrong bases in the reads of the spike-in."""
    figure, (axes,) = axes_over_cycles(metrics.info, width=FULL)
    rates = share(spike_in.wrong.sum(axis=0), spike_in.compared.sum(axis=0))
    draw(axes, rates, "errors")
    axes.set(ylabel="wrong bases, %", ylim=(0, 1.2 * max(0.1, _max(rates))))
    note_if_empty(axes, rates)
    return inline(figure, "errors", "Error rate of the control by cycle")


def phasing(metrics: RunMetrics) -> Markup:
    """Light of the bases before and after, relative to that of the base itself."""
    figure, (axes,) = axes_over_cycles(metrics.info)
    behind, ahead = neighbours(metrics)
    before, after = (behind, "the base before (phasing)", ONE), (ahead, "the base after (prephasing)", OTHER)
    for read in metrics.info.reads:
        cycles = np.isin(np.arange(1, metrics.info.cycles + 1), metrics.info.cycles_of(read))
        for shares, label, style in (before, after):
            # Each read has its own line, so that there is a gap between reads, but the legend has one entry for all.
            name = label if read == metrics.info.reads[0] else f"_{label}"
            draw(axes, np.where(cycles, shares, np.nan), name, style)
    axes.set(
        ylabel="light of neighbours, %",
        ylim=(min(0.0, 1.1 * _min(behind, ahead)), max(2.0, 1.25 * _max(behind, ahead))),
    )
    axes.legend(loc="upper left", ncols=2, columnspacing=1.2)
    note_if_empty(axes, behind, ahead)
    return inline(figure, "phasing", "Light of the neighbouring bases by cycle")


def neighbours(metrics: RunMetrics) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Light of the base before and of the base after, (cycles,) each.

    It is given as percent of the light of the cycle's own base, as the median over the tiles.
    """
    light = np.full((2, len(metrics.info.tiles), metrics.info.cycles), np.nan)
    for index, tile in enumerate(metrics.info.tiles):
        for cycle, seen in metrics.run.ledger.neighbour_light(tile).items():
            if cycle <= metrics.known[index]:
                light[:, index, cycle - 1] = 100 * seen.behind / seen.own, 100 * seen.ahead / seen.own
    return median(light[0]), median(light[1])


def drift(metrics: RunMetrics) -> Markup:
    """Registration of each cycle against the template."""
    figure, panels = axes_over_cycles(metrics.info, rows=2)
    for axis, (axes, name) in enumerate(zip(panels, ("y", "x"), strict=True)):
        drifts = metrics.drift_px[:, :, axis]
        cycles = np.arange(1, metrics.info.cycles + 1)
        if len(drifts) <= MAX_SINGLE_TILES:
            for tile in drifts:
                draw(axes, tile, "_tile", LineStyle(ACCENT, width=0.7, alpha=0.55))
        else:
            axes.fill_between(
                cycles, over_tiles(drifts, 0), over_tiles(drifts, 100), color=ACCENT, alpha=0.2, linewidth=0
            )
        draw(axes, median(drifts), "median", LineStyle(ACCENT, width=1.6))
        axes.axhline(0, color=MUTED, linewidth=0.6)
        axes.set_ylabel(f"{name}, px")
        note_if_empty(axes, drifts)
    return inline(figure, "drift", "Drift of each cycle against the template, in y and x")


def _channels(metrics: RunMetrics, values: NDArray[np.float32], name: str, unit: str, title: str) -> Markup:
    figure, (axes,) = axes_over_cycles(metrics.info)
    for channel, base in enumerate(CHANNELS):
        draw(axes, median(values[:, :, channel]), base, BASES[base])
    axes.set(ylabel=unit, ylim=(0, 1.2 * max(1e-3, _max(*(median(values[:, :, channel]) for channel in range(4))))))
    axes.legend(ncols=4, loc="upper right", columnspacing=1.2)
    note_if_empty(axes, values)
    return inline(figure, name, title)


def _max(*values: NDArray[np.floating]) -> float:
    """Largest finite value; 0 where there is none."""
    known = np.concatenate([one[np.isfinite(one)] for one in values])
    return float(known.max()) if len(known) else 0.0


def _min(*values: NDArray[np.floating]) -> float:
    """Smallest finite value; 0 where there is none."""
    return 0.0 - _max(*(-one for one in values))
