"""The daemon: waits for a run, carries it through the pipeline, waits for the next."""

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial

import structlog
import zmq
from seqd_client.errors import SeqdError, first_line
from seqd_client.runinfo import RunInfo
from seqd_client.status import EngineStatus, FitStatus, Phase, RunState, StopReason
from seqd_client.wire.messages import Done, RunStart

from calib.calling.scores import binned
from daemon import __version__
from daemon.calling.cyclecaller import CycleCaller
from daemon.calling.enginechoice import Chosen, choose, choose_fallback
from daemon.calling.supervisedengine import SupervisedEngine
from daemon.calling.tilereader import TileReader
from daemon.config import Config
from daemon.errors import RunError, stop_reason, storage_error
from daemon.intake.ingest import Ingest
from daemon.outputs.figures.spikein import ControlReference
from daemon.pipeline import Pipeline
from daemon.record.durable import write_durably
from daemon.record.ledgerreader import EngineUse, Start
from daemon.record.provenance import provenance_of
from daemon.record.runfiles import RunFiles
from daemon.record.runrecord import RunRecord
from daemon.record.storageretry import StorageRetry
from daemon.serving.announcing import Announcer, EventPublisher
from daemon.serving.gate import Gate
from daemon.serving.requests import RequestServer
from daemon.serving.stream import Stream
from daemon.watching.runstatus import RunStatus
from daemon.watching.watchdog import Notifier, Watchdog
from engines.bundles.bundle import Bundle, load_bundle
from engines.errors import EngineError, EngineLostError

WAIT_S = 0.2

log = structlog.get_logger()


class Service:
    """One daemon with its sockets; lives until it is told to stop."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop = threading.Event()
        self.status = RunStatus(__version__, stalled_after_s=config.engine.timeout_s)
        self._notifier = Notifier()
        self._watchdog = Watchdog(self._notifier, self.status)

    def stop(self) -> None:
        """Drain: finish what is held, begin nothing new. Safe from signal handlers and threads."""
        self._stop.set()

    def run(self, *, once: bool) -> None:
        """Serve runs until stopped; with ``once``, until the first run is finished.

        Raises
        ------
        SeqdError : configuration, bundle, control, engine, output or run cannot be used.
        """
        config = self._config
        # What is written is for owner and group, whoever starts the daemon.
        os.umask(0o027)
        bundle = load_bundle(config.engine.bundle)
        if config.sinks.control is not None:
            # Told now, and not when the first reads are placed on it.
            ControlReference(config.sinks.control)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        with ExitStack() as stack:
            context = stack.enter_context(zmq.Context[zmq.Socket[bytes]]())
            gate = stack.enter_context(Gate(context, config.security, self.status.counters))
            stream = stack.enter_context(
                Stream(context, config.stream.calls, config.stream.queue, self.status.counters, gate)
            )
            requests = stack.enter_context(RequestServer(context, config.control, self.status, self.stop, gate))
            self._events = EventPublisher(stream, self.status)
            ingest = stack.enter_context(
                Ingest(context, config.controller, self.status.counters, self.status.liveness, gate)
            )
            self._notifier.ready()
            log.info("ready", version=__version__, frames=config.controller.frames, control=config.control.endpoint)
            finished: set[str] = set()
            while not self._stop.is_set():
                start = self._next_run(ingest, finished)
                if start is None:
                    break
                if self._carry(start.info, bundle, ingest, requests, stream):
                    finished.add(start.run)
                    if once:
                        break
            self._notifier.stopping()

    def _next_run(self, ingest: Ingest, finished: set[str]) -> RunStart | None:
        """Wait for the start of a run that is not finished; None when told to stop."""
        while not self._stop.is_set():
            self._watchdog.tick()
            for message, _ in ingest.receive(WAIT_S):
                if isinstance(message, RunStart):
                    if message.run not in finished:
                        return message
                    ingest.send(Done(run=message.run))
        return None

    def _carry(self, info: RunInfo, bundle: Bundle, ingest: Ingest, requests: RequestServer, stream: Stream) -> bool:
        """Carry one run as far as it goes; True when it is finished.

        Raises
        ------
        SeqdError : it cannot go on; state and stop reason are set.
        """
        self.status.take_up(info.run)
        try:
            with ExitStack() as stack:
                with ThreadPoolExecutor(1, thread_name_prefix="take-up") as pool:
                    # A plan may be built for minutes, a spool read, a full disk waited for: systemd is told of life.
                    taken = pool.submit(self._take_up, info, bundle, stream, stack)
                    while not wait([taken], WAIT_S).done:
                        self._watchdog.tick()
                record, reader = taken.result()
                requests.serve_run(info.run, record.files)
                ingest.follow(info.run)
                finished = Pipeline(self._config, info, record, reader, ingest, self.status).run(
                    self._stop.is_set, self._watchdog.tick
                )
        except Exception as error:
            failure = _explained(info, error)
            self._end(RunState.FAILED, stop_reason(failure), str(failure), info)
            raise failure from None
        if finished:
            self._end(RunState.FINISHED, StopReason.FINISHED, "", info)
        else:
            self._end(RunState.STOPPED, StopReason.ASKED, "asked to stop", info)
        return finished

    def _take_up(
        self, info: RunInfo, bundle: Bundle, stream: Stream, opened: ExitStack
    ) -> tuple[RunRecord, TileReader]:
        """Open the run's files and its engine; the stack closes them."""
        config, status = self._config, self.status
        retry = StorageRetry(
            status.troubles,
            status.liveness,
            self._events,
            self._stop.is_set,
            retry_for_s=config.faults.retry_for_s,
        )
        record = RunRecord(
            RunFiles(config.output / info.run),
            info,
            self._facts(info, bundle),
            retry,
            chastity_failures=config.calling.chastity_failures,
        )
        opened.callback(record.close)
        if config.sinks.control is not None and not record.files.control.exists():
            control = config.sinks.control.read_bytes()
            retry("control", lambda: write_durably(record.files.control, control))
        engine = self._open(bundle, info, record)
        opened.callback(engine.close)
        self._begin(info, engine, record)
        quality = bundle.quality(config.calling.readout)
        announcer = Announcer(info.run, status.counters, status.liveness, stream)
        caller = CycleCaller(record, binned(quality) if config.calling.binned_quality else quality, announcer)
        reader = TileReader(
            engine,
            record,
            caller,
            status.liveness,
            readout=config.calling.readout,
            template_cycles=config.calling.template_cycles,
            timeout_s=config.engine.timeout_s,
        )
        self._announce(engine, record)
        return record, reader

    def _open(self, bundle: Bundle, info: RunInfo, record: RunRecord) -> SupervisedEngine:
        """The run's engine."""
        self.status.troubles.begin("engine", Phase.OPENING, f"bundle {bundle.model.name}")
        first, fallen_back = self._choose(bundle, info, record.ledger.engines())
        self.status.troubles.end("engine")
        settings = self._config.engine
        fallback = partial(choose_fallback, bundle, settings, info)
        return SupervisedEngine(
            first,
            fallback if fallen_back else partial(choose, bundle, settings, info, begun_with=first.facts),
            fallback,
            fallen_back=fallen_back,
            changed=lambda engine: self._use(engine, record),
            faults=self._config.faults,
            troubles=self.status.troubles,
            liveness=self.status.liveness,
            announce=self._events,
            stopping=self._stop.is_set,
        )

    def _choose(self, bundle: Bundle, info: RunInfo, used: list[EngineUse]) -> tuple[Chosen, str]:
        """The engine to begin or go on with, and why it took over if it did."""
        settings = self._config.engine
        if used and used[-1].reason:
            return choose_fallback(bundle, settings, info), used[-1].reason
        try:
            return choose(bundle, settings, info, begun_with=used[-1].facts if used else None), ""
        except (EngineError, EngineLostError) as error:
            if self._config.faults.fallback == "none":
                raise
            log.error("engine not opened", error=str(error))
            return choose_fallback(bundle, settings, info), str(error)

    def _begin(self, info: RunInfo, engine: SupervisedEngine, record: RunRecord) -> None:
        committed = {tile: record.committed.get(tile, 0) for tile in info.tiles}
        self.status.start_run(
            cycles=info.cycles,
            committed=committed,
            totals=record.ledger.totals(),
            clusters=sum(record.ledger.tiles().values()),
            passing_filter=record.passing_total,
            spooled=record.spooled,
        )
        start = Start(seqd=__version__, configuration=self._config.digest, began_ns=time.time_ns())
        record.retry("ledger", lambda: record.ledger.start(start))
        self._use(engine, record)
        log.info("run", run=info.run, tiles=len(info.tiles), cycles=info.cycles, resumed_at=min(committed.values()) + 1)

    def _use(self, engine: SupervisedEngine, record: RunRecord) -> None:
        """Tell status, ledger and provenance which engine is in use."""
        chosen, ledger = engine.chosen, record.ledger
        status = EngineStatus(
            **vars(engine.current.info),
            reason=chosen.selection.reason,
            passed_over=chosen.selection.passed_over,
            golden_positions=chosen.selection.golden.positions,
            golden_difference=chosen.selection.golden.difference,
            restarts=engine.restarts,
            fallback=engine.fallen_back,
        )
        fit = FitStatus(place=chosen.fit_device.name, reason=chosen.fit_device.reason)
        self.status.set_engine(status, fit, lambda: engine.busy_s)
        since_ns = time.time_ns()
        record.retry("ledger", lambda: ledger.use_engine(chosen.facts, reason=engine.fallen_back, since_ns=since_ns))
        provenance = {
            "seqd": __version__,
            "hashes": provenance_of(ledger).hashes,
            "starts": [asdict(start) for start in ledger.starts()],
            "engine": status.model_dump(exclude={"busy", "restarts"}),
            "engines": [asdict(use) for use in ledger.engines()],
            "fit": fit.model_dump(),
            "configuration": self._config.model_dump(mode="json"),
        }
        content = json.dumps(provenance, indent=2).encode()
        record.retry("provenance", lambda: write_durably(record.files.provenance, content))

    def _announce(self, engine: SupervisedEngine, record: RunRecord) -> None:
        """Say which engine is in use, why, and what was passed over; and that the run was begun by another seqd."""
        selection, fit, run = engine.chosen.selection, engine.fit_device, record.info.run
        in_use = selection.engine.info
        log.info(
            "engine",
            backend=in_use.backend,
            precision=in_use.precision,
            device=in_use.device,
            strips=in_use.strips,
            reason=selection.reason,
            passed_over=selection.passed_over,
            golden_positions=selection.golden.positions,
            golden_difference=selection.golden.difference,
        )
        log.info("joint fit", place=fit.name, reason=fit.reason)
        self._events(
            "info",
            f"run {run} taken up with {in_use.backend} {in_use.precision} ({selection.reason})"
            + "".join(f"; not {backend}: {why}" for backend, why in selection.passed_over.items()),
        )
        if engine.fallen_back:
            log.warning("engine is the fallback, for the rest of the run", run=run, reason=engine.fallen_back)
            self._events("warning", f"run {run} is called with the fallback engine: {engine.fallen_back}")
        versions = [start.seqd for start in record.ledger.starts()][-2:]
        if len(set(versions)) > 1:
            log.warning("run goes on with another seqd", run=run, before=versions[0], now=versions[1])
            self._events("warning", f"run {run}: seqd {versions[0]} called it before, this is {versions[1]}")

    def _facts(self, info: RunInfo, bundle: Bundle) -> dict[str, object]:
        """What must be the same for a run to go on with the same bytes, beside the engine."""
        return {
            "info": info.model_dump(mode="json"),
            "model": bundle.hash,
            "threads": self._config.engine.threads,
            **self._config.calling.model_dump(mode="json"),
            "sinks": self._config.sinks.settled,
        }

    def _end(self, state: RunState, stop: StopReason, reason: str, info: RunInfo) -> None:
        self.status.set_state(state, stop, reason)
        self._events("error" if state is RunState.FAILED else "info", f"run {info.run} {state} {reason}".strip())
        status = self.status.snapshot()
        log.info(
            "run ended",
            run=info.run,
            state=state.value,
            stop_reason=stop.value,
            reason=reason,
            engine_busy=status.engine.busy if status.engine else 0.0,
            **status.tile_cycles.model_dump(),
            frames=status.frames.model_dump(),
        )


def _explained(info: RunInfo, error: Exception) -> SeqdError:
    """The error as one that can be shown to a person."""
    match error:
        case SeqdError():
            return error
        case OSError():
            return storage_error(f"run {info.run}", error)
        case MemoryError():
            return RunError(f"run {info.run}: the system gives no memory", reason=StopReason.OUT_OF_MEMORY)
    log.exception("defect", run=info.run)
    return RunError(
        f"run {info.run}: {type(error).__name__}: {first_line(error)}; a defect of seqd, the log has more of it",
        reason=StopReason.INTERNAL,
    )
