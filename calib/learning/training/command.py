"""``seqd calib train``."""

from pathlib import Path
from typing import Annotated

import typer

from calib.learning.cli import UsageError, bar


def train(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder to write.")],
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint; training goes on from it when it is there.")],
    settings: Annotated[Path | None, typer.Option(help="TOML with any of the training settings.")] = None,
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "default",
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 50,
) -> None:
    """Train both branches on simulated tiles and write a bundle; needs `pip install seqd[train]`."""
    try:
        from calib.learning.training.run import train_bundle
    except ModuleNotFoundError as error:
        raise UsageError(f"training needs {error.name}: pip install 'seqd[train]'") from error
    with bar() as progress:
        train_bundle(
            bundle,
            checkpoint=checkpoint,
            settings_file=settings,
            name=name,
            checkpoint_every=checkpoint_every,
            progress=progress,
        )
    typer.echo(f"bundle written to {bundle}")
