"""The records of InterOp files, ordered by cycle, and within a cycle by the run's order of tiles."""

import numpy as np
from numpy.typing import NDArray

from daemon.outputs.figures.runmetrics import SCORES, RunMetrics
from daemon.outputs.figures.spikein import SpikeInErrors
from daemon.outputs.figures.summary import density, phasing
from daemon.outputs.interop.binarylayout import (
    ERROR,
    EXTRACTION,
    HIGHEST_SCORE,
    INTENSITY,
    QUALITY,
    TILE,
    Layout,
    Records,
)
from daemon.outputs.reads.recordbytes import NO_CALL_QUALITY

DENSITY, DENSITY_PASSING, CLUSTERS, CLUSTERS_PASSING = 100, 101, 102, 103
"""Codes of a tile's figures: clusters per mm², and their number."""

PHASING, PREPHASING, ALIGNED = 200, 201, 300
"""Codes of the first read's figures: phasing as shares of 1, aligned in percent. For each further read, add 2, 2 and 1
to the codes."""

TICKS_TO_1970 = 621_355_968_000_000_000
"""Ticks of 100 ns between the year 1, where .NET's ``DateTime`` begins, and 1970."""

UTC = np.uint64(1 << 62)
"""Bits that mark a ``DateTime`` as UTC."""


def quality(metrics: RunMetrics) -> Records:
    """Histograms of the scores. No-calls count with the score that FASTQ gives them, and scores above 50 as 50."""
    cycles, tiles, records = _records(QUALITY, metrics, _counted(metrics))
    counts = metrics.quality[tiles, cycles]
    counts[:, NO_CALL_QUALITY] += counts[:, 0]
    counts[:, HIGHEST_SCORE] += counts[:, HIGHEST_SCORE + 1 : SCORES].sum(axis=1, dtype=np.uint32)
    records["counts"] = counts[:, 1 : HIGHEST_SCORE + 1]
    return records


def tile(metrics: RunMetrics, errors: SpikeInErrors | None) -> Records:
    """Clusters, density, phasing and share of the spike-in, of the tiles whose filter is known."""
    found: list[tuple[int, int, int, float]] = []
    raw, passing = density(metrics.info, metrics.clusters), density(metrics.info, metrics.passing)
    for at, one in enumerate(metrics.info.tiles):
        if not metrics.counted[at]:
            continue
        figures: dict[int, float] = {CLUSTERS: metrics.clusters[at], CLUSTERS_PASSING: metrics.passing[at]}
        if raw is not None and passing is not None:
            figures |= {DENSITY: raw[at], DENSITY_PASSING: passing[at]}
        for number, read in enumerate(metrics.info.reads):
            if (slips := phasing(metrics, at, read)) is not None:
                figures |= {PHASING + 2 * number: slips.behind, PREPHASING + 2 * number: slips.ahead}
            if errors is not None and errors.sampled[at, number]:
                figures[ALIGNED + number] = errors.percent_aligned[at, number]
        found += [(one.lane, one.tile, code, figures[code]) for code in sorted(figures)]
    return np.array(found, TILE.record)


def extraction(metrics: RunMetrics) -> Records:
    """Focus and intensity of the cycles that have images."""
    cycles, tiles, records = _records(EXTRACTION, metrics, _measured(metrics))
    records["focus"] = metrics.focus_px[tiles, cycles]
    records["intensity"] = _counts(metrics.intensity[tiles, cycles])
    ticks = metrics.committed_ns[tiles, cycles] // 100 + TICKS_TO_1970
    records["time"] = ticks.astype(np.uint64) | UTC
    return records


def intensity(metrics: RunMetrics) -> Records:
    """Mean intensities, and calls that pass the filter, of the cycles that have images; the noise is not measured."""
    cycles, tiles, records = _records(INTENSITY, metrics, _counted(metrics) & _measured(metrics))
    everywhere = metrics.average_intensity[tiles, cycles]
    records["average"] = _counts(everywhere.mean(axis=1))
    records["all"] = _counts(everywhere)
    records["called"] = _counts(metrics.called_intensity[tiles, cycles])
    records["bases"] = np.roll(metrics.bases[tiles, cycles], 1, axis=1)
    records["signal_to_noise"] = np.nan
    return records


def error(metrics: RunMetrics, errors: SpikeInErrors) -> Records:
    """Error rates of the cycles in which reads of the spike-in were compared."""
    cycles, tiles, records = _records(ERROR, metrics, errors.compared > 0)
    records["percent"] = errors.percent_wrong[tiles, cycles]
    records["reads"] = errors.reads_by_errors[tiles, cycles]
    return records


def _counted(metrics: RunMetrics) -> NDArray[np.bool_]:
    """(tiles, cycles) whether the quality and the bases of a tile-cycle are known."""
    return np.asarray(np.arange(1, metrics.info.cycles + 1) <= metrics.counted[:, None], np.bool_)


def _measured(metrics: RunMetrics) -> NDArray[np.bool_]:
    """(tiles, cycles) whether a tile-cycle has images of all channels."""
    return np.asarray(np.isfinite(metrics.intensity).all(axis=2), np.bool_)


def _counts(light: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Camera counts rounded to 16-bit integers."""
    return np.rint(light).astype(np.uint16)


def _records(
    layout: Layout, metrics: RunMetrics, known: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp], Records]:
    """Cycle index and tile index of each record, and records in which only lane, tile and cycle are filled in."""
    cycles, tiles = np.nonzero(known.T)
    records = np.zeros(len(cycles), layout.record)
    records["lane"] = np.array([one.lane for one in metrics.info.tiles])[tiles]
    records["tile"] = np.array([one.tile for one in metrics.info.tiles])[tiles]
    records["cycle"] = cycles + 1
    return cycles, tiles, records
