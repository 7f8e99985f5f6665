"""Records laid out from columns of bytes, one after the other, without a loop over records."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
