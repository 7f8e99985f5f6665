"""``seqd verify``: compare the files of a run with its ledger."""

from contextlib import ExitStack
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from daemon.cli.options import RunFolder, progress_bar
from daemon.verification import Verification, verify_run

DIFFERENT = 10
"""Exit code when a difference is found."""


def verify(folder: RunFolder, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Compare tile files, templates, FASTQ and spool of a run with its ledger; exit code 10 if anything differs.

    The command also works while a daemon writes the run, which is not disturbed. Then it checks what had been committed
    when it began.
    """
    progress = progress_bar()
    with ExitStack() as shown:

        def show(done: int, total: int) -> None:
            if not progress.tasks:
                # The bar appears with the first step, so that a folder without a run gives one line, the error.
                shown.enter_context(progress)
                progress.add_task(f"{folder.name} tiles and FASTQ files")
            progress.update(progress.task_ids[0], completed=done, total=total)

        found = verify_run(folder, progress=show)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _show(found)
    if found.differences:
        raise typer.Exit(DIFFERENT)


def _show(found: Verification) -> None:
    committed = found.called + found.missing + found.failed
    table = Table(show_header=False, title=f"run {found.run}", title_justify="left")
    table.add_row("finished", "yes" if found.finished else "no")
    table.add_row("tiles", f"{found.templates} of {found.tiles} have a template")
    table.add_row(
        "tile-cycles",
        f"{committed} committed = {found.called} called + {found.missing} missing + {found.failed} failed; "
        f"{found.expected} expected",
    )
    table.add_row("checked", f"{found.files} files, {found.bytes} bytes")
    if found.uncommitted_bytes:
        table.add_row(
            "not committed", f"{found.uncommitted_bytes} bytes at the ends of tile files; the daemon will replace them"
        )
    table.add_row("differences", f"{len(found.differences) or 'none'}")
    Console().print(table)
    for difference in found.differences:
        typer.echo(str(difference))
    for name in found.not_compared:
        typer.echo(f"{name}: undamaged, but not compared with the calls, because the tile files differ")
