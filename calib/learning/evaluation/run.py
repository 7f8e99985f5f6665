"""A whole evaluation: from folders to tables, report and JSON."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from calib.learning.cli import UsageError, bar
from calib.learning.evaluation import tables
from calib.learning.evaluation.callers import RUN_FIELD, Caller, callers
from calib.learning.evaluation.figures import (
    CodebookEvaluation,
    Evaluation,
    against_codebook,
    against_truth,
    write_json,
)
from calib.learning.evaluation.superresolution import measure
from calib.learning.evaluation.tables import Table
from calib.runfolder import RunInfo, read_run_info

REPORT_COLUMNS = 200
"""Width of tables where there is no terminal to fit."""


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
    """Evaluate, print the tables and write what is asked for; see :func:`calib.learning.evaluation.command.evaluate`.

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
        _write_report(report, evaluation)
    if json:
        write_json(json, evaluation)


def _runs(folders: Sequence[Path]) -> dict[Path, RunInfo]:
    infos = [read_run_info(folder) for folder in folders]
    name, times = Counter(info.run for info in infos).most_common(1)[0]
    if times > 1:
        raise UsageError(f"run {name}: given {times} times, every run needs a name of its own")
    return dict(zip(folders, infos, strict=True))


def _evaluation(
    runs: dict[Path, RunInfo], chosen: dict[str, Caller], *, codebook: Path | None, superresolved: str | None
) -> Evaluation | CodebookEvaluation:
    if codebook and superresolved:
        raise UsageError("--superresolved: images are held against a truth, not against a codebook")
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
        return [tables.codebook(evaluation)]
    first = tables.tiles(evaluation.runs[0]) if single else tables.summary(evaluation)
    superresolution = tables.superresolution(evaluation)
    return [first, superresolution] if superresolution else [first]


def _write_report(path: Path, evaluation: Evaluation | CodebookEvaluation) -> None:
    try:
        from calib.learning.evaluation.report import write_report
    except ModuleNotFoundError as error:
        raise UsageError(f"a report needs {error.name}: pip install 'seqd[train]'") from error
    write_report(path, evaluation)


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
