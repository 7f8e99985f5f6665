"""Threads that write the outputs of a run while it is called.

Each sink has its own thread, and all views share one; calling never waits for them. A file that cannot be written is
tried again as long as the run lasts. It can be made from the same committed calls at any later time: by this run, by
the next start of the daemon, or by ``seqd export``.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import structlog
from seqd_client.runinfo import TileId
from seqd_client.status import StopReason

from daemon.config import SinksConfig
from daemon.errors import OutputError, RunError, storage_error
from daemon.outputs.illumina.documents import marker_files
from daemon.outputs.sink import Sink
from daemon.outputs.sinks.configured import Views, configured_sinks, due_files, root_of
from daemon.record.committed import CommittedRun, follow_run
from daemon.record.durable import make_folder, sync_folder, write_durably
from daemon.record.runrecord import RunRecord
from daemon.record.storageretry import StorageRetry
from daemon.watching.runstatus import RunStatus
from daemon.worker import Worker

POLL_S = 0.2
VIEW_S = 5.0
"""Shortest time between two renewals of the views. It is longer when they would take more than a tenth of the time."""

AGAIN_S = 5.0
"""Pause after a file could not be written, before it is tried again."""

VIEWS, MARKERS = "views", "markers"

OWNER = ".seqd-run"
"""File that identifies the run that owns a folder of outputs: two runs may have the same id."""

log = structlog.get_logger()


class LiveSinks:
    """The threads of one run; they end when all committed calls are written."""

    def __init__(self, config: SinksConfig, output: RunRecord, status: RunStatus, complete: threading.Event) -> None:
        """
        Parameters
        ----------
        complete : set when nothing more will be committed.

        Raises
        ------
        RunError : the folder holds files of another run of the same id.
        """
        self._config, self._output, self._status, self._complete = config, output, status, complete
        self._root = root_of(config, output.files.root, output.info.run)
        if config.folder is not None:
            _claim_folder(self._root, output)

    def start(self) -> list[Worker]:
        """Start writing. A worker that could not write everything ends with the first error."""
        workers = [Worker(sink.name, partial(self._write_sink, sink)) for sink in configured_sinks(self._config)]
        return [*workers, Worker(VIEWS, self._write_views)]

    def finish(self) -> list[Worker]:
        """Start writing the files that mark the folder as complete; to be called when everything else is written."""
        return [Worker(MARKERS, self._write_markers)] if self._config.bcl != "off" else []

    def _write_sink(self, sink: Sink) -> None:
        with self._followed_run(sink.name) as run:
            writer = SinkWriter(sink, run, self._root, self._output.retry, self._status)
            writer.write_all(self._complete, self._output.committed)

    def _write_views(self) -> None:
        with self._followed_run(VIEWS) as run:
            views: Views | None = None
            errors, due_s = WriteErrors(), 0.0
            while True:
                complete, committed = self._complete.wait(POLL_S), self._output.committed
                stale = views is None or any(run.committed[tile] < last for tile, last in committed.items())
                if not complete and (time.monotonic() < due_s or not stale):
                    continue
                began_s = time.monotonic()
                errors.clear()
                try:
                    run.refresh(self._output.committed)
                    if views is None:
                        views = Views(self._config, run, heartbeat=self._status.liveness.note_wait)
                    self._output.retry(VIEWS, partial(views.update, self._status.liveness.note_wait))
                except Exception as error:
                    errors.add(VIEWS, error)
                else:
                    self._renew(views, errors)
                if complete:
                    errors.check()
                    return
                due_s = time.monotonic() + max(VIEW_S, 10 * (time.monotonic() - began_s))

    def _renew(self, views: Views, errors: "WriteErrors") -> None:
        for view in views.views:
            try:
                for file in view.files(self._root):
                    self._output.retry(view.name, file.write_if_changed)
                    self._status.liveness.note_wait()
            except Exception as error:
                errors.add(view.name, error)

    def _write_markers(self) -> None:
        retry = self._output.retry
        with self._followed_run(MARKERS) as run:
            # The folder may have been deleted meanwhile, with the files in it.
            for file in due_files(run, self._root, self._config, run.committed):
                retry(MARKERS, file.write_if_missing)
                self._status.liveness.note_wait()
            # A daemon that was killed may have renamed a file without having synced the folder.
            for folder in (self._root, *(path for path in self._root.rglob("*") if path.is_dir())):
                retry(MARKERS, partial(sync_folder, folder))
                self._status.liveness.note_wait()
            for file in marker_files(run, self._root):
                retry(MARKERS, file.write_if_missing)

    @contextmanager
    def _followed_run(self, name: str) -> Iterator[CommittedRun]:
        with ExitStack() as opened:
            yield self._output.retry(name, lambda: opened.enter_context(follow_run(self._output.files)))


class SinkWriter:
    """Writes the files of one sink, cycle by cycle."""

    def __init__(self, sink: Sink, run: CommittedRun, root: Path, retry: StorageRetry, status: RunStatus) -> None:
        self._sink, self._run, self._root = sink, run, root
        self._retry, self._status = retry, status
        self._done = dict.fromkeys(run.info.tiles, 0)
        self._again_s: dict[TileId, float] = {}
        """Time of the next attempt, of each tile that could not be written."""
        self._errors = WriteErrors()

    def write_all(self, complete: threading.Event, committed: Mapping[TileId, int]) -> None:
        """Follow the run until it is complete and all its files are written.

        Raises
        ------
        OutputError : a file could not be written, not even in a last attempt after the end of the run.
        """
        last_attempt = False
        while True:
            # The event is read before the committed cycles, so that the last cycles are never missed.
            last = complete.is_set()
            if last and not last_attempt:
                last_attempt = True
                self._again_s.clear()
                self._errors.clear()
            written = 0
            try:
                if any(self._run.committed[tile] < cycle for tile, cycle in committed.items()):
                    self._retry(self._sink.name, partial(self._run.refresh, committed))
                written = self._write_next(last=last)
            except Exception as error:
                self._errors.add(self._sink.name, error)
            behind = sum(committed.get(tile, 0) - done for tile, done in self._done.items())
            self._status.counters.sink_behind(self._sink.name, behind)
            if last and not behind:
                return
            if last and not written:
                self._errors.check()
            if not written:
                complete.wait(POLL_S)

    def _write_next(self, *, last: bool) -> int:
        """Write the next cycle of every tile that has one, the earliest cycles first; return how many were written."""
        written, committed = 0, self._run.committed
        left = [tile for tile, done in self._done.items() if done < committed[tile]]
        for tile in sorted(left, key=self._done.__getitem__):
            if time.monotonic() < self._again_s.get(tile, 0.0):
                continue
            try:
                # After the end of the run, the first tile that fails is retried for long, and the others are not.
                self._write(tile, self._done[tile] + 1, with_retries=not (last and self._errors))
                written += 1
            except Exception as error:
                self._errors.add(self._sink.name, error)
                self._again_s[tile] = time.monotonic() + AGAIN_S
        return written

    def _write(self, tile: TileId, cycle: int, *, with_retries: bool) -> None:
        files = list(self._sink.files_due(self._run, self._root, tile, cycle))
        for file in files:
            if with_retries:
                self._retry(self._sink.name, file.write_if_missing)
            else:
                file.write_if_missing()
        self._done[tile] = cycle
        self._status.counters.sink_written(self._sink.name, len(files))
        self._status.liveness.note_wait()


class WriteErrors:
    """Errors of writing. Each is logged once, and calling continues."""

    def __init__(self) -> None:
        self._first: OutputError | None = None
        self._logged: set[str] = set()

    def __bool__(self) -> bool:
        return self._first is not None

    def add(self, name: str, error: Exception) -> None:
        """Log an error of a sink, unless it was logged before, and remember it."""
        match error:
            case OutputError():
                found = error
            case OSError():
                found = storage_error(name, error)
            case _:
                text = f"{name}: {type(error).__name__}: {error}; a defect of seqd, see the log for more"
                found = OutputError(text, reason=StopReason.INTERNAL)
        if str(found) not in self._logged:
            self._logged.add(str(found))
            defect = {"exc_info": error} if found.reason is StopReason.INTERNAL else {}
            log.error("not written", sink=name, error=str(found), **defect)
        self._first = self._first or found

    def clear(self) -> None:
        """Forget the errors, but not that they were logged."""
        self._first = None

    def check(self) -> None:
        """Raise the first error since they were last cleared."""
        if self._first is not None:
            raise self._first


def _claim_folder(root: Path, output: RunRecord) -> None:
    """Write down which run owns the folder.

    Raises
    ------
    RunError : another run owns it.
    """
    mine = json.dumps({"run": output.info.run, "begun_ns": output.ledger.starts()[0].began_ns}).encode()
    owner = root / OWNER
    try:
        if owner.exists():
            foreign = owner.read_bytes() != mine
        else:
            foreign = not output.committed and root.is_dir() and any(root.iterdir())
            if not foreign:
                make_folder(root)
                write_durably(owner, mine)
    except OSError as error:
        # The sinks will wait for the storage, and report it.
        log.error("not claimed", folder=str(root), error=str(error))
        return
    if foreign:
        raise RunError(
            f"folder of sinks {root}: it holds files of another run of this id; remove it, or choose another "
            "sinks.folder"
        )
