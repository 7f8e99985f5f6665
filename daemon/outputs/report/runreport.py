"""The page of the run report."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from daemon.outputs.figures.runmetrics import RunMetrics, yields
from daemon.outputs.figures.spikein import SpikeInErrors
from daemon.outputs.figures.summary import density, summarise
from daemon.outputs.report import bycycle, bytile, reporttables, speed
from daemon.outputs.report.cycleaxes import share
from daemon.outputs.report.svg import style
from daemon.outputs.sink import SinkFile

REPORT = "report.html"


def report_files(metrics: RunMetrics, errors: SpikeInErrors | None, root: Path) -> Iterator[SinkFile]:
    """The report on the figures as they are now. If the run has a spike-in, its error rates are included."""
    yield SinkFile(root / REPORT, partial(_html, metrics, errors), cycle=int(metrics.known.min()))


def _html(metrics: RunMetrics, errors: SpikeInErrors | None) -> Iterator[bytes]:
    """The page in UTF-8; the same committed cycles give the same bytes."""
    environment = Environment(
        loader=PackageLoader("daemon.outputs.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": reporttables.number, "bases": reporttables.bases}
    template = environment.get_template("report.html.j2")
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
            "flowcell": bytile.flow_cell(metrics, _tile_figures(metrics)),
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


def _tile_figures(metrics: RunMetrics) -> list[tuple[str, NDArray[np.float64]]]:
    """Title and (tiles,) values of each map of the flow cell."""
    found = density(metrics.info, metrics.clusters)
    title, crowd = ("clusters", metrics.clusters) if found is None else ("density, K/mm²", found / 1000)
    crowd = np.where(metrics.known > 0, crowd, np.nan)
    filtered = np.where(metrics.counted > 0, metrics.passing, -1)
    passing = np.where(filtered >= 0, share(filtered, metrics.clusters), np.nan)
    q30 = share(yields(metrics, 30).sum(axis=1), yields(metrics).sum(axis=1))
    means = metrics.intensity.mean(axis=2, dtype=np.float64)
    last = means.shape[1] - 1 - np.argmax(np.isfinite(means)[:, ::-1], axis=1)
    return [
        ("clusters passing the filter, %", passing),
        (title, crowd),
        ("calls ≥ Q30, %", q30),
        ("intensity of the last cycle, counts", means[np.arange(len(means)), last]),
    ]
