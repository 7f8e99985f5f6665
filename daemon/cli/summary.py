"""What a finished run came to, from its files."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from calib.calling.quality import NO_CALL
from calib.runfolder import RunInfo
from daemon.record.committed import open_run
from daemon.record.ledger import Ledger
from daemon.record.runfiles import RunFiles
from daemon.record.tilefile import read_cycles
from daemon.sinks.configured import root_of
from daemon.sinks.fastq import fastq_path
from daemon.states import CycleStatus
from daemon.watching.status import Status


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
