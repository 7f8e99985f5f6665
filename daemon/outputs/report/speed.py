"""What the report draws of how fast the run is called."""

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from daemon.outputs.figures.cyclefigures import RunMetrics
from daemon.outputs.report.cycleaxes import HALF, OTHER, axes_over_cycles, draw, median, over_tiles, say_if_empty
from daemon.outputs.report.svg import ACCENT, inline

STRETCHES = 40
"""At most so many stretches of time are counted, of two cycles or more: the tiles of a cycle come at once."""


def latency(metrics: RunMetrics) -> Markup:
    """Time from an image's submission to the engine's answer."""
    figure, (axes,) = axes_over_cycles(metrics.info)
    middle, slow = median(metrics.engine_s), over_tiles(metrics.engine_s, 95)
    draw(axes, middle, "median")
    draw(axes, slow, "95th percentile", OTHER)
    axes.set_ylabel("latency, s")
    axes.set_ylim(0, 1.25 * max(1e-3, float(np.nanmax(slow, initial=0))))
    axes.legend(ncols=2, loc="upper right")
    say_if_empty(axes, middle)
    return inline(figure, "latency", "Latency of the engine by cycle: median and 95th percentile of the tiles")


def throughput(metrics: RunMetrics) -> Markup:
    """Tile-cycles committed an hour, over the time of the run."""
    figure = Figure(figsize=(HALF, 3.0), layout="constrained")
    axes = figure.subplots()
    hours = committed_hours(metrics)
    rates, edges = np.full(1, np.nan), np.array([0.0, 1.0])
    if len(hours) > 1 and hours[-1] > 0:
        counts, edges = np.histogram(
            hours, bins=max(1, min(STRETCHES, int(metrics.known.max()) // 2)), range=(0, hours[-1])
        )
        rates = counts / np.diff(edges)
        scale, unit = (1.0, "h") if hours[-1] >= 2 else (60.0, "min")
        axes.stairs(rates, edges * scale, color=ACCENT, linewidth=1.4)
        axes.set_xlabel(f"time since the first was committed, {unit}")
        axes.set_ylim(0, 1.15 * float(rates.max()))
    else:
        axes.set_xlabel("time since the first was committed, h")
    axes.set_ylabel("tile-cycles an hour")
    say_if_empty(axes, rates)
    return inline(figure, "throughput", "Tile-cycles committed an hour")


def committed_hours(metrics: RunMetrics) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """When each tile-cycle was committed, hours since the first; sorted."""
    instants = np.sort(metrics.committed_ns[metrics.committed_ns > 0])
    return (instants - instants[:1]) / 3.6e12
