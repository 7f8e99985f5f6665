"""The sinks and views that a run's configuration asks for, and the folder that they write to."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from seqd_client.runinfo import TileId

from daemon.config import SinksConfig
from daemon.outputs.figures.runmetrics import RunMetrics
from daemon.outputs.figures.spikein import SpikeInErrors, SpikeInReference
from daemon.outputs.illumina.basecalls import basecalls_due
from daemon.outputs.illumina.documents import parameter_files
from daemon.outputs.interop.interopfolder import fits, interop_files
from daemon.outputs.reads.fastq import fastq_due
from daemon.outputs.sink import Encoding, Sink, SinkFile, View
from daemon.record.committed import CommittedRun


def configured_sinks(config: SinksConfig) -> list[Sink]:
    """The configured makers of files that are final once they are written."""
    sinks = [Sink("FASTQ", fastq_due)] if config.fastq else []
    if config.bcl != "off":
        sinks.append(Sink("BCL", partial(basecalls_due, encoding=Encoding(config.bcl))))
    return sinks


class Views:
    """The configured makers of files that are written again as the run advances. They share the run's figures."""

    def __init__(
        self,
        config: SinksConfig,
        run: CommittedRun,
        *,
        control: Path | None = None,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Parameters
        ----------
        control : as :func:`figures_of`.
        heartbeat : as :meth:`update`.

        Raises
        ------
        SpikeInError, OutputError : as :func:`figures_of`.
        """
        self.views: list[View] = []
        self._figures: list[RunMetrics | SpikeInErrors] = []
        if config.bcl != "off" or config.interop:
            self.views.append(View("run parameters", partial(parameter_files, run)))
        if not (config.interop or config.report):
            return
        metrics, errors = figures_of(run, control, heartbeat)
        self._figures = [metrics] if errors is None else [metrics, errors]
        if config.interop and fits(run.info):
            self.views.append(View("InterOp files", partial(interop_files, metrics, errors)))
        if config.report:
            # Importing Matplotlib takes half a second, so it is imported only where a report is drawn.
            from daemon.outputs.report.runreport import report_files

            self.views.append(View("report", partial(report_files, metrics, errors)))

    def update(self, heartbeat: Callable[[], None]) -> None:
        """Add the cycles that the last refresh of the run found committed.

        Parameters
        ----------
        heartbeat : called from time to time, to show that the work continues.
        """
        for figures in self._figures:
            figures.update(heartbeat)


def figures_of(
    run: CommittedRun, control: Path | None, heartbeat: Callable[[], None] = lambda: None
) -> tuple[RunMetrics, SpikeInErrors | None]:
    """Figures of a run, and the errors of its spike-in where there is one.

    Parameters
    ----------
    control : FASTA of the spike-in; without it, the run's own copy is used if it has one.

    Raises
    ------
    SpikeInError : the FASTA cannot be used.
    OutputError : the run's files cannot be read.
    """
    metrics = RunMetrics(run, heartbeat)
    path = control or (run.files.control if run.files.control.exists() else None)
    return metrics, None if path is None else SpikeInErrors(metrics, SpikeInReference(path), heartbeat)


def due_files(
    run: CommittedRun, root: Path, config: SinksConfig, committed: Mapping[TileId, int]
) -> Iterator[SinkFile]:
    """Every file of the sinks for the committed cycles of each tile.

    The files come cycle by cycle, because programs may follow the run.

    Parameters
    ----------
    committed : last committed cycle of each tile.
    """
    sinks = configured_sinks(config)
    for cycle in range(1, 1 + max(committed.values())):
        for tile in (tile for tile, last in committed.items() if cycle <= last):
            for sink in sinks:
                yield from sink.files_due(run, root, tile, cycle)


def root_of(config: SinksConfig, run_root: Path, run_id: str) -> Path:
    """Folder that a run's sinks write to."""
    return run_root if config.folder is None else config.folder / run_id
