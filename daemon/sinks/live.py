"""Writing sinks while a run goes on.

Each sink has a thread of its own, and the views one together; calling waits for none of them. What cannot be written
is waited for, then tried again as long as the run lasts, and is written from the same committed calls whenever it can
be: by this run, by the next start, or by ``seqd export``.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog

from calib.runfolder import TileId
from daemon.config import SinksConfig
from daemon.errors import OutputError
from daemon.record.committed import CommittedRun, follow_run
from daemon.record.durable import sync_folder
from daemon.record.output import RunOutput
from daemon.record.patience import Patience
from daemon.sinks.configured import Views, root_of, sinks_of
from daemon.sinks.illumina.markers import markers
from daemon.sinks.sink import Sink
from daemon.sinks.sinkfile import SinkFile
from daemon.states import StopReason
from daemon.watching.progress import Progress
from daemon.worker import Worker

POLL_S = 0.2
VIEW_S = 5.0
"""Views are made anew so often at most, and they take no more than a tenth of the time."""

AGAIN_S = 5.0
"""Pause before a file is tried again that could not be waited for."""

VIEWS = "views"

log = structlog.get_logger()


class LiveSinks:
    """The sinks of one run, as threads that end when all that is committed is written."""

    def __init__(self, config: SinksConfig, output: RunOutput, progress: Progress, over: threading.Event) -> None:
        """
        Parameters
        ----------
        over : set when nothing more will be committed.
        """
        self._config, self._output, self._progress, self._over = config, output, progress, over
        self._root = root_of(config, output.files)
        self._patience = output.patience

    def start(self) -> list[Worker]:
        """Begin to write; whoever waits for a worker gets what it could not write as its error."""
        workers = [Worker(sink.name, partial(self._keep_up, sink)) for sink in sinks_of(self._config)]
        return [*workers, Worker(VIEWS, self._keep_fresh)]

    def finish(self) -> list[Worker]:
        """Say that the folder is complete, when everything else is written."""
        return [Worker("markers", self._mark)] if self._config.bcl != "off" else []

    def _keep_up(self, sink: Sink) -> None:
        with follow_run(self._output.files) as run:
            Writing(sink, run, self._root, self._patience, self._progress).until(self._over, self._output.committed)

    def _keep_fresh(self) -> None:
        with follow_run(self._output.files) as run:
            views: Views | None = None
            due_s = 0.0
            while True:
                over = self._over.wait(POLL_S)
                stale = views is None or run.committed != self._output.committed
                if not over and (time.monotonic() < due_s or not stale):
                    continue
                began_s, failure = time.monotonic(), None
                try:
                    run.refresh(self._output.committed)
                    if views is None:
                        views = Views(self._config, run)
                    self._patience(VIEWS, partial(views.update, self._progress.waited))
                except Exception as error:
                    failure = told(VIEWS, error)
                else:
                    failure = self._renew(views)
                if over:
                    if failure is not None:
                        raise failure
                    return
                due_s = time.monotonic() + max(VIEW_S, 10 * (time.monotonic() - began_s))

    def _renew(self, views: Views) -> OutputError | None:
        """Make all files of views anew; why one of them is not, if it is not."""
        failure = None
        for view in views:
            try:
                for file in view.files(self._root):
                    self._patience(view.name, partial(renew, file))
            except Exception as error:
                failure = told(view.name, error)
        return failure

    def _mark(self) -> None:
        with follow_run(self._output.files) as run:
            # Names that an earlier start made and was killed before it could sync them.
            for folder in (self._root, *(path for path in self._root.rglob("*") if path.is_dir())):
                self._patience("markers", partial(sync_folder, folder))
            for file in markers(run, self._root):
                if not file.path.exists():
                    self._patience("markers", file.write)


class Writing:
    """One sink's way through a run, cycle by cycle."""

    def __init__(self, sink: Sink, run: CommittedRun, root: Path, patience: Patience, progress: Progress) -> None:
        self._sink, self._run, self._root = sink, run, root
        self._patience, self._progress = patience, progress
        self._done = dict.fromkeys(run.info.tiles, 0)
        self._again_s: dict[TileId, float] = {}
        """Of tiles that could not be written: when to try again."""
        self._failure: OutputError | None = None

    def until(self, over: threading.Event, committed: Mapping[TileId, int]) -> None:
        """Write until all is written that is committed when it is over.

        Raises
        ------
        OutputError : something is not written, and was tried once more.
        """
        trying_last = False
        while True:
            # Looked at before the cycles are, so that the last ones are never missed.
            last = over.is_set()
            if last and not trying_last:
                trying_last = True
                self._again_s.clear()
            if self._run.committed != committed:
                self._run.refresh(committed)
            written = self._write_next()
            behind = sum(self._run.committed[tile] - done for tile, done in self._done.items())
            self._progress.sink_behind(self._sink.name, behind)
            if last and not behind:
                return
            if last and not written and self._failure is not None:
                raise self._failure
            if not written:
                over.wait(POLL_S)

    def _write_next(self) -> int:
        """Write the next cycle of every tile that has one, the earliest cycles first; how many were written."""
        written, committed = 0, self._run.committed
        left = [tile for tile, done in self._done.items() if done < committed[tile]]
        for tile in sorted(left, key=self._done.__getitem__):
            if time.monotonic() < self._again_s.get(tile, 0.0):
                continue
            try:
                self._write(tile, self._done[tile] + 1)
                written += 1
            except Exception as error:
                self._failure = told(self._sink.name, error, tile, self._done[tile] + 1)
                self._again_s[tile] = time.monotonic() + AGAIN_S
        return written

    def _write(self, tile: TileId, cycle: int) -> None:
        files = list(self._sink.due(self._run, self._root, tile, cycle))
        for file in files:
            if not file.path.exists():
                self._patience(self._sink.name, file.write)
        self._done[tile] = cycle
        self._progress.sink_written(self._sink.name, len(files))


def renew(file: SinkFile) -> None:
    """Write a file if it is not what it should be: after the end of a run nothing changes any more."""
    content = b"".join(file.content())
    with suppress(OSError):
        if file.path.read_bytes() == content:
            return
    SinkFile(file.path, lambda: (content,)).write()


def told(name: str, error: Exception, tile: TileId | None = None, cycle: int | None = None) -> OutputError:
    """Log what could not be written: calling goes on."""
    where = {} if tile is None else {"tile": str(tile), "cycle": cycle}
    if isinstance(error, OutputError):
        log.error("not written", sink=name, error=str(error), **where)
        return error
    log.error("defect", sink=name, exc_info=error, **where)
    return OutputError(
        f"{name}: {type(error).__name__}: {error}; a defect of seqd, the log has more of it", reason=StopReason.INTERNAL
    )
