"""The folder ``InterOp``, made anew as a run goes on."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

from seqd_client.errors import SeqdError
from seqd_client.runinfo import RunInfo

from daemon.outputs.figures.cyclefigures import RunMetrics
from daemon.outputs.figures.spikein import ControlErrors
from daemon.outputs.interop import records
from daemon.outputs.interop.binarylayout import ERROR, EXTRACTION, INTENSITY, TILE, Layout, Records, quality_layout
from daemon.outputs.sink import SinkFile

FOLDER = "InterOp"

HIGHEST_TILE = 65_535
"""Records have 16 bits for it."""


class InterOpError(SeqdError):
    """A run has what InterOp files have no room for."""

    exit_code: ClassVar[int] = 3


def fits(info: RunInfo) -> bool:
    """Whether InterOp files have room for the numbers of a run's tiles."""
    return max(tile.tile for tile in info.tiles) <= HIGHEST_TILE


class InterOp:
    """A :class:`daemon.outputs.sink.View`; the same committed cycles make the same bytes."""

    name = "InterOp files"

    def __init__(self, metrics: RunMetrics, errors: ControlErrors | None = None) -> None:
        """
        Parameters
        ----------
        metrics, errors : as they are when the files are asked for; without errors the run has no control.

        Raises
        ------
        InterOpError : a tile's number is above :data:`HIGHEST_TILE`.
        """
        if not fits(metrics.info):
            last = max(metrics.info.tiles, key=lambda tile: tile.tile)
            raise InterOpError(f"tile {last}: InterOp files hold tile numbers up to {HIGHEST_TILE}")
        self._metrics, self._errors = metrics, errors

    def files(self, root: Path) -> Iterator[SinkFile]:
        """Every file that has a record; savR stops at one without."""
        for layout, known in self._records():
            if len(known):
                yield SinkFile(root / FOLDER / layout.name, partial(_content, layout, known))

    def _records(self) -> Iterator[tuple[Layout, Records]]:
        yield EXTRACTION, records.extraction(self._metrics)
        yield INTENSITY, records.intensity(self._metrics)
        scores = records.quality(self._metrics)
        yield quality_layout(scores), scores
        yield TILE, records.tile(self._metrics, self._errors)
        if self._errors is not None:
            yield ERROR, records.error(self._metrics, self._errors)


def _content(layout: Layout, known: Records) -> list[bytes]:
    return [layout.encode(known)]
