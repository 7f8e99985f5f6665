"""All measures of several callers on several runs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter
from seqd_client.runinfo import RunInfo, TileId

from calib.offline.codebook import read_codebook
from calib.offline.evaluation import breakdown, scorecalibration
from calib.offline.evaluation.agreement import Agreement, ErrorCurve, agreement, equal_yield, error_curve
from calib.offline.evaluation.breakdown import DistanceBin
from calib.offline.evaluation.callers import Caller
from calib.offline.evaluation.clustermatch import Matched, match, pooled
from calib.offline.evaluation.oncodebook import CodebookAgreement, compare_with_codebook
from calib.offline.evaluation.scorecalibration import Calibration, Calls
from calib.offline.evaluation.superresolution import SuperResolved
from calib.offline.simulation.simulatedrun import read_truth

CURVE_POINTS = 60

Runs = Mapping[Path, RunInfo]
Progress = Callable[[], None]


@dataclass(frozen=True)
class TileFigures:
    """Summary measures of one tile."""

    tile: str
    all: Agreement


@dataclass(frozen=True)
class CallerFigures:
    """One caller on all tiles of one run."""

    all: Agreement
    passed: Agreement
    """Measures of the reads that passed the filter; only these reads are matched to the clusters."""
    tiles: tuple[TileFigures, ...]
    equal_yield_error_rate: float
    """Errors per called base of the best reads, at the yield of the caller with the fewest called bases."""
    error_curve: tuple[tuple[float, float], ...]
    """Points of a curve for which reads are added from best to worst: the share of true bases that is called, and the
    errors per called base."""
    error_by_cycle: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    """True bases A, C, G, T (rows) called as A, C, G, T, N (columns)."""
    composition: tuple[tuple[float, ...], ...]
    """Share of A, C, G, T in the calls of each cycle, all reads."""
    by_distance: tuple[DistanceBin, ...]
    by_quality: Calibration
    by_cycle: Calibration


@dataclass(frozen=True)
class RunFigures:
    """Callers side by side on one run with a truth."""

    run: str
    cycles: int
    clusters: int
    composition: tuple[tuple[float, ...], ...]
    """Share of A, C, G, T in the truth of each cycle."""
    equal_yield_bases: int
    """Called bases at which errors are compared."""
    callers: dict[str, CallerFigures]
    superresolved: SuperResolved | None


@dataclass(frozen=True)
class Evaluation:
    """Callers side by side on runs with a truth."""

    runs: tuple[RunFigures, ...]
    calibration: dict[str, Calibration]
    """Calibration of each caller by quality value, measured over all runs together."""


@dataclass(frozen=True)
class CodebookRun:
    """Callers side by side on one run, against a codebook."""

    run: str
    callers: dict[str, CodebookAgreement]


@dataclass(frozen=True)
class CodebookEvaluation:
    """Callers side by side on runs, against a codebook."""

    codebook: str
    runs: tuple[CodebookRun, ...]


def against_truth(
    runs: Runs,
    callers: Mapping[str, Caller],
    *,
    superresolved: Callable[[Path, RunInfo], SuperResolved] | None,
    progress: Progress,
) -> Evaluation:
    """Compare callers with the truth of simulated runs.

    Parameters
    ----------
    superresolved : measures the super-resolved images of a run; None where there are none.
    progress : called after every tile and caller.

    Raises
    ------
    SeqdError : calls or truth cannot be read.
    """
    figures = []
    calls: dict[str, list[Calls]] = {name: [] for name in callers}
    for root, info in runs.items():
        matched, passed = {}, {}
        for name, caller in callers.items():
            held = [_match_tile(root, info, tile, caller, progress) for tile in info.tiles]
            matched[name] = [all_reads for all_reads, _ in held]
            passed[name] = pooled([passing for _, passing in held])
        whole = {name: pooled(tiles) for name, tiles in matched.items()}
        curves = {name: error_curve(one) for name, one in whole.items()}
        bases = equal_yield(curves.values())
        for name, one in whole.items():
            calls[name].append(scorecalibration.calls_of(one))
        truth = next(iter(whole.values())).truth
        figures.append(
            RunFigures(
                run=info.run,
                cycles=truth.shape[1],
                clusters=len(truth),
                composition=breakdown.composition(truth),
                equal_yield_bases=bases,
                callers={
                    name: _caller_figures(
                        one,
                        passed[name],
                        tiles=zip(info.tiles, matched[name], strict=True),
                        curve=curves[name],
                        equal_yield_bases=bases,
                    )
                    for name, one in whole.items()
                },
                superresolved=superresolved(root, info) if superresolved else None,
            )
        )
    return Evaluation(
        runs=tuple(figures),
        calibration={
            name: scorecalibration.by_quality(scorecalibration.joined(parts)) for name, parts in calls.items()
        },
    )


def against_codebook(
    runs: Runs, callers: Mapping[str, Caller], path: Path, *, progress: Progress
) -> CodebookEvaluation:
    """Compare callers with a codebook.

    Raises
    ------
    SeqdError : calls or codebook cannot be read, or their lengths differ.
    """
    codes = read_codebook(path)
    held = []
    for root, info in runs.items():
        figures = {}
        for name, caller in callers.items():
            sequences = []
            for tile in info.tiles:
                reads = caller(root, info, tile).sequences
                if len(reads):
                    sequences.append(reads)
                progress()
            empty = np.zeros((0, codes.shape[1]), np.uint8)
            figures[name] = compare_with_codebook(codes, np.concatenate(sequences) if sequences else empty)
        held.append(CodebookRun(info.run, figures))
    return CodebookEvaluation(path.name, tuple(held))


def write_json(path: Path, evaluation: Evaluation | CodebookEvaluation) -> None:
    """Write all measures as JSON. A value that was not measured, and the infinite upper bound of the last distance bin,
    are ``null``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(TypeAdapter(type(evaluation)).dump_json(evaluation, indent=1))


def _match_tile(root: Path, info: RunInfo, tile: TileId, caller: Caller, progress: Progress) -> tuple[Matched, Matched]:
    """A tile's reads and those that passed, each matched with the truth."""
    truth, reads = read_truth(root, tile), caller(root, info, tile)
    cycles = info.reads[0].cycles
    progress()
    return match(truth, reads, cycles=cycles), match(truth, reads.passing(), cycles=cycles)


def _caller_figures(
    matched: Matched,
    passed: Matched,
    *,
    tiles: Iterable[tuple[TileId, Matched]],
    curve: ErrorCurve,
    equal_yield_bases: int,
) -> CallerFigures:
    calls = scorecalibration.calls_of(matched)
    yields = np.linspace(0, curve.bases, CURVE_POINTS + 1)[1:] if curve.bases else np.zeros(0)
    return CallerFigures(
        all=agreement(matched),
        passed=agreement(passed),
        tiles=tuple(TileFigures(str(tile), agreement(one)) for tile, one in tiles),
        equal_yield_error_rate=curve.error_rate(equal_yield_bases),
        error_curve=tuple((float(bases / matched.truth.size), curve.error_rate(bases)) for bases in yields),
        error_by_cycle=breakdown.error_by_cycle(matched),
        confusion=breakdown.confusion(matched),
        composition=breakdown.composition(matched.bases),
        by_distance=breakdown.by_distance(matched),
        by_quality=scorecalibration.by_quality(calls),
        by_cycle=scorecalibration.by_cycle(calls),
    )
