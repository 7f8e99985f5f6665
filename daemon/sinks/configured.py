"""Which sinks a run has, and where they write."""

from collections.abc import Sequence
from pathlib import Path

from daemon.config import SinksConfig
from daemon.record.committed import CommittedRun
from daemon.record.runfiles import RunFiles
from daemon.sinks.fastq import Fastq
from daemon.sinks.illumina.basecalls import BaseCalls
from daemon.sinks.illumina.parameters import Parameters
from daemon.sinks.sink import Sink, View
from daemon.sinks.sinkfile import Encoding


def sinks_of(config: SinksConfig) -> list[Sink]:
    """What stands once it is made."""
    sinks: list[Sink] = [Fastq()] if config.fastq else []
    if config.bcl != "off":
        sinks.append(BaseCalls(Encoding(config.bcl)))
    return sinks


def views_of(config: SinksConfig, run: CommittedRun) -> Sequence[View]:
    """What is made anew as the run goes on."""
    return [Parameters(run)] if config.bcl != "off" else []


def root_of(config: SinksConfig, files: RunFiles) -> Path:
    """Folder that a run's sinks write to."""
    return files.root if config.folder is None else config.folder / files.root.name
