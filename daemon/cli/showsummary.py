"""What a finished run came to, from its files."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from seqd_client.runinfo import RunInfo
from seqd_client.status import CycleStatus, Status

from calib.calling.scores import NO_CALL
from daemon.outputs.figures.summary import Summary
from daemon.outputs.reads.fastqfiles import fastq_path
from daemon.outputs.sinks.configured import root_of
from daemon.record.committed import open_run
from daemon.record.ledger import Ledger
from daemon.record.runfiles import RunFiles
from daemon.record.tilefile import read_cycles


def show_summary(console: Console, run_folder: Path, info: RunInfo, last: Status | None) -> None:
    """Print reads and %Q30 by tile, the balance, speed, engine and FASTQ files.

    Parameters
    ----------
    last : what the daemon said last of itself; None when it was too quick to ask.
    """
    files = RunFiles(run_folder)
    table = Table("tile", "reads", "%Q30", "% no-call", title=f"run {info.run}", title_justify="left")
    for tile in info.tiles:
        calls = read_cycles(files.calls_of(tile), range(1, info.cycles + 1))
        called = calls != NO_CALL
        q30 = np.count_nonzero((calls >> 2 >= 30) & called) / max(1, int(np.count_nonzero(called)))
        table.add_row(
            str(tile), str(calls.shape[1]), f"{100 * q30:.1f}", f"{100 * (1 - called.mean()) if called.size else 0:.2f}"
        )
    console.print(table)
    with closing(Ledger(files.ledger)) as ledger:
        totals = ledger.totals()
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
    with open_run(run_folder) as run:
        root = root_of(run.facts["sinks"], run_folder, info.run)
    if (root / "fastq").is_dir():
        console.print("FASTQ:")
        for read in info.reads:
            for tile in info.tiles:
                console.out(f"  {fastq_path(root, info, tile, read)}", highlight=False)


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
