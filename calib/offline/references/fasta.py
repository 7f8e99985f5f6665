"""Sequences that are known to be on the flow cell, and their FASTA file."""

import gzip
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from seqd_client.errors import SeqdError

UNKNOWN = 4
"""Code of a letter that is not A, C, G or T."""

GZIP = b"\x1f\x8b"


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
    """(..., n) bases of the other strand, in the order in which it is read; what is unknown stays so."""
    return np.where(bases == UNKNOWN, UNKNOWN, 3 - bases)[..., ::-1].astype(np.uint8)


def read_fasta(path: Path) -> tuple[Sequence, ...]:
    """Read a reference, plain or gzip; letters other than A, C, G, T (either case) are unknown.

    A sequence's name is the first word of its line.

    Raises
    ------
    FastaError : it cannot be read, is not FASTA, or has an empty sequence or one name twice.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data.startswith(GZIP) else data).decode("ascii")
    except UnicodeDecodeError as error:
        raise FastaError(f"reference {path}: not FASTA: byte {error.start} is not ASCII") from error
    except (OSError, EOFError, zlib.error) as error:
        raise FastaError(f"reference {path}: {getattr(error, 'strerror', None) or error}") from error
    before, *records = ("\n" + text).split("\n>")
    if before.strip() or not records:
        raise FastaError(f"reference {path}: not FASTA: a sequence starts with a line '>name'")
    codes = np.full(256, UNKNOWN, np.uint8)
    for base, letter in enumerate(b"ACGT"):
        codes[[letter, letter + 32]] = base
    sequences = []
    for record in records:
        header, _, lines = record.partition("\n")
        name, letters = header.split()[0] if header.strip() else "", "".join(lines.split())
        if not letters:
            raise FastaError(f"reference {path}: sequence {name!r} is empty")
        sequences.append(Sequence(name, codes[np.frombuffer(letters.encode(), np.uint8)]))
    name, times = Counter(sequence.name for sequence in sequences).most_common(1)[0]
    if times > 1:
        raise FastaError(f"reference {path}: sequence {name!r} is there {times} times")
    return tuple(sequences)


def write_fasta(path: Path, reference: tuple[Sequence, ...]) -> None:
    """Write a reference, 80 letters a line."""
    with path.open("w", encoding="ascii") as file:
        for sequence in reference:
            letters = np.frombuffer(b"ACGTN", np.uint8)[sequence.bases].tobytes().decode()
            file.write(f">{sequence.name}\n")
            file.writelines(letters[first : first + 80] + "\n" for first in range(0, len(letters), 80))
