"""``seqd export``: files that other tools read, of a run at any time."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daemon.cli.progress import bar
from daemon.config import SinksConfig
from daemon.exporting.folder import FolderKind, folder_files, sink_files, write_files
from daemon.record.committed import open_run
from daemon.sinks.configured import root_of
from daemon.sinks.sinkfile import SinkFile

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that a run was, or is being, written to.")]

app = typer.Typer(
    name="export",
    help="Write what other tools read, of a run that is finished, stopped or still being written.",
    no_args_is_help=True,
)


@app.command()
def sinks(folder: Run) -> None:
    """Write anew what the daemon writes by itself, where it writes it: the same bytes."""
    with open_run(folder) as run:
        config = SinksConfig.model_validate(run.facts["sinks"])
        root = root_of(config, run.files)
        _write(run.info.run, list(sink_files(run, root, config)), root)


@app.command(name="folder")
def run_folder(
    folder: Run,
    output: Annotated[Path, typer.Option(help="Folder to write <run id>/ to.")],
    kind: Annotated[FolderKind, typer.Option(help="Base calls.")] = FolderKind.BCL,
    control: Annotated[Path | None, typer.Option(help="FASTA of a spiked-in control, for error rates.")] = None,
) -> None:
    """Write an Illumina run folder: base calls, filters, positions, InterOp, RunInfo.xml; markers if it is finished."""
    with open_run(folder) as run:
        root = output / run.info.run
        _write(run.info.run, list(folder_files(run, root, kind, control)), root)


def _write(run: str, files: list[SinkFile], root: Path) -> None:
    with bar(Console(stderr=True)) as progress:
        task = progress.add_task(f"{run} files", total=len(files))
        write_files(files, written=lambda _: progress.advance(task))
    Console().print(f"{root}: {len(files)} files", soft_wrap=True, highlight=False)
