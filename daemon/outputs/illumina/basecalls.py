"""The sink of base calls: a file for each tile and cycle, besides the tile's positions and filter.

Layouts follow Illumina's bcl2fastq guide; all numbers are little-endian::

    .bcl       u32 n, then n bytes (Q << 2) | base, A C G T = 0-3; 0 is a no-call
    .filter    u32 0, u32 3, u32 n, then n bytes of 0 or 1
    .locs      daemon.record.tilefile
"""

import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from seqd_client.runinfo import TileId

from daemon.outputs.sink import Encoding, SinkFile
from daemon.record.committed import CommittedRun

ENDINGS = {Encoding.PLAIN: "bcl", Encoding.GZIP: "bcl.gz"}

FILTER_VERSION = 3


def intensities(root: Path) -> Path:
    """Folder of positions."""
    return root / "Data" / "Intensities"


def lane_folder(root: Path, lane: int) -> Path:
    """Folder of a lane's base calls."""
    return intensities(root) / "BaseCalls" / f"L{lane:03d}"


def cycle_folder(root: Path, lane: int, cycle: int) -> Path:
    """Folder of a lane's base calls in a 1-based cycle."""
    return lane_folder(root, lane) / f"C{cycle}.1"


def filter_path(root: Path, tile: TileId) -> Path:
    """File that says which clusters of a tile pass the filter."""
    return lane_folder(root, tile.lane) / f"s_{tile}.filter"


def basecalls_due(run: CommittedRun, root: Path, tile: TileId, cycle: int, *, encoding: Encoding) -> Iterator[SinkFile]:
    """Give the files that a cycle makes possible: after cycle 1 the positions, later the filter, always the calls.

    The calls come last, because programs that follow a run start when they find them.

    Parameters
    ----------
    encoding : of the calls. A run folder has one encoding only: readers do not accept a mixture.
    """
    if cycle == 1:
        path = intensities(root) / f"L{tile.lane:03d}" / f"s_{tile}.locs"
        yield SinkFile(path, lambda: (run.files.locs_of(tile).read_bytes(),), tile=tile, cycle=cycle)
    if cycle == run.filter_cycles:
        yield SinkFile(filter_path(root, tile), partial(filter_content, run, tile), tile=tile, cycle=cycle)
    path = cycle_folder(root, tile.lane, cycle) / f"s_{tile}.{ENDINGS[encoding]}"
    yield SinkFile(path, partial(_bcl, run, tile, cycle), encoding, tile, cycle)


def filter_content(run: CommittedRun, tile: TileId, offset: int = 0) -> tuple[bytes]:
    """Content of a tile's ``.filter`` file: ``offset`` clusters that do not pass, then the tile's clusters."""
    passing = run.passing(tile)
    head = struct.pack("<III", 0, FILTER_VERSION, offset + len(passing))
    return (head + bytes(offset) + passing.tobytes(),)


def _bcl(run: CommittedRun, tile: TileId, cycle: int) -> tuple[bytes, bytes]:
    calls = run.calls(tile, cycle)
    return struct.pack("<I", len(calls)), calls.tobytes()
