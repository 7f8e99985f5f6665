"""What was found when a run was verified, also as JSON."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Difference(BaseModel):
    """One thing that is not as it should be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    """Path in the run folder, or whole where a sink writes elsewhere."""
    tile: str | None
    """``<lane>_<tile>``, where it is of one."""
    cycle: int | None
    """1-based, where it is of one."""
    expected: str
    found: str

    def __str__(self) -> str:
        where = [self.file]
        where += [f"tile {self.tile}"] if self.tile is not None else []
        where += [f"cycle {self.cycle}"] if self.cycle is not None else []
        return f"{', '.join(where)}: expected {self.expected}, found {self.found}"


class Verification(BaseModel):
    """A run held against its ledger, as far as it was committed when that began."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    run: str
    finished: bool
    """Whether every tile-cycle is committed and every file made of them is written, or nobody writes any longer."""
    tiles: int
    """Tiles of the run."""
    templates: int
    """Tiles of them that have a template."""
    expected: int
    """Tile-cycles of the run."""
    called: int
    missing: int
    failed: int
    files: int
    """Files that were read."""
    bytes: int
    """Bytes of them that were checked."""
    uncommitted_bytes: int
    """Bytes of tile files after what is committed: whoever goes on with the run writes them anew."""
    not_compared: tuple[str, ...]
    """Files that are whole, and are made of tile files that are not as committed."""
    differences: tuple[Difference, ...]
