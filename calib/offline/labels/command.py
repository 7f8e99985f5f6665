"""``seqd calib label``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from calib.offline.cli import UsageError, learning_installed
from calib.offline.labels.labelfiles import TileSummary
from calib.offline.labels.sequencematch import Reference, Strand
from calib.progressbar import bar
from calib.runfolder.images import LABELS, read_frames, read_run_info


def label(
    folder: Annotated[Path, typer.Argument(help="Run folder with the images; labels are written beside them.")],
    reference: Annotated[Path | None, typer.Option(help="FASTA that the reads were cut from.")] = None,
    codebook: Annotated[Path | None, typer.Option(help="CSV with a `code` column, as long as the reads.")] = None,
    strand: Annotated[Strand, typer.Option(help="Strands of the FASTA that reads may come from.")] = Strand.BOTH,
    distance: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=100,
            help="Correct a read if at most this number of its bases are wrong. By default a tenth of its bases, "
            "and fewer if more than 1 % of random reads would match.",
        ),
    ] = None,
) -> None:
    """Make training labels from images of a known reference: call, align, correct, remove what does not align."""
    if (reference is None) == (codebook is None):
        raise UsageError("label: give either --reference FASTA or --codebook CSV")
    with learning_installed("labelling"):
        from calib.offline.labels.fastamatch import FastaReference
        from calib.offline.labels.labelledtile import label_tile
        from calib.offline.labels.picture import draw_labels
        from calib.offline.labels.sequencematch import Codebook
    info = read_run_info(folder)
    if info.reads[0].index:
        raise UsageError(
            f"run {info.run}: its first read is an index read; labels can only be made from a template read"
        )
    cycles = info.reads[0].cycles
    known: Reference
    if codebook is not None:
        known = Codebook(codebook, cycles=cycles)
    elif reference is not None:
        known = FastaReference(reference, cycles=cycles, strand=strand)
    table = Table("tile", title=f"run {info.run}: labels", title_justify="left")
    for column in ("clusters", "kept", "% kept", "% by chance", "corrected", "removed"):
        table.add_column(column, justify="left" if column == "removed" else "right")
    with bar() as progress:
        task = progress.add_task("tiles labelled", total=len(info.tiles))
        for tile in info.tiles:
            labelled = label_tile(folder, info, tile, known, distance=distance)
            draw_labels(folder, tile, labelled, read_frames(folder, tile, 1, shape=(info.height, info.width)))
            table.add_row(str(tile), *_row(labelled.summary))
            progress.advance(task)
    Console().print(table)
    Console().print(
        "corrected: corrected bases; by chance: reads that are kept when the bases of every read are shuffled"
    )
    Console().print(f"labels: {folder / LABELS}", highlight=False, soft_wrap=True)


def _row(summary: TileSummary) -> tuple[str, ...]:
    return (
        str(summary.clusters),
        str(summary.clusters - sum(summary.removed.values())),
        f"{100 * summary.aligned_share:.1f}",
        f"{100 * summary.shuffled_share:.1f}",
        str(summary.corrected_bases),
        ", ".join(f"{number} {reason}" for reason, number in summary.removed.items()),
    )
