"""InterOp files of a written run, and what Illumina's library reads in them."""

from collections.abc import Mapping
from pathlib import Path

from interop import py_interop_run_metrics, py_interop_summary
from seqd_client.runinfo import TileId

from daemon.outputs.figures.cyclefigures import RunMetrics
from daemon.outputs.figures.spikein import ControlErrors, ControlReference
from daemon.outputs.figures.summary import Summary, summarise
from daemon.outputs.interop.interopfolder import InterOp
from daemon.record.committed import open_run


def write_interop(
    root: Path, committed: Mapping[TileId, int] | None = None, control: ControlReference | None = None
) -> tuple[Summary, RunMetrics, ControlErrors | None]:
    """Write the files as of so many committed cycles of each tile; the figures that belong to them."""
    with open_run(root) as run:
        run.refresh(committed)
        metrics = RunMetrics(run)
        errors = None if control is None else ControlErrors(metrics, control)
        for file in InterOp(metrics, errors).files(root):
            file.write()
        return summarise(metrics, errors), metrics, errors


def read_metrics(root: Path) -> py_interop_run_metrics.run_metrics:
    metrics = py_interop_run_metrics.run_metrics()
    metrics.read(str(root))
    return metrics


def read_summary(root: Path) -> py_interop_summary.run_summary:
    summary = py_interop_summary.run_summary()
    py_interop_summary.summarize_run_metrics(read_metrics(root), summary)
    return summary
