"""Unaligned BAM and CRAM of a whole run, by tile, lane, run or sample, also while it goes on.

Records of BAM are laid out by NumPy, as those of FASTQ are: one by one, through pysam, they take ten times as long.
Header and CRAM are pysam's. Format: SAM specification (SAMv1, 4.2) and its tags (SAMtags).
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pysam
from numpy.typing import NDArray
from pysam.utils import SamtoolsError

from calib.calling.scores import NO_CALL
from daemon import __version__
from daemon.errors import ExportError, OutputError
from daemon.outputs.reads.columns import (
    NO_CALL_QUALITY,
    Column,
    joined,
    laid_out,
    letters,
    pairs,
    phreds,
    repeated,
    translated,
)
from daemon.outputs.reads.conversion import (
    THREADS,
    Assignment,
    By,
    Chunk,
    Group,
    Progress,
    Records,
    Sample,
    convert,
    groups_of,
)
from daemon.outputs.reads.growingfiles import open_outputs, storing
from daemon.outputs.reads.readnames import DIGITS
from daemon.record.committed import CommittedRun
from daemon.record.durable import make_folder, temporary

LONGEST_NAME = 254
"""Bytes of a read's name that BAM has room for."""

PAIRED, UNMAPPED, MATE_UNMAPPED, FIRST, LAST, FAILED = 0x1, 0x4, 0x8, 0x40, 0x80, 0x200

FIXED = np.dtype(
    [
        ("block_size", "<i4"),
        ("reference", "<i4"),
        ("position", "<i4"),
        ("name_length", "u1"),
        ("mapping_quality", "u1"),
        ("bin", "<u2"),
        ("cigar_length", "<u2"),
        ("flag", "<u2"),
        ("length", "<i4"),
        ("mate_reference", "<i4"),
        ("mate_position", "<i4"),
        ("template_length", "<i4"),
    ]
)
"""What a record begins with, before the read's name."""

NOWHERE = -1
BIN_OF_NOWHERE = 4680

_NIBBLES = pairs([15 if call == NO_CALL else 1 << (call & 3) for call in range(256)])
_SCORES = pairs([NO_CALL_QUALITY if call == NO_CALL else call >> 2 for call in range(256)])


def export_bam(
    run: CommittedRun,
    folder: Path,
    *,
    by: By = By.LANE,
    cram: bool = False,
    passing_only: bool = False,
    assign: Assignment | None = None,
    provenance: Mapping[str, str],
    threads: int = THREADS,
    progress: Progress,
) -> list[Path]:
    """Write unaligned BAM, or CRAM without a reference: the reads of a cluster one after the other.

    Files are named as those of FASTQ, without the read, and :func:`daemon.outputs.reads.conversion.convert` says
    what the other parameters mean, and what is raised. Clusters that the chastity filter takes out are flagged 0x200.
    Bases and scores of the index reads are the tags BC and QT, once all index reads are committed.

    Parameters
    ----------
    provenance : what the calls were made with, by name; a comment line each.

    Raises
    ------
    ExportError : as by :func:`~daemon.outputs.reads.conversion.groups_of`; no cycle of a template read is committed; or
        names of reads are longer than BAM has room for. Nothing is written then.
    """
    info = run.info
    groups = groups_of(run, by, samples=assign is not None)
    for group in groups:
        if all(part.read.index for part in group.parts):
            raise ExportError(
                f"{group.title(info.run)}: BAM needs a cycle of a template read, only cycles of "
                f"{', '.join(part.label for part in group.parts)} are committed"
            )
    longest = max(len(f"{info.instrument}:{info.number}:{info.flowcell}:{tile}:") for tile in info.tiles)
    if longest + 2 * DIGITS + 1 > LONGEST_NAME:
        raise ExportError(
            f"run {info.run}: names of reads take {longest + 2 * DIGITS + 1} bytes, BAM has room for {LONGEST_NAME}; "
            "instrument and flow cell have shorter names"
        )
    made = partial(
        convert,
        run,
        groups=groups,
        assign=assign,
        passing_only=passing_only,
        compress=True,
        threads=threads,
        progress=progress,
    )
    if not cram:
        return made(_Bam(folder, run, provenance))
    with storing(folder):
        make_folder(folder)
        scratch = TemporaryDirectory(prefix=".bam-", dir=folder)
    with scratch:
        bams = made(_Bam(Path(scratch.name), run, provenance))
        crams = [folder / f"{bam.stem}.cram" for bam in bams]
        with open_outputs(crams):
            for bam, path in zip(bams, crams, strict=True):
                _write_cram(bam, temporary(path), threads=threads)
    return crams


@dataclass(frozen=True)
class _Bam:
    folder: Path
    run: CommittedRun
    provenance: Mapping[str, str]

    def paths(self, group: Group, sample: Sample | None) -> Sequence[Path]:
        return [self.folder / f"{group.stem(self.run.info.run, sample)}.bam"]

    def head(self, group: Group, sample: Sample | None) -> bytes:
        info = self.run.info
        name = info.run if sample is None else sample.name
        lanes = sorted({tile.lane for tile in group.tiles})
        units = [f"{info.flowcell}.{lane}" for lane in lanes]
        header = pysam.AlignmentHeader.from_dict(
            {
                "HD": {"VN": "1.6", "SO": "unsorted", "GO": "query"},
                "RG": [
                    {
                        "ID": unit,
                        "PU": unit if sample is None else f"{unit}.{name}",
                        "SM": name,
                        "LB": name,
                        "PL": "ILLUMINA",
                    }
                    for unit in units
                ],
                "PG": [{"ID": "seqd", "PN": "seqd", "VN": __version__}],
                "CO": [" ".join(f"{key}: {value}".split()) for key, value in self.provenance.items()],
            }
        )
        text = str(header).rstrip("\n").encode() + b"\n"
        return b"BAM\1" + struct.pack("<i", len(text)) + text + struct.pack("<i", 0)

    def records(self, group: Group, chunk: Chunk) -> Sequence[Records]:
        count = len(chunk.clusters)
        templates = [part for part in group.parts if not part.read.index]
        tags = _tags(
            f"{self.run.info.flowcell}.{chunk.names.tile.lane}",
            [chunk.calls[part.cycles] for part in group.index],
            count,
        )
        failed = np.where(chunk.names.passing[chunk.clusters], np.uint16(0), np.uint16(FAILED))
        name = chunk.names.columns(chunk.clusters)
        name_length = 1 + sum(column.width if column.lengths is None else column.lengths for column in name)
        columns = []
        for number, part in enumerate(templates):
            calls = chunk.calls[part.cycles]
            tail = np.concatenate(
                [repeated(b"\0", count), _packed(calls).T, translated(calls, _SCORES).T, tags], axis=1
            )
            fixed = np.zeros(count, FIXED)
            fixed["block_size"] = FIXED.itemsize - 4 + name_length - 1 + tail.shape[1]
            fixed["reference"] = fixed["position"] = fixed["mate_reference"] = fixed["mate_position"] = NOWHERE
            fixed["name_length"] = name_length
            fixed["bin"] = BIN_OF_NOWHERE
            fixed["flag"] = _flag(number, len(templates)) | failed
            fixed["length"] = len(calls)
            columns += [Column(fixed.view(np.uint8).reshape(count, -1)), *name, Column(tail)]
        return [laid_out(count, columns)]


def _flag(number: int, reads: int) -> int:
    """Of one of the reads of a template, counted from 0."""
    if reads == 1:
        return UNMAPPED
    # Those between the first and the last have both marks.
    first = FIRST if number < reads - 1 else 0
    return PAIRED | UNMAPPED | MATE_UNMAPPED | first | (LAST if number else 0)


def _packed(calls: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(ceil(cycles / 2), n) bytes of two bases each, the first one's in the high half."""
    nibbles = translated(calls, _NIBBLES)
    packed = nibbles[::2] << np.uint8(4)
    packed[: len(nibbles) // 2] |= nibbles[1::2]
    return packed


def _tags(group: str, index: Sequence[NDArray[np.uint8]], count: int) -> NDArray[np.uint8]:
    """(n, width) bytes: bases and scores of the index, and the read group, where CRAM has it too: at the end."""
    tags = [repeated(f"RGZ{group}\0".encode(), count)]
    if index:
        tags = [
            repeated(b"BCZ", count),
            joined([letters(calls) for calls in index], b"-", count),
            repeated(b"\0QTZ", count),
            joined([phreds(calls) for calls in index], b" ", count),
            repeated(b"\0", count),
            *tags,
        ]
    return np.concatenate(tags, axis=1)


def _write_cram(bam: Path, cram: Path, *, threads: int) -> None:
    """
    Raises
    ------
    OutputError : it cannot be written.
    """
    options = ("--no-PG", "--output-fmt", "cram,no_ref=1", "--threads", str(threads))
    try:
        pysam.view(*options, "--output", str(cram), str(bam), catch_stdout=False)
    except SamtoolsError as error:
        raise OutputError(f"file {cram}: {' '.join(str(error).split())}") from error
