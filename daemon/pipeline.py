"""The way of a run, on one page.

::

    controller ──frames──▶ Ingest ──▶ Assembler ──▶ [tiles] ──▶ Caller ──▶ RunOutput ──▶ [reads] ──▶ FASTQ
                            main thread                          caller thread   commit       sink thread

=========  ==================  ==========================================================================
edge       bound               when full
=========  ==================  ==========================================================================
frames     socket, 256         dropped by the socket, seen as a gap, asked for again
assembler  memory.hold_above   (images that wait to be called) the controller is asked to hold the flow cell
assembler  memory.refuse_above frames are refused, counted and asked for again, but for the one cycle that
                               each tile waits for
tiles      ``TILE_QUEUE``      images stay in the assembler
reads      tiles × reads       never full
stream     ``stream.queue``    dropped for that consumer, which sees the gap and asks for a replay
=========  ==================  ==========================================================================
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import structlog

from calib.runfolder import RunInfo, TileId
from daemon.assembler import Assembler, MissingImage, TileImage
from daemon.caller import Caller, take_all
from daemon.config import Config
from daemon.errors import RunError
from daemon.ingest import Ingest
from daemon.output import RunOutput
from daemon.progress import Progress
from daemon.sinks.fastq import write_fastq
from daemon.status import RunState
from daemon.wire.codec import Refusal, WireError
from daemon.wire.messages import CycleEnd, Done, Frame, Gone, Hold, Message, Position, Release, Resend, RunEnd, RunStart
from daemon.worker import Worker

TILE_QUEUE = 4
POLL_S = 0.05
DRAIN_S = 120.0
"""Time without any progress after which work in hand is given up when the daemon stops."""

log = structlog.get_logger()


class Pipeline:
    """Carries one run from frames to FASTQ."""

    def __init__(
        self, config: Config, info: RunInfo, output: RunOutput, caller: Caller, ingest: Ingest, progress: Progress
    ) -> None:
        self._config, self._info, self._output = config, info, output
        self._caller, self._ingest, self._progress = caller, ingest, progress
        self._assembler = Assembler(
            info,
            next_cycle={tile: cycle + 1 for tile, cycle in output.committed.items()},
            refuse_above=config.memory.refuse_above,
            resend_after_s=config.controller.resend_after_s,
            missing_after_s=config.controller.missing_after_s,
        )
        self._tiles: queue.Queue[TileImage | MissingImage] = queue.Queue(TILE_QUEUE)
        self._no_more_tiles = threading.Event()
        self._calling_over = threading.Event()
        # A daemon that was killed may have left the controller holding.
        self._holding = True
        self._sink_failed = False
        self._shown_cycle = min((output.committed.get(tile, 0) for tile in info.tiles), default=0)

    def run(self, stopping: Callable[[], bool], tick: Callable[[], None]) -> bool:
        """Run until every tile-cycle is committed and written, or until asked to stop.

        ``tick`` is called many times a second. True when the run is finished.

        Raises whatever ended a worker, and :class:`RunError` when the controller went silent.
        """
        calling = Worker("caller", self._call)
        writing = Worker("fastq", self._write_reads)
        try:
            while calling.alive and not stopping():
                self._take_in()
                self._hand_over()
                self._watch(writing)
                tick()
            if stopping():
                self._progress.set_state(RunState.DRAINING)
        finally:
            self._no_more_tiles.set()
            stuck = self._left_working((calling, writing), tick)
        for worker in (calling, writing):
            worker.check()
        if stuck:
            raise RunError(f"run {self._info.run}: {', '.join(stuck)} did nothing for {DRAIN_S:g} s and is given up")
        finished = self._assembler.finished and self._committed_all()
        if finished:
            self._ingest.send(Done(run=self._info.run))
        return finished

    def _left_working(self, workers: Sequence[Worker], tick: Callable[[], None]) -> list[str]:
        """Wait for workers as long as they get anything done; names of those given up."""
        marks, deadline = self._progress.marks, time.monotonic() + DRAIN_S
        while alive := [worker for worker in workers if worker.alive]:
            if self._progress.marks != marks:
                marks, deadline = self._progress.marks, time.monotonic() + DRAIN_S
            if time.monotonic() > deadline:
                # They may still write: the process ends with their files open, which a restart can take.
                self._output.abandon()
                break
            tick()
            alive[0].join(POLL_S)
        return [worker.name for worker in alive]

    def _take_in(self) -> None:
        for message, payload in self._ingest.receive(POLL_S):
            try:
                self._handle(message, payload)
            except WireError as error:
                self._ingest.refuse(error)
        for key in self._assembler.requests(time.monotonic()):
            request = Resend(
                run=self._info.run, lane=key.tile.lane, tile=key.tile.tile, cycle=key.cycle, channel=key.channel
            )
            if self._ingest.send(request):
                self._progress.frame("resend_requested")

    def _handle(self, message: Message, payload: bytes) -> None:
        now = time.monotonic()
        run = getattr(message, "run", self._info.run)
        if run != self._info.run:
            raise WireError(Refusal.FOREIGN_RUN, f"{message.topic} of run {run}, this is run {self._info.run}")
        match message:
            case Frame():
                self._progress.frame(self._assembler.add(message, payload, now))
            case CycleEnd():
                self._assembler.mark_due(message.cycle, now)
            case RunEnd():
                self._assembler.mark_due(self._info.cycles, now)
            case Position():
                self._assembler.mark_due(self._info.cycles if message.ended else message.cycle, now)
            case Gone():
                self._progress.frame("gone")
                self._assembler.gone(message)
            case RunStart() if message.info != self._info:
                raise WireError(Refusal.HEADER, f"run {run} is declared anew with other reads, tiles or sizes")

    def _hand_over(self) -> None:
        """Pass on images while there is room for them."""
        if not self._tiles.full():
            for item in self._assembler.ready(time.monotonic()):
                self._progress.received()
                self._tiles.put_nowait(item)
                if self._tiles.full():
                    break
        if self._assembler.finished:
            self._no_more_tiles.set()

    def _watch(self, writing: Worker) -> None:
        """Ask for a hold or a release, and keep the numbers of the status."""
        waiting = self._assembler.bytes_waiting
        above = self._config.memory.hold_above
        if not self._holding and waiting > above:
            self._holding = self._ingest.send(Hold(run=self._info.run))
        elif self._holding and waiting < above / 2:
            self._holding = not self._ingest.send(Release(run=self._info.run))
        self._progress.lag(
            newest_cycle=self._assembler.newest_cycle, held_bytes=self._assembler.bytes_held, holding=self._holding
        )
        if writing.error is not None and not self._sink_failed:
            # Calling goes on: FASTQ can be written again from what is committed.
            self._sink_failed = True
            self._progress.set_state(RunState.RUNNING, f"FASTQ failed: {writing.error}")
            log.error("FASTQ failed", run=self._info.run, error=str(writing.error))
        silent = self._progress.silent_s > self._config.controller.silent_after_s
        if silent and not self._assembler.finished:
            raise RunError(
                f"run {self._info.run}: nothing came from the controller at {self._config.controller.frames} "
                f"for {self._config.controller.silent_after_s:g} s"
            )
        cycle = min(self._output.committed.get(tile, 0) for tile in self._info.tiles)
        if cycle > self._shown_cycle:
            self._shown_cycle = cycle
            status = self._progress.snapshot()
            log.info(
                "cycle",
                cycle=cycle,
                of=self._info.cycles,
                called=status.tile_cycles.called,
                missing=status.tile_cycles.missing,
                failed=status.tile_cycles.failed,
                lag=status.lag.cycles,
            )

    def _call(self) -> None:
        try:
            take_all(self._caller, self._tile_images())
        finally:
            self._progress.set_working(False)
            self._calling_over.set()

    def _tile_images(self) -> Iterator[TileImage | MissingImage | None]:
        while True:
            try:
                item = self._tiles.get(timeout=POLL_S)
                self._progress.set_working(True)
                yield item
            except queue.Empty:
                self._progress.set_working(self._caller.busy)
                if self._no_more_tiles.is_set() and self._tiles.empty():
                    return
                yield None

    def _write_reads(self) -> None:
        """FASTQ of each tile at the end of each read, and of what an earlier start left unwritten."""
        left = [
            (tile, read)
            for read in self._info.reads
            for tile in self._info.tiles
            if not self._output.files.fastq_of(tile, read).exists()
        ]
        while left:
            # Looked at before the cycles are, so that the last ones are never missed.
            over = self._calling_over.wait(4 * POLL_S)
            for tile, read in [job for job in left if self._reached(job[0], self._info.cycles_of(job[1])[-1])]:
                write_fastq(self._output.files, self._info, tile, read, passing=self._output.passing(tile))
                self._progress.fastq_written()
                left.remove((tile, read))
            if over:
                return

    def _reached(self, tile: TileId, cycle: int) -> bool:
        return self._output.committed.get(tile, 0) >= cycle

    def _committed_all(self) -> bool:
        return all(self._reached(tile, self._info.cycles) for tile in self._info.tiles)
