"""The stages through which every tile-cycle of a run passes.

::

    controller ──frames──▶ Reception ──▶ Assembler ──▶ [tiles] ──▶ TileReader ──▶ CycleCaller ──▶ RunRecord
                             main thread   │    ▲                    reading thread                  commit
                                           ▼    │                                                      ┊
                                           Spool   spool thread          Announcer: counters, stream ◀┄┤
                                                                      sinks, each in its own thread ◀┄┘

=========  ====================  ==========================================================================
queue      bound                 when the bound is reached
=========  ====================  ==========================================================================
frames     socket, bytes         frames are dropped by the socket, noticed as a gap and requested again
assembler  memory.spill_above    complete tile images move to the spool, the latest cycles first
assembler  memory.refuse_above   frames are refused, counted and requested again, except for a few images of the
                                 cycle that all tiles wait for
spool      spool.hold_above      the controller is asked to hold the flow cell, and to release it below
                                 spool.release_below
spool      spool.limit           images stay in the assembler
tiles      ``TILE_QUEUE``        images stay in the assembler
sinks      none                  each sink reads the committed tile-cycles at its own pace
stream     ``stream.queue``      messages are dropped for a slow consumer, which sees the gap and asks for a replay
=========  ====================  ==========================================================================
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence

import structlog
from seqd_client.runinfo import RunInfo
from seqd_client.status import RunState, StopReason
from seqd_client.wire.messages import Done

from daemon.calling.tilereader import TileReader
from daemon.config import Config
from daemon.errors import RunError
from daemon.intake.assembler import Assembler
from daemon.intake.controllerwatch import ControllerWatch
from daemon.intake.ingest import Ingest
from daemon.intake.reception import Reception
from daemon.intake.spiller import Spiller
from daemon.intake.tileimages import Item
from daemon.outputs.sinks.sinkthreads import LiveSinks
from daemon.record.runrecord import RunRecord
from daemon.watching.runstatus import RunStatus
from daemon.worker import Worker

TILE_QUEUE = 2
POLL_S = 0.05

DRAIN_S = 120.0
"""While the daemon stops, it gives up workers that finish nothing for this long."""

log = structlog.get_logger()


class Pipeline:
    """Runs the stages of one run."""

    def __init__(
        self, config: Config, info: RunInfo, record: RunRecord, reader: TileReader, ingest: Ingest, status: RunStatus
    ) -> None:
        self._config, self._info, self._record = config, info, record
        self._reader, self._ingest, self._status = reader, ingest, status
        self._assembler = Assembler(
            info,
            next_cycle={tile: cycle + 1 for tile, cycle in record.committed.items()},
            spooled=record.spooled,
            refuse_above=config.memory.refuse_above,
            resend_after_s=config.controller.resend_after_s,
            missing_after_s=config.controller.missing_after_s,
        )
        self._reception = Reception(info, ingest, self._assembler, status.counters, status.liveness)
        self._watch = ControllerWatch(config, info, record, self._assembler, ingest, status)
        self._tiles: queue.Queue[Item] = queue.Queue(TILE_QUEUE)
        self._no_more_tiles, self._all_called = threading.Event(), threading.Event()
        self._sinks = LiveSinks(config.sinks, record, status, self._all_called)

    def run(self, stopping: Callable[[], bool], tick: Callable[[], None]) -> bool:
        """Run until every tile-cycle is committed and written, or until the daemon is asked to stop.

        Parameters
        ----------
        tick : is called many times a second.

        Returns
        -------
        True when every tile-cycle is committed and written.

        Raises
        ------
        RunError : the controller was silent for too long, or workers were given up.
        SeqdError, OSError, MemoryError : the error of a worker that failed.
        """
        reading = Worker("reading", self._read)
        writing = self._sinks.start()
        try:
            with Spiller(self._record.spool, self._record.committed, self._record.retry) as spiller:
                while reading.alive and not stopping():
                    self._reception.receive()
                    self._hand_over()
                    self._spill(spiller)
                    self._watch.check()
                    tick()
            if stopping():
                self._status.set_state(RunState.DRAINING)
                self._spool_complete_images(tick)
        finally:
            self._no_more_tiles.set()
            given_up = self._wait_for([reading, *writing], tick)
        self._check([reading, *writing], given_up)
        finished = self._assembler.finished and self._watch.committed_by_all == self._info.cycles
        if finished:
            finishing = self._sinks.finish()
            self._check(finishing, self._wait_for(finishing, tick))
            self._ingest.send(Done(run=self._info.run))
        return finished

    def _hand_over(self) -> None:
        """Pass tile images to the reading thread while its queue has room."""
        if not self._tiles.full():
            for item in self._assembler.pop_ready(time.monotonic(), silent=self._reception.silent):
                self._status.counters.received(item.tile, item.cycle)
                self._tiles.put_nowait(item)
                if self._tiles.full():
                    break
        if self._assembler.finished:
            self._no_more_tiles.set()

    def _spill(self, spiller: Spiller) -> None:
        """Move images to the spool while more than ``memory.spill_above`` bytes are in memory."""
        if moved := spiller.poll():
            self._assembler.moved_to_spool(*moved)
        room = (self._assembler.spooled + 1) * self._assembler.image_bytes <= self._config.spool.limit
        if room and not spiller.busy and self._assembler.bytes_held > self._config.memory.spill_above:
            for image in self._assembler.complete_images[:1]:
                spiller.start(image)

    def _read(self) -> None:
        """Read tile images until no more come: the work of the reading thread."""
        reader, liveness = self._reader, self._status.liveness
        try:
            while not (self._no_more_tiles.is_set() and self._tiles.empty()):
                try:
                    item = self._tiles.get(timeout=POLL_S)
                except queue.Empty:
                    liveness.set_working(reader.busy)
                    if reader.busy:
                        reader.finish_oldest()
                else:
                    liveness.set_working(True)
                    reader.add(item)
            reader.finish()
        finally:
            liveness.set_working(False)
            self._all_called.set()

    def _spool_complete_images(self, tick: Callable[[], None]) -> None:
        """Save complete images in the spool before the daemon stops, so that they need not be sent again."""
        images = self._assembler.complete_images[::-1]
        for number, image in enumerate(images):
            try:
                self._record.spool.put(image.tile, image.cycle, image.pixels)
            except OSError as error:
                log.warning("images not kept", images=len(images) - number, error=error.strerror)
                return
            self._status.liveness.note_work()
            tick()

    def _wait_for(self, workers: Sequence[Worker], tick: Callable[[], None]) -> list[str]:
        """Wait until the workers have ended. Return the names of those that run after ``DRAIN_S`` without progress."""
        liveness = self._status.liveness
        activity, deadline = liveness.activity, time.monotonic() + DRAIN_S
        while alive := [worker for worker in workers if worker.alive]:
            if liveness.activity != activity:
                activity, deadline = liveness.activity, time.monotonic() + DRAIN_S
            if time.monotonic() > deadline:
                # These workers may still write. The process ends with their files open, and the next start of the
                # daemon cuts off what is not committed.
                self._record.abandon()
                break
            tick()
            alive[0].join(POLL_S)
        return [worker.name for worker in alive]

    def _check(self, workers: Sequence[Worker], given_up: Sequence[str]) -> None:
        """Raise the error of a worker that failed, or a :class:`RunError` that names the workers given up."""
        for worker in workers:
            worker.check()
        if given_up:
            raise RunError(
                f"run {self._info.run}: {', '.join(given_up)} finished nothing for {DRAIN_S:g} s",
                reason=StopReason.STUCK,
            )
