"""Calls of one cycle, from its signals, the calls of earlier cycles and the signals of later ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.calling.inphase import correct_phasing
from calib.calling.scores import NO_CALL, chastity, features, scores
from calib.calling.signals import Signals, log_evidence
from calib.phasing import NeighbourLight, Phasing, neighbour_light
from engines.bundles.bundle import QualityTable


@dataclass(frozen=True)
class CalledCycle:
    """One cycle of a tile, called."""

    calls: NDArray[np.uint8]
    """(n,) bytes ``(Q << 2) | base``; ``NO_CALL`` where the cycle does not show the cluster."""
    features: NDArray[np.float32]
    """(n, features) from which the scores were computed."""
    chastity: NDArray[np.uint8]
    """(n,) percent, see :mod:`calib.calling.scores`."""
    neighbours: NeighbourLight | None
    """Light of the bases of the previous and the next cycle, for the estimate of phasing; None if it cannot be
    measured."""


def call_cycle(
    reading: Signals,
    later: Sequence[Signals | None],
    earlier: NDArray[np.uint8],
    *,
    cycle: int,
    phasing: Phasing,
    purity: NDArray[np.uint8],
    quality: QualityTable,
) -> CalledCycle:
    """Call all clusters of a tile in one cycle.

    Parameters
    ----------
    later : signals of the next cycles of the read, up to :data:`calib.calling.inphase.AHEAD`; None where a cycle is
        missing.
    earlier : (k, n) bytes of the calls of the k cycles before this one in the read.
    cycle : 1-based, in the read.
    purity : (m, n) chastity of the run's first cycles, without the cycles that are not called.
    """
    heard = [None if after is None else after.shares for after in later]
    corrected = correct_phasing(reading.shares, heard, base_probabilities(earlier), cycle=cycle, phasing=phasing)
    evidence = log_evidence(reading, corrected.shares, corrected.variance_factor)
    percent = chastity(corrected.shares)
    pure = np.stack([*purity, percent, *(chastity(shares) for shares in heard if shares is not None)])
    described = features(evidence, pure, reading.crowding)
    there = np.asarray(np.isfinite(evidence).all(axis=1))
    bases = np.argmax(np.where(there[:, None], evidence, 0), axis=1).astype(np.uint8)
    calls = np.where(there, (scores(described, quality) << 2) | bases, np.uint8(NO_CALL)).astype(np.uint8)
    neighbours = None
    if len(earlier) > 0 and heard and heard[0] is not None:
        known = np.not_equal(earlier[-1], NO_CALL) & np.isfinite(heard[0]).all(axis=1)
        neighbours = neighbour_light(
            np.where(known[:, None], reading.shares, np.nan),
            before=(earlier[-1] & 3).astype(np.int64),
            own=bases.astype(np.int64),
            after=np.argmax(np.nan_to_num(heard[0]), axis=1),
        )
    return CalledCycle(calls, described, percent, neighbours)


def base_probabilities(calls: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(k, n, 4) probability of each base, from bytes of calls (k, n); a quarter for no-calls."""
    phred = (calls >> 2).astype(np.float32)
    wrong = np.asarray(np.where(calls == NO_CALL, 0.75, 10 ** (-phred / 10)), np.float32)[:, :, None]
    called = (calls & 3)[:, :, None] == np.arange(4, dtype=np.uint8)
    return np.where(called, 1 - wrong, wrong / 3)
