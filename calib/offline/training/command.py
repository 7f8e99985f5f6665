"""``seqd calib train`` and ``seqd calib ablate``."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from calib.offline.cli import learning_installed
from calib.progressbar import bar
from engines.bundles.bundle import load_bundle

_Settings = Annotated[Path | None, typer.Option(help="TOML with any of the training settings.")]


def train(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder to write.")],
    checkpoint: Annotated[
        Path,
        typer.Option(
            help="Checkpoint; training continues from it if it exists. The learning curve is drawn beside it."
        ),
    ],
    settings: _Settings = None,
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "default",
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 50,
    start: Annotated[Path | None, typer.Option(help="Bundle with the weights to start from.")] = None,
    labelled: Annotated[
        list[Path] | None, typer.Option(help="Labelled run folder to draw patches from, too; may be repeated.")
    ] = None,
) -> None:
    """Train both branches and write a bundle; needs the extra `train`."""
    with learning_installed("training"):
        from calib.offline.training.trainbundle import train_bundle
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
    """Train with the joint loss and with the loss of calls alone, for the same steps, and compare the calls."""
    with learning_installed("training"):
        from calib.offline.training.trainbundle import compare_losses
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


def export(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    graph: Annotated[Path, typer.Argument(help="ONNX file to write.", metavar="FILE.onnx")],
    precision: Annotated[
        Literal["f16", "f32"], typer.Option(help="Precision of weights, images and computation.")
    ] = "f16",
    superresolved: Annotated[
        bool, typer.Option("--superresolved/--calls-only", help="Whether super-resolved images come out too.")
    ] = False,
    positions: Annotated[
        bool,
        typer.Option(
            "--positions/--map", help="Whether the graph gives evidence at given positions, or a map of all pixels."
        ),
    ] = True,
) -> None:
    """Write a bundle's network as an ONNX graph for other runtimes; needs the extra `train`.

    The graph is compared with PyTorch before it is put in place.
    """
    with learning_installed("exporting"):
        from engines.bundles.golden import load_golden
        from engines.bundles.onnxgraph import BOUND, GraphError, check_graph, write_graph
        from engines.bundles.torchbundle import load_network
        from engines.network.deployed import Output
    loaded = load_bundle(bundle)
    network = load_network(loaded)
    outputs = {Output.CENTRES if positions else Output.PROBABILITIES}
    if superresolved:
        outputs.add(Output.SUPERRESOLVED)
    try:
        with TemporaryDirectory(prefix=".seqd-", dir=graph.parent) as scratch:
            fresh = Path(scratch) / graph.name
            write_graph(fresh, network, precision=precision, outputs=frozenset(outputs))
            tile = load_golden(loaded).tile
            worst = check_graph(fresh, network, tile, precision=precision, outputs=frozenset(outputs))
            fresh.replace(graph)
    except OSError as error:
        raise GraphError(f"graph {graph}: {error.strerror}") from error
    typer.echo(
        f"{graph}: {precision}, {' and '.join(output for output in Output if output in outputs)}; "
        f"in FP32 it differs from PyTorch by at most {worst:.1g}, {BOUND:g} is allowed"
    )
