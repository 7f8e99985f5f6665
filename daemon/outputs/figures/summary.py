"""The figures of a run in one page: of the run, of its reads, and of each lane in a read; counted as Illumina counts.

Yield and share of Q30 leave out the last cycle of each read, which is there to correct the phasing of the one before.
Figures of lanes are means over their tiles, each of the same weight, and of tiles whose filter is known. Source: the
summary of Illumina's InterOp library, https://github.com/Illumina/interop
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from seqd_client.runinfo import Read, RunInfo

from calib.phasing import MIN_CYCLES, Phasing
from daemon.outputs.figures.cyclefigures import RunMetrics, yields
from daemon.outputs.figures.spikein import ControlErrors


class Figures(BaseModel):
    """Of one read, or of several."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    yield_bases: int
    """Bases of clusters that pass the filter."""
    projected_bases: int
    """What the yield will be when the run is complete, going by what is known."""
    percent_q30: float | None
    """Share of the yield that has at least Q30."""
    percent_aligned: float | None
    """Clusters that are of the control; none without a control."""
    percent_error: float | None
    """Bases that are not the control's; none without a control."""
    first_cycle_intensity: float | None
    """90th percentile in channel A in a read's first cycle, camera counts above background; of all tiles."""


class LaneFigures(Figures):
    """Of one lane in one read; the first ones are the same in every read."""

    lane: int
    tiles: int
    """Whose filter is known."""
    clusters: int
    passing: int
    """Clusters that pass the filter."""
    percent_passing: float | None
    density_k_mm2: float | None
    """Thousands of clusters per mm²; none where the size of a pixel is not known."""
    density_passing_k_mm2: float | None
    percent_phasing: float | None
    """Strands that fall behind in a cycle; none in index reads and in the first cycles of others."""
    percent_prephasing: float | None
    """Strands that run ahead in a cycle."""
    error_cycles: int
    """Cycles of the read that error rates are known of, in the tile that is furthest."""


class ReadFigures(Figures):
    """Of one read."""

    read: str
    """:meth:`calib.runfolder.images.RunInfo.label`."""
    index: bool
    cycles: int
    lanes: tuple[LaneFigures, ...]


class Summary(BaseModel):
    """Of a run, as far as it is committed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    cycles: int
    committed: int
    """Cycles that every tile has."""
    tiles: int
    filtered_tiles: int
    """Whose filter is known; figures are of these, where nothing else is said."""
    clusters: int
    passing: int
    density_k_mm2: float | None
    total: Figures
    """Of all reads."""
    template: Figures
    """Of reads that are not index."""
    reads: tuple[ReadFigures, ...]


def summarise(metrics: RunMetrics, errors: ControlErrors | None = None) -> Summary:
    """The figures of what is known.

    Parameters
    ----------
    errors : of the run's control, where it has one.
    """
    known, every = metrics.counted > 0, np.ones(len(metrics.info.tiles), np.bool_)
    figures = _PerTile(metrics, errors)
    projected = _projected(metrics)
    lanes = sorted({tile.lane for tile in metrics.info.tiles})
    reads = tuple(
        ReadFigures(
            **figures.of([number], every, float(projected[number].sum())),
            read=metrics.info.label(read),
            index=read.index,
            cycles=read.cycles,
            lanes=tuple(figures.lane(number, lane, float(projected[number, at])) for at, lane in enumerate(lanes)),
        )
        for number, read in enumerate(metrics.info.reads)
    )
    template = [number for number, read in enumerate(metrics.info.reads) if not read.index]
    return Summary(
        run=metrics.info.run,
        cycles=metrics.info.cycles,
        committed=int(metrics.known.min()),
        tiles=len(known),
        filtered_tiles=int(known.sum()),
        clusters=int(metrics.clusters[known].sum()),
        passing=int(metrics.passing[known].sum()),
        density_k_mm2=figures.mean_density(metrics.clusters, known),
        total=Figures(**figures.of(list(range(len(reads))), every, float(projected.sum()))),
        template=Figures(**figures.of(template, every, float(projected[template].sum()))),
        reads=reads,
    )


def density(info: RunInfo, clusters: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """(tiles,) clusters per mm²; none where the size of a pixel is not known."""
    if info.pixel_um is None:
        return None
    return np.asarray(clusters / (info.height * info.width * (info.pixel_um / 1000) ** 2), np.float64)


def phasing(metrics: RunMetrics, index: int, read: Read) -> Phasing | None:
    """Of a tile's read of the template, as soon as it can be told."""
    if read.index or metrics.counted[index] < metrics.info.cycles_of(read).start + MIN_CYCLES - 1:
        return None
    return metrics.phasing(metrics.info.tiles[index], read)


class _PerTile:
    """What figures are drawn from, by tile and read."""

    def __init__(self, metrics: RunMetrics, errors: ControlErrors | None) -> None:
        self._metrics, self._errors = metrics, errors
        shape = len(metrics.info.tiles), len(metrics.info.reads)
        self._yields, self._q30 = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._intensity = np.full(shape, np.nan)
        self._error = np.full(shape, np.nan)
        calls, good = yields(metrics), yields(metrics, 30)
        for number, read in enumerate(metrics.info.reads):
            used = _usable(metrics.info, read)
            self._yields[:, number], self._q30[:, number] = calls[:, used].sum(axis=1), good[:, used].sum(axis=1)
            self._intensity[:, number] = metrics.intensity[:, metrics.info.cycles_of(read).start - 1, 0]
            if errors is not None:
                self._error[:, number] = [_mean(rates[used]) for rates in errors.percent_wrong]

    def of(self, reads: Sequence[int], tiles: NDArray[np.bool_], projected: float) -> dict[str, float | int | None]:
        """The fields of :class:`Figures`."""
        at = np.ix_(np.flatnonzero(tiles), np.array(reads, np.intp))
        bases = int(self._yields[at].sum())
        return {
            "yield_bases": bases,
            "projected_bases": round(projected),
            "percent_q30": 100 * int(self._q30[at].sum()) / bases if bases else None,
            "percent_aligned": None if self._errors is None else _figure(self._errors.percent_aligned[at]),
            "percent_error": _figure(self._error[at]),
            "first_cycle_intensity": _figure(self._intensity[at]),
        }

    def lane(self, number: int, lane: int, projected: float) -> LaneFigures:
        """Of one lane in a read."""
        metrics, read = self._metrics, self._metrics.info.reads[number]
        of_lane = np.array([tile.lane == lane for tile in metrics.info.tiles])
        tiles = of_lane & (metrics.counted > 0)
        slips = [
            found for index in np.flatnonzero(tiles).tolist() if (found := phasing(metrics, index, read)) is not None
        ]
        with np.errstate(invalid="ignore"):
            shares = 100 * metrics.passing[tiles] / metrics.clusters[tiles]
        return LaneFigures(
            **self.of([number], of_lane, projected),
            lane=lane,
            tiles=int(tiles.sum()),
            clusters=int(metrics.clusters[tiles].sum()),
            passing=int(metrics.passing[tiles].sum()),
            percent_passing=_figure(shares),
            density_k_mm2=self.mean_density(metrics.clusters, tiles),
            density_passing_k_mm2=self.mean_density(metrics.passing, tiles),
            percent_phasing=_figure(np.array([100 * one.behind for one in slips])),
            percent_prephasing=_figure(np.array([100 * one.ahead for one in slips])),
            error_cycles=self._error_cycles(read, tiles),
        )

    def _error_cycles(self, read: Read, tiles: NDArray[np.bool_]) -> int:
        if self._errors is None:
            return 0
        cycles = self._metrics.info.cycles_of(read)
        compared = self._errors.compared[tiles, cycles.start - 1 : cycles.stop - 1].sum(axis=0)
        return int(np.flatnonzero(compared).max(initial=-1)) + 1

    def mean_density(self, clusters: NDArray[np.int64], tiles: NDArray[np.bool_]) -> float | None:
        """Thousands per mm², mean over tiles."""
        found = density(self._metrics.info, clusters)
        return None if found is None else _figure(found[tiles] / 1000)


def _projected(metrics: RunMetrics) -> NDArray[np.float64]:
    """(reads, lanes) bases: as many a cycle and tile as there were, in reads to come as in those before."""
    info = metrics.info
    lanes = sorted({tile.lane for tile in info.tiles})
    calls = yields(metrics)
    expected = np.zeros((len(info.reads), len(lanes)))
    for at, lane in enumerate(lanes):
        tiles = np.array([tile.lane == lane for tile in info.tiles])
        bases, cycles_before = 0.0, 0
        for number, read in enumerate(info.reads):
            used = _usable(info, read)
            cycles = used.stop - used.start
            tile_cycles = int(np.clip(metrics.counted[tiles] - used.start, 0, cycles).sum())
            if tile_cycles:
                filtered = int((metrics.counted[tiles] > 0).sum())
                expected[number, at] = calls[tiles, used].sum() * cycles * filtered / tile_cycles
                bases, cycles_before = bases + expected[number, at], cycles_before + cycles
            elif cycles_before:
                expected[number, at] = bases / cycles_before * cycles
    return expected


def _usable(info: RunInfo, read: Read) -> slice:
    """Of the axis of cycles: a read's, but the last."""
    cycles = info.cycles_of(read)
    return slice(cycles.start - 1, cycles.stop - 2)


def _figure(values: NDArray[np.floating]) -> float | None:
    """Mean of what is known, if anything is."""
    mean = _mean(values)
    return None if np.isnan(mean) else mean


def _mean(values: NDArray[np.floating]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if finite.size else float("nan")
