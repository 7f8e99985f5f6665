"""Picture of a tile's labels: its clusters over its image, and the corrected bases."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from seqd_client.runinfo import TileId

from calib.offline.labels.labelfiles import labels_path
from calib.offline.labels.labelledtile import LabelledTile


def draw_labels(root: Path, tile: TileId, labelled: LabelledTile, pixels: NDArray[np.uint16]) -> Path:
    """Write ``Labels/s_<lane>_<tile>.png``.

    Parameters
    ----------
    pixels : (4, H, W) of the first cycle; its brightest channel is shown.

    Returns
    -------
    The path written.
    """
    calls, summary = labelled.calls, labelled.summary
    kept = np.array([match.corrected is not None for match in labelled.matches], bool)
    figure = Figure(figsize=(13, 8), layout="constrained")
    image_axes, cycle_axes = figure.subplots(1, 2, width_ratios=(2, 1))
    image = calls.normalisation.apply(pixels).max(axis=0)
    image_axes.imshow(image, cmap="gray", vmin=0, vmax=1.5)
    for chosen, marker, colour, name in ((kept, "o", "#41ab5d", "kept"), (~kept, "x", "#ef3b2c", "removed")):
        y, x = calls.positions[chosen].T
        image_axes.plot(x, y, marker, mec=colour, mfc="none", ms=3.5, mew=0.6, label=f"{name} {chosen.sum()}")
    image_axes.legend(loc="upper right")
    image_axes.set(title=f"tile {tile}, cycle 1", xlabel="x, px", ylabel="y, px")
    cycles = np.arange(1, len(summary.corrected_by_cycle) + 1)
    share = 100 * np.array(summary.corrected_by_cycle) / max(1, kept.sum())
    cycle_axes.bar(cycles, share, color="#4292c6")
    cycle_axes.set(title="corrected to the reference", xlabel="cycle", ylabel="% of the clusters kept")
    cycle_axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    path = labels_path(root, tile, ".png")
    figure.savefig(path, dpi=120)
    return path
