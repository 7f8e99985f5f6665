"""Tables about a run, printed from its files."""

import json
from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from seqd_client.status import CycleStatus, Status

from calib.calling.scores import NO_CALL
from daemon.outputs.figures.summary import Summary
from daemon.outputs.reads.fastq import fastq_path
from daemon.outputs.sinks.configured import root_of
from daemon.record.committed import CommittedRun
from daemon.record.tilefile import read_cycles

READ_FIELDS = {"yield_bases": 0, "percent_q30": 1, "percent_error": 3, "percent_aligned": 1}
"""Fields of :class:`daemon.outputs.figures.summary.Figures` and their digits after the point."""

LANE_FIELDS = {
    "lane": 0,
    "tiles": 0,
    "clusters": 0,
    "percent_passing": 1,
    "density_k_mm2": 1,
    "percent_q30": 1,
    "percent_phasing": 3,
    "percent_prephasing": 3,
}
"""Fields of :class:`daemon.outputs.figures.summary.LaneFigures` and their digits after the point."""


def show_summary(console: Console, run: CommittedRun, last: Status | None) -> None:
    """Print reads and %Q30 by tile, numbers of tile-cycles, speed, engine and FASTQ files of a finished run.

    Parameters
    ----------
    last : last status of the daemon; None if the daemon ended before it gave one.
    """
    info, files = run.info, run.files
    table = Table("tile", "reads", "%Q30", "% no-call", title=f"run {info.run}", title_justify="left")
    for tile in info.tiles:
        calls = read_cycles(files.calls_of(tile), range(1, info.cycles + 1))
        called = calls != NO_CALL
        q30 = np.count_nonzero((calls >> 2 >= 30) & called) / max(1, int(np.count_nonzero(called)))
        no_calls = 100 * (1 - called.mean()) if called.size else 0
        table.add_row(str(tile), str(calls.shape[1]), f"{100 * q30:.1f}", f"{no_calls:.2f}")
    console.print(table)
    totals = run.ledger.totals()
    console.print(
        f"tile-cycles: {totals[CycleStatus.CALLED]} called, {totals[CycleStatus.MISSING]} missing, "
        f"{totals[CycleStatus.FAILED]} failed" + (f"; {last.tile_cycles_per_s:.2f} a second" if last else "")
    )
    engine = json.loads(files.provenance.read_bytes())["engine"]
    console.print(
        f"engine: {engine['backend']} {engine['precision']} on {engine['device']}, model {engine['model_hash'][:12]}"
        + (f"; at work {last.engine.busy:.0%} of the time" if last and last.engine else ""),
        soft_wrap=True,
    )
    root = root_of(run.facts["sinks"], files.root, info.run)
    if (root / "fastq").is_dir():
        console.print("FASTQ:")
        for read in info.reads:
            for tile in info.tiles:
                console.out(f"  {fastq_path(root, info, tile, read)}", highlight=False)


def show_figures(console: Console, summary: Summary) -> None:
    """Print a summary: a table of the reads, and a table of the lanes in each template read."""
    console.print(
        f"run {summary.run}: {summary.committed} of {summary.cycles} cycles, {summary.clusters} clusters, "
        f"{summary.passing} pass the filter",
        highlight=False,
    )
    reads = Table("read", "cycles", "yield", "% Q30", "% error", "% aligned")
    lanes = Table("read", "lane", "tiles", "clusters", "% PF", "K/mm²", "% Q30", "phas. %", "preph. %")
    for read in summary.reads:
        reads.add_row(read.read, str(read.cycles), *_cells(read, READ_FIELDS))
        for lane in () if read.index else read.lanes:
            lanes.add_row(read.read, *_cells(lane, LANE_FIELDS))
    reads.add_row("all", str(summary.cycles), *_cells(summary.total, READ_FIELDS))
    console.print(reads)
    console.print(lanes)


def _cells(figures: BaseModel, fields: Mapping[str, int]) -> list[str]:
    """The values of fields, each with its given number of decimals; a dash stands for an unknown value."""
    values = ((getattr(figures, name), digits) for name, digits in fields.items())
    return ["–" if value is None else f"{value:.{digits}f}" for value, digits in values]
