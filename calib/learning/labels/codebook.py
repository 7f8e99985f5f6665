"""Matching reads with the codes of a codebook."""

import csv
from pathlib import Path

from calib.learning.labels.matching import Match, Outcome, nearest
from calib.runfolder import RunFolderError


class Codebook:
    """Codes of equal length, each read from its first base on and on one strand.

    Parameters
    ----------
    codes : at least one, of A, C, G and T.
    """

    def __init__(self, codes: set[str]) -> None:
        self._codes = codes

    def places(self, _length: int, /) -> int:
        """Every code is one."""
        return len(self._codes)

    def match(self, read: str, *, distance: int) -> Match:
        """The nearest code; a tie is ambiguous."""
        return nearest(read, self._codes, distance=distance) or Match(Outcome.UNALIGNED)


def read_codebook(path: Path, *, cycles: int) -> Codebook:
    """Codebook from CSV with a ``code`` column.

    Parameters
    ----------
    cycles : length of the reads; codes must be as long.

    Raises
    ------
    RunFolderError : the file cannot be read, or a code is not as long as the reads or not of A, C, G, T.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            codes = {row["code"] for row in csv.DictReader(file)}
    except OSError as error:
        raise RunFolderError(f"codebook {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunFolderError(f"codebook {path}: {error}") from error
    except KeyError as error:
        raise RunFolderError(f"codebook {path}: no column `code`") from error
    if not codes:
        raise RunFolderError(f"codebook {path}: no codes")
    for code in sorted(codes, key=str):
        if not code or len(code) != cycles or not set(code) <= set("ACGT"):
            raise RunFolderError(f"codebook {path}: code {code!r}; the run reads {cycles} bases of A, C, G, T")
    return Codebook(codes)
