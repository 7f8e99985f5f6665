"""``seqd calib quality``."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from calib.offline.quality.fittables import fit_bundle, simulate_runs, tile_cycles
from calib.progressbar import bar

RUNS, SIZE_PX = 9, 160
"""Number and size of the simulated runs, if no run folder is given."""


def quality(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder; its quality tables are replaced.")],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Simulated or labelled run folders; simulated ones are made where none is given."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first simulated run.")] = 301,
) -> None:
    """Fit the quality scores of a bundle on calls whose truth is known."""
    with tempfile.TemporaryDirectory(prefix="seqd-quality-") as scratch, bar() as progress:
        folders = runs or simulate_runs(Path(scratch), runs=RUNS, size=SIZE_PX, seed=seed)
        task = progress.add_task("tile-cycles called", total=tile_cycles(folders))
        tables = fit_bundle(bundle, folders, progress=lambda: progress.advance(task))
    shown = Table("readout", "bins", "lowest", "highest", title=f"quality of {bundle}", title_justify="left")
    for readout, table in tables.items():
        shown.add_row(readout, str(len(table.scores)), f"Q{table.scores[0]}", f"Q{table.scores[-1]}")
    Console().print(shown)
