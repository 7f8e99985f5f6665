"""Comparison of reads with a codebook, and with decoy codes that are not in it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.offline.codebook import CodebookError, read_codebook
from calib.offline.evaluation.callers import Reads
from calib.offline.evaluation.clustermatch import share

SHUFFLES = 20
"""Number of decoy books that are drawn."""

CHUNK = 2000
"""Reads whose distances to all codes are taken at a time."""


@dataclass(frozen=True)
class CodebookAgreement:
    """Reads of one caller against a codebook."""

    reads: int
    codes: int
    hits: int
    """Reads that are a code."""
    share: float
    chance: float
    """Hits expected by chance: the mean number of reads that equal a decoy code, multiplied by the number of codes.

    NaN if every shuffled code is in the book, so that no decoy is left.
    """
    distances: tuple[int, ...]
    """Reads at 0, 1, 2, ... mismatches from the nearest code; N is a mismatch."""


def codebook_hits(path: Path, reads: Reads) -> int:
    """Number of reads that are a code of a codebook: CSV with a ``code`` column."""
    return compare_with_codebook(read_codebook(path), reads.sequences).hits


def compare_with_codebook(codes: NDArray[np.uint8], sequences: NDArray[np.uint8]) -> CodebookAgreement:
    """Compare reads with a codebook.

    Decoys have the book's base composition at every position: each column of the book is shuffled by itself, and a
    decoy that is a code is dropped.

    Parameters
    ----------
    codes : (codes, length) letters.
    sequences : (reads, length) letters.

    Raises
    ------
    CodebookError : the lengths differ.
    """
    length = codes.shape[1]
    if len(sequences) and sequences.shape[1] != length:
        raise CodebookError(f"codebook: codes of {length} bases, the reads have {sequences.shape[1]}")
    number_of = Counter(bytes(sequence) for sequence in sequences)
    book = {bytes(code) for code in codes}
    hits = sum(number_of[code] for code in book)
    return CodebookAgreement(
        reads=len(sequences),
        codes=len(book),
        hits=hits,
        share=share(hits, len(sequences)),
        chance=_chance(codes, book, number_of),
        distances=_distances(codes, number_of),
    )


def _chance(codes: NDArray[np.uint8], book: set[bytes], number_of: Counter[bytes]) -> float:
    rng = np.random.default_rng(0)
    hits = decoys = 0
    for _ in range(SHUFFLES):
        shuffled = {bytes(code) for code in rng.permuted(codes, axis=0)} - book
        hits += sum(number_of[code] for code in shuffled)
        decoys += len(shuffled)
    return share(hits * len(book), decoys)


def _distances(codes: NDArray[np.uint8], number_of: Counter[bytes]) -> tuple[int, ...]:
    length = codes.shape[1]
    histogram = np.zeros(length + 1, np.int64)
    different = np.frombuffer(b"".join(number_of), np.uint8).reshape(-1, length)
    times = np.array(list(number_of.values()), np.int64)
    for start in range(0, len(different), CHUNK):
        part = slice(start, start + CHUNK)
        agreeing = _one_hot(different[part]) @ _one_hot(codes).T
        mismatches = length - agreeing.max(axis=1).astype(np.int64)
        histogram += np.bincount(mismatches, times[part], minlength=length + 1).astype(np.int64)
    return tuple(int(count) for count in histogram)


def _one_hot(letters: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 4 length) one-hot letters; the product of two rows is the number of positions that agree."""
    hot = letters[:, :, None] == np.frombuffer(b"ACGT", np.uint8)
    return np.asarray(hot.reshape(len(letters), -1), np.float32)
