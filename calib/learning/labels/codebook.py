"""Matching reads with the codes of a codebook."""

from pathlib import Path

from calib.learning.codebook import CodebookError, read_codebook
from calib.learning.labels.matching import Match, Outcome, nearest


class Codebook:
    """Codes of equal length, each read from its first base on and on one strand.

    Parameters
    ----------
    path : CSV with a ``code`` column.
    cycles : length of the reads; codes must be as long.

    Raises
    ------
    CodebookError : the file cannot be read, or the codes are not as long as the reads.
    """

    def __init__(self, path: Path, *, cycles: int) -> None:
        codes = read_codebook(path)
        if codes.shape[1] != cycles:
            raise CodebookError(f"codebook {path}: codes of {codes.shape[1]} bases, the run reads {cycles}")
        self._codes = {bytes(code).decode() for code in codes}

    def places(self, _length: int, /) -> int:
        """Every code is one."""
        return len(self._codes)

    def match(self, read: str, *, distance: int) -> Match:
        """The nearest code; a tie is ambiguous."""
        return nearest(read, self._codes, distance=distance) or Match(Outcome.UNALIGNED)
