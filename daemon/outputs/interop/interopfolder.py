"""The files in the folder ``InterOp``."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from seqd_client.runinfo import RunInfo

from daemon.outputs.figures.runmetrics import RunMetrics
from daemon.outputs.figures.spikein import SpikeInErrors
from daemon.outputs.interop import records
from daemon.outputs.interop.binarylayout import ERROR, EXTRACTION, INTENSITY, TILE, quality_layout
from daemon.outputs.sink import SinkFile

FOLDER = "InterOp"

MAX_TILE = 65_535
"""Highest tile number that fits the 16 bits of a record."""


def fits(info: RunInfo) -> bool:
    """Whether the numbers of a run's tiles fit InterOp files."""
    return max(tile.tile for tile in info.tiles) <= MAX_TILE


def interop_files(metrics: RunMetrics, errors: SpikeInErrors | None, root: Path) -> Iterator[SinkFile]:
    """Every InterOp file that has at least one record, made from the figures as they are now.

    A file without records is left out, because savR cannot read it.

    Parameters
    ----------
    metrics : of a run whose tile numbers :func:`fits` accepts.
    errors : of the run's spike-in, where it has one.
    """
    quality = records.quality(metrics)
    made = {
        EXTRACTION: records.extraction(metrics),
        INTENSITY: records.intensity(metrics),
        quality_layout(quality): quality,
        TILE: records.tile(metrics, errors),
    }
    if errors is not None:
        made[ERROR] = records.error(metrics, errors)
    for layout, known in made.items():
        if len(known):
            yield SinkFile(root / FOLDER / layout.name, partial(layout.encode, known))
