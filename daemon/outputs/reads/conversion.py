"""Writing committed clusters as records: one thread reads and writes, several others make and compress the records."""

import os
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Protocol, Required, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import Read, RunInfo, TileId

from daemon.errors import ExportError
from daemon.outputs.bgzf import END, blocks
from daemon.outputs.reads.atomicfiles import open_outputs
from daemon.outputs.reads.readnames import ReadNames
from daemon.record.committed import CommittedRun

Records = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Bytes of records, and (n + 1,) offsets: where each record begins, and where the last one ends."""

Progress = Callable[[int, int], None]
"""Receives how many clusters are done, and how many there are."""

THREADS = min(8, len(os.sched_getaffinity(0)))
"""Threads that make and compress records. With more of them, the thread that reads and writes cannot keep up."""

CALLS, CLUSTERS = 500_000, 50_000
"""Maximum number of calls, and of clusters, that are made into records at a time. Their data fit a core's cache."""

READ_AHEAD = 8
"""Chunks that are read from a tile's file hold this many times ``CALLS`` calls. With smaller chunks reading would be
slow, and with many samples the blocks of each sample would be small."""

Result = TypeVar("Result")


class FilesBy(StrEnum):
    """What a file contains: the clusters of a tile, of a lane, or of the whole run."""

    TILE = "tile"
    LANE = "lane"
    RUN = "run"


class Assignment(Protocol):
    """Finds the sample that a cluster belongs to."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every sample."""

    def names_in(self, lane: int) -> Collection[str]:
        """The samples of a lane."""

    def __call__(self, lane: int, calls: NDArray[np.uint8]) -> NDArray[np.int32]:
        """(n,) index into :attr:`names`, or -1 where undetermined.

        Parameters
        ----------
        calls : (index cycles, n) bytes of all index reads.
        """


class Options(TypedDict, total=False):
    """Options that every export of reads has."""

    by: FilesBy
    """By lane, if not given."""
    passing_only: bool
    """Leave out clusters that fail the chastity filter."""
    assign: Assignment | None
    """With it, each sample in the lanes of a file gets its own file, and so do the undetermined clusters.

    It is called by one thread, in the order of tiles and templates.
    """
    threads: int
    """:data:`THREADS`, if not given."""
    progress: Required[Progress]


@dataclass(frozen=True)
class CommittedRead:
    """The committed cycles of a read."""

    read: Read
    label: str
    """``R1``, ``I1``, ..."""
    cycles: slice
    """Indices of its cycles among all cycles of the run."""


@dataclass(frozen=True)
class NumberedSample:
    """A sample with the name and the number that stand in file names."""

    name: str
    number: int
    """From 1; 0 for undetermined clusters."""


@dataclass(frozen=True)
class Group:
    """Tiles whose clusters go to the same files."""

    by: FilesBy
    tiles: tuple[TileId, ...]
    name: str
    """Name of the tile or lane, ``s_1_1101`` or ``L001``; empty for the whole run."""
    parts: tuple[CommittedRead, ...]
    """The cycles that all of the tiles have committed, read by read."""
    index: tuple[CommittedRead, ...]
    """Index reads; empty until all of them are committed."""

    @property
    def cycles(self) -> range:
        """1-based cycles that are read from the tile files."""
        return range(1, 1 + self.parts[-1].cycles.stop)

    def title(self, run: str) -> str:
        """Its name in messages."""
        return f"run {run} {self.name}".rstrip()

    def stem(self, run: str, sample: NumberedSample | None) -> str:
        """Beginning of the names of its files, or of a sample's files, as in bcl-convert's names."""
        if self.by is FilesBy.TILE:
            return self.name
        owner = run if sample is None else f"{sample.name}_S{sample.number}"
        return f"{owner}_{self.name}" if self.name else owner


@dataclass(frozen=True)
class Chunk:
    """Some clusters of a tile in the order of writing: sample by sample, and each sample in the template's order."""

    names: ReadNames
    clusters: NDArray[np.intp]
    """(n,) indices in the tile's template."""
    calls: NDArray[np.uint8]
    """(cycles, n) bytes of all cycles of the group."""


class RecordFormat(Protocol):
    """Describes the files of an export, and makes their records.

    An export may have several kinds of files, such as R1 and R2.
    """

    def check(self, group: Group) -> None:
        """
        Raises
        ------
        ExportError : the group cannot be written in this format.
        """

    def paths(self, group: Group, sample: NumberedSample | None) -> Sequence[Path]:
        """A file of each kind, for all clusters of a group or for those of one sample."""

    def head(self, group: Group, sample: NumberedSample | None) -> bytes:
        """First bytes of each file."""

    def records(self, group: Group, chunk: Chunk) -> Sequence[Records]:
        """The records of a chunk for each kind of file; several threads call it."""


def convert(
    run: CommittedRun,
    form: RecordFormat,
    *,
    compress: bool,
    by: FilesBy = FilesBy.LANE,
    passing_only: bool = False,
    assign: Assignment | None = None,
    threads: int = THREADS,
    progress: Progress,
) -> list[Path]:
    """Write the committed calls of a run, group by group.

    Parameters
    ----------
    compress : write BGZF.
    by, passing_only, assign, threads, progress : :class:`Options`.

    Returns
    -------
    paths of the files, each of which is whole.

    Raises
    ------
    ExportError : as :func:`groups_of` and the format's check; nothing is written then.
    OutputError : the run's files cannot be read, or the new files cannot be written.
    """
    groups = groups_of(run, by, samples=assign is not None)
    for group in groups:
        form.check(group)
    done, total = 0, sum(run.clusters[tile] for group in groups for tile in group.tiles)
    written: list[Path] = []
    for group in groups:
        samples = _samples(group, assign)
        kinds = zip(*(form.paths(group, sample) for sample in samples), strict=True)
        paths = [path for kind in kinds for path in kind]
        chunks = _chunks(run, group, assign, samples, passing_only=passing_only)
        jobs = (partial(_contents, form, group, *chunk, compress=compress) for chunk in chunks)
        with open_outputs(paths) as outputs, closing(in_order(jobs, threads=threads)) as made:
            for file, sample in enumerate(samples * (len(paths) // len(samples))):
                outputs.append(file, _encoded(memoryview(form.head(group, sample)), compress=compress))
            for clusters, contents in made:
                for file, content in contents:
                    outputs.append(file, content)
                done += clusters
                progress(done, total)
            for file in range(len(paths)) if compress else ():
                outputs.append(file, END)
        written += paths
    return written


def groups_of(run: CommittedRun, by: FilesBy, *, samples: bool) -> list[Group]:
    """Group the tiles by tile, lane or run, and leave out groups without a cycle that all their tiles have committed.

    Parameters
    ----------
    samples : whether each sample gets its own files.

    Raises
    ------
    ExportError : there is no group; or ``samples`` is true, and either a group has no complete index reads or ``by`` is
        ``TILE``.
    """
    if samples and by is FilesBy.TILE:
        raise ExportError("samples cannot be written by tile, only by lane or by run")
    tiles: dict[str, list[TileId]] = {}
    for tile in run.info.tiles:
        name = {FilesBy.TILE: f"s_{tile}", FilesBy.LANE: f"L{tile.lane:03d}", FilesBy.RUN: ""}[by]
        tiles.setdefault(name, []).append(tile)
    groups = []
    for name, alike in tiles.items():
        if cycles := min(run.committed[tile] for tile in alike):
            parts = _committed_reads(run.info, cycles)
            indexed = all(run.info.cycles_of(read)[-1] <= cycles for read in run.info.reads if read.index)
            index = tuple(part for part in parts if part.read.index and indexed)
            groups.append(Group(by, tuple(alike), name, parts, index))
    if not groups:
        raise ExportError(f"run {run.info.run}: no {by} has a cycle that all its tiles have committed")
    for group in groups:
        if samples and not group.index:
            raise ExportError(
                f"{group.title(run.info.run)}: finding the samples needs complete index reads, the run "
                + (f"is at cycle {group.cycles[-1]}" if any(read.index for read in run.info.reads) else "has none")
            )
    return groups


def calls_at_a_time(cycles: int) -> int:
    """Calls per chunk of :meth:`daemon.record.committed.CommittedRun.chunks`, for clusters of this many cycles."""
    return min(CALLS, CLUSTERS * cycles)


def _committed_reads(info: RunInfo, cycles: int) -> tuple[CommittedRead, ...]:
    """Reads that have at least one of the first cycles of a run."""
    parts = []
    for read in info.reads:
        first, stop = info.cycles_of(read).start - 1, min(info.cycles_of(read).stop - 1, cycles)
        if first < stop:
            parts.append(CommittedRead(read, info.label(read), slice(first, stop)))
    return tuple(parts)


def _samples(group: Group, assign: Assignment | None) -> list[NumberedSample | None]:
    """The samples that get their own files in a group; None stands for all clusters."""
    if assign is None:
        return [None]
    there = {name for tile in group.tiles for name in assign.names_in(tile.lane)}
    declared = (NumberedSample(name, number) for number, name in enumerate(assign.names, 1) if name in there)
    return [NumberedSample("Undetermined", 0), *declared]


def _chunks(
    run: CommittedRun,
    group: Group,
    assign: Assignment | None,
    samples: Sequence[NumberedSample | None],
    *,
    passing_only: bool,
) -> Iterator[tuple[int, Chunk, NDArray[np.int64]]]:
    """Number of clusters read, their chunk, and (samples + 1,) offsets of the samples' clusters in the chunk."""
    numbers = [0 if sample is None else sample.number for sample in samples]
    for tile in group.tiles:
        names = ReadNames(run, tile)
        for part, calls in run.chunks(tile, group.cycles, calls=calls_at_a_time(len(group.cycles)) * READ_AHEAD):
            chosen = np.flatnonzero(names.passing[part]) if passing_only else np.arange(calls.shape[1])
            bounds = np.array((0, len(chosen)))
            if assign is not None:
                index = np.concatenate([calls[read.cycles] for read in group.index])
                found = 1 + assign(tile.lane, index)[chosen]
                chosen = chosen[np.argsort(found, kind="stable")]
                bounds = np.append(0, np.cumsum(np.bincount(found, minlength=1 + len(assign.names))[numbers]))
            if len(chosen) < calls.shape[1] or assign is not None:
                calls = calls[:, chosen]
            yield part.stop - part.start, Chunk(names, part.start + chosen, calls), bounds


def _contents(
    form: RecordFormat, group: Group, clusters: int, chunk: Chunk, bounds: NDArray[np.int64], *, compress: bool
) -> tuple[int, list[tuple[int, bytes | memoryview]]]:
    """Number of clusters read, and the index of each file with the bytes to append to it."""
    contents = []
    for part, ends in _cut(group, chunk, bounds):
        places = ((content.data, pairwise(starts[ends])) for content, starts in form.records(group, part))
        pieces = (content[begin:end] for content, between in places for begin, end in between)
        contents += [(file, _encoded(piece, compress=compress)) for file, piece in enumerate(pieces) if len(piece)]
    return clusters, contents


def _cut(group: Group, chunk: Chunk, bounds: NDArray[np.int64]) -> Iterator[tuple[Chunk, NDArray[np.int64]]]:
    """Cut a chunk of one sample into parts that fit a core's cache, and leave a chunk of several samples as it is."""
    if len(bounds) > 2:
        yield chunk, bounds
        return
    step = max(1, calls_at_a_time(len(group.cycles)) // len(group.cycles))
    for start in range(0, len(chunk.clusters), step):
        taken = slice(start, start + step)
        part = Chunk(chunk.names, chunk.clusters[taken], chunk.calls[:, taken])
        yield part, np.array((0, len(part.clusters)))


def _encoded(content: memoryview, *, compress: bool) -> bytes | memoryview:
    return blocks(content) if compress else content


def in_order(jobs: Iterable[Callable[[], Result]], *, threads: int) -> Generator[Result]:
    """Results of jobs in the jobs' order. Each thread runs one job at a time, and one job waits for a free thread."""
    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[Result]] = deque()
        for job in jobs:
            begun.append(pool.submit(job))
            if len(begun) > threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
