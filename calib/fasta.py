"""FASTA files: sequences of references and spike-ins."""

import gzip
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pysam
from numpy.typing import NDArray
from seqd_client.errors import SeqdError

UNKNOWN = 4
"""Code of a letter that is not A, C, G or T."""

GZIP = b"\x1f\x8b"

IUPAC = set("ACGTUNRYSWKMBDHV")
"""Letters of nucleotides in the IUPAC code; those other than A, C, G and T are read as unknown."""


class FastaError(SeqdError):
    """A FASTA file cannot be read, or no read can be cut from it."""

    exit_code = 3


@dataclass(frozen=True)
class Sequence:
    """One sequence of a reference."""

    name: str
    bases: NDArray[np.uint8]
    """(n,) 0-3, or :data:`UNKNOWN`."""


def reverse_complement(bases: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(..., n) bases of the other strand, in the order in which it is read; unknown bases stay unknown."""
    return np.where(bases == UNKNOWN, UNKNOWN, 3 - bases)[..., ::-1].astype(np.uint8)


def read_fasta(path: Path, *, kind: str = "reference") -> tuple[Sequence, ...]:
    """Read a FASTA file, plain or gzip. Letters other than A, C, G, T (either case) become :data:`UNKNOWN`.

    The name of a sequence is the first word of its line.

    Parameters
    ----------
    kind : the word that error messages use for the file.

    Raises
    ------
    FastaError : the file cannot be read, is not FASTA, names a sequence twice, or a sequence is empty or has letters
        that are no nucleotides.
    """
    # pysam reports neither a folder, nor a file whose end is missing, nor text before the first sequence.
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data.startswith(GZIP) else data).decode("ascii")
    except UnicodeDecodeError as error:
        raise FastaError(f"{kind} {path}: not FASTA: byte {error.start} is not ASCII") from error
    except (OSError, EOFError, zlib.error) as error:
        raise FastaError(f"{kind} {path}: {getattr(error, 'strerror', None) or error}") from error
    if not text.lstrip().startswith(">"):
        raise FastaError(f"{kind} {path}: not FASTA, or empty; a sequence starts with a line '>name'")
    codes = np.full(256, UNKNOWN, np.uint8)
    for base, letter in enumerate(b"ACGT"):
        codes[[letter, letter + 32]] = base
    sequences = []
    with pysam.FastxFile(str(path)) as file:
        for record in file:
            name, letters = record.name or "", "".join((record.sequence or "").split())
            if not letters or set(letters.upper()) - IUPAC:
                raise FastaError(f"{kind} {path}: sequence {name!r} is empty or has letters that are no nucleotides")
            sequences.append(Sequence(name, codes[np.frombuffer(letters.encode(), np.uint8)]))
    name, times = Counter(sequence.name for sequence in sequences).most_common(1)[0]
    if times > 1:
        raise FastaError(f"{kind} {path}: sequence {name!r} occurs {times} times")
    return tuple(sequences)


def write_fasta(path: Path, reference: tuple[Sequence, ...]) -> None:
    """Write sequences, 80 letters a line."""
    with path.open("w", encoding="ascii") as file:
        for sequence in reference:
            letters = np.frombuffer(b"ACGTN", np.uint8)[sequence.bases].tobytes().decode()
            file.write(f">{sequence.name}\n")
            file.writelines(letters[first : first + 80] + "\n" for first in range(0, len(letters), 80))
