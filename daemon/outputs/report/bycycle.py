"""What the report draws over the cycles: quality, bases, light, phasing, drift."""

import numpy as np
from markupsafe import Markup
from matplotlib.colors import LogNorm
from numpy.typing import NDArray
from seqd_client.runinfo import CHANNELS

from daemon.outputs.figures.cyclefigures import SCORES, RunMetrics, yields
from daemon.outputs.figures.spikein import ControlErrors
from daemon.outputs.report.cycleaxes import (
    FULL,
    ONE,
    OTHER,
    Looks,
    axes_over_cycles,
    draw,
    median,
    over_tiles,
    say_if_empty,
    share,
)
from daemon.outputs.report.svg import ACCENT, MUTED, colour_bar, inline

BASES = {
    "A": Looks("#2a9d5c"),
    "C": Looks("#2f7fd6", (0, (6, 1.5))),
    "G": Looks("#d99a00", (0, (4, 1.2, 1, 1.2))),
    "T": Looks("#d64550", (0, (1.6, 1))),
}
"""Looks of each base wherever it is drawn; told apart without their colours too."""

SHARES = (0.01, 0.1, 1, 10, 100)
"""Percent of the calls of a cycle, as the colours of scores tell them: rare ones are not lost beside common ones."""

FEW = 12
"""So many tiles are drawn one by one."""


def quality(metrics: RunMetrics) -> Markup:
    """Share of calls of Q30 and more; mean and median score."""
    figure, (above, scores) = axes_over_cycles(metrics.info, width=FULL, height=4.2, rows=2)
    counts = metrics.quality.sum(axis=0, dtype=np.int64)
    calls = counts.sum(axis=1)
    q30 = share(yields(metrics, 30).sum(axis=0), calls)
    mean = share(counts @ np.arange(SCORES), calls) / 100
    middle = np.where(calls > 0, np.argmax(counts.cumsum(axis=1) * 2 >= calls[:, None], axis=1), np.nan)
    draw(above, q30, "≥ Q30")
    above.set_ylabel("calls ≥ Q30, %")
    above.set_ylim(min(80.0, _floor(q30)), 100.5)
    say_if_empty(above, q30)
    draw(scores, mean, "mean")
    draw(scores, middle, "median", OTHER)
    scores.set_ylabel("score, Phred")
    scores.set_ylim(0, 1.08 * max(40, float(np.nanmax(middle, initial=0))))
    scores.legend(ncols=2, loc="lower left")
    return inline(figure, "quality", "Quality by cycle: calls of Q30 and more, mean and median score")


def scores(metrics: RunMetrics) -> Markup:
    """How often each score was given, by cycle."""
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
    say_if_empty(axes, shown)
    return inline(figure, "scores", "Share of calls by score and cycle")


def bases(metrics: RunMetrics) -> Markup:
    """Share of each base in those that were called, and of no-calls in all."""
    figure, (axes,) = axes_over_cycles(metrics.info)
    counts = metrics.bases.sum(axis=0, dtype=np.int64)
    called = counts[:, :4].sum(axis=1)
    no_calls = share(counts[:, 4], counts.sum(axis=1))
    shares = [share(counts[:, number], called) for number in range(4)]
    for looks, shown in zip(BASES.items(), shares, strict=True):
        draw(axes, shown, *looks)
    draw(axes, no_calls, "N", Looks(MUTED, width=1.1))
    axes.set_ylabel("bases, %")
    axes.set_ylim(0, max(50.0, 1.15 * _most(no_calls, *shares)))
    axes.legend(ncols=5, loc="upper right", columnspacing=1.2)
    say_if_empty(axes, no_calls)
    return inline(figure, "bases", "Base composition by cycle")


def intensity(metrics: RunMetrics) -> Markup:
    """Light of the clusters in each channel."""
    return _channels(metrics, metrics.intensity, "intensity", "intensity, counts", "Intensity of each channel by cycle")


def focus(metrics: RunMetrics) -> Markup:
    """Width of the spots in each channel."""
    return _channels(metrics, metrics.focus_px, "focus", "width of spots, px", "Focus of each channel by cycle")


def errors(metrics: RunMetrics, control: ControlErrors) -> Markup:
    """Bases of the control's reads that are not the control's."""
    figure, (axes,) = axes_over_cycles(metrics.info, width=FULL)
    rates = share(control.wrong.sum(axis=0), control.compared.sum(axis=0))
    draw(axes, rates, "errors")
    axes.set_ylabel("wrong bases, %")
    axes.set_ylim(0, 1.2 * max(0.1, _most(rates)))
    say_if_empty(axes, rates)
    return inline(figure, "errors", "Error rate of the control by cycle")


def phasing(metrics: RunMetrics) -> Markup:
    """Light of the bases before and after, against that of the base itself."""
    figure, (axes,) = axes_over_cycles(metrics.info)
    behind, ahead = neighbours(metrics)
    for read in metrics.info.reads:
        of = metrics.info.cycles_of(read)
        for shares, label, looks in (
            (behind, "the base before (phasing)", ONE),
            (ahead, "the base after (prephasing)", OTHER),
        ):
            within = np.full(len(shares), np.nan)
            within[of.start - 1 : of.stop - 1] = shares[of.start - 1 : of.stop - 1]
            # One line a read, so that it breaks between two; one entry of the legend for all.
            draw(axes, within, label if read == metrics.info.reads[0] else f"_{label}", looks)
    axes.set_ylabel("light of neighbours, %")
    axes.set_ylim(min(0.0, 1.1 * _least(behind, ahead)), max(2.0, 1.25 * _most(behind, ahead)))
    axes.legend(loc="upper left", ncols=2, columnspacing=1.2)
    say_if_empty(axes, behind, ahead)
    return inline(figure, "phasing", "Light of the neighbouring bases by cycle")


def neighbours(metrics: RunMetrics) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Light of the bases before and after, (cycles,) each: percent of the base's own, median over the tiles."""
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
        if len(drifts) <= FEW:
            for tile in drifts:
                draw(axes, tile, "_tile", Looks(ACCENT, width=0.7, alpha=0.55))
        else:
            axes.fill_between(
                cycles, over_tiles(drifts, 0), over_tiles(drifts, 100), color=ACCENT, alpha=0.2, linewidth=0
            )
        draw(axes, median(drifts), "median", Looks(ACCENT, width=1.6))
        axes.axhline(0, color=MUTED, linewidth=0.6)
        axes.set_ylabel(f"{name}, px")
        say_if_empty(axes, drifts)
    return inline(figure, "drift", "Drift of each cycle against the template, in y and x")


def _channels(metrics: RunMetrics, values: NDArray[np.float32], name: str, unit: str, title: str) -> Markup:
    figure, (axes,) = axes_over_cycles(metrics.info)
    for channel, base in enumerate(CHANNELS):
        draw(axes, median(values[:, :, channel]), base, BASES[base])
    axes.set_ylabel(unit)
    axes.set_ylim(0, 1.2 * max(1e-3, _most(*(median(values[:, :, channel]) for channel in range(4)))))
    axes.legend(ncols=4, loc="upper right", columnspacing=1.2)
    say_if_empty(axes, values)
    return inline(figure, name, title)


def _most(*values: NDArray[np.floating]) -> float:
    return max(float(np.nanmax(one, initial=-np.inf)) for one in values) if _any(values) else 0.0


def _least(*values: NDArray[np.floating]) -> float:
    return min(float(np.nanmin(one, initial=np.inf)) for one in values) if _any(values) else 0.0


def _any(values: tuple[NDArray[np.floating], ...]) -> bool:
    return any(np.isfinite(one).any() for one in values)


def _floor(percents: NDArray[np.float64]) -> float:
    """The ten below the least."""
    return 10 * np.floor(_least(percents) / 10) if np.isfinite(percents).any() else 0.0
