"""Files that grow side by side; each is whole or not there.

Guaranteed: no name stands before all its bytes are written, and an error or an interrupt removes what was begun. Not
guaranteed: that a kill leaves no ``.<name>.tmp`` behind; the next writer of the same name begins it anew. Nor that a
power cut a moment later takes nothing: what a run is made of is safe, and these files are made of it again.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from daemon.errors import storage_error
from daemon.record.durable import make_folder, open_temporary, temporary


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

    The first is held open, so that no other process writes the same files at the same time.

    Raises
    ------
    OutputError : one of them cannot be written, or named, or another process writes them.
    """
    with storing(paths[0].parent):
        make_folder(paths[0].parent)
    with storing(paths[0]):
        held = open_temporary(paths[0])
    try:
        for path in paths[1:]:
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
    finally:
        os.close(held)


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn errors of the file system into ours."""
    try:
        yield
    except OSError as error:
        raise storage_error(f"file {path}", error) from error
