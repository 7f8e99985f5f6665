"""The reads of a simulated tile: they are cut from a reference; index reads are barcodes of samples."""

import numpy as np
from numpy.typing import NDArray
from seqd_client.errors import SeqdError
from seqd_client.runinfo import Read

from calib.fasta import UNKNOWN, FastaError, Sequence, reverse_complement

INSERT_BEYOND = 200
"""If both ends of an insert are read, its length is that of the longer read plus 0 to this many bases."""


class ReadsError(SeqdError):
    """Reads or barcodes that cannot be simulated."""

    exit_code = 2


def random_reference(
    *, length: int, composition: tuple[float, float, float, float], rng: np.random.Generator
) -> tuple[Sequence, ...]:
    """One sequence of independent bases."""
    return (Sequence("simulated", rng.choice(4, size=length, p=composition).astype(np.uint8)),)


def check_reads(reads: tuple[Read, ...], barcodes: tuple[str, ...]) -> None:
    """Refuse what cannot be simulated.

    Raises
    ------
    ReadsError : there are not one or two template reads, the first read is an index read, or a barcode does not have as
        many bases as the index reads have cycles.
    """
    template = sum(not read.index for read in reads)
    if template not in (1, 2):
        raise ReadsError(f"reads: {template} template reads cannot be simulated, only 1 or 2")
    if reads[0].index:
        raise ReadsError(
            "reads: the first is an index read; only runs that begin with a template read can be simulated"
        )
    cycles = sum(read.cycles for read in reads if read.index)
    for barcode in barcodes:
        if not cycles:
            raise ReadsError(f"barcode {barcode!r}: no index is read")
        if len(barcode) != cycles or set(barcode) - set("ACGT"):
            raise ReadsError(
                f"barcode {barcode!r}: it must have {cycles} letters A, C, G, T, one for each cycle of the index reads"
            )


def cut_length(reads: tuple[Read, ...]) -> int:
    """Number of bases of the piece of the reference that a cluster's reads are cut from."""
    template = [read.cycles for read in reads if not read.index]
    return template[0] if len(template) == 1 else max(template) + INSERT_BEYOND


def template_reads(
    *, reference: tuple[Sequence, ...], number: int, reads: tuple[Read, ...], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Template reads of every cluster: one read from an end of its insert, or two reads, one from each end.

    If there is one read, the insert has its length. If there are two, the length is that of the longer one plus 0 to
    :data:`INSERT_BEYOND` bases.

    Returns
    -------
    (number, cycles of these reads) bases 0-3, one read after the other.

    Raises
    ------
    FastaError : no stretch of the reference is long enough.
    """
    inserts = cut_reads(reference=reference, number=number, cycles=cut_length(reads), rng=rng)
    first, *second = (read.cycles for read in reads if not read.index)
    if not second:
        return inserts
    ends = inserts.shape[1] - rng.integers(0, INSERT_BEYOND, number, endpoint=True)
    back = inserts[np.arange(number)[:, None], ends[:, None] - np.arange(second[0], 0, -1)]
    return np.concatenate([inserts[:, :first], reverse_complement(back)], axis=1)


def index_reads(*, barcodes: tuple[str, ...], number: int, cycles: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(number, cycles) bases 0-3 of all index reads: a barcode for each cluster, or random bases without barcodes."""
    if not barcodes:
        return rng.integers(0, 4, (number, cycles), np.uint8)
    bases = np.array([["ACGT".index(base) for base in barcode] for barcode in barcodes], np.uint8)
    return bases[rng.integers(0, len(bases), number)]


def cut_reads(
    *, reference: tuple[Sequence, ...], number: int, cycles: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Reads from everywhere on the reference, half of them from its reverse strand.

    Returns
    -------
    (number, cycles) bases 0-3; no read holds an unknown letter.

    Raises
    ------
    FastaError : no stretch of the reference is long enough.
    """
    letters = np.concatenate([np.append(sequence.bases, UNKNOWN) for sequence in reference])
    unknown_before = np.append(0, np.cumsum(letters == UNKNOWN))
    starts = np.flatnonzero(unknown_before[cycles:] == unknown_before[:-cycles])
    if not len(starts):
        longest = max(len(sequence.bases) for sequence in reference)
        raise FastaError(f"reference: a read needs {cycles} known bases in a row, the longest sequence has {longest}")
    reads = letters[rng.choice(starts, number)[:, None] + np.arange(cycles)]
    reverse = rng.random(number) < 0.5
    reads[reverse] = reverse_complement(reads[reverse])
    return np.asarray(reads, np.uint8)
