"""The figures of a run on one page: of the run, of its reads, and of each lane in a read. They follow Illumina's rules.

Yield and share of Q30 leave out the last cycle of each read, which only serves to correct the phasing of the cycle
before it. Figures of a lane are means over the tiles whose filter is known; every tile has the same weight. Source: the
summary of Illumina's InterOp library, https://github.com/Illumina/interop
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from seqd_client.runinfo import Read, RunInfo

from calib.phasing import MIN_CYCLES, Phasing
from daemon.outputs.figures.runmetrics import RunMetrics, yields
from daemon.outputs.figures.spikein import SpikeInErrors


class Figures(BaseModel):
    """Figures of one read, or of several."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    yield_bases: int
    """Bases of clusters that pass the filter."""
    projected_bases: int
    """Expected yield of the complete run."""
    percent_q30: float | None
    """Share of the yield that has at least Q30."""
    percent_aligned: float | None
    """Share of the clusters that come from the spike-in; None without one."""
    percent_error: float | None
    """Share of wrong bases in the spike-in's reads; None without one."""
    first_cycle_intensity: float | None
    """90th percentile in channel A in a read's first cycle, camera counts above background; of all tiles."""


class LaneFigures(Figures):
    """Figures of one lane in one read; those from ``lane`` to ``density_passing_k_mm2`` are the same in every read."""

    lane: int
    tiles: int
    """Tiles whose filter is known."""
    clusters: int
    passing: int
    """Clusters that pass the filter."""
    percent_passing: float | None
    density_k_mm2: float | None
    """Thousands of clusters per mm²; None where the size of a pixel is not known."""
    density_passing_k_mm2: float | None
    percent_phasing: float | None
    """Share of the strands that fall behind in a cycle; None in index reads and in the first cycles of other reads."""
    percent_prephasing: float | None
    """Share of the strands that run ahead in a cycle."""
    error_cycles: int
    """Last cycle of the read that has an error rate in any tile."""


class ReadFigures(Figures):
    """Figures of one read."""

    read: str
    """:meth:`calib.runfolder.images.RunInfo.label`."""
    index: bool
    cycles: int
    lanes: tuple[LaneFigures, ...]


class Summary(BaseModel):
    """Figures of a run, as far as it is committed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    cycles: int
    committed: int
    """Cycles that every tile has."""
    tiles: int
    filtered_tiles: int
    """Tiles whose filter is known. Figures are of these tiles unless their description says otherwise."""
    clusters: int
    passing: int
    density_k_mm2: float | None
    total: Figures
    """Of all reads."""
    template: Figures
    """Of reads that are not index."""
    reads: tuple[ReadFigures, ...]


def summarise(metrics: RunMetrics, errors: SpikeInErrors | None = None) -> Summary:
    """The summary of a run, with the errors of its spike-in where it has one."""
    known, every = metrics.counted > 0, np.ones(len(metrics.info.tiles), np.bool_)
    figures = _PerTile(metrics, errors)
    projected = _projected(metrics)
    lanes = sorted({tile.lane for tile in metrics.info.tiles})
    reads = tuple(
        ReadFigures(
            **figures.fields([number], every, float(projected[number].sum())),
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
        total=Figures(**figures.fields(list(range(len(reads))), every, float(projected.sum()))),
        template=Figures(**figures.fields(template, every, float(projected[template].sum()))),
        reads=reads,
    )


def density(info: RunInfo, clusters: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """(tiles,) clusters per mm²; None where the size of a pixel is not known."""
    if info.pixel_um is None:
        return None
    return np.asarray(clusters / (info.height * info.width * (info.pixel_um / 1000) ** 2), np.float64)


def phasing(metrics: RunMetrics, index: int, read: Read) -> Phasing | None:
    """Phasing of a template read in the tile of an index; None until enough cycles are known."""
    if read.index or metrics.counted[index] < metrics.info.cycles_of(read).start + MIN_CYCLES - 1:
        return None
    return metrics.phasing(metrics.info.tiles[index], read)


class _PerTile:
    """Figures by tile and read, and their sums and means."""

    def __init__(self, metrics: RunMetrics, errors: SpikeInErrors | None) -> None:
        self._metrics, self._errors = metrics, errors
        shape = len(metrics.info.tiles), len(metrics.info.reads)
        self._yields, self._q30 = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._intensity, self._error = np.full(shape, np.nan), np.full(shape, np.nan)
        calls, good = yields(metrics), yields(metrics, 30)
        for number, read in enumerate(metrics.info.reads):
            used = _all_but_last(metrics.info, read)
            self._yields[:, number], self._q30[:, number] = calls[:, used].sum(axis=1), good[:, used].sum(axis=1)
            self._intensity[:, number] = metrics.intensity[:, metrics.info.cycles_of(read).start - 1, 0]
            if errors is not None:
                self._error[:, number] = [_mean(rates[used]) for rates in errors.percent_wrong]

    def fields(self, reads: Sequence[int], tiles: NDArray[np.bool_], projected: float) -> dict[str, float | int | None]:
        """The fields of :class:`Figures`, of some reads and tiles."""
        at = np.ix_(np.flatnonzero(tiles), np.array(reads, np.intp))
        bases = int(self._yields[at].sum())
        return {
            "yield_bases": bases,
            "projected_bases": round(projected),
            "percent_q30": 100 * int(self._q30[at].sum()) / bases if bases else None,
            "percent_aligned": None if self._errors is None else _known_mean(self._errors.percent_aligned[at]),
            "percent_error": _known_mean(self._error[at]),
            "first_cycle_intensity": _known_mean(self._intensity[at]),
        }

    def lane(self, number: int, lane: int, projected: float) -> LaneFigures:
        """Figures of one lane in a read."""
        metrics, read = self._metrics, self._metrics.info.reads[number]
        of_lane = np.array([tile.lane == lane for tile in metrics.info.tiles])
        tiles = of_lane & (metrics.counted > 0)
        found = [phasing(metrics, index, read) for index in np.flatnonzero(tiles).tolist()]
        with np.errstate(invalid="ignore"):
            shares = 100 * metrics.passing[tiles] / metrics.clusters[tiles]
        return LaneFigures(
            **self.fields([number], of_lane, projected),
            lane=lane,
            tiles=int(tiles.sum()),
            clusters=int(metrics.clusters[tiles].sum()),
            passing=int(metrics.passing[tiles].sum()),
            percent_passing=_known_mean(shares),
            density_k_mm2=self.mean_density(metrics.clusters, tiles),
            density_passing_k_mm2=self.mean_density(metrics.passing, tiles),
            percent_phasing=_known_mean(np.array([100 * one.behind for one in found if one is not None])),
            percent_prephasing=_known_mean(np.array([100 * one.ahead for one in found if one is not None])),
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
        return None if found is None else _known_mean(found[tiles] / 1000)


def _projected(metrics: RunMetrics) -> NDArray[np.float64]:
    """(reads, lanes) expected bases. Each future cycle is expected to give the mean number of the cycles before it."""
    info = metrics.info
    lanes = sorted({tile.lane for tile in info.tiles})
    calls = yields(metrics)
    expected = np.zeros((len(info.reads), len(lanes)))
    for at, lane in enumerate(lanes):
        tiles = np.array([tile.lane == lane for tile in info.tiles])
        bases, cycles_before = 0.0, 0
        for number, read in enumerate(info.reads):
            used = _all_but_last(info, read)
            cycles = used.stop - used.start
            tile_cycles = int(np.clip(metrics.counted[tiles] - used.start, 0, cycles).sum())
            if tile_cycles:
                filtered = int((metrics.counted[tiles] > 0).sum())
                expected[number, at] = calls[tiles, used].sum() * cycles * filtered / tile_cycles
                bases, cycles_before = bases + expected[number, at], cycles_before + cycles
            elif cycles_before:
                expected[number, at] = bases / cycles_before * cycles
    return expected


def _all_but_last(info: RunInfo, read: Read) -> slice:
    """Indices of a read's cycles without the last one."""
    cycles = info.cycles_of(read)
    return slice(cycles.start - 1, cycles.stop - 2)


def _known_mean(values: NDArray[np.floating]) -> float | None:
    """Mean of the values that are not NaN; None where all values are NaN."""
    mean = _mean(values)
    return None if np.isnan(mean) else mean


def _mean(values: NDArray[np.floating]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if finite.size else float("nan")
