"""What is found while a run is verified."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from seqd_client.runinfo import TileId

from daemon.errors import OutputError


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


@dataclass
class Findings:
    """Grows with every file that is looked at."""

    root: Path
    files: int = 0
    bytes: int = 0
    uncommitted_bytes: int = 0
    not_compared: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    def differs(
        self, path: Path, expected: str, found: str, *, tile: TileId | str | None = None, cycle: int | None = None
    ) -> None:
        """Something is not as it should be."""
        named = None if tile is None else str(tile)
        self.differences.append(
            Difference(file=self.name(path), tile=named, cycle=cycle, expected=expected, found=found)
        )

    def checked(self, size: int) -> None:
        """So many bytes of a file were read."""
        self.files += 1
        self.bytes += size

    def name(self, path: Path) -> str:
        """A path as it is shown: in the run folder, or whole where a sink writes elsewhere."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    @contextmanager
    def reading(self, path: Path, tile: TileId | None = None) -> Iterator[None]:
        """A file that cannot be read, or not as what it should be, differs."""
        try:
            yield
        except FileNotFoundError:
            self.differs(path, "a file", "none", tile=tile)
        except OSError as error:
            self.differs(path, "a file that can be read", error.strerror or str(error), tile=tile)
        except OutputError as error:
            # Its text names the path first.
            self.differs(path, "a whole file", str(error).partition(": ")[2], tile=tile)


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
