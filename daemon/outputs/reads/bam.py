"""Unaligned BAM and CRAM of a whole run, by tile, lane, run or sample, at any time.

NumPy makes the records of BAM, like those of FASTQ. If pysam made them one by one, that would take ten times as long.
pysam writes the header, and it writes CRAM. Format: SAM specification (SAMv1, 4.2) and its tags (SAMtags).
"""

import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack
from uuid import uuid4

import numpy as np
import pysam
from numpy.typing import NDArray
from pysam.utils import SamtoolsError

from calib.calling.scores import NO_CALL
from daemon import __version__
from daemon.errors import ExportError, OutputError
from daemon.outputs.reads.atomicfiles import open_outputs
from daemon.outputs.reads.conversion import THREADS, Chunk, Group, NumberedSample, Options, Records, convert
from daemon.outputs.reads.readnames import DIGITS
from daemon.outputs.reads.recordbytes import (
    NO_CALL_QUALITY,
    Column,
    join_reads,
    letters,
    pair_table,
    phreds,
    put_together,
    repeated,
    translate,
)
from daemon.record.committed import CommittedRun
from daemon.record.durable import temporary

MAX_NAME_BYTES = 254
"""Longest name of a read in BAM."""

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
"""First fields of a record, before the read's name."""

NO_PLACE = -1
BIN_WITHOUT_PLACE = 4680

_NIBBLES = pair_table([15 if call == NO_CALL else 1 << (call & 3) for call in range(256)])
_SCORES = pair_table([NO_CALL_QUALITY if call == NO_CALL else call >> 2 for call in range(256)])


def export_bam(
    run: CommittedRun,
    folder: Path,
    *,
    cram: bool = False,
    provenance: Mapping[str, str],
    **options: Unpack[Options],
) -> list[Path]:
    """Write unaligned BAM, or CRAM without a reference: the reads of a cluster follow one another.

    Files have the names of the FASTQ files, but without the part that names the read. Clusters that fail the chastity
    filter are flagged 0x200. Bases and scores of the index reads are the tags BC and QT, once all index reads are
    committed.

    Parameters
    ----------
    provenance : software, model and configuration that the calls were made with; a comment line each.

    Raises
    ------
    ExportError : no cycle of a template read is committed; names of reads are longer than BAM allows; or as
        :func:`daemon.outputs.reads.conversion.convert`. Nothing is written then.
    OutputError : as :func:`daemon.outputs.reads.conversion.convert`.
    """
    if not cram:
        return convert(run, _Bam(folder, run, provenance), compress=True, **options)
    # CRAM is made from BAM in a folder beside it, where there is as much space.
    scratch = folder / f".bam-{uuid4().hex}"
    command = ("--no-PG", "--output-fmt", "cram,no_ref=1", "--threads", str(options.get("threads", THREADS)))
    try:
        bams = convert(run, _Bam(scratch, run, provenance), compress=True, **options)
        crams = [folder / f"{bam.stem}.cram" for bam in bams]
        with open_outputs(crams):
            for bam, path in zip(bams, crams, strict=True):
                pysam.view(*command, "--output", str(temporary(path)), str(bam), catch_stdout=False)
    except SamtoolsError as error:
        raise OutputError(f"folder {folder}: CRAM cannot be written: {' '.join(str(error).split())}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return crams


@dataclass(frozen=True)
class _Bam:
    folder: Path
    run: CommittedRun
    provenance: Mapping[str, str]

    def check(self, group: Group) -> None:
        info = self.run.info
        if all(part.read.index for part in group.parts):
            raise ExportError(
                f"{group.title(info.run)}: BAM needs a cycle of a template read, but only cycles of "
                f"{', '.join(part.label for part in group.parts)} are committed"
            )
        prefix = max(len(f"{info.instrument}:{info.number}:{info.flowcell}:{tile}:") for tile in info.tiles)
        if (longest := prefix + 2 * DIGITS + 1) > MAX_NAME_BYTES:
            raise ExportError(
                f"run {info.run}: names of reads take {longest} bytes, BAM allows {MAX_NAME_BYTES}; "
                "the names of instrument and flow cell are too long"
            )

    def paths(self, group: Group, sample: NumberedSample | None) -> Sequence[Path]:
        return [self.folder / f"{group.stem(self.run.info.run, sample)}.bam"]

    def head(self, group: Group, sample: NumberedSample | None) -> bytes:
        info = self.run.info
        name = info.run if sample is None else sample.name
        units = [f"{info.flowcell}.{lane}" for lane in sorted({tile.lane for tile in group.tiles})]
        library, suffix = {"SM": name, "LB": name, "PL": "ILLUMINA"}, "" if sample is None else f".{name}"
        header = pysam.AlignmentHeader.from_dict(
            {
                "HD": {"VN": "1.6", "SO": "unsorted", "GO": "query"},
                "RG": [{"ID": unit, "PU": unit + suffix, **library} for unit in units],
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
            tail = np.concatenate([repeated(b"\0", count), _packed(calls).T, translate(calls, _SCORES).T, tags], axis=1)
            fixed = np.zeros(count, FIXED)
            fixed["block_size"] = FIXED.itemsize - 4 + name_length - 1 + tail.shape[1]
            fixed["reference"] = fixed["position"] = fixed["mate_reference"] = fixed["mate_position"] = NO_PLACE
            fixed["name_length"] = name_length
            fixed["bin"] = BIN_WITHOUT_PLACE
            fixed["flag"] = _flag(number, len(templates)) | failed
            fixed["length"] = len(calls)
            columns += [Column(fixed.view(np.uint8).reshape(count, -1)), *name, Column(tail)]
        return [put_together(count, columns)]


def _flag(number: int, reads: int) -> int:
    """Flag of a template's read, counted from 0."""
    if reads == 1:
        return UNMAPPED
    # A read between the first and the last has both marks (SAMv1, 1.4).
    first = FIRST if number < reads - 1 else 0
    return PAIRED | UNMAPPED | MATE_UNMAPPED | first | (LAST if number else 0)


def _packed(calls: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(ceil(cycles / 2), n) bytes of two bases each; the earlier base is in the high half."""
    nibbles = translate(calls, _NIBBLES)
    packed = nibbles[::2] << np.uint8(4)
    packed[: len(nibbles) // 2] |= nibbles[1::2]
    return packed


def _tags(group: str, index: Sequence[NDArray[np.uint8]], count: int) -> NDArray[np.uint8]:
    """(n, width) bytes: bases and scores of the index, then the read group. CRAM has this order, too."""
    tags = [repeated(f"RGZ{group}\0".encode(), count)]
    if index:
        tags = [
            repeated(b"BCZ", count),
            join_reads([letters(calls) for calls in index], b"-", count),
            repeated(b"\0QTZ", count),
            join_reads([phreds(calls) for calls in index], b" ", count),
            repeated(b"\0", count),
            *tags,
        ]
    return np.concatenate(tags, axis=1)
