"""CBCL, the base calls of newer instruments: a file a lane, surface and cycle, of clusters that pass the filter.

Layout (Illumina's bcl2fastq2 guide; read back with Picard), little-endian::

    u16 1, u32 size of the header, u8 2, u8 2           two bits of base, two of score
    u32 4, 4 × (u32 bin, u32 Phred)                     bin 0 is that of no-calls
    u32 tiles, tiles × (u32 tile, u32 clusters, u32 size, u32 compressed size)
    u8 1                                                clusters that do not pass are left out
    zero bytes                                          up to the size that the header of the most tiles has
    tiles × gzip member                                 a nibble a cluster, bin << 2 | base; the low one comes first

Readers take the header of one file to be as long as that of any other, whatever tiles a surface has.

All tiles share one ``s.locs``, and a tile's filter says which of its positions are the tile's: here the positions of
all tiles follow one another, and a filter has 0 for those of the tiles before.
"""

import struct
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from isal import igzip
from numpy.typing import NDArray
from seqd_client.runinfo import TileId

from calib.calling.scores import NO_CALL
from calib.runfolder.tilenumbers import layout_of
from daemon.errors import ExportError
from daemon.outputs.illumina.basecalls import encode_filter
from daemon.outputs.illumina.folderlayout import cycle_folder, filter_path, shared_locs_path
from daemon.outputs.sink import SinkFile
from daemon.record.committed import CommittedRun
from daemon.record.tilefile import encode_locs

BINS = 3
"""Of called bases; a fourth one is that of no-calls."""

EDGES = (15, 30)
"""Scores that begin the second and third bin, where a file has more than three scores."""

RECORD = struct.Struct("<4I")
"""What the header says of a tile."""

MOST_FILTERS = 2**33
"""Bytes of all filters; beyond it the flow cell is too large for positions that differ from tile to tile."""


def cbcl_files(run: CommittedRun, root: Path) -> Iterator[SinkFile]:
    """Positions, filters and base calls of the cycles that every tile has committed.

    Scores are kept where a file has no more than three; else they are binned, and a bin's score is that of the mean
    error probability of its calls.

    Raises
    ------
    ExportError : the filter of a tile is not known, or positions take too much room.
    """
    info, cycles = run.info, min(run.committed.values())
    if not all(run.filtered(tile) for tile in info.tiles):
        raise ExportError(
            f"run {info.run}: CBCL needs {run.filter_cycles} cycles of every tile, {cycles} are committed"
        )
    positions, offsets = _shared_positions(run)
    if sum(offsets.values()) > MOST_FILTERS:
        raise ExportError(
            f"run {info.run}: CBCL has one file of positions, with which the filters of {len(info.tiles)} tiles would "
            f"take {sum(offsets.values())} bytes, at most {MOST_FILTERS} are allowed; export BCL"
        )
    yield SinkFile(shared_locs_path(root), lambda: (encode_locs(positions),))
    for tile in info.tiles:
        yield SinkFile(filter_path(root, tile), partial(_filter, run, tile, offsets[tile]))
    layout = layout_of(info.tiles)
    surfaces: dict[tuple[int, int], list[TileId]] = {}
    for tile in info.tiles:
        surfaces.setdefault((tile.lane, layout.place(tile.tile).surface), []).append(tile)
    most = max(map(len, surfaces.values()))
    for cycle in range(1, cycles + 1):
        for (lane, surface), tiles in surfaces.items():
            path = cycle_folder(root, lane, cycle) / f"L{lane:03d}_{surface}.cbcl"
            yield SinkFile(path, partial(_cbcl, run, tiles, cycle, most))


def _shared_positions(run: CommittedRun) -> tuple[NDArray[np.float32], dict[TileId, int]]:
    """Positions of all tiles one after the other, and where each tile's begin; equal ones are there once."""
    parts: dict[bytes, int] = {}
    positions: list[NDArray[np.float32]] = []
    offsets, end = {}, 0
    for tile in run.info.tiles:
        mine = run.positions(tile)
        key = mine.tobytes()
        if key not in parts:
            parts[key], end = end, end + len(mine)
            positions.append(mine)
        offsets[tile] = parts[key]
    return np.concatenate(positions), offsets


def _filter(run: CommittedRun, tile: TileId, offset: int) -> Iterator[bytes]:
    yield encode_filter(np.concatenate([np.zeros(offset, np.bool_), run.passing(tile)]))


def _cbcl(run: CommittedRun, tiles: Sequence[TileId], cycle: int, most: int) -> Iterator[bytes]:
    """
    Parameters
    ----------
    most : tiles that the header has room for.
    """
    calls = [run.calls(tile, cycle)[run.passing(tile)] for tile in tiles]
    scores, bin_of = _bins(np.bincount(np.concatenate(calls) >> 2, minlength=64))
    blocks = [_nibbles(of_tile, bin_of) for of_tile in calls]
    members = [igzip.compress(block, compresslevel=1, mtime=0) if block else b"" for block in blocks]
    table = struct.pack("<8I", *(value for pair in enumerate((0, *scores)) for value in pair))
    records = b"".join(
        RECORD.pack(tile.tile, len(of_tile), len(block), len(member))
        for tile, of_tile, block, member in zip(tiles, calls, blocks, members, strict=True)
    )
    body = struct.pack("<BBI", 2, 2, BINS + 1) + table + struct.pack("<I", len(tiles)) + records + b"\1"
    body += bytes(RECORD.size * (most - len(tiles)))
    yield struct.pack("<HI", 1, 6 + len(body)) + body
    yield from members


def _bins(counts: NDArray[np.int64]) -> tuple[list[int], NDArray[np.uint8]]:
    """Score of each bin from 1 on, and (64,) the bin of each score.

    Parameters
    ----------
    counts : (64,) calls by Phred score, no-calls at 0.
    """
    found = np.flatnonzero(counts[1:]) + 1
    bin_of = np.zeros(64, np.uint8)
    if len(found) <= BINS:
        bin_of[found] = 1 + np.arange(len(found))
        return [*found.tolist(), *[0] * (BINS - len(found))], bin_of
    bin_of[1:] = 1 + np.digitize(np.arange(1, 64), EDGES)
    wrong = 10 ** (-np.arange(64) / 10)
    scores = []
    for number in range(1, BINS + 1):
        inside = bin_of == number
        calls = int(counts[inside].sum())
        scores.append(round(-10 * np.log10((counts * wrong)[inside].sum() / calls)) if calls else 0)
    return scores, bin_of


def _nibbles(calls: NDArray[np.uint8], bin_of: NDArray[np.uint8]) -> bytes:
    nibbles = np.where(calls == NO_CALL, 0, bin_of[calls >> 2] << 2 | calls & 3).astype(np.uint8)
    padded = np.append(nibbles, np.zeros(len(nibbles) % 2, np.uint8))
    return bytes((padded[0::2] | padded[1::2] << 4).tobytes())
