"""Exports of the files of the daemon's sinks, or of an Illumina run folder with another format of the base calls.

They can be made at any time.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Literal

from daemon.config import SinksConfig
from daemon.errors import ExportError
from daemon.outputs.illumina.basecalls import intensities
from daemon.outputs.illumina.cbcl import cbcl_files
from daemon.outputs.illumina.documents import marker_files
from daemon.outputs.sink import SinkFile
from daemon.outputs.sinks.configured import Views, due_files, root_of
from daemon.record.committed import CommittedRun


class FolderKind(StrEnum):
    """Format of the base calls in an Illumina run folder."""

    BCL = "bcl"
    """A plain file for each tile and cycle."""
    BCL_GZ = "bcl.gz"
    """The same, compressed."""
    CBCL = "cbcl"
    """A compressed file for each surface and cycle, of the clusters that pass the filter, with three scores."""


def sink_files(
    run: CommittedRun,
    root: Path,
    config: SinksConfig,
    *,
    control: Path | None = None,
    calls: Iterable[SinkFile] | None = None,
) -> Iterator[SinkFile]:
    """Every file that the sinks make from the committed calls.

    Parameters
    ----------
    control : FASTA of the spike-in; without it, the run's own copy is used if it has one.
    calls : files of the base calls, instead of those of the configured sinks; the sinks' files if not given.
    """
    for view in Views(config, run, control=control).views:
        yield from view.files(root)
    yield from due_files(run, root, config, run.committed) if calls is None else calls
    if run.complete and config.bcl != "off":
        yield from marker_files(run, root)


def folder_files(run: CommittedRun, root: Path, kind: FolderKind, control: Path | None) -> Iterator[SinkFile]:
    """An Illumina run folder.

    Parameters
    ----------
    control : as :func:`sink_files`.

    Raises
    ------
    ExportError : the run cannot be exported as CBCL; or the daemon writes to the folder, or it holds base calls of
        another kind.
    """
    own = root_of(run.facts["sinks"], run.files.root, run.info.run)
    for folder, content in ((run.files.root, "the run itself"), (own, "what the run's sinks write")):
        if os.path.realpath(root) == os.path.realpath(folder):
            raise _wrong_folder(root, f"it holds {content}, export to another folder")
    for other in FolderKind:
        if other is not kind and any(intensities(root).glob(f"BaseCalls/L*/C*.1/*.{other}")):
            raise _wrong_folder(root, f"it holds base calls as .{other}, export .{kind} to another folder")
    encoding: Literal["plain", "gzip"] = "gzip" if kind is FolderKind.BCL_GZ else "plain"
    config = SinksConfig(fastq=False, bcl=encoding, report=False)
    calls = cbcl_files(run, root) if kind is FolderKind.CBCL else None
    return sink_files(run, root, config, control=control, calls=calls)


def _wrong_folder(root: Path, reason: str) -> ExportError:
    return ExportError(f"folder {root}: {reason}; `seqd export sinks` writes the files of the run's sinks again")


def write_files(files: Iterable[SinkFile], *, written: Callable[[SinkFile], None]) -> None:
    """Write files, each whole or not at all; existing files are replaced.

    Parameters
    ----------
    written : receives each file that is written.

    Raises
    ------
    OutputError : a file cannot be written, or the run's files cannot be read.
    """
    for file in files:
        file.write()
        written(file)
