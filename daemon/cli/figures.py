"""The figures of a run as tables."""

from rich.console import Console
from rich.table import Table

from daemon.metrics.summary import Summary


def show_figures(console: Console, summary: Summary) -> None:
    """Print them: a line a read, and a line a lane of each template read."""
    console.print(
        f"run {summary.run}: {summary.committed} of {summary.cycles} cycles, {summary.clusters} clusters, "
        f"{summary.passing} pass the filter",
        highlight=False,
    )
    reads = Table("read", "cycles", "yield", "% Q30", "% error", "% aligned")
    for name, figures, cycles in (
        *((read.read, read, str(read.cycles)) for read in summary.reads),
        ("all", summary.total, str(summary.cycles)),
    ):
        reads.add_row(
            name,
            cycles,
            f"{figures.yield_bases}",
            _shown(figures.percent_q30),
            _shown(figures.percent_error, 3),
            _shown(figures.percent_aligned),
        )
    console.print(reads)
    lanes = Table("read", "lane", "tiles", "clusters", "% PF", "K/mm²", "% Q30", "phas. %", "preph. %")
    for read in summary.reads:
        for lane in () if read.index else read.lanes:
            lanes.add_row(
                read.read,
                str(lane.lane),
                str(lane.tiles),
                str(lane.clusters),
                _shown(lane.percent_passing),
                _shown(lane.density_k_mm2),
                _shown(lane.percent_q30),
                _shown(lane.percent_phasing, 3),
                _shown(lane.percent_prephasing, 3),
            )
    console.print(lanes)


def _shown(value: float | None, places: int = 1) -> str:
    return "–" if value is None else f"{value:.{places}f}"
