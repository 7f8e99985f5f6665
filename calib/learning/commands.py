"""``seqd calib``: simulate, train, evaluate."""

import shutil
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from calib.learning import evaluation
from calib.learning.simulation.conditions import Conditions
from calib.learning.simulation.folder import TRUTH, write_simulated_run
from calib.runfolder import RUN_INFO, RunFolderError, read_run_info
from engines.errors import SeqdError

app = typer.Typer(help="Simulate, train and evaluate.", no_args_is_help=True)


class UsageError(SeqdError):
    """An option cannot be used."""

    exit_code = 2


@app.command()
def simulate(
    folder: Annotated[Path, typer.Argument(help="Run folder to write.")],
    run: Annotated[str, typer.Option(help="Name of the run.")] = "SIM",
    tiles: Annotated[int, typer.Option(min=1, max=96)] = 1,
    cycles: Annotated[int, typer.Option(min=1, max=1000)] = 30,
    size: Annotated[int, typer.Option(min=32, max=8192, help="Edge of a tile, pixels.")] = 256,
    density: Annotated[
        float | None, typer.Option(min=0, max=3000, help="Clusters, thousands a square millimetre.")
    ] = None,
    conditions: Annotated[
        Path | None, typer.Option(help="JSON with any of the physical conditions; --density stands above it.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    overwrite: Annotated[bool, typer.Option(help="Replace a run folder that is there.")] = False,
) -> None:
    """Simulate a run: images in the documented layout, and the truth beside them."""
    physics = _conditions(conditions, density)
    if (folder / RUN_INFO).exists():
        if not overwrite:
            raise UsageError(f"folder {folder}: holds a run already; use --overwrite to replace it")
        for part in ("Images", TRUTH):
            shutil.rmtree(folder / part, ignore_errors=True)
    with _bar() as progress:
        task = progress.add_task("tile-cycles simulated", total=tiles * cycles)
        write_simulated_run(
            folder,
            physics,
            run=run,
            tiles=tiles,
            cycles=cycles,
            shape=(size, size),
            seed=seed,
            progress=lambda done: progress.update(task, completed=done),
        )
    typer.echo(f"{folder}: {tiles} tiles × {cycles} cycles, {physics.density_k_mm2:g} K clusters/mm²")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Run folder with the images and, beside them, the truth.")],
    fastq: Annotated[Path, typer.Argument(help="Folder of FASTQ files.")],
    codebook: Annotated[Path | None, typer.Option(help="CSV with a `code` column, in place of a truth.")] = None,
) -> None:
    """Hold FASTQ against the truth of a simulated run, or against a codebook."""
    info = read_run_info(folder)
    against = "codebook" if codebook else "truth"
    table = Table("tile", "reads", title=f"run {info.run} against its {against}", title_justify="left")
    for column in ["on codebook"] if codebook else ["true", "% found", "% right", "% real", "% errors", "% Q30"]:
        table.add_column(column, justify="right")
    for tile in info.tiles:
        reads = evaluation.read_fastq(fastq / f"s_{tile}_R{info.reads[0].number}.fastq.gz")
        number = len(reads.positions)
        if codebook:
            hits = evaluation.on_codebook(codebook, reads)
            table.add_row(str(tile), str(number), f"{hits} ({100 * hits / max(1, number):.1f} %)")
            continue
        found = evaluation.compare(folder, tile, reads)
        shares = (found.found, found.yielded, found.real, found.error_rate, found.q30)
        table.add_row(str(tile), str(number), str(found.clusters), *(f"{100 * share:.2f}" for share in shares))
    Console().print(table)
    if not codebook:
        Console().print(
            f"found: a read within {evaluation.FOUND_PX:g} px of the true cluster; right: found, at most "
            f"{100 * evaluation.WRONG_MOST:g} % wrong bases; real: reads at a true cluster; "
            "errors: wrong bases and no-calls over the bases of the clusters found"
        )


@app.command()
def train(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder to write.")],
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint; training goes on from it when it is there.")],
    settings: Annotated[Path | None, typer.Option(help="TOML with any of the training settings.")] = None,
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "default",
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 50,
) -> None:
    """Train both branches on simulated tiles and write a bundle; needs `pip install seqd[train]`."""
    try:
        from calib.learning.training.command import train_bundle
    except ModuleNotFoundError as error:
        raise UsageError(f"training needs {error.name}: pip install 'seqd[train]'") from error
    with _bar() as progress:
        train_bundle(
            bundle,
            checkpoint=checkpoint,
            settings_file=settings,
            name=name,
            checkpoint_every=checkpoint_every,
            progress=progress,
        )
    typer.echo(f"bundle written to {bundle}")


def _conditions(path: Path | None, density: float | None) -> Conditions:
    try:
        physics = Conditions.model_validate_json(path.read_bytes()) if path else Conditions()
    except OSError as error:
        raise RunFolderError(f"conditions {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"conditions {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return physics if density is None else physics.model_copy(update={"density_k_mm2": density})


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
