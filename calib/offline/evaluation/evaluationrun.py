"""``seqd calib evaluate``: evaluates runs, prints tables, and writes a report as one HTML file."""

import base64
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table as RichTable
from seqd_client.runinfo import RunInfo

from calib.offline.cli import UsageError
from calib.offline.evaluation import evaluationtables, plots
from calib.offline.evaluation.callerfigures import (
    CodebookEvaluation,
    Evaluation,
    against_codebook,
    against_truth,
    write_json,
)
from calib.offline.evaluation.callers import RUN_FIELD, Caller, callers
from calib.offline.evaluation.evaluationtables import Table
from calib.offline.evaluation.superresolution import measure
from calib.progressbar import bar
from calib.runfolder.images import read_run_info


@dataclass(frozen=True)
class Picture:
    """A figure of the report."""

    title: str
    source: str
    """SVG as a data address."""


def write_report(path: Path, evaluation: Evaluation | CodebookEvaluation) -> None:
    """Write the report: tables first, then the pictures of every run. The same evaluation gives the same bytes."""
    environment = Environment(
        loader=PackageLoader("calib.offline.evaluation", "."), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        tables=list(_report_tables(evaluation)),
        pictures=[Picture(title, _svg(figure)) for title, figure in _figures(evaluation)],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, "utf-8")


def _report_tables(evaluation: Evaluation | CodebookEvaluation) -> Iterator[Table]:
    if isinstance(evaluation, CodebookEvaluation):
        yield evaluationtables.codebook(evaluation)
        return
    yield evaluationtables.summary(evaluation)
    yield evaluationtables.calibration(evaluation)
    if superresolution := evaluationtables.superresolution(evaluation):
        yield superresolution


def _figures(evaluation: Evaluation | CodebookEvaluation) -> Iterator[tuple[str, Figure]]:
    if isinstance(evaluation, CodebookEvaluation):
        yield f"codebook {evaluation.codebook}", plots.codebook_figure(evaluation)
        return
    for run in evaluation.runs:
        title = f"{run.run}: {run.clusters} clusters, {run.cycles} cycles"
        yield title, plots.run_figure(run)
        yield f"{run.run}: confusion and composition", plots.bases_figure(run)


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "seqd"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


REPORT_COLUMNS = 200
"""Width of tables if the output is no terminal."""


def evaluate_runs(
    folders: Sequence[Path],
    *,
    calls: Sequence[str],
    classical: bool,
    codebook: Path | None,
    superresolved: str | None,
    report: Path | None,
    json: Path | None,
) -> None:
    """Evaluate, print the tables and write the files that are asked for; see
    :func:`calib.offline.evaluation.command.evaluate`.

    Raises
    ------
    SeqdError : an option cannot be used, or a folder cannot be read.
    """
    single = not calls and not classical
    if single and len(folders) != 2:
        raise UsageError(f"{len(folders)} folders: without --calls and --classical, RUN and FASTQ are expected")
    runs = _runs(folders[:1] if single else folders)
    named = [f"calls={folders[1]}"] if single else calls
    chosen = callers(named, classical=classical, runs=list(runs.values()))
    evaluation = _evaluation(runs, chosen, codebook=codebook, superresolved=superresolved)
    for table in _tables(evaluation, single=single):
        show(table)
    if report:
        write_report(report, evaluation)
    if json:
        write_json(json, evaluation)


def _runs(folders: Sequence[Path]) -> dict[Path, RunInfo]:
    infos = [read_run_info(folder) for folder in folders]
    name, times = Counter(info.run for info in infos).most_common(1)[0]
    if times > 1:
        raise UsageError(f"run {name}: given {times} times; no two runs may have the same name")
    return dict(zip(folders, infos, strict=True))


def _evaluation(
    runs: dict[Path, RunInfo], chosen: dict[str, Caller], *, codebook: Path | None, superresolved: str | None
) -> Evaluation | CodebookEvaluation:
    if codebook and superresolved:
        raise UsageError("--superresolved: images are compared with a truth, not with a codebook")
    if superresolved and len(runs) > 1 and RUN_FIELD not in superresolved:
        raise UsageError(f"--superresolved {superresolved}: for {len(runs)} runs the folder needs {RUN_FIELD} in it")
    with bar() as shown:
        task = shown.add_task("tiles compared", total=len(chosen) * sum(len(info.tiles) for info in runs.values()))
        progress = partial(shown.advance, task)
        if codebook:
            return against_codebook(runs, chosen, codebook, progress=progress)
        measured = partial(measure, folder=superresolved) if superresolved else None
        return against_truth(runs, chosen, superresolved=measured, progress=progress)


def _tables(evaluation: Evaluation | CodebookEvaluation, *, single: bool) -> list[Table]:
    if isinstance(evaluation, CodebookEvaluation):
        return [evaluationtables.codebook(evaluation)]
    first = evaluationtables.tiles(evaluation.runs[0]) if single else evaluationtables.summary(evaluation)
    superresolution = evaluationtables.superresolution(evaluation)
    return [first, superresolution] if superresolution else [first]


def show(table: Table) -> None:
    """Print a table on standard output, wide where there is no terminal to fit."""
    shown = RichTable(title=table.title, title_justify="left")
    for index, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if index < table.labels else "right")
    for row in table.rows:
        shown.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=REPORT_COLUMNS)
    console.print(shown)
    if table.note:
        console.print(table.note, highlight=False)
