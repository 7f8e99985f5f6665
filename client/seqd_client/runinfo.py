"""A run as the imaging controller declares it: reads, tiles, image size, and the four channels."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Channel = Literal["A", "C", "G", "T"]

CHANNELS: tuple[Channel, ...] = ("A", "C", "G", "T")
"""Channel order of every image, matrix and probability in seqd."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
"""A name that is safe as a file name: run, flow cell, instrument."""

Lane = Annotated[int, Field(ge=1, le=64)]
Tile = Annotated[int, Field(ge=1, le=999_999)]
MOST_CYCLES, MOST_READS = 5000, 16
Cycle = Annotated[int, Field(ge=1, le=MOST_CYCLES)]
Pixels = Annotated[int, Field(ge=8, le=16384)]


class Read(BaseModel):
    """Consecutive cycles of one read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: Annotated[int, Field(ge=1, le=MOST_READS)]
    cycles: Cycle
    index: bool = False
    """Whether it reads the sample index."""


def parse_reads(structure: str) -> tuple[Read, ...]:
    """Give the reads of a read structure in Picard's notation, such as 151T8B8B151T.

    Each read is its number of cycles and a letter: T for a template read, B for an index read.

    Raises
    ------
    ValueError : the structure is not of this form, or has too many reads, or a read has 0 cycles or too many.
    """
    parts = re.findall(r"([0-9]{1,4})([TB])", structure)
    if "".join(cycles + kind for cycles, kind in parts) != structure or not parts:
        raise ValueError(f"read structure {structure!r}: not cycles and T or B for each read, such as 151T8B8B151T")
    if len(parts) > MOST_READS or not all(1 <= int(cycles) <= MOST_CYCLES for cycles, _ in parts):
        raise ValueError(f"read structure {structure!r}: not 1 to {MOST_READS} reads of 1 to {MOST_CYCLES} cycles")
    return tuple(
        Read(number=number, cycles=int(each), index=kind == "B") for number, (each, kind) in enumerate(parts, 1)
    )


class TileId(BaseModel):
    """One tile of the flow cell."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lane: Lane
    tile: Tile

    def __str__(self) -> str:
        return f"{self.lane}_{self.tile}"


class RunInfo(BaseModel):
    """What is known of a run before its first frame."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Name
    number: Annotated[int, Field(ge=0, le=10**9)] = 1
    flowcell: Name
    instrument: Name
    date: Annotated[str, Field(pattern=r"^[0-9A-Za-z :/.+-]{0,40}$")] = ""
    reads: Annotated[tuple[Read, ...], Field(min_length=1, max_length=MOST_READS)]
    tiles: Annotated[tuple[TileId, ...], Field(min_length=1, max_length=100_000)]
    height: Pixels
    width: Pixels
    pixel_um: Annotated[float, Field(gt=0, le=100)] | None = None
    """Edge of a pixel on the flow cell; cluster densities are not known without it."""

    @model_validator(mode="after")
    def _unique(self) -> "RunInfo":
        if len(set(self.tiles)) != len(self.tiles):
            raise ValueError("a tile is listed twice")
        if len({read.number for read in self.reads}) != len(self.reads):
            raise ValueError("a read number is used twice")
        if self.cycles > MOST_CYCLES:
            raise ValueError(f"{self.cycles} cycles, at most {MOST_CYCLES} are allowed")
        return self

    def label(self, read: Read) -> str:
        """``R1``, ``R2``, ... for template reads, ``I1``, ``I2``, ... for index reads, counted separately."""
        alike = [other for other in self.reads if other.index == read.index]
        return f"{'I' if read.index else 'R'}{1 + alike.index(read)}"

    @property
    def cycles(self) -> int:
        """Cycles of all reads."""
        return sum(read.cycles for read in self.reads)

    def cycles_of(self, read: Read) -> range:
        """1-based cycles of a read."""
        before = self.reads[: self.reads.index(read)]
        first = 1 + sum(earlier.cycles for earlier in before)
        return range(first, first + read.cycles)
