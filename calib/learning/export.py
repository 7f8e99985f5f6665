"""``seqd calib export``."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from calib.learning.cli import learning_installed
from engines.bundle import load_bundle


def export(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    graph: Annotated[Path, typer.Argument(help="ONNX file to write.", metavar="FILE.onnx")],
    precision: Annotated[
        Literal["f16", "f32"], typer.Option(help="Of the weights, the images and what is computed.")
    ] = "f16",
    superresolved: Annotated[
        bool, typer.Option("--superresolved/--calls-only", help="Whether super-resolved images come out too.")
    ] = False,
    positions: Annotated[
        bool,
        typer.Option("--positions/--map", help="Calls as evidence at positions that go in, or as a map of all pixels."),
    ] = True,
) -> None:
    """Write a bundle's network as an ONNX graph for other runtimes; needs the extra `train`.

    The graph is held against PyTorch before it gets its name.
    """
    with learning_installed("exporting"):
        from engines.deployed import Output
        from engines.golden import load_golden
        from engines.graph import BOUND, GraphError, check_graph, write_graph
        from engines.network import load_network
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
        f"in FP32 within {worst:.1g} of PyTorch, {BOUND:g} is allowed"
    )
