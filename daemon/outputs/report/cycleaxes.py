"""Plots over the cycles of a run: axes on which the reads are marked, lines, and values for the lines."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo

from daemon.outputs.report.svg import ACCENT, DASHED, MUTED, RULE, SECOND

HALF, FULL = 7.3, 15.0
"""Width of a figure, inches."""


@dataclass(frozen=True)
class LineStyle:
    """Colour and pattern of a line."""

    colour: str
    pattern: str | tuple[float, tuple[float, ...]] = "-"
    """Matplotlib's line style: a name, or an offset with lengths of dashes and gaps, in points."""
    width: float = 1.4
    alpha: float = 1.0


ONE, OTHER = LineStyle(ACCENT), LineStyle(SECOND, DASHED)
"""Two lines that can be distinguished without their colours too."""


def over_tiles(values: NDArray[np.floating], percent: float) -> NDArray[np.float64]:
    """Percentile (cycles,) over the tiles of (tiles, cycles); NaN where no tile is known."""
    known = np.isfinite(values).any(axis=0)
    found = np.full(values.shape[1], np.nan)
    if known.any():
        found[known] = np.nanpercentile(values[:, known], percent, axis=0)
    return found


def median(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Median (cycles,) over the tiles of (tiles, cycles); NaN where no tile is known."""
    return over_tiles(values, 50)


def share(part: NDArray[np.integer], whole: NDArray[np.integer]) -> NDArray[np.float64]:
    """Percent; NaN where the whole is 0."""
    return np.asarray(np.divide(100.0 * part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0))


def axes_over_cycles(
    info: RunInfo, *, width: float = HALF, height: float = 3.0, rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """Axes above one another, with the reads marked on them; index reads are shaded."""
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    for axes in panels:
        axes.set_xlim(0.5, info.cycles + 0.5)
        for read in info.reads:
            of = info.cycles_of(read)
            if read.index:
                axes.axvspan(of.start - 0.5, of.stop - 0.5, color=RULE, alpha=0.45, linewidth=0, zorder=0)
            if of.start > 1:
                axes.axvline(of.start - 0.5, color=MUTED, linewidth=0.7, linestyle=(0, (2, 2)))
    for read in info.reads:
        of = info.cycles_of(read)
        where = {"transform": panels[0].get_xaxis_transform(), "ha": "center", "va": "bottom"}
        panels[0].text((of.start + of.stop - 1) / 2, 1.02, info.label(read), where, fontsize=8.5, color=MUTED)
    panels[-1].set_xlabel("cycle")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure, panels


def draw(axes: Axes, values: NDArray[np.floating], label: str, style: LineStyle = ONE) -> None:
    """Draw a line through (cycles,) values, with gaps where they are NaN; a single value between gaps is a dot."""
    known = np.isfinite(values)
    beside = np.concatenate([[False], known[:-1]]) | np.concatenate([known[1:], [False]])
    alone = known & ~beside
    cycles = np.arange(1, len(values) + 1)
    (line,) = axes.plot(cycles, values, label=label, color=style.colour, alpha=style.alpha)
    line.set(linestyle=style.pattern, linewidth=style.width)
    if alone.any():
        axes.plot(cycles[alone], values[alone], ".", color=style.colour, alpha=style.alpha)


def note_if_empty(axes: Axes, *values: NDArray[np.floating]) -> None:
    """Write "nothing yet" on axes if no value is finite."""
    if not any(np.isfinite(one).any() for one in values):
        axes.text(0.5, 0.5, "nothing yet", transform=axes.transAxes, color=MUTED, horizontalalignment="center")
