"""``seqd export``: write files for other programs from the committed calls of a run, at any time."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daemon.cli.options import RunFolder, progress_bar
from daemon.cli.showsummary import show_figures
from daemon.errors import ExportError
from daemon.outputs.figures.summary import summarise
from daemon.outputs.interop.summarycsv import summary_csv
from daemon.outputs.reads.bam import export_bam
from daemon.outputs.reads.conversion import FilesBy
from daemon.outputs.reads.fastq import export_fastq
from daemon.outputs.samples.barcodes import Demultiplexer
from daemon.outputs.samples.samplecounts import count_samples
from daemon.outputs.samples.samplereports import report_files
from daemon.outputs.samples.samplesheet import read_samples
from daemon.outputs.sink import SinkFile
from daemon.outputs.sinks.configured import figures_of, root_of
from daemon.outputs.sinks.folderexport import FolderKind, folder_files, sink_files, write_files
from daemon.record.committed import CommittedRun, open_run
from daemon.record.durable import locked
from daemon.record.provenance import provenance_of

Output = Annotated[Path, typer.Option(help="Folder to write to.")]
By = Annotated[FilesBy, typer.Option(help="Write a file for each tile, for each lane, or for the run.")]
PassingOnly = Annotated[bool, typer.Option("--pf-only", help="Leave out clusters that fail the chastity filter.")]
SamplesFile = Annotated[
    Path | None, typer.Option(help="Sample sheet (version 2), or list with the header `name barcode [barcode2]`.")
]
Mismatches = Annotated[
    int | None,
    typer.Option(
        min=0, help="Mismatches allowed: in each index read with a sample sheet, in all of them together with a list."
    ),
]
OtherStrand = Annotated[
    bool,
    typer.Option(
        "--reverse-complement-index2", help="The samples file gives the second barcode as its reverse complement."
    ),
]
ControlFasta = Annotated[Path | None, typer.Option(help="FASTA of a spike-in (control), for error rates.")]

app = typer.Typer(
    name="export",
    help="Write files for other programs, from a run that is finished, stopped or still being written.",
    no_args_is_help=True,
)


@app.command()
def sinks(folder: RunFolder) -> None:
    """Write the daemon's own files again, in the same place. No daemon may be writing to the run."""
    with open_run(folder) as run:
        config = run.facts["sinks"]
        root = root_of(config, folder, run.info.run)
        with locked(folder):
            _write_files(run, list(sink_files(run, root, config)), root)


@app.command(name="folder")
def run_folder(
    folder: RunFolder,
    output: Annotated[Path, typer.Option(help="Folder to write <run id>/ to.")],
    kind: Annotated[FolderKind, typer.Option(help="Base calls.")] = FolderKind.BCL,
    control: ControlFasta = None,
) -> None:
    """Write an Illumina run folder with base calls, filters, positions, InterOp and, at the end of a run, markers."""
    with open_run(folder) as run:
        root = output / run.info.run
        _write_files(run, list(folder_files(run, root, kind, control)), root)


@app.command()
def fastq(
    folder: RunFolder,
    output: Output,
    by: By = FilesBy.LANE,
    plain: Annotated[bool, typer.Option("--plain", help="Text, not compressed.")] = False,
    passing_only: PassingOnly = False,
    samples: SamplesFile = None,
    mismatches: Mismatches = None,
    reverse_complement_index2: OtherStrand = False,
) -> None:
    """Write FASTQ of the committed cycles; with --samples, files for each sample, and reports for MultiQC."""
    with open_run(folder) as run:
        assign = _demultiplexer(run, samples, mismatches, other_strand=reverse_complement_index2)
        write = partial(export_fastq, run, output, compress=not plain)
        _write_reads(run, output, assign, by, partial(write, by=by, passing_only=passing_only, assign=assign))


@app.command()
def bam(
    folder: RunFolder,
    output: Output,
    by: By = FilesBy.LANE,
    cram: Annotated[bool, typer.Option("--cram", help="CRAM without a reference.")] = False,
    passing_only: PassingOnly = False,
    samples: SamplesFile = None,
    mismatches: Mismatches = None,
    reverse_complement_index2: OtherStrand = False,
) -> None:
    """Write unaligned BAM or CRAM, with index reads as tags, and with software, model and settings in the header."""
    with open_run(folder) as run:
        assign = _demultiplexer(run, samples, mismatches, other_strand=reverse_complement_index2)
        write = partial(export_bam, run, output, cram=cram, provenance=provenance_of(run.ledger).hashes)
        _write_reads(run, output, assign, by, partial(write, by=by, passing_only=passing_only, assign=assign))


@app.command()
def report(folder: RunFolder, output: Output, control: ControlFasta = None) -> None:
    """Write report.html: the run's figures and pictures on one page."""
    from daemon.outputs.report.runreport import report_files

    with open_run(folder) as run:
        _write_files(run, list(report_files(*figures_of(run, control), output)), output)


@app.command()
def summary(
    folder: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV like `interop_summary`, for MultiQC.")] = False,
    control: ControlFasta = None,
) -> None:
    """Print yield, quality, density, filter, phasing and error rates by read and lane, by Illumina's rules."""
    if as_json and as_csv:
        raise ExportError("--json, --csv: one of them at a time")
    with open_run(folder) as run:
        found = summarise(*figures_of(run, control))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    elif as_csv:
        typer.echo(summary_csv(found), nl=False)
    else:
        show_figures(Console(), found)


@app.command()
def provenance(folder: RunFolder) -> None:
    """Print the software, model, settings and engines that the calls were made with, as JSON."""
    with open_run(folder) as run:
        found = provenance_of(run.ledger)
    typer.echo(json.dumps({"hashes": found.hashes, "engines": found.engines, "starts": found.starts}, indent=2))


def _demultiplexer(
    run: CommittedRun, path: Path | None, mismatches: int | None, *, other_strand: bool
) -> Demultiplexer | None:
    if path is None:
        if mismatches is not None or other_strand:
            raise ExportError("--mismatches, --reverse-complement-index2: these options need --samples")
        return None
    samples = read_samples(path, run.info, reverse_complement_index2=other_strand)
    return Demultiplexer(samples if mismatches is None else samples.with_mismatches(mismatches), run.info)


def _write_reads(
    run: CommittedRun, output: Path, assign: Demultiplexer | None, by: FilesBy, write: Callable[..., list[Path]]
) -> None:
    """Write reads, and reports of the samples if there are any, and list the files."""
    with progress_bar() as progress:
        task = progress.add_task(f"{run.info.run} clusters", total=None)
        # Samples are counted first, so that a run that is refused leaves no files behind.
        reports = [] if assign is None else list(report_files(count_samples(run, assign, by=by), output))
        paths = write(progress=lambda done, total: progress.update(task, completed=done, total=total))
    write_files(reports, written=lambda _: None)
    for path in (*paths, *(file.path for file in reports)):
        typer.echo(path)


def _write_files(run: CommittedRun, files: list[SinkFile], root: Path) -> None:
    with progress_bar() as progress:
        task = progress.add_task(f"{run.info.run} files", total=len(files))
        write_files(files, written=lambda _: progress.advance(task))
    typer.echo(f"{root}: {len(files)} files")
