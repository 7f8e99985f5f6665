"""A run's summary as Illumina's ``interop_summary --csv=1`` prints it, which MultiQC reads.

Source: https://github.com/Illumina/interop, ``src/apps/summary.cpp``; columns are found by their names. Yields have
more digits here, so that those of small runs show; what is not known is ``nan``, as there.
"""

from daemon.outputs.figures.summary import Figures, LaneFigures, ReadFigures, Summary

_LEVELS = "Level,Yield,Projected Yield,Aligned,Error Rate,Intensity C1,%>=Q30"

_LANES = (
    "Lane,Surface,Tiles,Density,Cluster PF,Phas/Prephas,Reads,Reads PF,%>=Q30,Yield,"
    "Cycles Error,Aligned,Error,Intensity C1"
)


def summary_csv(summary: Summary) -> str:
    """Yields in 10⁹ bases, reads in millions, densities in thousands per mm²."""
    lines = [summary.run, _LEVELS]
    lines += [_level(_title(number, read), read) for number, read in enumerate(summary.reads, 1)]
    lines += [_level("Non-indexed", summary.template), _level("Total", summary.total), "", ""]
    for number, read in enumerate(summary.reads, 1):
        lines += [_title(number, read), _LANES, *map(_lane, read.lanes)]
    return "\n".join([*lines, f"Extracted: 1 - {summary.committed}", ""])


def _title(number: int, read: ReadFigures) -> str:
    return f"Read {number}{' (I)' if read.index else ''}"


def _level(title: str, figures: Figures) -> str:
    cells = (
        title,
        f"{figures.yield_bases / 1e9:.6f}",
        f"{figures.projected_bases / 1e9:.6f}",
        _shown(figures.percent_aligned, 2),
        _shown(figures.percent_error, 2),
        _shown(figures.first_cycle_intensity, 0),
        _shown(figures.percent_q30, 2),
    )
    return ",".join(cells)


def _lane(figures: LaneFigures) -> str:
    cells = (
        str(figures.lane),
        "-",
        str(figures.tiles),
        _shown(figures.density_k_mm2, 1),
        _shown(figures.percent_passing, 2),
        f"{_shown(figures.percent_phasing, 3)} / {_shown(figures.percent_prephasing, 3)}",
        f"{figures.clusters / 1e6:.6f}",
        f"{figures.passing / 1e6:.6f}",
        _shown(figures.percent_q30, 2),
        f"{figures.yield_bases / 1e9:.6f}",
        str(figures.error_cycles),
        _shown(figures.percent_aligned, 2),
        _shown(figures.percent_error, 2),
        _shown(figures.first_cycle_intensity, 0),
    )
    return ",".join(cells)


def _shown(figure: float | None, digits: int) -> str:
    return "nan" if figure is None else f"{figure:.{digits}f}"
