"""A disk that gets full: a small file system in memory, and a file that takes its room."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.plan import Full

DISK_BYTES, TAKEN_BYTES = 4 * 2**20, 2**19
"""Its size, and what an undisturbed run takes of it at most."""

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
"""What a command is run under that may mount."""


def may_mount() -> bool:
    """Whether this machine lets us mount in a namespace of our own."""
    command = [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount one; needs a namespace in which that is allowed."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0750", "none", str(folder)], check=True)
    try:
        yield
    finally:
        # Its files stay for whoever looks at a case that went wrong.
        kept = folder.with_name(f"{folder.name}.kept")
        subprocess.run(["cp", "-a", str(folder), str(kept)], check=True)
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()
        kept.rename(folder)


class Ballast:
    """A file that leaves little room on a disk, for a while."""

    def __init__(self, folder: Path, full: Full) -> None:
        self._path, self._full = folder / "ballast", full
        with self._path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, DISK_BYTES - int(full.room * TAKEN_BYTES))

    def tick(self, running_s: float) -> None:
        """Make room when it is time."""
        if 0 <= self._full.freed_after_s < running_s:
            self.free()

    def free(self) -> None:
        """Make room."""
        self._path.unlink(missing_ok=True)
