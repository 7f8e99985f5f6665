"""Several files that are written at the same time, and get their names when all of them are whole.

Guaranteed: no name exists before all its bytes are written, and an error or an interrupt removes the unfinished files.
Not guaranteed: a kill may leave ``.<name>.tmp`` behind, which the next writer of the same name replaces; and after
a power cut soon afterwards, the files may be missing. The run's own files are safe, and these files can be
made from them again.
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
        """Add to a file, given by its index in the paths.

        Raises
        ------
        OutputError : it cannot be written.
        """
        path = self.paths[file]
        with as_output_errors(path), temporary(path).open("ab", buffering=0) as growing:
            view = memoryview(content)
            while view:
                view = view[growing.write(view) :]


@contextmanager
def open_outputs(paths: Sequence[Path]) -> Iterator[Outputs]:
    """Empty files to append to; they get their names when the block ends without an error.

    The first is held open, so that no other process writes the same files at the same time.

    Raises
    ------
    OutputError : one of them cannot be written, or named, or another process writes them.
    """
    with as_output_errors(paths[0].parent):
        make_folder(paths[0].parent)
    with as_output_errors(paths[0]):
        held = open_temporary(paths[0])
    try:
        for path in paths[1:]:
            with as_output_errors(path.parent):
                make_folder(path.parent)
            with as_output_errors(path):
                temporary(path).unlink(missing_ok=True)
                temporary(path).touch(mode=0o640, exist_ok=False)
        yield Outputs(paths)
        for path in paths:
            with as_output_errors(path):
                temporary(path).replace(path)
    except BaseException:
        for path in paths:
            with suppress(OSError):
                temporary(path).unlink()
        raise
    finally:
        os.close(held)


@contextmanager
def as_output_errors(path: Path) -> Iterator[None]:
    """Raise errors of the file system as :class:`daemon.errors.OutputError`."""
    try:
        yield
    except OSError as error:
        raise storage_error(f"file {path}", error) from error
