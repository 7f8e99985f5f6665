"""Bytes of records: bases and Phred scores as characters, and columns that are put together into records."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.calling.scores import NO_CALL

NO_CALL_QUALITY = 2
"""Phred score a no-call is written with."""


def letters(calls: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bases of calls, of any shape; N for a no-call."""
    return translate(calls, _LETTERS)


def phreds(calls: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Phred scores + 33 of calls, of any shape; no-calls and lower scores get :data:`NO_CALL_QUALITY`."""
    shifted = np.asarray(calls >> 2, np.uint8)
    shifted += 33
    # The minimum is given as a row: with a single number NumPy would process one byte at a time.
    minimum = np.full(calls.shape[-1], 33 + NO_CALL_QUALITY, np.uint8)
    return np.maximum(shifted, minimum, out=shifted)


def pair_table(table: Sequence[int]) -> NDArray[np.uint16]:
    """Make the table of all pairs of bytes that :func:`translate` needs, from a table (256,) of single bytes."""
    every = np.arange(2**16, dtype=np.uint16).view(np.uint8)
    return np.array(table, np.uint8)[every].view(np.uint16)


def translate(calls: NDArray[np.uint8], table: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Replace each byte of calls by its value in a :func:`pair_table`.

    Two bytes are looked up at a time. NumPy releases the interpreter lock meanwhile, so that several threads can
    translate at the same time.
    """
    flat = calls.reshape(-1)
    whole = np.append(flat, np.uint8(0)) if flat.size % 2 else flat
    found = np.empty(whole.size // 2, np.uint16)
    # Every pair is in the table; modes other than "raise" write to the output without a copy in between.
    np.take(table, whole.view(np.uint16), out=found, mode="wrap")
    return found.view(np.uint8)[: flat.size].reshape(calls.shape)


_LETTERS = pair_table([ord("N") if call == NO_CALL else b"ACGT"[call & 3] for call in range(256)])


@dataclass(frozen=True)
class Column:
    """The same part of every record."""

    content: NDArray[np.uint8]
    """(n, width) bytes, or (width,) where all records have the same."""
    lengths: NDArray[np.int64] | None = None
    """(n,) number of bytes, from the start of each row, that belong to the record; None if whole rows belong to it."""

    @property
    def width(self) -> int:
        """Bytes of the longest part."""
        return int(self.content.shape[-1])


def constant(text: bytes) -> Column:
    """A part that is the same in all records."""
    return Column(np.frombuffer(text, np.uint8))


def put_together(records: int, columns: Sequence[Column]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The columns of the first record, then those of the second, and so on.

    Parameters
    ----------
    columns : a column with lengths is written with its whole width, and the columns after it overwrite the bytes that
        do not belong to the record. So at least as many bytes have to follow in each record.

    Returns
    -------
    all bytes, and (n + 1,) offsets: where each record begins, and where the last one ends.
    """
    lengths = np.full(records, sum(column.width for column in columns if column.lengths is None), np.int64)
    for column in columns:
        if column.lengths is not None:
            lengths += column.lengths
    starts = np.zeros(records + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    content = np.empty(starts[-1] + max(column.width for column in columns), np.uint8)
    at = starts[:-1].copy()
    for column in columns:
        # At every offset the array has one item as wide as the column, because NumPy copies items faster than rows.
        places = np.ndarray(len(content) - column.width + 1, f"V{column.width}", content, strides=(1,))
        places[at] = np.ascontiguousarray(column.content).view(places.dtype)[..., 0]
        at += column.width if column.lengths is None else column.lengths
    return content[: starts[-1]], starts


def join_reads(reads: Sequence[NDArray[np.uint8]], separator: bytes, count: int) -> NDArray[np.uint8]:
    """(n, width) bytes of several reads of (cycles, n), with a separator between them."""
    between = repeated(separator, count)
    parts = [part for read in reads for part in (between, read.T)][1:]
    return np.concatenate(parts, axis=1) if parts else np.empty((count, 0), np.uint8)


def repeated(text: bytes, count: int) -> NDArray[np.uint8]:
    """(count, width) the same bytes in every row."""
    return np.broadcast_to(np.frombuffer(text, np.uint8), (count, len(text)))
