"""A run's summary as Illumina's ``interop_summary --csv=1`` prints it, which MultiQC reads.

Source: https://github.com/Illumina/interop, ``src/apps/summary.cpp``; readers find columns by their names. Yields have
more digits here, so that small runs do not show 0. Unknown figures are ``nan``, as in the original.
"""

from collections.abc import Mapping

from daemon.outputs.figures.summary import Figures, Summary

Field = tuple[str, float, int]
"""Name of a field, what its value is divided by, and the digits after the point."""

YIELD: Field = ("yield_bases", 1e9, 6)
Q30: Field = ("percent_q30", 1, 2)
ALIGNED: Field = ("percent_aligned", 1, 2)
ERROR: Field = ("percent_error", 1, 2)
INTENSITY: Field = ("first_cycle_intensity", 1, 0)

LEVEL_COLUMNS: dict[str, tuple[Field, ...]] = {
    "Yield": (YIELD,),
    "Projected Yield": (("projected_bases", 1e9, 6),),
    "Aligned": (ALIGNED,),
    "Error Rate": (ERROR,),
    "Intensity C1": (INTENSITY,),
    "%>=Q30": (Q30,),
}
LANE_COLUMNS: dict[str, tuple[Field, ...]] = {
    "Lane": (("lane", 1, 0),),
    "Surface": (),
    "Tiles": (("tiles", 1, 0),),
    "Density": (("density_k_mm2", 1, 1),),
    "Cluster PF": (("percent_passing", 1, 2),),
    "Phas/Prephas": (("percent_phasing", 1, 3), ("percent_prephasing", 1, 3)),
    "Reads": (("clusters", 1e6, 6),),
    "Reads PF": (("passing", 1e6, 6),),
    "%>=Q30": (Q30,),
    "Yield": (YIELD,),
    "Cycles Error": (("error_cycles", 1, 0),),
    "Aligned": (ALIGNED,),
    "Error": (ERROR,),
    "Intensity C1": (INTENSITY,),
}


def summary_csv(summary: Summary) -> str:
    """Yields in 10⁹ bases, reads in millions, densities in thousands per mm²."""
    titles = [f"Read {number}{' (I)' if read.index else ''}" for number, read in enumerate(summary.reads, 1)]
    levels: list[tuple[str, Figures]] = [*zip(titles, summary.reads, strict=True)]
    levels += [("Non-indexed", summary.template), ("Total", summary.total)]
    lines = [summary.run, ",".join(("Level", *LEVEL_COLUMNS))]
    lines += [",".join((title, *_cells(figures, LEVEL_COLUMNS))) for title, figures in levels]
    lines += ["", ""]
    for title, read in zip(titles, summary.reads, strict=True):
        lines += [title, ",".join(LANE_COLUMNS), *(",".join(_cells(lane, LANE_COLUMNS)) for lane in read.lanes)]
    return "\n".join([*lines, f"Extracted: 1 - {summary.committed}", ""])


def _cells(figures: Figures, columns: Mapping[str, tuple[Field, ...]]) -> list[str]:
    return [" / ".join(_shown(figures, *field) for field in fields) or "-" for fields in columns.values()]


def _shown(figures: Figures, name: str, divisor: float, digits: int) -> str:
    value = getattr(figures, name)
    return "nan" if value is None else f"{value / divisor:.{digits}f}"
