"""Results of verifying a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from seqd_client.runinfo import TileId

from daemon.errors import OutputError


class Difference(BaseModel):
    """A difference between a file and what is expected of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    """Path in the run folder, or the absolute path where a sink writes to another folder."""
    tile: str | None
    """``<lane>_<tile>``; None where the difference is not of one tile."""
    cycle: int | None
    """1-based; None where the difference is not of one cycle."""
    expected: str
    found: str

    def __str__(self) -> str:
        where = [self.file]
        where += [f"tile {self.tile}"] if self.tile is not None else []
        where += [f"cycle {self.cycle}"] if self.cycle is not None else []
        return f"{', '.join(where)}: expected {self.expected}, found {self.found}"


@dataclass
class Findings:
    """The results so far."""

    root: Path
    files: int = 0
    bytes: int = 0
    uncommitted_bytes: int = 0
    not_compared: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    def differs(
        self, path: Path, expected: str, found: str, *, tile: TileId | str | None = None, cycle: int | None = None
    ) -> None:
        """Add a difference."""
        named = None if tile is None else str(tile)
        self.differences.append(
            Difference(file=self.name(path), tile=named, cycle=cycle, expected=expected, found=found)
        )

    def checked(self, size: int) -> None:
        """Count a file of which this many bytes were read."""
        self.files += 1
        self.bytes += size

    def name(self, path: Path) -> str:
        """A path as :attr:`Difference.file` has it."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    @contextmanager
    def reading(self, path: Path, tile: TileId | None = None) -> Iterator[None]:
        """Add a difference if the file cannot be read, or is damaged."""
        try:
            yield
        except FileNotFoundError:
            self.differs(path, "a file", "none", tile=tile)
        except OSError as error:
            self.differs(path, "a file that can be read", error.strerror or str(error), tile=tile)
        except OutputError as error:
            # The text of the error begins with the path.
            self.differs(path, "a whole file", str(error).partition(": ")[2], tile=tile)


class Verification(BaseModel):
    """Result of comparing a run with its ledger, up to the cycles that were committed at the start."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    run: str
    finished: bool
    """Whether every tile-cycle is committed and the run's files are done.

    They are done when all files of the sinks exist, or when no daemon writes any more.
    """
    tiles: int
    """Tiles of the run."""
    templates: int
    """Tiles that have a template."""
    expected: int
    """Tile-cycles of the run."""
    called: int
    missing: int
    failed: int
    files: int
    """Files that were read."""
    bytes: int
    """Bytes that were checked."""
    uncommitted_bytes: int
    """Bytes of tile files after the last committed cycle; the daemon replaces them when it continues the run."""
    not_compared: tuple[str, ...]
    """Files that are undamaged, but were not compared with the calls, because the tile files differ."""
    differences: tuple[Difference, ...]
