"""``seqd calib evaluate``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from calib.learning.evaluation import agreement
from calib.runfolder import read_run_info


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
        reads = agreement.read_fastq(fastq / f"s_{tile}_R{info.reads[0].number}.fastq.gz")
        number = len(reads.positions)
        if codebook:
            hits = agreement.on_codebook(codebook, reads)
            table.add_row(str(tile), str(number), f"{hits} ({100 * hits / max(1, number):.1f} %)")
            continue
        found = agreement.compare(folder, tile, reads)
        shares = (found.found, found.yielded, found.real, found.error_rate, found.q30)
        table.add_row(str(tile), str(number), str(found.clusters), *(f"{100 * share:.2f}" for share in shares))
    Console().print(table)
    if not codebook:
        Console().print(
            f"found: a read within {agreement.FOUND_PX:g} px of the true cluster; right: found, at most "
            f"{100 * agreement.WRONG_MOST:g} % wrong bases; real: reads at a true cluster; "
            "errors: wrong bases and no-calls over the bases of the clusters found"
        )
