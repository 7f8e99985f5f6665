"""``seqd export``: files that other tools read, of a run at any time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from calib.progressbar import bar
from daemon.cli.showsummary import show_figures
from daemon.errors import ExportError
from daemon.outputs.figures.summary import summarise
from daemon.outputs.interop.summarycsv import summary_csv
from daemon.outputs.reads.bam import export_bam
from daemon.outputs.reads.conversion import By, Progress
from daemon.outputs.reads.fastqexport import export_fastq
from daemon.outputs.samples.barcodes import Demultiplexer
from daemon.outputs.samples.demultiplexreports import report_files
from daemon.outputs.samples.demultiplexstats import count_samples
from daemon.outputs.samples.samplesheet import read_samples
from daemon.outputs.sink import SinkFile
from daemon.outputs.sinks.configured import figures_of, root_of
from daemon.outputs.sinks.folderexport import FolderKind, folder_files, sink_files, write_files
from daemon.record.committed import CommittedRun, open_run
from daemon.record.durable import locked
from daemon.record.provenance import provenance_of

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that a run was, or is being, written to.")]
Output = Annotated[Path, typer.Option(help="Folder to write to.")]
Files = Annotated[By, typer.Option(help="What has files of its own.")]
PassingOnly = Annotated[bool, typer.Option("--pf-only", help="Leave out clusters that fail the chastity filter.")]
SamplesFile = Annotated[
    Path | None, typer.Option(help="Sample sheet (version 2), or list with the header `name barcode [barcode2]`.")
]
Mismatches = Annotated[
    int | None, typer.Option(min=0, help="Allowed in barcodes: of each index read with a sheet, of all with a list.")
]
Turned = Annotated[
    bool, typer.Option("--reverse-complement-index2", help="The samples file has the second barcode's other strand.")
]
ControlFasta = Annotated[Path | None, typer.Option(help="FASTA of a spiked-in control, for error rates.")]

app = typer.Typer(
    name="export",
    help="Write what other tools read, of a run that is finished, stopped or still being written.",
    no_args_is_help=True,
)


@app.command()
def sinks(folder: RunFolder) -> None:
    """Write anew what the daemon writes by itself, where it writes it: the same bytes. Not while it does."""
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
    """Write an Illumina run folder: base calls, filters, positions, InterOp, RunInfo.xml; markers if it is finished."""
    with open_run(folder) as run:
        root = output / run.info.run
        _write_files(run, list(folder_files(run, root, kind, control)), root)


@app.command()
def fastq(
    folder: RunFolder,
    output: Output,
    by: Files = By.LANE,
    plain: Annotated[bool, typer.Option("--plain", help="Text, not compressed.")] = False,
    passing_only: PassingOnly = False,
    samples: SamplesFile = None,
    mismatches: Mismatches = None,
    turned: Turned = False,
) -> None:
    """Write FASTQ, of the cycles that are committed; with --samples of each sample, and reports for MultiQC."""

    def write(run: CommittedRun, assign: Demultiplexer | None, progress: Progress) -> list[Path]:
        return export_fastq(
            run, output, by=by, compress=not plain, passing_only=passing_only, assign=assign, progress=progress
        )

    _write_reads(folder, output, write, by, samples, mismatches, turned=turned)


@app.command()
def bam(
    folder: RunFolder,
    output: Output,
    by: Files = By.LANE,
    cram: Annotated[bool, typer.Option("--cram", help="CRAM without a reference.")] = False,
    passing_only: PassingOnly = False,
    samples: SamplesFile = None,
    mismatches: Mismatches = None,
    turned: Turned = False,
) -> None:
    """Write unaligned BAM or CRAM, index reads as tags; what the calls were made with stands in the header."""

    def write(run: CommittedRun, assign: Demultiplexer | None, progress: Progress) -> list[Path]:
        return export_bam(
            run,
            output,
            by=by,
            cram=cram,
            passing_only=passing_only,
            assign=assign,
            provenance=provenance_of(run.ledger).hashes,
            progress=progress,
        )

    _write_reads(folder, output, write, by, samples, mismatches, turned=turned)


@app.command()
def report(folder: RunFolder, output: Output, control: ControlFasta = None) -> None:
    """Write report.html: the run's figures and pictures on one page."""
    from daemon.outputs.report.runreport import Report

    with open_run(folder) as run:
        metrics, errors = figures_of(run, control)
        _write_files(run, list(Report(metrics, errors).files(output)), output)


@app.command()
def summary(
    folder: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV as `interop_summary` does; MultiQC shows it.")
    ] = False,
    control: ControlFasta = None,
) -> None:
    """Print yield, quality, density, filter, phasing and error rates by read and lane, as Illumina counts them."""
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
    """Print what the calls were made with, as JSON."""
    with open_run(folder) as run:
        found = provenance_of(run.ledger)
    typer.echo(json.dumps({"hashes": found.hashes, "engines": found.engines, "starts": found.starts}, indent=2))


def _demultiplexer(
    run: CommittedRun, path: Path | None, mismatches: int | None, *, turned: bool
) -> Demultiplexer | None:
    if path is None:
        if mismatches is not None or turned:
            raise ExportError("--mismatches, --reverse-complement-index2: they say how --samples are told apart")
        return None
    samples = read_samples(path, run.info, reverse_complement_index2=turned)
    if mismatches is not None:
        samples = samples.with_mismatches(mismatches)
    return Demultiplexer(samples, run.info)


def _write_reads(
    folder: Path,
    output: Path,
    write: Callable[[CommittedRun, Demultiplexer | None, Progress], list[Path]],
    by: By,
    samples: Path | None,
    mismatches: int | None,
    *,
    turned: bool,
) -> None:
    """Write reads, of samples with their reports, and say what is there."""
    with open_run(folder) as run:
        assign = _demultiplexer(run, samples, mismatches, turned=turned)
        with bar(Console(stderr=True)) as progress:
            task = progress.add_task(f"{run.info.run} clusters", total=None)
            # Samples are counted first: what is refused leaves nothing behind.
            reports = [] if assign is None else list(report_files(count_samples(run, assign, by=by), output))
            paths = write(run, assign, lambda done, of: progress.update(task, completed=done, total=of))
        write_files(reports, written=lambda _: None)
    for path in (*paths, *(file.path for file in reports)):
        typer.echo(path)


def _write_files(run: CommittedRun, files: list[SinkFile], root: Path) -> None:
    with bar(Console(stderr=True)) as progress:
        task = progress.add_task(f"{run.info.run} files", total=len(files))
        write_files(files, written=lambda _: progress.advance(task))
    typer.echo(f"{root}: {len(files)} files")
