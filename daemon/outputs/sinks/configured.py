"""Which sinks a run has, and where they write."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from seqd_client.runinfo import TileId

from daemon.config import SinksConfig
from daemon.outputs.figures.cyclefigures import RunMetrics
from daemon.outputs.figures.spikein import ControlErrors, ControlReference
from daemon.outputs.illumina.basecalls import BaseCalls
from daemon.outputs.illumina.parameters import Parameters
from daemon.outputs.interop.interopfolder import InterOp, fits
from daemon.outputs.reads.fastqfiles import Fastq
from daemon.outputs.sink import Encoding, Sink, SinkFile, View
from daemon.record.committed import CommittedRun


def sinks_of(config: SinksConfig) -> list[Sink]:
    """What stands once it is made."""
    sinks: list[Sink] = [Fastq()] if config.fastq else []
    if config.bcl != "off":
        sinks.append(BaseCalls(Encoding(config.bcl)))
    return sinks


class Views:
    """What is made anew as the run goes on, of figures that are counted once."""

    def __init__(
        self,
        config: SinksConfig,
        run: CommittedRun,
        *,
        control: Path | None = None,
        worked: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Parameters
        ----------
        control : FASTA of a spiked-in control; without it the one that the run keeps, if it does.
        worked : as of :meth:`update`.

        Raises
        ------
        ControlError : the control's FASTA cannot be used.
        OutputError : the run's files cannot be read.
        """
        self._views: list[View] = [Parameters(run)] if config.bcl != "off" or config.interop else []
        self._figures: list[RunMetrics | ControlErrors] = []
        if not (config.interop or config.report):
            return
        metrics, errors = figures_of(run, control, worked)
        self._figures = [metrics] if errors is None else [metrics, errors]
        if config.interop and fits(run.info):
            self._views.append(InterOp(metrics, errors))
        if config.report:
            # Matplotlib takes half a second to import: only who draws waits for it.
            from daemon.outputs.report.runreport import Report

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


def figures_of(
    run: CommittedRun, control: Path | None, worked: Callable[[], None] = lambda: None
) -> tuple[RunMetrics, ControlErrors | None]:
    """Figures of a run, and the errors of a control: the one given, or the one that the run keeps.

    Raises
    ------
    ControlError : the control's FASTA cannot be used.
    OutputError : the run's files cannot be read.
    """
    metrics = RunMetrics(run, worked)
    path = control or (run.files.control if run.files.control.exists() else None)
    return metrics, None if path is None else ControlErrors(metrics, ControlReference(path), worked)


def due_files(
    run: CommittedRun, root: Path, config: SinksConfig, committed: Mapping[TileId, int]
) -> Iterator[SinkFile]:
    """Every file of the sinks for so many cycles of each tile, in an order in which readers may follow them."""
    sinks = sinks_of(config)
    for cycle in range(1, 1 + max(committed.values())):
        for tile in (tile for tile, last in committed.items() if cycle <= last):
            for sink in sinks:
                yield from sink.due(run, root, tile, cycle)


def root_of(config: SinksConfig, run_root: Path, run_id: str) -> Path:
    """Folder that a run's sinks write to."""
    return run_root if config.folder is None else config.folder / run_id
