"""The sink of base calls: a file a tile and cycle, with positions before and the filter after.

Layouts as Illumina's bcl2fastq guide gives them, all little-endian::

    .bcl       u32 n, then n bytes (Q << 2) | base, A C G T = 0-3; 0 is a no-call
    .filter    u32 0, u32 3, u32 n, then n bytes of 0 or 1
    .locs      daemon.record.tilefile
"""

import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import TileId

from daemon.outputs.illumina.folderlayout import bcl_path, filter_path, locs_path
from daemon.outputs.sink import Encoding, SinkFile
from daemon.record.committed import CommittedRun

ENDINGS = {Encoding.PLAIN: "bcl", Encoding.GZIP: "bcl.gz"}

FILTER_VERSION = 3


class BaseCalls:
    """The sink; a lane holds files of one encoding only, readers take no mixture."""

    name = "BCL"

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding

    def due(self, run: CommittedRun, root: Path, tile: TileId, cycle: int) -> Iterator[SinkFile]:
        """Positions with the first cycle, the filter when it is known, and the calls of every cycle.

        The calls come last: readers that follow a run start on them.
        """
        if cycle == 1:
            yield SinkFile(locs_path(root, tile), partial(_locs, run, tile), tile=tile, cycle=cycle)
        if cycle == run.filter_cycles:
            yield SinkFile(filter_path(root, tile), partial(_filter, run, tile), tile=tile, cycle=cycle)
        path = bcl_path(root, tile, cycle, ENDINGS[self._encoding])
        yield SinkFile(path, partial(_bcl, run, tile, cycle), self._encoding, tile, cycle)


def _locs(run: CommittedRun, tile: TileId) -> Iterator[bytes]:
    yield run.files.locs_of(tile).read_bytes()


def _filter(run: CommittedRun, tile: TileId) -> Iterator[bytes]:
    yield encode_filter(run.passing(tile))


def encode_filter(passing: NDArray[np.bool_]) -> bytes:
    """(n,) which clusters pass, as the bytes of a ``.filter`` file."""
    return struct.pack("<III", 0, FILTER_VERSION, len(passing)) + passing.tobytes()


def _bcl(run: CommittedRun, tile: TileId, cycle: int) -> Iterator[bytes]:
    calls = run.calls(tile, cycle)
    yield struct.pack("<I", len(calls))
    yield calls.tobytes()
