"""The reference that reads are cut from, and its FASTA file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.runfolder import RunFolderError

UNKNOWN = 4
"""Code of a letter that is not A, C, G or T."""


@dataclass(frozen=True)
class Sequence:
    """One sequence of a reference."""

    name: str
    bases: NDArray[np.uint8]
    """(n,) 0-3, or :data:`UNKNOWN`."""


def random_reference(
    *, length: int, composition: tuple[float, float, float, float], rng: np.random.Generator
) -> tuple[Sequence, ...]:
    """One sequence of independent bases."""
    return (Sequence("simulated", rng.choice(4, size=length, p=composition).astype(np.uint8)),)


def cut_reads(
    *, reference: tuple[Sequence, ...], number: int, cycles: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Reads from everywhere on the reference, half of them from its reverse strand.

    Returns
    -------
    (number, cycles) bases 0-3; no read holds an unknown letter.

    Raises
    ------
    RunFolderError : no stretch of the reference is long enough.
    """
    letters = np.concatenate([np.append(sequence.bases, UNKNOWN) for sequence in reference])
    unknown_before = np.append(0, np.cumsum(letters == UNKNOWN))
    starts = np.flatnonzero(unknown_before[cycles:] == unknown_before[:-cycles])
    if not len(starts):
        longest = max(len(sequence.bases) for sequence in reference)
        raise RunFolderError(f"reference: no {cycles} known bases in a row for a read, longest sequence {longest}")
    reads = letters[rng.choice(starts, number)[:, None] + np.arange(cycles)]
    reverse = rng.random(number) < 0.5
    reads[reverse] = 3 - reads[reverse, ::-1]
    return np.asarray(reads, np.uint8)


def read_fasta(path: Path) -> tuple[Sequence, ...]:
    """Read a reference; letters other than A, C, G, T (either case) are unknown.

    Raises
    ------
    RunFolderError : it cannot be read, or is not FASTA.
    """
    try:
        text = path.read_text("ascii")
    except OSError as error:
        raise RunFolderError(f"reference {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RunFolderError(f"reference {path}: not FASTA: byte {error.start} is not ASCII") from error
    before, *records = ("\n" + text).split("\n>")
    if before.strip() or not records:
        raise RunFolderError(f"reference {path}: not FASTA: a sequence starts with a line '>name'")
    codes = np.full(256, UNKNOWN, np.uint8)
    for base, letter in enumerate(b"ACGT"):
        codes[[letter, letter + 32]] = base
    sequences = []
    for record in records:
        name, _, lines = record.partition("\n")
        letters = "".join(lines.split())
        if not letters:
            raise RunFolderError(f"reference {path}: sequence {name.strip()!r} is empty")
        sequences.append(Sequence(name.strip(), codes[np.frombuffer(letters.encode(), np.uint8)]))
    return tuple(sequences)


def write_fasta(path: Path, reference: tuple[Sequence, ...]) -> None:
    """Write a reference, 80 letters a line."""
    with path.open("w", encoding="ascii") as file:
        for sequence in reference:
            letters = np.frombuffer(b"ACGTN", np.uint8)[sequence.bases].tobytes().decode()
            file.write(f">{sequence.name}\n")
            file.writelines(letters[first : first + 80] + "\n" for first in range(0, len(letters), 80))
