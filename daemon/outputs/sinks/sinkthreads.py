"""Writing sinks while a run goes on.

Each sink has a thread of its own, and the views one together; calling waits for none of them. What cannot be written
is waited for, then tried again as long as the run lasts, and is written from the same committed calls whenever it can
be: by this run, by the next start, or by ``seqd export``.
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
from daemon.outputs.illumina.folderlayout import markers
from daemon.outputs.sink import Sink
from daemon.outputs.sinks.configured import Views, due_files, root_of, sinks_of
from daemon.record.committed import CommittedRun, follow_run
from daemon.record.durable import make_folder, sync_folder, write_durably
from daemon.record.runrecord import RunRecord
from daemon.record.storageretry import StorageRetry
from daemon.watching.runstatus import RunStatus
from daemon.worker import Worker

POLL_S = 0.2
VIEW_S = 5.0
"""Views are made anew so often at most, and they take no more than a tenth of the time."""

AGAIN_S = 5.0
"""Pause before what could not be waited for is tried again."""

VIEWS, MARKERS = "views", "markers"

OWNER = ".seqd-run"
"""Says whose files lie in a folder of sinks: two runs may have the same id."""

log = structlog.get_logger()


class LiveSinks:
    """The sinks of one run, as threads that end when all that is committed is written."""

    def __init__(self, config: SinksConfig, output: RunRecord, status: RunStatus, over: threading.Event) -> None:
        """
        Parameters
        ----------
        over : set when nothing more will be committed.

        Raises
        ------
        RunError : another run of the same id has files where this one's would lie.
        """
        self._config, self._output, self._status, self._over = config, output, status, over
        self._root = root_of(config, output.files.root, output.info.run)
        if config.folder is not None:
            _claim(self._root, output)

    def start(self) -> list[Worker]:
        """Begin to write; whoever waits for a worker gets what it could not write as its error."""
        workers = [Worker(sink.name, partial(self._keep_up, sink)) for sink in sinks_of(self._config)]
        return [*workers, Worker(VIEWS, self._keep_fresh)]

    def finish(self) -> list[Worker]:
        """Say that the folder is complete, when everything else is written."""
        return [Worker(MARKERS, self._mark)] if self._config.bcl != "off" else []

    def _keep_up(self, sink: Sink) -> None:
        with self._following(sink.name) as run:
            Writing(sink, run, self._root, self._output.retry, self._status).until(self._over, self._output.committed)

    def _keep_fresh(self) -> None:
        with self._following(VIEWS) as run:
            views: Views | None = None
            troubles, due_s = Troubles(), 0.0
            while True:
                over = self._over.wait(POLL_S)
                stale = views is None or any(run.committed[tile] < last for tile, last in self._committed.items())
                if not over and (time.monotonic() < due_s or not stale):
                    continue
                began_s = time.monotonic()
                troubles.clear()
                try:
                    run.refresh(self._committed)
                    if views is None:
                        views = Views(self._config, run, worked=self._status.liveness.waited)
                    self._output.retry(VIEWS, partial(views.update, self._status.liveness.waited))
                except Exception as error:
                    troubles.add(VIEWS, error)
                else:
                    self._renew(views, troubles)
                if over:
                    troubles.check()
                    return
                due_s = time.monotonic() + max(VIEW_S, 10 * (time.monotonic() - began_s))

    def _renew(self, views: Views, troubles: "Troubles") -> None:
        for view in views:
            try:
                for file in view.files(self._root):
                    self._output.retry(view.name, file.renew)
                    self._status.liveness.waited()
            except Exception as error:
                troubles.add(view.name, error)

    def _mark(self) -> None:
        retry = self._output.retry
        with self._following(MARKERS) as run:
            # The folder may have been lost meanwhile, with what it held.
            for file in due_files(run, self._root, self._config, run.committed):
                retry(MARKERS, file.make)
                self._status.liveness.waited()
            # Names that an earlier start made and was killed before it could sync them.
            for folder in (self._root, *(path for path in self._root.rglob("*") if path.is_dir())):
                retry(MARKERS, partial(sync_folder, folder))
                self._status.liveness.waited()
            for file in markers(run, self._root):
                retry(MARKERS, file.make)

    @property
    def _committed(self) -> Mapping[TileId, int]:
        return self._output.committed

    @contextmanager
    def _following(self, name: str) -> Iterator[CommittedRun]:
        with ExitStack() as opened:
            yield self._output.retry(name, lambda: opened.enter_context(follow_run(self._output.files)))


class Writing:
    """One sink's way through a run, cycle by cycle."""

    def __init__(self, sink: Sink, run: CommittedRun, root: Path, retry: StorageRetry, status: RunStatus) -> None:
        self._sink, self._run, self._root = sink, run, root
        self._retry, self._status = retry, status
        self._done = dict.fromkeys(run.info.tiles, 0)
        self._again_s: dict[TileId, float] = {}
        """Of tiles that could not be written: when to try again."""
        self._troubles = Troubles()

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
                self._troubles.clear()
            written = 0
            try:
                if any(self._run.committed[tile] < cycle for tile, cycle in committed.items()):
                    self._retry(self._sink.name, partial(self._run.refresh, committed))
                written = self._write_next(last=last)
            except Exception as error:
                self._troubles.add(self._sink.name, error)
            behind = sum(committed.get(tile, 0) - done for tile, done in self._done.items())
            self._status.counters.sink_behind(self._sink.name, behind)
            if last and not behind:
                return
            if last and not written:
                self._troubles.check()
            if not written:
                over.wait(POLL_S)

    def _write_next(self, *, last: bool) -> int:
        """Write the next cycle of every tile that has one, the earliest cycles first; how many were written."""
        written, committed = 0, self._run.committed
        left = [tile for tile, done in self._done.items() if done < committed[tile]]
        for tile in sorted(left, key=self._done.__getitem__):
            if time.monotonic() < self._again_s.get(tile, 0.0):
                continue
            try:
                # At the end one tile is waited for, and not the next ones too.
                self._write(tile, self._done[tile] + 1, patiently=not (last and self._troubles))
                written += 1
            except Exception as error:
                self._troubles.add(self._sink.name, error)
                self._again_s[tile] = time.monotonic() + AGAIN_S
        return written

    def _write(self, tile: TileId, cycle: int, *, patiently: bool) -> None:
        files = list(self._sink.due(self._run, self._root, tile, cycle))
        for file in files:
            if patiently:
                self._retry(self._sink.name, file.make)
            else:
                file.make()
        self._done[tile] = cycle
        self._status.counters.sink_written(self._sink.name, len(files))
        self._status.liveness.waited()


class Troubles:
    """What could not be written, told once each: calling goes on."""

    def __init__(self) -> None:
        self._first: OutputError | None = None
        self._told: set[str] = set()

    def __bool__(self) -> bool:
        return self._first is not None

    def add(self, name: str, error: Exception) -> None:
        """Log what a sink met, and keep it."""
        match error:
            case OutputError():
                found = error
            case OSError():
                found = storage_error(name, error)
            case _:
                text = f"{name}: {type(error).__name__}: {error}; a defect of seqd, the log has more of it"
                found = OutputError(text, reason=StopReason.INTERNAL)
        if str(found) not in self._told:
            self._told.add(str(found))
            defect = {"exc_info": error} if found.reason is StopReason.INTERNAL else {}
            log.error("not written", sink=name, error=str(found), **defect)
        self._first = self._first or found

    def clear(self) -> None:
        """Forget what was found; what was told is not told again."""
        self._first = None

    def check(self) -> None:
        """Raise the first of what was found."""
        if self._first is not None:
            raise self._first


def _claim(root: Path, output: RunRecord) -> None:
    """Write down whose files these are.

    Raises
    ------
    RunError : they are another run's.
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
        # Whoever writes there waits for it, and says so.
        log.error("not claimed", folder=str(root), error=str(error))
        return
    if foreign:
        raise RunError(
            f"folder of sinks {root}: it holds files of another run of this id; remove it, or choose another "
            "sinks.folder"
        )
