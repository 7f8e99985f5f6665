"""Matching reads with the sequences of a FASTA file: edlib for short reads, minimap2 (mappy) for long ones."""

from pathlib import Path

import edlib
import mappy
import numpy as np
from numpy.typing import NDArray

from calib.fasta import FastaError, read_fasta, reverse_complement
from calib.offline.labels.sequencematch import NO_CALL, Match, Outcome, Strand, nearest

SHORT_READ = 50
"""Reads up to this length are compared with every place; minimap2 finds too few seeds in them."""

MAX_SEARCHED_BASES = 20_000_000
"""Largest reference, both strands together, with which every short read is compared; it bounds the time."""

SEPARATOR = "-"
"""This character separates sequences and replaces unknown bases. It matches no base, so that no read spans it."""

NO_CALL_MATCHES = [(NO_CALL, base) for base in "ACGT"]
"""Pairs of letters that edlib takes as equal: a no-call matches every base."""


class FastaReference:
    """Sequences that reads are cut from, at any place.

    Parameters
    ----------
    path : FASTA, plain or gzip.
    cycles : length of the reads.

    Raises
    ------
    FastaError : the file cannot be read, holds no sequence as long as the reads, or is too large for short reads.
    """

    def __init__(self, path: Path, *, cycles: int, strand: Strand = Strand.BOTH) -> None:
        self._strand = strand
        sequences = read_fasta(path)
        self._sequences = {sequence.name: _letters(sequence.bases) for sequence in sequences}
        if not self.places(cycles):
            raise FastaError(f"reference {path}: no sequence has {cycles} bases, the length of the reads")
        strands = list(self._sequences.values())
        if strand is Strand.BOTH:
            strands += [_letters(reverse_complement(sequence.bases)) for sequence in sequences]
        self._joined = SEPARATOR.join(strands)
        if cycles <= SHORT_READ and len(self._joined) > MAX_SEARCHED_BASES:
            raise FastaError(
                f"reference {path}: it has {len(self._joined)} bases; with reads of {cycles} bases, at most "
                f"{MAX_SEARCHED_BASES} are possible"
            )
        self._index = mappy.Aligner(str(path), k=11, w=5, min_cnt=1, min_chain_score=11, scoring=(2, 8, 12, 2))

    def places(self, length: int, /) -> int:
        """Number of bases, over all strands, at which a read of this length can start."""
        starts = sum(max(0, len(sequence) - length + 1) for sequence in self._sequences.values())
        return starts * (2 if self._strand is Strand.BOTH else 1)

    def match(self, read: str, *, distance: int) -> Match:
        """Return the nearest ungapped place; the read is ambiguous if two places with different bases are equally near.

        A read that only matches with an insertion or deletion is not corrected.
        """
        candidates, gapped = self._short(read, distance) if len(read) <= SHORT_READ else self._long(read, distance)
        found = nearest(read, candidates, distance=distance)
        return found or Match(Outcome.GAPPED if gapped else Outcome.UNALIGNED)

    def _short(self, read: str, distance: int) -> tuple[set[str], bool]:
        """Find the best alignments of the whole read within the reference.

        Returns the stretches of the read's length that end where these alignments end, and whether there are any.
        """
        found = edlib.align(
            read, self._joined, mode="HW", task="distance", k=distance, additionalEqualities=NO_CALL_MATCHES
        )
        starts = [end + 1 - len(read) for _, end in found["locations"]]
        return {self._joined[start : start + len(read)] for start in starts if start >= 0}, bool(starts)

    def _long(self, read: str, distance: int) -> tuple[set[str], bool]:
        """Find the alignments of minimap2, and extend each without gaps to the whole read, once from each end.

        Returns the stretches of the reference found in this way, and whether any alignment, gaps included, is within
        the distance.
        """
        places, gapped = set(), False
        for hit in self._index.map(read):
            if hit.strand < 0 and self._strand is Strand.FORWARD:
                continue
            before, after = (hit.q_st, hit.q_en) if hit.strand > 0 else (len(read) - hit.q_en, len(read) - hit.q_st)
            sequence = self._sequences[hit.ctg]
            for start in (hit.r_st - before, hit.r_en - after):
                if 0 <= start <= len(sequence) - len(read):
                    place = sequence[start : start + len(read)]
                    places.add(place if hit.strand > 0 else mappy.revcomp(place))
            gapped |= hit.NM + len(read) - (hit.q_en - hit.q_st) <= distance
        return places, gapped


def _letters(bases: NDArray[np.uint8]) -> str:
    return bytes(np.frombuffer(f"ACGT{SEPARATOR}".encode(), np.uint8)[bases]).decode()
