"""The reads of a simulated tile, and the reference that they are cut from."""

import numpy as np
from numpy.typing import NDArray

from calib.learning.reference import UNKNOWN, FastaError, Sequence, reverse_complement


def random_reference(
    *, length: int, composition: tuple[float, float, float, float], rng: np.random.Generator
) -> tuple[Sequence, ...]:
    """One sequence of independent bases."""
    return (Sequence("simulated", rng.choice(4, size=length, p=composition).astype(np.uint8)),)


def cut_reads(
    *, reference: tuple[Sequence, ...], number: int, cycles: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Reads from everywhere on the reference, half of them from its reverse strand.

    Returns
    -------
    (number, cycles) bases 0-3; no read holds an unknown letter.

    Raises
    ------
    FastaError : no stretch of the reference is long enough.
    """
    letters = np.concatenate([np.append(sequence.bases, UNKNOWN) for sequence in reference])
    unknown_before = np.append(0, np.cumsum(letters == UNKNOWN))
    starts = np.flatnonzero(unknown_before[cycles:] == unknown_before[:-cycles])
    if not len(starts):
        longest = max(len(sequence.bases) for sequence in reference)
        raise FastaError(f"reference: no {cycles} known bases in a row for a read, longest sequence {longest}")
    reads = letters[rng.choice(starts, number)[:, None] + np.arange(cycles)]
    reverse = rng.random(number) < 0.5
    reads[reverse] = reverse_complement(reads[reverse])
    return np.asarray(reads, np.uint8)
