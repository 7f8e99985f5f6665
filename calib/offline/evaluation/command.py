"""``seqd calib evaluate``."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN... [FASTQ]",
            help="Run folders; without --calls and --classical, one run folder and its folder of FASTQ files.",
        ),
    ],
    calls: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FASTQ", help="A caller and its FASTQ folder, {run} for the run's name; repeatable."),
    ] = None,
    classical: Annotated[bool, typer.Option("--classical", help="Add the classical pipeline as a caller.")] = False,
    codebook: Annotated[Path | None, typer.Option(help="CSV with a `code` column, if there is no truth.")] = None,
    superresolved: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Super-resolved images to measure, {run} for the run's name.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="HTML report to write.")] = None,
    json: Annotated[Path | None, typer.Option(help="JSON with all figures to write.")] = None,
) -> None:
    """Compare callers with the truth of simulated runs, or with a codebook."""
    # This import takes a second, and every command line loads this module.
    from calib.offline.evaluation.evaluationrun import evaluate_runs

    evaluate_runs(
        folders,
        calls=calls or [],
        classical=classical,
        codebook=codebook,
        superresolved=superresolved,
        report=report,
        json=json,
    )
