"""Bases and Phred scores of calls as characters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.calling.scores import NO_CALL

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


@dataclass(frozen=True)
class Column:
    """The same part of every record."""

    content: NDArray[np.uint8]
    """(n, width) bytes, or (width,) where all records have the same."""
    lengths: NDArray[np.int64] | None = None
    """(n,) bytes of each that count; all of them where there is none."""

    @property
    def width(self) -> int:
        """Most bytes of a record."""
        return int(self.content.shape[-1])


def constant(text: bytes) -> Column:
    """A part that is the same in all records."""
    return Column(np.frombuffer(text, np.uint8))


def laid_out(records: int, columns: Sequence[Column]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The columns of the first record, then those of the second, and so on.

    Parameters
    ----------
    columns : after one with lengths, as many bytes follow in each record as do not count of it, or more.

    Returns
    -------
    all bytes, and (n + 1,) where each record begins, and the last ends.
    """
    lengths = np.full(records, sum(column.width for column in columns if column.lengths is None), np.int64)
    for column in columns:
        if column.lengths is not None:
            lengths += column.lengths
    starts = np.zeros(records + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    laid = np.empty(starts[-1] + max(column.width for column in columns), np.uint8)
    at = starts[:-1].copy()
    for column in columns:
        # All places that a part may be at, each one item: items are copied faster than rows.
        places = np.ndarray(len(laid) - column.width + 1, f"V{column.width}", laid, strides=(1,))
        # What does not count of it lies where the columns that follow are written next.
        places[at] = np.ascontiguousarray(column.content).view(places.dtype)[..., 0]
        at += column.width if column.lengths is None else column.lengths
    return laid[: starts[-1]], starts


def joined(reads: Sequence[NDArray[np.uint8]], separator: bytes, count: int) -> NDArray[np.uint8]:
    """(n, width) bytes of several reads of (cycles, n), with a separator between them."""
    between = repeated(separator, count)
    parts = [part for read in reads for part in (between, read.T)][1:]
    return np.concatenate(parts, axis=1) if parts else np.empty((count, 0), np.uint8)


def repeated(text: bytes, count: int) -> NDArray[np.uint8]:
    """(n, width) the same bytes so many times."""
    return np.broadcast_to(np.frombuffer(text, np.uint8), (count, len(text)))
