"""Binary layouts of InterOp files, in versions that every reader knows.

A file consists of its version (a byte), the size of its records (a byte), in one version a longer header, and the
records, all little-endian. Source: the file formats of Illumina's InterOp library,
https://illumina.github.io/interop/binary_formats.html
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Records = NDArray[np.void]
"""Structured array whose fields are those of a layout."""

HIGHEST_SCORE = 50
"""Score of the last column of a quality histogram; the first column is score 1."""

_TILE: list[Any] = [("lane", "<u2"), ("tile", "<u2")]
_CYCLE: list[Any] = [*_TILE, ("cycle", "<u2")]


@dataclass(frozen=True)
class Layout:
    """One kind of file."""

    name: str
    version: int
    record: np.dtype[np.void]
    header_end: bytes = b""
    """Bytes between the size of the records and the records."""

    def encode(self, records: Records) -> tuple[bytes, bytes]:
        """Content of a file, in pieces."""
        header = bytes((self.version, self.record.itemsize)) + self.header_end
        return header, records.astype(self.record, copy=False).tobytes()


QUALITY = Layout("QMetricsOut.bin", 4, np.dtype([*_CYCLE, ("counts", "<u4", HIGHEST_SCORE)]))
"""Calls that pass the filter, by score."""

FEW_SCORES = Layout("QMetricsOut.bin", 5, QUALITY.record, header_end=b"\0")
"""Version 5 of the same, for runs with few different scores. Its header says that the scores are not bins.

Version 4 cannot say this: where there are few scores, Illumina's library assumes the bins of its own instruments, and
counts only the calls whose scores are among these. savR parses both versions, but shows the quality of version 4 only.
"""

MAX_BINS = 7
"""Up to this many scores, the library assumes bins."""

TILE = Layout("TileMetricsOut.bin", 2, np.dtype([*_TILE, ("code", "<u2"), ("value", "<f4")]))
"""Figures of a tile, by :data:`daemon.outputs.interop.records.CODES`."""

EXTRACTION = Layout(
    "ExtractionMetricsOut.bin",
    2,
    np.dtype([*_CYCLE, ("focus", "<f4", 4), ("intensity", "<u2", 4), ("time", "<u8")]),
)
"""Full width at half maximum of the spots, pixels, and 90th percentile of the intensity, by channel; time as a .NET
``DateTime`` in UTC."""

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
"""Mean intensity over all channels, of each channel, and of each channel in its own calls; number of no-calls and of
calls of A, C, G, T."""

ERROR = Layout("ErrorMetricsOut.bin", 3, np.dtype([*_CYCLE, ("percent", "<f4"), ("reads", "<u4", 5)]))
"""Error rate of the spike-in, and its reads with 0, 1, 2, 3 and 4 errors up to the cycle."""


def quality_layout(records: Records) -> Layout:
    """The version from which Illumina's library reads a run's quality correctly."""
    scores = np.count_nonzero(records["counts"].any(axis=0))
    return QUALITY if scores > MAX_BINS else FEW_SCORES
