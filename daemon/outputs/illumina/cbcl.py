"""CBCL, the base calls of newer instruments: a file for each lane, surface and cycle.

A file holds the clusters that pass the filter. Layout (Illumina's bcl2fastq2 guide; checked with Picard),
little-endian::

    u16 1, u32 size of the header, u8 2, u8 2           two bits of base, two of score
    u32 4, 4 × (u32 bin, u32 Phred)                     bin 0 is that of no-calls
    u32 tiles, tiles × (u32 tile, u32 clusters, u32 size, u32 compressed size)
    u8 1                                                clusters that do not pass are left out
    zero bytes                                          fill the header up to the size of the run's longest header
    tiles × gzip member                                 a nibble for each cluster, bin << 2 | base; low nibble first

The filling is needed because readers assume that all headers have the same size, even if surfaces have different
numbers of tiles.

All tiles share one file of positions, ``s.locs``, and the filter of a tile selects its own. Here the positions of all
tiles follow one another, so a filter begins with a 0 for each position of all tiles that precede its own tile.
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
from daemon.outputs.illumina.basecalls import cycle_folder, filter_content, filter_path, intensities
from daemon.outputs.sink import SinkFile
from daemon.record.committed import CommittedRun
from daemon.record.tilefile import encode_locs

BINS = 3
"""Bins of the scores of called bases; no-calls have a bin of their own."""

EDGES = (15, 30)
"""Lowest scores of the second and third bin, in files with more than three scores."""

RECORD = struct.Struct("<4I")
"""Entry of a tile in the header."""

MAX_FILTERS = 2**33
"""Most bytes that all filters of a run may take together; they grow with the square of the number of tiles."""


def cbcl_files(run: CommittedRun, root: Path) -> Iterator[SinkFile]:
    """Positions, filters and base calls of the cycles that every tile has committed.

    A file with at most three different scores keeps them. Otherwise scores are binned, and the score of a bin
    corresponds to the mean error probability of its calls.

    Raises
    ------
    ExportError : the filter of a tile is not known, or the filters are too large.
    """
    info, cycles = run.info, min(run.committed.values())
    if not all(run.filtered(tile) for tile in info.tiles):
        raise ExportError(
            f"run {info.run}: CBCL needs {run.filter_cycles} cycles of every tile, {cycles} are committed"
        )
    positions, offsets = _shared_positions(run)
    if (size := sum(offsets.values())) > MAX_FILTERS:
        raise ExportError(
            f"run {info.run}: the filters of {len(info.tiles)} tiles would take {size} bytes as CBCL, "
            f"at most {MAX_FILTERS} are allowed; export BCL instead"
        )
    yield SinkFile(intensities(root) / "s.locs", lambda: (encode_locs(positions),))
    for tile in info.tiles:
        yield SinkFile(filter_path(root, tile), partial(filter_content, run, tile, offsets[tile]))
    layout = layout_of(info.tiles)
    surfaces: dict[tuple[int, int], list[TileId]] = {}
    for tile in info.tiles:
        surfaces.setdefault((tile.lane, layout.place(tile.tile).surface), []).append(tile)
    max_tiles = max(map(len, surfaces.values()))
    for cycle in range(1, cycles + 1):
        for (lane, surface), tiles in surfaces.items():
            path = cycle_folder(root, lane, cycle) / f"L{lane:03d}_{surface}.cbcl"
            yield SinkFile(path, partial(_cbcl, run, tiles, cycle, max_tiles))


def _shared_positions(run: CommittedRun) -> tuple[NDArray[np.float32], dict[TileId, int]]:
    """Positions of all tiles one after the other, and each tile's offset; tiles with equal positions share them."""
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


def _cbcl(run: CommittedRun, tiles: Sequence[TileId], cycle: int, max_tiles: int) -> Iterator[bytes]:
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
    body += bytes(RECORD.size * (max_tiles - len(tiles)))
    yield struct.pack("<HI", 1, 6 + len(body)) + body
    yield from members


def _bins(counts: NDArray[np.int64]) -> tuple[list[int], NDArray[np.uint8]]:
    """Scores of the bins 1, 2 and 3, and (64,) the bin of each score.

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
