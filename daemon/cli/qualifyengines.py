"""``seqd qualify``: engines and fit devices tried on this machine."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from daemon.config import Config, load_config
from daemon.qualification.qualificationrecord import QualificationRecord, write_record
from daemon.qualification.runtrials import qualify as run_qualification


def qualify(
    size: Annotated[
        tuple[int, int], typer.Option(min=8, help="Height and width of the full tiles, px.", metavar="H W")
    ] = (512, 512),
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; bundle, precision, threads and strips are used.")
    ] = None,
    limit: Annotated[float, typer.Option(min=1, help="Time limit of each candidate, s.")] = 900.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Try every engine and fit device on this machine; `backend = "auto"` then takes the fastest one that passes."""
    settings = (load_config(config) if config else Config()).engine
    record = run_qualification(
        settings, size=size, limit_s=limit, announce=lambda name: typer.echo(f"trying {name} …", err=True)
    )
    path = write_record(record)
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
        return
    Console().print(_table(record))
    typer.echo(f"written to {path}")


def _table(record: QualificationRecord) -> Table:
    height, width = record.size
    table = Table(title=f"qualification with tiles of {height}×{width} px", title_justify="left")
    table.add_column("candidate", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("speed, or reason", overflow="fold")
    for trial in record.engines + record.fit_devices:
        text = escape(trial.reason)
        if (measured := trial.measured) is not None:
            text = f"{measured.ms_per_tile:.1f} ms a tile, {measured.tile_cycles_per_s:.3g} tile-cycles/s"
            if measured.copies_ms is not None:
                text += f", copies {measured.copies_ms:.3g} ms"
        table.add_row(trial.candidate, trial.result, text)
    return table
