"""Which sinks a run has, and where they write."""

from collections.abc import Callable, Iterator
from pathlib import Path

from daemon.config import SinksConfig
from daemon.metrics.control import ControlErrors, ControlReference
from daemon.metrics.run import RunMetrics
from daemon.record.committed import CommittedRun
from daemon.record.runfiles import RunFiles
from daemon.sinks.fastq import Fastq
from daemon.sinks.illumina.basecalls import BaseCalls
from daemon.sinks.illumina.parameters import Parameters
from daemon.sinks.interop.view import InterOp, fits
from daemon.sinks.sink import Sink, View
from daemon.sinks.sinkfile import Encoding


def sinks_of(config: SinksConfig) -> list[Sink]:
    """What stands once it is made."""
    sinks: list[Sink] = [Fastq()] if config.fastq else []
    if config.bcl != "off":
        sinks.append(BaseCalls(Encoding(config.bcl)))
    return sinks


class Views:
    """What is made anew as the run goes on, of figures that are counted once."""

    def __init__(self, config: SinksConfig, run: CommittedRun) -> None:
        """
        Raises
        ------
        ControlError : the control's FASTA cannot be used.
        OutputError : the run's files cannot be read.
        """
        self._views: list[View] = [Parameters(run)] if config.bcl != "off" else []
        self._figures: list[RunMetrics | ControlErrors] = []
        if not (config.interop or config.report):
            return
        metrics = RunMetrics(run)
        errors = None if config.control is None else ControlErrors(metrics, ControlReference(config.control))
        self._figures = [metrics] if errors is None else [metrics, errors]
        if config.interop and fits(run.info):
            self._views.append(InterOp(metrics, errors))
        if config.report:
            # Matplotlib takes half a second to import: only who draws waits for it.
            from daemon.sinks.report.report import Report

            self._views.append(Report(metrics, errors))

    def __iter__(self) -> Iterator[View]:
        return iter(self._views)

    def update(self, worked: Callable[[], None]) -> None:
        """Take in what the run was refreshed with.

        Parameters
        ----------
        worked : called now and then, so that who waits sees progress.
        """
        for figures in self._figures:
            figures.update(worked)


def root_of(config: SinksConfig, files: RunFiles) -> Path:
    """Folder that a run's sinks write to."""
    return files.root if config.folder is None else config.folder / files.root.name
