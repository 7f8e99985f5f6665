"""The report of a run as a :class:`daemon.outputs.sink.View`."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from daemon.outputs.figures.cyclefigures import RunMetrics, yields
from daemon.outputs.figures.spikein import ControlErrors
from daemon.outputs.figures.summary import density, summarise
from daemon.outputs.report import bycycle, bytile, reporttables, speed
from daemon.outputs.report.cycleaxes import share
from daemon.outputs.report.svg import style
from daemon.outputs.sink import SinkFile

REPORT = "report.html"


class Report:
    """Draws what is committed of a run on one page that loads nothing."""

    name = "report"

    def __init__(self, metrics: RunMetrics, errors: ControlErrors | None = None) -> None:
        """
        Parameters
        ----------
        metrics, errors : as they are when the file is asked for; without errors the run has no control.
        """
        self._metrics, self._errors = metrics, errors

    def files(self, root: Path) -> Iterable[SinkFile]:
        cycle = int(self._metrics.known.min())
        yield SinkFile(root / REPORT, partial(report_html, self._metrics, self._errors), cycle=cycle)


def report_html(metrics: RunMetrics, errors: ControlErrors | None = None) -> Iterator[bytes]:
    """The page, UTF-8; the same for the same committed cycles.

    Parameters
    ----------
    errors : of the run's control, where it has one.

    Raises
    ------
    OutputError : the ledger cannot be read.
    """
    template = _environment().get_template("report.html.j2")
    troubles, in_trouble = reporttables.troubles(metrics)
    summary = summarise(metrics, errors)
    with style():
        figures = {
            "quality": bycycle.quality(metrics),
            "scores": bycycle.scores(metrics),
            "bases": bycycle.bases(metrics),
            "intensity": bycycle.intensity(metrics),
            "focus": bycycle.focus(metrics),
            "phasing": bycycle.phasing(metrics),
            "drift": bycycle.drift(metrics),
            "flowcell": bytile.flow_cell(metrics, tile_figures(metrics)),
            "tilecycles": bytile.tile_cycles(metrics),
            "latency": speed.latency(metrics),
            "throughput": speed.throughput(metrics),
        }
        if errors is not None:
            figures["errors"] = bycycle.errors(metrics, errors)
    for piece in template.generate(
        run=metrics.info.run,
        state=reporttables.state(metrics),
        finished=reporttables.finished(metrics),
        progress=100 * int(metrics.known.sum()) / metrics.status.size,
        header=reporttables.header(metrics),
        key_figures=reporttables.key_figures(metrics, summary),
        summary=summary,
        filter_cycles=metrics.run.filter_cycles,
        figures=figures,
        troubles=troubles,
        in_trouble=in_trouble,
        provenance=list(reporttables.provenance(metrics)),
    ):
        yield piece.encode()


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("daemon.outputs.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": reporttables.number, "bases": reporttables.bases}
    return environment


def tile_figures(metrics: RunMetrics) -> list[tuple[str, NDArray[np.float64]]]:
    """Title and (tiles,) values of the maps of the flow cell."""
    clusters = np.where(metrics.known > 0, metrics.clusters, np.nan)
    found = density(metrics.info, metrics.clusters)
    crowd = (
        ("clusters", clusters)
        if found is None
        else ("density, K/mm²", np.where(metrics.known > 0, found / 1000, np.nan))
    )
    filtered = np.where(metrics.counted > 0, metrics.passing, -1)
    passing = np.where(filtered >= 0, share(filtered, metrics.clusters), np.nan)
    q30 = share(yields(metrics, 30).sum(axis=1), yields(metrics).sum(axis=1))
    return [("clusters passing the filter, %", passing), crowd, ("calls ≥ Q30, %", q30), latest_intensity(metrics)]


def latest_intensity(metrics: RunMetrics) -> tuple[str, NDArray[np.float64]]:
    """Of the last cycle of each tile that was measured, mean of the channels."""
    means = metrics.intensity.mean(axis=2, dtype=np.float64)
    known = np.isfinite(means)
    last = means.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    return "intensity of the last cycle, counts", means[np.arange(len(means)), last]
