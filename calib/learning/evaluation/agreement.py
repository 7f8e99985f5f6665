"""How many clusters are found, and how well they are read."""

from dataclasses import dataclass
from pathlib import Path

from calib.learning.evaluation.matching import NO_CALL, Matched, match
from calib.learning.evaluation.reads import Reads
from calib.learning.evaluation.share import share
from calib.learning.simulation.folder import read_truth
from calib.runfolder import TileId, read_run_info

WRONG_MOST = 0.05
"""Share of wrong bases up to which a read counts as right."""

LAST_CYCLES = 10
"""Cycles at the end of a read, where phasing and decay tell most."""

Q30 = 30


@dataclass(frozen=True)
class Agreement:
    """How reads compare with the truth. Shares of nothing are NaN."""

    clusters: int
    """True clusters."""
    reads: int
    found: float
    """Share of true clusters with a read, one to one."""
    yielded: float
    """Share of true clusters found and read with at most ``WRONG_MOST`` wrong bases."""
    real: float
    """Precision: share of reads that are of a true cluster, one to one."""
    error_rate: float
    """Wrong bases and no-calls over all bases of the clusters found."""
    called_error_rate: float
    """Wrong bases over called bases of the clusters found."""
    last_error_rate: float
    """As ``error_rate``, over the last ``LAST_CYCLES`` cycles."""
    no_calls: float
    """Share of no-calls in the bases of all reads."""
    q30: float
    """Share of called bases with Q >= 30, of all reads."""


def agreement(matched: Matched) -> Agreement:
    """Figures of one caller."""
    found, wrong, called = matched.found, matched.wrong, matched.called
    right = wrong.mean(axis=1) <= WRONG_MOST
    last = wrong[:, -LAST_CYCLES:]
    calls = matched.bases != NO_CALL
    return Agreement(
        clusters=len(found),
        reads=len(calls),
        found=share(found.sum(), len(found)),
        yielded=share(right.sum(), len(found)),
        real=share(found.sum(), len(calls)),
        error_rate=share(wrong.sum(), wrong.size),
        called_error_rate=share((wrong & called).sum(), called.sum()),
        last_error_rate=share(last.sum(), last.size),
        no_calls=share((~calls).sum(), calls.size),
        q30=share((calls & (matched.qualities >= Q30)).sum(), calls.sum()),
    )


def compare(root: Path, tile: TileId, reads: Reads) -> Agreement:
    """Compare the reads of a tile with the truth beside its images.

    Raises
    ------
    RunFolderError : the folder has no truth, or one of another number of cycles.
    """
    cycles = read_run_info(root).reads[0].cycles
    return agreement(match(read_truth(root, tile), reads, cycles=cycles))
