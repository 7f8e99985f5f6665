"""``seqd calib quantise``."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from calib.offline.cli import learning_installed
from calib.offline.codebook import read_codebook
from calib.offline.evaluation.evaluationrun import show
from calib.offline.evaluation.evaluationtables import Table
from calib.offline.quality.fittables import tile_cycles
from calib.offline.quantisation.bound import BOUND_READOUT, FEWER_RIGHT, MORE_ERRORS, Compared, check_bounds
from calib.progressbar import bar
from calib.runfolder.images import read_run_info
from engines.bundles.bundle import INT8_GRAPH, INT8_WEIGHTS, load_bundle, store_quantised


def quantise(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder to add the network in INT8 to.")],
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders for the ranges of the INT8 numbers and for the comparison."),
    ],
    codebook: Annotated[
        Path | None, typer.Option(help="CSV with a `code` column, for runs that have neither truth nor labels.")
    ] = None,
) -> None:
    """Add the network in INT8 to a bundle, if its calls are hardly worse than in FP32; needs the extra `quantise`.

    The runs are called with the network in FP32 and in INT8. If INT8 loses more than the bounds allow, the bundle
    stays as it is.
    """
    with learning_installed("quantising", extra="quantise"):
        from calib.offline.quantisation.compare import check_truth_known, compare, quantised_copy
    loaded = load_bundle(bundle)
    infos = {root: read_run_info(root) for root in runs}
    codes = read_codebook(codebook) if codebook else None
    check_truth_known(infos, codes)
    with TemporaryDirectory(prefix="seqd-quantise-") as scratch:
        quantised = quantised_copy(loaded, infos, Path(scratch))
        with bar() as progress:
            task = progress.add_task("tile-cycles called", total=2 * tile_cycles(runs))
            compared = compare(quantised, infos, codes, progress=lambda: progress.advance(task))
        show(_table(compared))
        check_bounds(compared)
        store_quantised(loaded, quantised.folder / INT8_GRAPH, quantised.folder / INT8_WEIGHTS)
    typer.echo(f'{bundle}: the network in INT8 is added; set precision = "int8" in [engine] to use it')


def _table(compared: Sequence[Compared]) -> Table:
    rows = []
    for one in compared:
        before, after = one.before, one.after
        rows.append(
            (
                *(one.run, one.readout, f"{before.reads} → {after.reads}"),
                *(f"{before.right:.0f} → {after.right:.0f}", f"{100 * one.fewer_right:.2f}"),
                *(f"{100 * before.errors:.2f} → {100 * after.errors:.2f}", f"{100 * one.more_errors:.2f}"),
            )
        )
    return Table(
        title="the network in FP32 → in INT8",
        columns=("run", "readout", "reads", "right", "% fewer", "% errors", "% more"),
        rows=tuple(rows),
        note=f"right: true clusters found and read right, or reads on the codebook; at most {FEWER_RIGHT:.1%} fewer, "
        f"and at most {MORE_ERRORS:.1%} more errors per base, by readout {BOUND_READOUT}",
        labels=2,
    )
