"""``seqd calib train`` and ``seqd calib ablate``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from calib.learning.cli import bar, learning_installed

_Settings = Annotated[Path | None, typer.Option(help="TOML with any of the training settings.")]


def train(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder to write.")],
    checkpoint: Annotated[
        Path, typer.Option(help="Checkpoint; training goes on from it when it is there. The curve is drawn beside it.")
    ],
    settings: _Settings = None,
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "default",
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 50,
    start: Annotated[Path | None, typer.Option(help="Bundle whose weights to begin with.")] = None,
    labelled: Annotated[
        list[Path] | None, typer.Option(help="Labelled run folder to draw patches from, too; may be repeated.")
    ] = None,
) -> None:
    """Train both branches and write a bundle; needs the extra `train`."""
    with learning_installed("training"):
        from calib.learning.training.run import train_bundle
    with bar() as progress:
        written = train_bundle(
            bundle,
            checkpoint=checkpoint,
            settings_file=settings,
            name=name,
            checkpoint_every=checkpoint_every,
            start=start,
            labelled=labelled or [],
            progress=progress,
        )
    if written:
        typer.echo(f"bundle written to {bundle}")


def ablate(
    folder: Annotated[Path, typer.Argument(help="Folder for checkpoints and ablation.json.")],
    settings: _Settings = None,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Trainings of each kind, each with its own seed.")] = 1,
    patches: Annotated[int, typer.Option(min=1, help="Unseen patches to compare on.")] = 300,
) -> None:
    """Train jointly and for calls alone with the same steps, and compare the calls."""
    with learning_installed("training"):
        from calib.learning.training.run import compare_losses
    with bar() as progress:
        results = compare_losses(folder, settings_file=settings, repeats=repeats, patches=patches, progress=progress)
    table = Table("trained", "seed", title=f"{results[0].clusters} clusters on {patches} patches", title_justify="left")
    for column in ("steps", "minutes", "nats a cluster", "% wrong bases"):
        table.add_column(column, justify="right")
    for result in results:
        table.add_row(
            result.trained,
            str(result.seed),
            str(result.steps),
            f"{result.minutes:.1f}",
            f"{result.cross_entropy:.4f}",
            f"{100 * result.error_rate:.3f}",
        )
    Console().print(table)
