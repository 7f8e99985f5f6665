"""Compiling the library that sees and disturbs what a daemon writes (``shim.c``), and what tells it what to do."""

import errno
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")


@dataclass(frozen=True)
class Death:
    """SIGKILL at a change of the output folder."""

    change: int
    """Counted from 1, of those of the paths that are meant."""
    permille: int
    """Of the change that is made before: 0 none, 1000 all, between them a write is torn."""
    ending: str = ""
    """Of the paths that are meant; empty for all."""


@dataclass(frozen=True)
class Error:
    """Calls that fail."""

    name: str
    """As in :mod:`errno`."""
    classes: str
    """Letters of what fails: o open, w write and truncate, s sync, n rename, unlink, link and mkdir."""
    change: int
    """From which change on, counted from 1."""
    seconds: float
    """How long; below 0 until the process ends."""


def build(folder: Path) -> Path:
    """Compile the library; its path."""
    if shutil.which("cc") is None:
        raise SystemExit("cc is not installed: the campaign needs a C compiler")
    library = folder / "shim.so"
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden", "-o"]
    subprocess.run([*command, str(library), str(SOURCE), "-ldl", "-lpthread"], check=True)
    return library


def environment(
    library: Path,
    root: Path,
    *,
    journal: Path | None = None,
    death: Death | None = None,
    error: Error | None = None,
    forgotten: str = "",
) -> dict[str, str]:
    """Variables that put the library before the C library of a process.

    Parameters
    ----------
    root : the folder that is watched.
    journal : file that every change is recorded in.
    forgotten : syncs of paths that end so are not made: a planted defect.
    """
    given = {"LD_PRELOAD": str(library), "CHAOS_ROOT": str(root.resolve())}
    if journal is not None:
        given["CHAOS_JOURNAL"] = str(journal)
    if death is not None:
        given["CHAOS_DIE"] = f"{death.change}:{death.permille}:{death.ending}"
    if error is not None:
        number = getattr(errno, error.name)
        given["CHAOS_ERROR"] = f"{number}:{error.classes}:{error.change}:{error.seconds}"
    if forgotten:
        given["CHAOS_FORGET"] = forgotten
    return given
