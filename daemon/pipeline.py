"""The way of a run, on one page.

::

    controller ──frames──▶ Ingest ──▶ Assembler ──▶ [tiles] ──▶ Caller ──▶ RunOutput ┄┄▶ sinks: FASTQ, BCL, views
                            main thread   │    ▲                caller thread   commit    threads of their own
                                          ▼    │
                                          Spool   spool thread

=========  ====================  ==========================================================================
edge       bound                 when full
=========  ====================  ==========================================================================
frames     socket, bytes         dropped by the socket, seen as a gap, asked for again
assembler  memory.spill_above    whole tile images are moved to the spool, those that are called last first
assembler  memory.refuse_above   frames are refused, counted and asked for again, but for a few images of the
                                 cycle that all others wait for
spool      spool.hold_above      the controller is asked to hold the flow cell, and to go on below
                                 spool.release_below
spool      spool.limit           images stay in the assembler
tiles      ``TILE_QUEUE``        images stay in the assembler
sinks      none                  they follow what is committed at their own pace
stream     ``stream.queue``      dropped for that consumer, which sees the gap and asks for a replay
=========  ====================  ==========================================================================
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import structlog
from seqd_client.runinfo import RunInfo, TileId
from seqd_client.status import Lag, Phase, RunState, StopReason
from seqd_client.wire.codec import Refusal, WireError
from seqd_client.wire.messages import (
    CycleEnd,
    Done,
    Frame,
    Gone,
    Hold,
    Kept,
    Message,
    Position,
    Release,
    Resend,
    RunEnd,
    RunStart,
)

from daemon.calling.tilereader import Caller, take_all
from daemon.config import Config
from daemon.errors import RunError
from daemon.intake.assembler import Assembler, Item
from daemon.intake.ingest import Ingest
from daemon.intake.pressure import Backpressure, Gauges
from daemon.intake.spiller import Spiller
from daemon.outputs.sinks.sinkthreads import LiveSinks
from daemon.record.runrecord import RunOutput
from daemon.watching.progress import Progress
from daemon.worker import Worker

TILE_QUEUE = 2
POLL_S = 0.05
WATCH_S = 0.2
"""How often numbers are looked at that need no haste."""

HOLD_AGAIN_S = 5.0
"""Whether the flow cell is to be held is said again so often: a controller that was started anew does not know."""

UNHEARD_S = 5.0
"""A controller that says nothing for so long, though it is asked where it is, hears nothing either."""

SILENT_CYCLES, SILENT_S = 3, 30.0
"""A controller that says nothing for so many cycles' time, or so long, is told of."""

DRAIN_S = 120.0
"""Time without any progress after which work in hand is given up when the daemon stops."""

log = structlog.get_logger()


class Pipeline:
    """Carries one run from frames to its outputs."""

    def __init__(
        self, config: Config, info: RunInfo, output: RunOutput, caller: Caller, ingest: Ingest, progress: Progress
    ) -> None:
        self._config, self._info, self._output = config, info, output
        self._caller, self._ingest, self._progress = caller, ingest, progress
        self._assembler = Assembler(
            info,
            next_cycle={tile: cycle + 1 for tile, cycle in output.committed.items()},
            spooled=output.spooled,
            refuse_above=config.memory.refuse_above,
            resend_after_s=config.controller.resend_after_s,
            missing_after_s=config.controller.missing_after_s,
        )
        self._tiles: queue.Queue[Item] = queue.Queue(TILE_QUEUE)
        self._no_more_tiles = threading.Event()
        self._calling_over = threading.Event()
        self._sinks = LiveSinks(config.sinks, output, progress, self._calling_over)
        self._backpressure = Backpressure(config.memory, config.spool)
        self._gauges = Gauges(output.files.root, spool_limit=config.spool.limit)
        self._watched_s, self._held_s, self._unheard = 0.0, 0.0, False
        self._kept = 0
        self._shown_cycle = self._committed_by_all

    def run(self, stopping: Callable[[], bool], tick: Callable[[], None]) -> bool:
        """Run until every tile-cycle is committed and written, or until asked to stop.

        ``tick`` is called many times a second. True when the run is finished.

        Raises whatever ended a worker, and :class:`RunError` when the controller went silent.
        """
        calling = Worker("caller", self._call)
        writing = self._sinks.start()
        try:
            with Spiller(self._output.spool, self._output.committed, self._output.patience) as spiller:
                while calling.alive and not stopping():
                    self._take_in()
                    self._hand_over()
                    self._spill(spiller)
                    self._watch()
                    tick()
            if stopping():
                self._progress.set_state(RunState.DRAINING)
                self._keep_what_is_whole(tick)
        finally:
            self._no_more_tiles.set()
            stuck = self._left_working([calling, *writing], tick)
        self._check([calling, *writing], stuck)
        finished = self._assembler.finished and self._committed_by_all == self._info.cycles
        if finished:
            finishing = self._sinks.finish()
            self._check(finishing, self._left_working(finishing, tick))
            self._ingest.send(Done(run=self._info.run))
        return finished

    def _check(self, workers: Sequence[Worker], stuck: Sequence[str]) -> None:
        """Raise what one of the workers ended with, or that some were given up."""
        for worker in workers:
            worker.check()
        if stuck:
            raise RunError(
                f"run {self._info.run}: {', '.join(stuck)} did nothing for {DRAIN_S:g} s and is given up",
                reason=StopReason.STUCK,
            )

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
            except MemoryError:
                self._ingest.refuse(WireError(Refusal.MEMORY, f"{message.topic}: the system gives no memory"))
        silent = self._progress.silent_s > UNHEARD_S
        if self._unheard and not silent:
            self._assembler.ask_anew()
        self._unheard = silent
        for key in self._assembler.requests(time.monotonic()):
            request = Resend(
                run=self._info.run, lane=key.tile.lane, tile=key.tile.tile, cycle=key.cycle, channel=key.channel
            )
            if self._ingest.send(request):
                self._assembler.sent(key, time.monotonic())
                self._progress.asked("resend_requested")

    def _handle(self, message: Message, payload: bytes) -> None:
        now = time.monotonic()
        run = getattr(message, "run", self._info.run)
        if run != self._info.run:
            raise WireError(Refusal.FOREIGN_RUN, f"{message.topic} of run {run}, this is run {self._info.run}")
        match message:
            case Frame():
                outcome = self._assembler.add(message, payload, now)
                self._progress.frame(outcome, TileId(lane=message.lane, tile=message.tile), message.cycle)
            case CycleEnd():
                self._assembler.mark_due(message.cycle, now)
            case RunEnd():
                self._assembler.mark_due(self._info.cycles, now)
            case Position():
                self._assembler.mark_due(self._info.cycles if message.ended else message.cycle, now)
            case Gone():
                self._progress.asked("gone")
                self._assembler.gone(message)
            case RunStart() if message.info != self._info:
                raise WireError(Refusal.HEADER, f"run {run} is declared anew with other reads, tiles or sizes")

    def _hand_over(self) -> None:
        """Pass on images while there is room for them."""
        if not self._tiles.full():
            for item in self._assembler.ready(time.monotonic(), silent=self._unheard):
                self._progress.received(item.tile, item.cycle)
                self._tiles.put_nowait(item)
                if self._tiles.full():
                    break
        if self._assembler.finished:
            self._no_more_tiles.set()

    def _spill(self, spiller: Spiller) -> None:
        """Move images to the spool while memory is above its mark."""
        if moved := spiller.moved():
            self._assembler.moved_to_spool(*moved)
        room = (self._assembler.spooled + 1) * self._assembler.image_bytes <= self._config.spool.limit
        if room and not spiller.busy and self._assembler.bytes_held > self._config.memory.spill_above:
            for image in self._assembler.whole[:1]:
                spiller.give(image)

    def _keep_what_is_whole(self, tick: Callable[[], None]) -> None:
        """Before the daemon stops: what is here and will not be called now need not be sent again."""
        images = self._assembler.whole[::-1]
        for number, image in enumerate(images):
            try:
                self._output.spool.put(image.tile, image.cycle, image.pixels)
            except OSError as error:
                log.warning("images not kept", images=len(images) - number, error=error.strerror)
                return
            self._progress.worked()
            tick()

    def _watch(self) -> None:
        """Ask for a hold or a release, and keep the numbers of the status."""
        now = time.monotonic()
        if now - self._watched_s < WATCH_S:
            return
        self._watched_s = now
        spool = self._gauges.spool(self._assembler.spooled, self._assembler.image_bytes)
        self._press(spool.bytes, now)
        imaging = self._assembler.imaging
        lag = Lag(
            bytes=self._assembler.bytes_held,
            cycle_s=imaging.cycle_s,
            holding=bool(self._backpressure.holding),
            headroom_s=spool.full_in_s,
        )
        self._progress.lag(newest_cycle=self._assembler.newest_cycle, lag=lag, spool=spool, disk=self._gauges.disk())
        self._listen_for_silence()
        self._tell_what_is_kept()
        self._show_cycle()

    def _press(self, spooled_bytes: int, now_s: float) -> None:
        pressure, run = self._backpressure, self._info.run
        change = pressure.change(waiting_bytes=self._assembler.bytes_waiting, spooled_bytes=spooled_bytes)
        holding = pressure.holding if change is None else change
        if change is None and now_s - self._held_s < HOLD_AGAIN_S:
            return
        if self._ingest.send(Hold(run=run) if holding else Release(run=run)):
            pressure.holding, self._held_s = holding, now_s
            if change is not None:
                log.info("hold" if holding else "release", run=run, spooled_bytes=spooled_bytes)

    def _listen_for_silence(self) -> None:
        silent_s, settings = self._progress.silent_s, self._config.controller
        if self._assembler.finished:
            self._progress.over("controller")
            return
        if silent_s > settings.silent_after_s:
            raise RunError(
                f"run {self._info.run}: nothing came from the controller at {settings.frames} "
                f"for {settings.silent_after_s:g} s",
                reason=StopReason.CONTROLLER_SILENT,
            )
        if silent_s > max(SILENT_S, SILENT_CYCLES * (self._assembler.imaging.cycle_s or 0)):
            text = f"nothing from {settings.frames}; the run is given up after {settings.silent_after_s:g} s of it"
            self._progress.trouble("controller", Phase.SILENT, text)
        else:
            self._progress.over("controller")

    def _tell_what_is_kept(self) -> None:
        """The controller need not hold what is committed or in the spool."""
        kept = min(self._output.spool.reaches(tile, self._output.committed.get(tile, 0)) for tile in self._info.tiles)
        if kept > self._kept and self._ingest.send(Kept(run=self._info.run, cycle=kept)):
            self._kept = kept

    def _show_cycle(self) -> None:
        cycle = self._committed_by_all
        if cycle <= self._shown_cycle:
            return
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

    def _tile_images(self) -> Iterator[Item | None]:
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

    @property
    def _committed_by_all(self) -> int:
        return min(self._output.committed.get(tile, 0) for tile in self._info.tiles)
