"""What is found while a run is verified."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from calib.runfolder import TileId
from daemon.errors import OutputError
from daemon.verification.verification import Difference


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
