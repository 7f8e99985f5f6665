"""An evaluation as one HTML file that needs nothing beside it."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from calib.learning.evaluation import plots, tables
from calib.learning.evaluation.figures import CodebookEvaluation, Evaluation
from calib.learning.evaluation.tables import Table


@dataclass(frozen=True)
class Picture:
    """A figure of the report."""

    title: str
    source: str
    """SVG as a data address."""


def write_report(path: Path, evaluation: Evaluation | CodebookEvaluation) -> None:
    """Write the report: tables first, then the pictures of every run. Same evaluation, same bytes."""
    environment = Environment(
        loader=PackageLoader("calib.learning.evaluation", "."), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        tables=list(_tables(evaluation)),
        pictures=[Picture(title, _svg(figure)) for title, figure in _figures(evaluation)],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, "utf-8")


def _tables(evaluation: Evaluation | CodebookEvaluation) -> Iterator[Table]:
    if isinstance(evaluation, CodebookEvaluation):
        yield tables.codebook(evaluation)
        return
    yield tables.summary(evaluation)
    yield tables.calibration(evaluation)
    if superresolution := tables.superresolution(evaluation):
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
