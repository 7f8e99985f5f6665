"""Plots of the report about the speed of calling."""

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from daemon.outputs.figures.runmetrics import RunMetrics
from daemon.outputs.report.cycleaxes import HALF, OTHER, axes_over_cycles, draw, median, note_if_empty, over_tiles
from daemon.outputs.report.svg import ACCENT, inline

MAX_BINS = 40
"""Maximum number of intervals of time in which tile-cycles are counted. No interval is shorter than two cycles, because
the tiles of a cycle arrive together."""


def latency(metrics: RunMetrics) -> Markup:
    """Time from an image's submission to the engine's answer."""
    figure, (axes,) = axes_over_cycles(metrics.info)
    middle, slow = median(metrics.engine_s), over_tiles(metrics.engine_s, 95)
    draw(axes, middle, "median")
    draw(axes, slow, "95th percentile", OTHER)
    axes.set(ylabel="latency, s", ylim=(0, 1.25 * max(1e-3, float(np.nanmax(slow, initial=0)))))
    axes.legend(ncols=2, loc="upper right")
    note_if_empty(axes, middle)
    return inline(figure, "latency", "Latency of the engine by cycle: median and 95th percentile of the tiles")


def throughput(metrics: RunMetrics) -> Markup:
    """Tile-cycles committed per hour, over the time of the run."""
    figure = Figure(figsize=(HALF, 3.0), layout="constrained")
    axes = figure.subplots()
    hours = committed_hours(metrics)
    rates, unit = np.full(1, np.nan), "h"
    if len(hours) > 1 and hours[-1] > 0:
        bins = max(1, min(MAX_BINS, int(metrics.known.max()) // 2))
        counts, edges = np.histogram(hours, bins=bins, range=(0, hours[-1]))
        rates = counts / np.diff(edges)
        scale, unit = (1.0, "h") if hours[-1] >= 2 else (60.0, "min")
        axes.stairs(rates, edges * scale, color=ACCENT, linewidth=1.4)
        axes.set_ylim(0, 1.15 * float(rates.max()))
    axes.set_xlabel(f"time since the first was committed, {unit}")
    axes.set_ylabel("tile-cycles an hour")
    note_if_empty(axes, rates)
    return inline(figure, "throughput", "Tile-cycles committed an hour")


def committed_hours(metrics: RunMetrics) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Times at which the tile-cycles were committed, sorted; hours since the first."""
    instants = np.sort(metrics.committed_ns[metrics.committed_ns > 0])
    return (instants - instants[:1]) / 3.6e12
