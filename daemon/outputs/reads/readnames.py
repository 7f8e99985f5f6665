"""Names of reads: ``<instrument>:<run>:<flowcell>:<lane>:<tile>:<x>:<y>``, as Illumina's software gives them."""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import TileId

from daemon.errors import OutputError
from daemon.outputs.reads.recordbytes import Column, constant
from daemon.record.committed import CommittedRun

DIGITS = 6
"""Maximum number of digits of a coordinate."""

LIMIT = 2**18
"""Coordinates in names are below this number. The largest image that a run can have ends at 164,840."""

Clusters = slice | NDArray[np.intp]
"""Some clusters of a tile, by their indices in its template."""


class ReadNames:
    """The names of a tile's clusters."""

    def __init__(self, run: CommittedRun, tile: TileId) -> None:
        """
        Raises
        ------
        OutputError : the tile's positions cannot be read, are fewer or more than its clusters, or lie outside of every
            image.
        """
        info = run.info
        self.tile = tile
        self.prefix = f"{info.instrument}:{info.number}:{info.flowcell}:{tile.lane}:{tile.tile}".encode()
        self.passing = run.passing(tile)
        """(n,) whether each passes the filter."""
        positions = run.positions(tile)
        if len(positions) != run.clusters[tile]:
            raise OutputError(
                f"locs file {run.files.locs_of(tile)}: {len(positions)} clusters, the ledger has "
                f"{run.clusters[tile]}; the file was changed from outside"
            )
        fits = (positions >= -100) & (positions < LIMIT / 10 - 101)
        if not fits.all():
            y, x = positions[np.flatnonzero(~fits.all(axis=1))[0]]
            raise OutputError(
                f"locs file {run.files.locs_of(tile)}: a cluster at x {x:g} px, y {y:g} px; names of reads can hold "
                f"-100 to {LIMIT // 10 - 101}; the file was changed from outside"
            )
        self._y, self._x = positions.T.copy()

    def columns(self, clusters: Clusters, *, before: bytes = b"") -> list[Column]:
        """The bytes of the names, for :func:`daemon.outputs.reads.recordbytes.put_together`.

        At least :data:`DIGITS` bytes have to follow in each record.

        Parameters
        ----------
        before : bytes in front of each name.
        """
        x, y = (_decimal(coordinates(along[clusters])) for along in (self._x, self._y))
        return [constant(before + self.prefix), x, y]


def coordinates(positions: NDArray[np.float32]) -> NDArray[np.int32]:
    """Coordinates for names of reads: tenths of a pixel, counted from -100 px, in single precision, halves rounded up.

    Picard computes the same, and so makes the same names (``Math.round(10 * position + 1000)`` of a Java ``float``).
    """
    tenths = positions * np.float32(10) + np.float32(1000)
    # In double precision, where adding a half is exact.
    return np.floor(tenths.astype(np.float64) + 0.5).astype(np.int32)


def _decimal(numbers: NDArray[np.int32]) -> Column:
    text, lengths = _decimals()
    return Column(text[numbers].view(np.uint8).reshape(-1, text.itemsize), lengths[numbers])


@cache
def _decimals() -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A colon and the digits of every number below :data:`LIMIT`, and how many bytes these are."""
    text = np.strings.add(b":", np.arange(LIMIT).astype("S7"))
    return text.view(np.uint64), np.strings.str_len(text).astype(np.int64)
