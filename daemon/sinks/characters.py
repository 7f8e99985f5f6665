"""Bases and Phred scores of calls as characters."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calib.calling.quality import NO_CALL

NO_CALL_QUALITY = 2
"""Phred score a no-call is written with."""


def letters(calls: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bases of calls, of any shape; N for a no-call."""
    return translated(calls, _LETTERS)


def phreds(calls: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Phred scores + 33 of calls, of any shape; a no-call's is the lowest that is given."""
    shifted = np.asarray(calls >> 2, np.uint8)
    shifted += 33
    # As a row: with a lone number NumPy takes one byte at a time.
    least = np.full(calls.shape[-1], 33 + NO_CALL_QUALITY, np.uint8)
    return np.maximum(shifted, least, out=shifted)


def pairs(table: Sequence[int]) -> NDArray[np.uint16]:
    """A table of all bytes made one of all pairs of bytes, for :func:`translated`."""
    every = np.arange(2**16, dtype=np.uint16).view(np.uint8)
    return np.array(table, np.uint8)[every].view(np.uint16)


def translated(calls: NDArray[np.uint8], table: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Each byte of calls by a table of :func:`pairs`: two at a time, and beside other threads."""
    flat = calls.reshape(-1)
    whole = np.append(flat, np.uint8(0)) if flat.size % 2 else flat
    found = np.empty(whole.size // 2, np.uint16)
    # Every pair is in the table; modes other than "raise" write to the output without a copy between.
    np.take(table, whole.view(np.uint16), out=found, mode="wrap")
    return found.view(np.uint8)[: flat.size].reshape(calls.shape)


_LETTERS = pairs([ord("N") if call == NO_CALL else b"ACGT"[call & 3] for call in range(256)])
