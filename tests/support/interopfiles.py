"""InterOp files of a written run, and what Illumina's library reads in them."""

from collections.abc import Mapping
from pathlib import Path

from interop import py_interop_run_metrics, py_interop_summary
from seqd_client.runinfo import TileId

from daemon.outputs.figures.runmetrics import RunMetrics
from daemon.outputs.figures.spikein import SpikeInErrors, SpikeInReference
from daemon.outputs.figures.summary import Summary, summarise
from daemon.outputs.interop.interopfolder import interop_files
from daemon.record.committed import open_run


def write_interop(
    root: Path, committed: Mapping[TileId, int] | None = None, control: SpikeInReference | None = None
) -> tuple[Summary, RunMetrics, SpikeInErrors | None]:
    """Write the files as of some committed cycles of each tile; return the figures that they contain."""
    with open_run(root) as run:
        run.refresh(committed)
        metrics = RunMetrics(run)
        errors = None if control is None else SpikeInErrors(metrics, control)
        for file in interop_files(metrics, errors, root):
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
