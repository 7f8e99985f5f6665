"""Exporting what the daemon's sinks write, of a run as it stands; and run folders of other kinds."""

import os
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Literal

from daemon.config import SinksConfig
from daemon.errors import ExportError
from daemon.outputs.illumina.cbcl import cbcl_files
from daemon.outputs.illumina.folderlayout import intensities, markers
from daemon.outputs.sink import SinkFile
from daemon.outputs.sinks.configured import Views, due_files, root_of
from daemon.record.committed import CommittedRun


class FolderKind(StrEnum):
    """Base calls of an Illumina run folder."""

    BCL = "bcl"
    """A plain file a tile and cycle."""
    BCL_GZ = "bcl.gz"
    """The same, compressed."""
    CBCL = "cbcl"
    """A compressed file a surface and cycle, of the clusters that pass the filter, with three scores."""


def sink_files(
    run: CommittedRun, root: Path, config: SinksConfig, *, control: Path | None = None
) -> Iterator[SinkFile]:
    """Every file that sinks have made of what is committed.

    Parameters
    ----------
    control : FASTA of a spiked-in control; without it the one that the run keeps, if it does.
    """
    for view in Views(config, run, control=control):
        yield from view.files(root)
    yield from due_files(run, root, config, run.committed)
    if run.complete and config.bcl != "off":
        yield from markers(run, root)


def folder_files(run: CommittedRun, root: Path, kind: FolderKind, control: Path | None) -> Iterator[SinkFile]:
    """An Illumina run folder.

    Parameters
    ----------
    control : FASTA of a spiked-in control.

    Raises
    ------
    ExportError : the run cannot be exported as CBCL; or the folder is one that the daemon writes to, or holds base
        calls of another kind.
    """
    _check_what_is_there(run, root, kind)
    encoding: Literal["plain", "gzip"] = "gzip" if kind is FolderKind.BCL_GZ else "plain"
    config = SinksConfig(fastq=False, bcl=encoding, report=False)
    if kind is not FolderKind.CBCL:
        yield from sink_files(run, root, config, control=control)
        return
    for view in Views(config, run, control=control):
        yield from view.files(root)
    yield from cbcl_files(run, root)
    if run.complete:
        yield from markers(run, root)


def _check_what_is_there(run: CommittedRun, root: Path, kind: FolderKind) -> None:
    """Refuse a folder in which readers would find more than one kind of base calls, or the daemon others than its own.

    Raises
    ------
    ExportError : it is such a folder.
    """
    sinks = root_of(run.facts["sinks"], run.files.root, run.info.run)
    for folder, whose in ((run.files.root, "the run itself"), (sinks, "what the run's sinks write")):
        if os.path.realpath(root) == os.path.realpath(folder):
            raise ExportError(
                f"folder {root}: it holds {whose}, export to another; `seqd export sinks` writes what sinks write anew"
            )
    for other in FolderKind:
        if other is not kind and any(intensities(root).glob(f"BaseCalls/L*/C*.1/*.{other}")):
            raise ExportError(
                f"folder {root}: it holds base calls as .{other}, export .{kind} to another; "
                "`seqd export sinks` writes what sinks write anew"
            )


def write_files(files: Iterable[SinkFile], *, written: Callable[[SinkFile], None]) -> None:
    """Write files, each whole or not at all; what is there already is written anew.

    Parameters
    ----------
    written : told of each.

    Raises
    ------
    OutputError : one of them cannot be written, or not be made of the run's files.
    """
    for file in files:
        file.write()
        written(file)
