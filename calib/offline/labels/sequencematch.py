"""Matches of reads with known sequences, and the largest allowed distance of a match."""

from dataclasses import dataclass
from enum import StrEnum
from math import comb
from pathlib import Path
from typing import Protocol

from calib.offline.codebook import CodebookError, read_codebook

NO_CALL = "N"

MAX_CHANCE = 0.01
"""A distance is allowed if a random read has, on average, at most this many matches within the distance."""

MAX_CORRECTED = 0.1
"""A read is corrected only if at most this share of its bases is wrong; otherwise the match would be another read."""


class Outcome(StrEnum):
    """Result of labelling a cluster."""

    ALIGNED = "aligned"
    """One place in the reference is nearest to the read, and within the allowed distance."""
    UNALIGNED = "unaligned"
    """No place is within the allowed distance."""
    AMBIGUOUS = "ambiguous"
    """Two places with different bases are equally near."""
    GAPPED = "gapped"
    """The read aligns only with an insertion or deletion, so the true base of each cycle cannot be known."""
    UNPROVEN = "unproven"
    """Too many random reads would match too, and the cluster does not pass the chastity filter."""


@dataclass(frozen=True)
class Match:
    """Result of comparing a read with the reference."""

    outcome: Outcome
    corrected: str | None = None
    """The reference's bases where aligned, as long as the read."""


class Strand(StrEnum):
    """Which strands of the reference reads may come from."""

    BOTH = "both"
    """The reference and its reverse complement."""
    FORWARD = "forward"
    """The reference as it is written."""


class Reference(Protocol):
    """Sequences that are known to be on the flow cell."""

    def places(self, length: int, /) -> int:
        """Number of places of the reference that a read of this many bases is compared with."""

    def match(self, read: str, *, distance: int) -> Match:
        """Find a read in the reference, with at most ``distance`` wrong called bases."""


def chance(*, length: int, places: int, distance: int) -> float:
    """Expected number of places that a random read matches.

    It is ``places · Σ_d C(length, d) 3^d / 4^length`` for d up to ``distance``, under the assumption that the bases at
    every place are random.
    """
    return float(places * sum(comb(length, d) * 3**d for d in range(distance + 1)) / 4**length)


def allowed_distance(*, length: int, places: int) -> int:
    """Largest allowed number of mismatches: at most :data:`MAX_CORRECTED` of the bases, and so few that :func:`chance`
    is at most :data:`MAX_CHANCE`.

    Parameters
    ----------
    length : called bases of the read.
    places : places of the reference, both strands counted.
    """
    distance = int(MAX_CORRECTED * length)
    while distance > 0 and chance(length=length, places=places, distance=distance) > MAX_CHANCE:
        distance -= 1
    return distance


def nearest(read: str, places: set[str], *, distance: int) -> Match | None:
    """The match of a read among ungapped places of its own length; None where none is near enough.

    No-calls agree with every base. Places with the same bases count as one.
    """
    distances = {place: mismatches(read, place) for place in places if set(place) <= set("ACGT")}
    least = min(distances.values(), default=distance + 1)
    if least > distance:
        return None
    best = [place for place, apart in distances.items() if apart == least]
    return Match(Outcome.ALIGNED, best[0]) if len(best) == 1 else Match(Outcome.AMBIGUOUS)


def mismatches(read: str, place: str) -> int:
    """Called bases of a read that differ from those of a place of the same length."""
    return sum(called not in (true, NO_CALL) for called, true in zip(read, place, strict=True))


class Codebook:
    """Codes of equal length. Reads start with the first base of a code, on one strand.

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
        """A read is compared with every code."""
        return len(self._codes)

    def match(self, read: str, *, distance: int) -> Match:
        """The nearest code; a tie is ambiguous."""
        return nearest(read, self._codes, distance=distance) or Match(Outcome.UNALIGNED)
