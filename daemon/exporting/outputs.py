"""Files that grow side by side; each is whole or not there.

Guaranteed: no name stands before all its bytes are written, and an error or an interrupt removes what was begun. Not
guaranteed: that a kill leaves no ``.<name>.tmp`` behind; the next writer of the same name begins it anew. Nor that a
power cut a moment later takes nothing: what a run is made of is safe, and these files are made of it again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from daemon.errors import storage_error
from daemon.record.durable import make_folder


class Outputs:
    """Files being written. None is held open: there may be more of them than a process may open."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def append(self, file: int, content: bytes | memoryview) -> None:
        """Add to a file, by its place among the paths.

        Raises
        ------
        OutputError : it cannot be written.
        """
        path = self.paths[file]
        with storing(path), temporary(path).open("ab", buffering=0) as growing:
            view = memoryview(content)
            while view:
                view = view[growing.write(view) :]


@contextmanager
def open_outputs(paths: Sequence[Path]) -> Iterator[Outputs]:
    """Empty files to append to, that get their names when this ends well.

    Raises
    ------
    OutputError : one of them cannot be written, or named.
    """
    try:
        for path in paths:
            with storing(path.parent):
                make_folder(path.parent)
            with storing(path):
                temporary(path).unlink(missing_ok=True)
                temporary(path).touch(mode=0o640, exist_ok=False)
        yield Outputs(paths)
        for path in paths:
            with storing(path):
                temporary(path).replace(path)
    except BaseException:
        for path in paths:
            with suppress(OSError):
                temporary(path).unlink()
        raise


def temporary(path: Path) -> Path:
    """Where a file lies until it is whole."""
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn errors of the file system into ours."""
    try:
        yield
    except OSError as error:
        raise storage_error(f"file {path}", error) from error
