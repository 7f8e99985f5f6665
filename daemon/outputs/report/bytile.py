"""Plots of the report by tile: maps of the flow cell, and the status of each tile-cycle."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo
from seqd_client.status import CycleStatus

from calib.runfolder.tilenumbers import Naming, layout_of
from daemon.outputs.figures.runmetrics import RunMetrics
from daemon.outputs.report.cycleaxes import FULL, axes_over_cycles
from daemon.outputs.report.svg import colour_bar, inline

MAX_ROW = 48
"""Maximum number of tiles in a row of a map, when the numbers of the tiles do not tell the places of the tiles."""

MAX_LABELS = 16
"""Up to this many rows, each row has a label. If there are more, each surface has one label."""

MAX_CELLS = 200, 1000
"""Maximum numbers of rows and of columns in the map of tile-cycles. A cell of several tile-cycles shows their worst
status."""

COLOURS = {CycleStatus.CALLED: "#6fb3a0", CycleStatus.MISSING: "#e69f00", CycleStatus.FAILED: "#c1272d"}


@dataclass(frozen=True)
class FlowCellMap:
    """The place of each tile of a run in a map."""

    rows: NDArray[np.int64]
    """(tiles,) row of each tile."""
    columns: NDArray[np.int64]
    """(tiles,) column of each tile."""
    labels: dict[float, str]
    """Labels of rows."""
    unit: str
    """Label of the axis along a row."""

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.rows.max()) + 1, int(self.columns.max()) + 1


def flow_cell_map(info: RunInfo) -> FlowCellMap:
    """A map with a row for each swath. There are gaps between lanes, and between surfaces that have several swaths."""
    layout = layout_of(info.tiles)
    if layout.naming is Naming.ABSOLUTE:
        return _plain_map(info)
    places = [layout.place(tile.tile) for tile in info.tiles]
    strips = sorted({(tile.lane, at.surface, at.swath) for tile, at in zip(info.tiles, places, strict=True)})
    row_of, row = {}, 0
    for before, strip in zip([strips[0], *strips], strips, strict=False):
        gap = before[0] != strip[0] or (before[:2] != strip[:2] and layout.swaths > 1)
        row_of[strip] = row = row + gap
        row += 1
    return FlowCellMap(
        np.array([row_of[tile.lane, at.surface, at.swath] for tile, at in zip(info.tiles, places, strict=True)]),
        np.array([(at.section - 1) * layout.tiles + at.tile - 1 for at in places]),
        _labels(row_of, surfaces=layout.surfaces, swaths=layout.swaths),
        "tile of the swath",
    )


def flow_cell(metrics: RunMetrics, figures: list[tuple[str, NDArray[np.float64]]]) -> Markup:
    """Four maps of the flow cell.

    Parameters
    ----------
    figures : title and (tiles,) values of each map; NaN where they are not known.
    """
    where = flow_cell_map(metrics.info)
    rows, columns = where.shape
    height = min(6.0, max(1.35, 0.26 * rows + 0.75))
    figure = Figure(figsize=(FULL, 2 * height), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(2, 2).flat, figures, strict=True):
        cells = np.full((rows, columns), np.nan)
        cells[where.rows, where.columns] = 0
        axes.imshow(cells, cmap=ListedColormap(["#8080802e"]), aspect="auto", interpolation="none")
        cells[where.rows, where.columns] = values
        low, high = _range(values)
        image = axes.imshow(cells, cmap="viridis", vmin=low, vmax=high, aspect="auto", interpolation="none")
        colour_bar(image, height=height - 0.75)
        axes.set_title(title, fontsize=10, loc="left")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_yticks(list(where.labels), list(where.labels.values()))
        axes.set_xticks(_ticks(columns), [str(column + 1) for column in _ticks(columns)])
        axes.set_xlabel(where.unit)
    return inline(figure, "flowcell", "Maps of the flow cell: " + ", ".join(title for title, _ in figures))


def tile_cycles(metrics: RunMetrics) -> Markup:
    """Status of each tile-cycle; those that are not committed yet are empty."""
    tiles = len(metrics.info.tiles)
    figure, (axes,) = axes_over_cycles(metrics.info, width=FULL, height=min(4.5, max(1.7, 1.2 + 0.16 * tiles)))
    shown = _worst(_worst(metrics.status, MAX_CELLS[0], axis=0), MAX_CELLS[1], axis=1)
    axes.imshow(
        np.where(shown > 0, shown, np.nan),
        cmap=ListedColormap([COLOURS[status] for status in CycleStatus]),
        vmin=0.5,
        vmax=len(CycleStatus) + 0.5,
        aspect="auto",
        interpolation="none",
        extent=(0.5, metrics.info.cycles + 0.5, tiles - 0.5, -0.5),
        zorder=2,
    )
    axes.grid(visible=False)
    ticks = _ticks(tiles)
    axes.set_yticks(ticks, [str(metrics.info.tiles[tick]) for tick in ticks])
    axes.set_ylabel("tile")
    figure.legend(
        handles=[Patch(facecolor=colour, label=status.value) for status, colour in COLOURS.items()],
        ncols=3,
        loc="outside upper right",
        borderpad=0,
        columnspacing=1.2,
    )
    return inline(figure, "tilecycles", "Called, missing and failed tile-cycles")


def _plain_map(info: RunInfo) -> FlowCellMap:
    """A map of tiles in the order of their numbers, lane by lane, where the numbers do not say where the tiles are."""
    rows, columns, labels, row = {}, {}, {}, 0
    for lane in sorted({tile.lane for tile in info.tiles}):
        tiles = sorted((tile for tile in info.tiles if tile.lane == lane), key=lambda tile: tile.tile)
        for number, tile in enumerate(tiles):
            rows[tile], columns[tile] = row + number // MAX_ROW, number % MAX_ROW
        last = row + (len(tiles) - 1) // MAX_ROW
        labels[(row + last) / 2] = f"L{lane}"
        row = last + 2
    return FlowCellMap(
        np.array([rows[tile] for tile in info.tiles]),
        np.array([columns[tile] for tile in info.tiles]),
        labels,
        "tiles in the order of their numbers",
    )


def _labels(row_of: dict[tuple[int, int, int], int], *, surfaces: int, swaths: int) -> dict[float, str]:
    def surface_of(lane: int, surface: int) -> str:
        return f"L{lane}" + (f" {('top', 'bottom')[surface - 1]}" if surfaces > 1 else "")

    if swaths > 1 and len(row_of) <= MAX_LABELS:
        return {row: f"{surface_of(lane, surface)} {swath}" for (lane, surface, swath), row in row_of.items()}
    grouped: dict[str, list[int]] = {}
    for (lane, surface, _), row in row_of.items():
        grouped.setdefault(surface_of(lane, surface), []).append(row)
    return {(rows[0] + rows[-1]) / 2: label for label, rows in grouped.items()}


def _worst(status: NDArray[np.uint8], most: int, *, axis: int) -> NDArray[np.uint8]:
    """Reduce an axis to a maximum length by taking the worst, which is the highest, status of neighbours."""
    length = status.shape[axis]
    if length <= most:
        return status
    worst: NDArray[np.uint8] = np.maximum.reduceat(status, np.arange(most) * length // most, axis=axis)
    return worst


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    """Lowest and highest value of the colour scale. The scale is wide enough to give nearly equal values one colour."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    least = max(0.02 * abs(high), 1e-6)
    return (low, high) if high - low >= least else (low - least / 2, high + least / 2)


def _ticks(count: int) -> list[int]:
    """About ten evenly spaced indices."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000) if count <= 12 * step)
    return list(range(0, count, step)) if step == 1 else [0, *range(step - 1, count, step)]
