"""The tables of an evaluation, for the terminal and the report alike."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from calib.offline.evaluation.agreement import LAST_CYCLES, MAX_WRONG, Agreement
from calib.offline.evaluation.callerfigures import CallerFigures, CodebookEvaluation, Evaluation, RunFigures
from calib.offline.evaluation.clustermatch import FOUND_PX
from calib.offline.evaluation.scorecalibration import JUDGED_BASES, JUDGED_ERRORS, Calibration

LEGEND = (
    f"found: true clusters with a read of their own within {FOUND_PX:g} px; right: found, at most "
    f"{100 * MAX_WRONG:g} % wrong bases; real: reads at a true cluster; "
    "errors: wrong bases and no-calls over the bases of the clusters found"
)


@dataclass(frozen=True)
class Table:
    """Text in rows; the first ``labels`` columns name the row, the others are figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    labels: int = 1


def tiles(run: RunFigures) -> Table:
    """The tiles of a run with a single caller."""
    (caller,) = run.callers.values()
    return Table(
        title=f"run {run.run} against its truth",
        columns=("tile", "reads", "true", "% found", "% right", "% real", "% errors", "% Q30"),
        rows=tuple((tile.tile, *_short(tile.all)) for tile in caller.tiles),
        note=LEGEND,
    )


def summary(evaluation: Evaluation) -> Table:
    """Every run and caller in a row."""
    return Table(
        title="callers against the truth",
        columns=(
            *("run", "caller", "reads", "true", "% found", "right per 1000", "% real", "% errors"),
            *(f"% in last {LAST_CYCLES}", "% at equal yield", "% PF", "PF right", "% PF errors", "% Q30", "|ΔQ|"),
        ),
        rows=tuple((run.run, name, *_long(figures)) for run, name, figures in _callers(evaluation)),
        note=LEGEND
        + "; at equal yield: errors per called base of each caller's best reads by mean quality, taken until they "
        "have as many called bases as the caller with the fewest; PF: reads that passed the filter; |ΔQ|: mean "
        "|predicted − empirical| Phred over quality values",
        labels=2,
    )


def calibration(evaluation: Evaluation) -> Table:
    """Calibration of quality scores: of every run and caller, and of each caller over all runs."""
    rows = [
        (run.run, name, *_deviations(figures.by_quality), *_deviations(figures.by_cycle))
        for run, name, figures in _callers(evaluation)
    ]
    rows += [("all runs together", name, *_deviations(one), "", "") for name, one in evaluation.calibration.items()]
    return Table(
        title="predicted against empirical quality",
        columns=("run", "caller", "|ΔQ| per quality", "most overstated", "|ΔQ| per cycle", "most overstated"),
        rows=tuple(rows),
        note=f"All values are in Phred. Only bins are used that have at least {JUDGED_BASES} bases, and at least "
        f"{JUDGED_ERRORS} expected or observed errors. Most overstated: largest predicted − empirical of a bin.",
        labels=2,
    )


def superresolution(evaluation: Evaluation) -> Table | None:
    """Super-resolved images compared with bicubic upsampling; None if there are no such images."""
    rows = tuple(
        (
            run.run,
            str(measured.images),
            *(f"{one.psnr_db:.2f}" for one in (measured.fidelity, measured.bicubic)),
            *(f"{one.ssim:.4f}" for one in (measured.fidelity, measured.bicubic)),
        )
        for run in evaluation.runs
        if (measured := run.superresolved)
    )
    if not rows:
        return None
    return Table(
        title="super-resolved images against the truth",
        columns=("run", "images", "PSNR, dB", "bicubic", "SSIM", "bicubic"),
        rows=rows,
        note="both after an affine fit to the truth",
    )


def codebook(evaluation: CodebookEvaluation) -> Table:
    """Every run and caller against the codebook."""
    lengths = {len(one.distances) for run in evaluation.runs for one in run.callers.values()}
    columns = [f"{distance} wrong" for distance in range(max(lengths, default=0))]
    return Table(
        title=f"callers against codebook {evaluation.codebook}",
        columns=("run", "caller", "reads", "on codebook", "by chance", *columns),
        rows=tuple(
            (
                *(run.run, name, str(one.reads), f"{one.hits} ({_percent(one.share)} %)", _plain(one.chance)),
                *map(str, one.distances),
            )
            for run in evaluation.runs
            for name, one in run.callers.items()
        ),
        note="by chance: hits on decoy codes of the same composition, scaled to the size of the codebook; "
        "0 wrong, 1 wrong …: reads by the number of mismatches to the nearest code",
        labels=2,
    )


def _callers(evaluation: Evaluation) -> Iterator[tuple[RunFigures, str, CallerFigures]]:
    for run in evaluation.runs:
        for name, figures in run.callers.items():
            yield run, name, figures


def _short(one: Agreement) -> tuple[str, ...]:
    shares = (one.found, one.yielded, one.real, one.error_rate, one.q30)
    return str(one.reads), str(one.clusters), *map(_percent, shares)


def _long(figures: CallerFigures) -> tuple[str, ...]:
    every, passed = figures.all, figures.passed
    return (
        *(str(every.reads), str(every.clusters), _percent(every.found), _per_1000(every.yielded)),
        *map(_percent, (every.real, every.error_rate, every.last_error_rate, figures.equal_yield_error_rate)),
        _percent(passed.reads / every.reads if every.reads else math.nan),
        *(_per_1000(passed.yielded), _percent(passed.error_rate), _percent(every.q30)),
        _plain(figures.by_quality.mean_deviation),
    )


def _deviations(one: Calibration) -> tuple[str, str]:
    return _plain(one.mean_deviation), _plain(one.worst_overstatement)


def _percent(value: float) -> str:
    return _text(100 * value, 2)


def _per_1000(value: float) -> str:
    return _text(1000 * value, 0)


def _plain(value: float) -> str:
    return _text(value, 1)


def _text(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
