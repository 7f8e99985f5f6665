"""How InterOp files lie on the disk; the versions that every reader knows.

A file is a byte of its version, a byte of its records' size, in one kind more of a header, and the records;
little-endian. Source: the file formats of Illumina's InterOp library, https://illumina.github.io/interop/binary_formats.html
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Records = NDArray[np.void]
"""Structured, of one layout."""

HIGHEST_SCORE = 50
"""Of a quality histogram; its first column is score 1."""

_TILE: list[Any] = [("lane", "<u2"), ("tile", "<u2")]
_CYCLE: list[Any] = [*_TILE, ("cycle", "<u2")]


@dataclass(frozen=True)
class Layout:
    """One kind of file."""

    name: str
    version: int
    record: np.dtype[np.void]
    more: bytes = b""
    """Of the header."""

    def encode(self, records: Records) -> bytes:
        """A file's content."""
        return (
            bytes((self.version, self.record.itemsize)) + self.more + records.astype(self.record, copy=False).tobytes()
        )


QUALITY = Layout("QMetricsOut.bin", 4, np.dtype([*_CYCLE, ("counts", "<u4", HIGHEST_SCORE)]))
"""Calls that pass the filter, by score."""

FEW_SCORES = Layout("QMetricsOut.bin", 5, QUALITY.record, more=b"\0")
"""The same where few scores occur; the header goes on to say that they are no bins.

Version 4 cannot say it, and Illumina's library takes so few for bins of its own instruments: of binned calls it would
count those alone whose scores happen to be the same. savR parses both, and has an accessor for version 4 alone.
"""

MOST_GUESSED = 7
"""Scores up to which the library guesses."""

TILE = Layout("TileMetricsOut.bin", 2, np.dtype([*_TILE, ("code", "<u2"), ("value", "<f4")]))
"""Figures of a tile, by :data:`daemon.outputs.interop.records.CODES`."""

EXTRACTION = Layout(
    "ExtractionMetricsOut.bin",
    2,
    np.dtype([*_CYCLE, ("focus", "<f4", 4), ("intensity", "<u2", 4), ("time", "<u8")]),
)
"""Full width at half maximum, pixels, and 90th percentile of the intensity by channel; a .NET ``DateTime`` in UTC."""

INTENSITY = Layout(
    "CorrectedIntMetricsOut.bin",
    2,
    np.dtype(
        [
            *_CYCLE,
            ("average", "<u2"),
            ("all", "<u2", 4),
            ("called", "<u2", 4),
            ("bases", "<u4", 5),
            ("signal_to_noise", "<f4"),
        ]
    ),
)
"""Mean intensities over all channels, by channel, by channel where it was called; no-calls and calls of A, C, G, T."""

ERROR = Layout("ErrorMetricsOut.bin", 3, np.dtype([*_CYCLE, ("percent", "<f4"), ("reads", "<u4", 5)]))
"""Errors of a control, and its reads that have none, one, two, three, four up to the cycle."""


def quality_layout(records: Records) -> Layout:
    """Which of the two a run's quality is read right from."""
    scores = np.count_nonzero(records["counts"].any(axis=0))
    return QUALITY if scores > MOST_GUESSED else FEW_SCORES
