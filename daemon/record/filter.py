"""Which clusters of a tile pass the chastity filter."""

import numpy as np
from numpy.typing import NDArray

from calib.calling.chastity import CYCLES, passes
from calib.runfolder import RunInfo, TileId
from daemon.record.runfiles import RunFiles
from daemon.record.tilefile import read_chunks

CHUNK = 2**22
"""Values looked at at a time, however many clusters there are."""


def filter_cycles(info: RunInfo) -> int:
    """Cycles that decide about the filter: the first 25, fewer where the first read is shorter."""
    return min(CYCLES, info.reads[0].cycles)


def passing(files: RunFiles, info: RunInfo, tile: TileId, *, failures_allowed: int) -> NDArray[np.bool_]:
    """(n,) which clusters pass; known once :func:`filter_cycles` are committed.

    Raises
    ------
    OutputError : they are not.
    """
    decided = [np.zeros(0, np.bool_)]
    for _, percents in read_chunks(files.chastity_of(tile), range(1, filter_cycles(info) + 1), calls=CHUNK):
        decided.append(passes(percents, failures_allowed=failures_allowed))
    return np.concatenate(decided)
