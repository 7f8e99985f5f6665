"""Committed clusters made into files of records: read by one thread, formed by several, written in order."""

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
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import Read, RunInfo, TileId

from daemon.errors import ExportError
from daemon.outputs.bgzf import END, blocks
from daemon.outputs.reads.fastqfiles import calls_at_a_time
from daemon.outputs.reads.growingfiles import open_outputs
from daemon.outputs.reads.readnames import ReadNames
from daemon.record.committed import CommittedRun

Records = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Bytes of records, and (n + 1,) where each begins and the last ends."""

Progress = Callable[[int, int], None]
"""Told how many clusters are done, and of how many."""

THREADS = min(8, len(os.sched_getaffinity(0)))
"""That form and compress records: beyond, the one that reads and writes cannot keep up."""

AT_ONCE = 8
"""As many more clusters than are made into records at a time are read at a time: reads of a few bytes take longest, and
of many samples each would get small blocks."""

Done = TypeVar("Done")


class By(StrEnum):
    """What has files of its own."""

    TILE = "tile"
    LANE = "lane"
    RUN = "run"


class Assignment(Protocol):
    """Tells which sample a cluster is of."""

    @property
    def names(self) -> tuple[str, ...]:
        """The samples."""

    def names_in(self, lane: int) -> Collection[str]:
        """Those of them that a lane has."""

    def __call__(self, lane: int, calls: NDArray[np.uint8]) -> NDArray[np.int32]:
        """(n,) index into the names, of a sample that the lane has, or -1 where undetermined.

        Parameters
        ----------
        calls : (index cycles, n) bytes of all index reads.
        """


@dataclass(frozen=True)
class Part:
    """The committed cycles of a read."""

    read: Read
    label: str
    """``R1``, ``I1``, ..."""
    cycles: slice
    """Places of its cycles among all cycles."""


@dataclass(frozen=True)
class Sample:
    """Whose clusters have files of their own."""

    name: str
    number: int
    """From 1; 0 for what is undetermined."""


@dataclass(frozen=True)
class Group:
    """Tiles whose clusters go to the same files."""

    by: By
    tiles: tuple[TileId, ...]
    name: str
    """Of the tile or lane, ``s_1_1101`` or ``L001``; empty for all of the run."""
    parts: tuple[Part, ...]
    """Reads that have cycles which all of the tiles have committed."""
    index: tuple[Part, ...]
    """Index reads, once all of them are committed; none before."""

    @property
    def cycles(self) -> range:
        """That are read, 1-based."""
        return range(1, 1 + self.parts[-1].cycles.stop)

    def title(self, run: str) -> str:
        """What messages call it."""
        return f"run {run} {self.name}".rstrip()

    def stem(self, run: str, sample: Sample | None) -> str:
        """What the names of its files begin with, or those of a sample's: as bcl-convert has it."""
        if self.by is By.TILE:
            return self.name
        whose = run if sample is None else f"{sample.name}_S{sample.number}"
        return f"{whose}_{self.name}" if self.name else whose


@dataclass(frozen=True)
class Chunk:
    """Some clusters of a tile in the order in which they are written: sample by sample, each as in the template."""

    names: ReadNames
    clusters: NDArray[np.intp]
    """(n,) places in the tile's template."""
    calls: NDArray[np.uint8]
    """(cycles, n) bytes of all cycles of the group."""


class Form(Protocol):
    """Kinds of files, and the records in them."""

    def paths(self, group: Group, sample: Sample | None) -> Sequence[Path]:
        """A file of each kind, for all clusters of a group or one sample's."""

    def head(self, group: Group, sample: Sample | None) -> bytes:
        """What each file begins with."""

    def records(self, group: Group, chunk: Chunk) -> Sequence[Records]:
        """Of each kind the records of a chunk; called by several threads."""


def convert(
    run: CommittedRun,
    form: Form,
    groups: Sequence[Group],
    *,
    assign: Assignment | None,
    passing_only: bool,
    compress: bool,
    threads: int,
    progress: Progress,
) -> list[Path]:
    """Write what is committed of a run, group by group.

    Parameters
    ----------
    groups : as :func:`groups_of` gives them.
    assign : tells samples apart; called by this thread, in the order of tiles and templates. A group has files of the
        samples that its lanes have, and of what is undetermined.
    passing_only : leave out clusters that the chastity filter takes out.
    compress : into BGZF.
    threads : that form and compress records.

    Returns
    -------
    the files, each whole.

    Raises
    ------
    OutputError : the run's files cannot be read, or those cannot be written.
    """
    done, of = 0, sum(run.clusters[tile] for group in groups for tile in group.tiles)
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
                progress(done, of)
            for file in range(len(paths)) if compress else ():
                outputs.append(file, END)
        written += paths
    return written


def groups_of(run: CommittedRun, by: By, *, samples: bool) -> list[Group]:
    """Tiles, lanes or the run, without those of which no cycle is committed throughout.

    Parameters
    ----------
    samples : whether they are to be told apart.

    Raises
    ------
    ExportError : there is no group; or samples cannot be told apart in one, or are asked for tile by tile.
    """
    if samples and by is By.TILE:
        raise ExportError("samples by tile: they are written by lane or by run")
    tiles: dict[str, list[TileId]] = {}
    for tile in run.info.tiles:
        name = {By.TILE: f"s_{tile}", By.LANE: f"L{tile.lane:03d}", By.RUN: ""}[by]
        tiles.setdefault(name, []).append(tile)
    groups = []
    for name, alike in tiles.items():
        cycles = min(run.committed[tile] for tile in alike)
        if cycles:
            parts = _parts(run.info, cycles)
            index = tuple(part for part in parts if part.read.index)
            whole = [read for read in run.info.reads if read.index and run.info.cycles_of(read)[-1] <= cycles]
            every = len(whole) == sum(read.index for read in run.info.reads)
            groups.append(Group(by, tuple(alike), name, parts, index if every else ()))
    if not groups:
        raise ExportError(f"run {run.info.run}: no cycle is committed of a whole {by}, at least one is needed")
    for group in groups:
        if samples and not group.index:
            raise ExportError(
                f"{group.title(run.info.run)}: samples are told apart by whole index reads, the run "
                + (f"is at cycle {group.cycles[-1]}" if any(read.index for read in run.info.reads) else "has none")
            )
    return groups


def _parts(info: RunInfo, cycles: int) -> tuple[Part, ...]:
    """Reads that have cycles among the first ones of a run."""
    parts = []
    for read in info.reads:
        first, stop = info.cycles_of(read).start - 1, min(info.cycles_of(read).stop - 1, cycles)
        if first < stop:
            parts.append(Part(read, info.label(read), slice(first, stop)))
    return tuple(parts)


def _samples(group: Group, assign: Assignment | None) -> list[Sample | None]:
    """Whose clusters have files of their own in a group."""
    if assign is None:
        return [None]
    there = {name for tile in group.tiles for name in assign.names_in(tile.lane)}
    declared = (Sample(name, number) for number, name in enumerate(assign.names, 1) if name in there)
    return [Sample("Undetermined", 0), *declared]


def _chunks(
    run: CommittedRun,
    group: Group,
    assign: Assignment | None,
    samples: Sequence[Sample | None],
    *,
    passing_only: bool,
) -> Iterator[tuple[int, Chunk, NDArray[np.int64]]]:
    """Number of clusters looked at, the chunk of them, and (samples + 1,) where in it a sample's clusters begin."""
    numbers = [0 if sample is None else sample.number for sample in samples]
    for tile in group.tiles:
        names = ReadNames(run, tile)
        calls_taken = calls_at_a_time(len(group.cycles)) * AT_ONCE
        for part, calls in run.chunks(tile, group.cycles, calls=calls_taken):
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
    form: Form, group: Group, clusters: int, chunk: Chunk, bounds: NDArray[np.int64], *, compress: bool
) -> tuple[int, list[tuple[int, bytes | memoryview]]]:
    """Number of clusters looked at, and what is appended to which file."""
    contents = []
    for part, ends in _cut(group, chunk, bounds):
        places = ((laid.data, pairwise(starts[ends])) for laid, starts in form.records(group, part))
        pieces = (laid[begin:end] for laid, between in places for begin, end in between)
        contents += [(file, _encoded(piece, compress=compress)) for file, piece in enumerate(pieces) if len(piece)]
    return clusters, contents


def _cut(group: Group, chunk: Chunk, bounds: NDArray[np.int64]) -> Iterator[tuple[Chunk, NDArray[np.int64]]]:
    """A chunk of one sample in parts that are made into records at a time, and their bounds; others whole."""
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


def in_order(jobs: Iterable[Callable[[], Done]], *, threads: int) -> Generator[Done]:
    """What jobs return, in their order; so many are done at once, and one more waits."""
    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[Done]] = deque()
        for job in jobs:
            begun.append(pool.submit(job))
            if len(begun) > threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
