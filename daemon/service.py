"""The daemon: it waits for a run, runs its pipeline, and waits for the next run."""

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
from daemon.calling.enginechoice import choose, choose_fallback
from daemon.calling.supervisedengine import SupervisedEngine
from daemon.calling.tilereader import TileReader
from daemon.config import Config
from daemon.errors import RunError, stop_reason, storage_error
from daemon.intake.ingest import Ingest
from daemon.outputs.figures.spikein import SpikeInReference
from daemon.pipeline import Pipeline
from daemon.record.durable import write_durably
from daemon.record.ledgerreader import Start
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
    """One daemon with its sockets, from its start until it is asked to stop."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop = threading.Event()
        self.status = RunStatus(__version__, stalled_after_s=config.engine.timeout_s)
        self._notifier = Notifier()
        self._watchdog = Watchdog(self._notifier, self.status)

    def stop(self) -> None:
        """Drain: finish the tile images that are being called, and start nothing new. Any thread may call this."""
        self._stop.set()

    def run(self, *, once: bool) -> None:
        """Serve runs until stopped; with ``once``, until the first run is finished.

        Raises
        ------
        SeqdError : configuration, bundle, spike-in, engine, output or run cannot be used.
        """
        config = self._config
        # Owner and group may read the files, whatever the umask of the caller is.
        os.umask(0o027)
        bundle = load_bundle(config.engine.bundle)
        if config.sinks.control is not None:
            # A spike-in that cannot be used is an error now, not when the first reads are aligned to it.
            SpikeInReference(config.sinks.control)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        counters, liveness = self.status.counters, self.status.liveness
        with ExitStack() as stack:
            context = stack.enter_context(zmq.Context[zmq.Socket[bytes]]())
            gate = stack.enter_context(Gate(context, config.security, counters))
            stream = stack.enter_context(Stream(context, config.stream.calls, config.stream.queue, counters, gate))
            requests = stack.enter_context(RequestServer(context, config.control, self.status, self.stop, gate))
            self._events = EventPublisher(stream, self.status)
            ingest = stack.enter_context(Ingest(context, config.controller, counters, liveness, gate))
            self._notifier.ready()
            log.info("ready", version=__version__, frames=config.controller.frames, control=config.control.endpoint)
            finished: set[str] = set()
            while (start := self._next_run(ingest, finished)) is not None:
                if self._run_one(start.info, bundle, ingest, requests, stream):
                    finished.add(start.run)
                    if once:
                        break
            self._notifier.stopping()

    def _next_run(self, ingest: Ingest, finished: set[str]) -> RunStart | None:
        """Wait for the start of a run that is not finished; None when the daemon is asked to stop."""
        while not self._stop.is_set():
            self._watchdog.tick()
            for message, _ in ingest.receive(WAIT_S):
                if isinstance(message, RunStart):
                    if message.run not in finished:
                        return message
                    ingest.send(Done(run=message.run))
        return None

    def _run_one(self, info: RunInfo, bundle: Bundle, ingest: Ingest, requests: RequestServer, stream: Stream) -> bool:
        """Process one run until it is finished or the daemon is asked to stop; True when the run is finished.

        Raises
        ------
        SeqdError : the run cannot continue; the status has its state and stop reason.
        """
        self.status.name_run(info.run)
        try:
            with ExitStack() as stack:
                with ThreadPoolExecutor(1, thread_name_prefix="opening") as pool:
                    # Building a plan, reading the spool or waiting for a full disk can take minutes, and systemd
                    # must be notified meanwhile.
                    opening = pool.submit(self._open, info, bundle, stream, stack)
                    while not wait([opening], WAIT_S).done:
                        self._watchdog.tick()
                record, reader = opening.result()
                requests.serve_run(info.run, record.files)
                ingest.set_run(info.run)
                pipeline = Pipeline(self._config, info, record, reader, ingest, self.status)
                finished = pipeline.run(self._stop.is_set, self._watchdog.tick)
        except Exception as error:
            failure = _as_seqd_error(info, error)
            self._end(RunState.FAILED, stop_reason(failure), str(failure), info)
            raise failure from None
        if finished:
            self._end(RunState.FINISHED, StopReason.FINISHED, "", info)
        else:
            self._end(RunState.STOPPED, StopReason.ASKED, "asked to stop", info)
        return finished

    def _open(self, info: RunInfo, bundle: Bundle, stream: Stream, opened: ExitStack) -> tuple[RunRecord, TileReader]:
        """Open a run's record, then its engine, then a tile reader that uses both; ``opened`` closes all of them."""
        calling, status = self._config.calling, self.status
        record = self._open_record(info, bundle, opened)
        engine = self._open_engine(bundle, record)
        opened.callback(engine.close)
        self._start(record)
        self._record_engine(engine, record)
        quality = bundle.quality(calling.readout)
        announcer = Announcer(info.run, status.counters, status.liveness, stream)
        reader = TileReader(
            engine,
            record,
            CycleCaller(record, binned(quality) if calling.binned_quality else quality, announcer),
            status.liveness,
            readout=calling.readout,
            template_cycles=calling.template_cycles,
            timeout_s=self._config.engine.timeout_s,
        )
        self._announce_start(engine, record)
        return record, reader

    def _open_record(self, info: RunInfo, bundle: Bundle, opened: ExitStack) -> RunRecord:
        config, status = self._config, self.status
        retry = StorageRetry(
            status.troubles,
            status.liveness,
            self._events,
            self._stop.is_set,
            retry_for_s=config.faults.retry_for_s,
        )
        facts: dict[str, object] = {
            "info": info.model_dump(mode="json"),
            "model": bundle.hash,
            "threads": config.engine.threads,
            **config.calling.model_dump(mode="json"),
            "sinks": config.sinks.fixed_for_a_run,
        }
        files = RunFiles(config.output / info.run)
        record = RunRecord(files, info, facts, retry, chastity_failures=config.calling.chastity_failures)
        opened.callback(record.close)
        if config.sinks.control is not None and not files.control.exists():
            content = config.sinks.control.read_bytes()
            retry("control", lambda: write_durably(files.control, content))
        return record

    def _open_engine(self, bundle: Bundle, record: RunRecord) -> SupervisedEngine:
        """Open the engine with which the run is begun or continued: the configured one, or the fallback."""
        settings, faults, info = self._config.engine, self._config.faults, record.info
        open_fallback = partial(choose_fallback, bundle, settings, info)
        engines = record.ledger.engines()
        last = engines[-1] if engines else None
        fallback_reason = last.reason if last else ""
        self.status.troubles.begin("engine", Phase.OPENING, f"bundle {bundle.model.name}")
        try:
            if fallback_reason:
                chosen = open_fallback()
            else:
                chosen = choose(bundle, settings, info, begun_with=last.facts if last else None)
        except (EngineError, EngineLostError) as error:
            if fallback_reason or faults.fallback == "none":
                raise
            log.error("engine not opened", error=str(error))
            chosen, fallback_reason = open_fallback(), str(error)
        self.status.troubles.end("engine")
        return SupervisedEngine(
            chosen,
            open_fallback if fallback_reason else partial(choose, bundle, settings, info, begun_with=chosen.facts),
            open_fallback,
            fallback_reason=fallback_reason,
            engine_changed=lambda engine: self._record_engine(engine, record),
            faults=faults,
            troubles=self.status.troubles,
            liveness=self.status.liveness,
            announce=self._events,
            stopping=self._stop.is_set,
        )

    def _start(self, record: RunRecord) -> None:
        """Set the status to where the ledger ends, and record this start in the ledger."""
        info = record.info
        committed = {tile: record.committed.get(tile, 0) for tile in info.tiles}
        self.status.counters.begin(
            cycles=info.cycles,
            committed=committed,
            totals=record.ledger.totals(),
            clusters=sum(record.ledger.tiles().values()),
            passing_filter=record.passing_total,
            spooled=record.spooled,
        )
        start = Start(seqd=__version__, configuration=self._config.digest, began_ns=time.time_ns())
        record.retry("ledger", lambda: record.ledger.start(start))
        log.info("run", run=info.run, tiles=len(info.tiles), cycles=info.cycles, resumed_at=min(committed.values()) + 1)

    def _record_engine(self, engine: SupervisedEngine, record: RunRecord) -> None:
        """Write the engine in use into status, ledger and provenance."""
        chosen, ledger = engine.chosen, record.ledger
        status = EngineStatus(
            **vars(engine.current.info),
            reason=chosen.selection.reason,
            passed_over=chosen.selection.passed_over,
            golden_positions=chosen.selection.golden.positions,
            golden_difference=chosen.selection.golden.difference,
            restarts=engine.restarts,
            fallback=engine.fallback_reason,
        )
        fit = FitStatus(place=chosen.fit_device.name, reason=chosen.fit_device.reason)
        self.status.set_engine(status, fit, lambda: engine.busy_s)
        since_ns = time.time_ns()
        record.retry(
            "ledger", lambda: ledger.use_engine(chosen.facts, reason=engine.fallback_reason, since_ns=since_ns)
        )
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

    def _announce_start(self, engine: SupervisedEngine, record: RunRecord) -> None:
        """Log and publish which engine is in use and why, and whether the run was begun by another version of seqd."""
        status, run = self.status.snapshot(), record.info.run
        in_use, fit = status.engine, status.fit
        assert in_use is not None
        assert fit is not None
        log.info("engine", **in_use.model_dump(exclude={"busy", "restarts", "fallback"}))
        log.info("joint fit", **fit.model_dump())
        self._events(
            "info",
            f"run {run} is called with {in_use.backend} {in_use.precision} ({in_use.reason})"
            + "".join(f"; not {backend}: {why}" for backend, why in in_use.passed_over.items()),
        )
        if engine.fallback_reason:
            log.warning("run is called with the fallback engine to its end", run=run, reason=engine.fallback_reason)
            self._events("warning", f"run {run} is called with the fallback engine: {engine.fallback_reason}")
        versions = [start.seqd for start in record.ledger.starts()][-2:]
        if len(set(versions)) > 1:
            log.warning("run continues with another seqd", run=run, before=versions[0], now=versions[1])
            self._events("warning", f"run {run}: seqd {versions[0]} called it before, seqd {versions[1]} continues it")

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


def _as_seqd_error(info: RunInfo, error: Exception) -> SeqdError:
    """Return a :class:`SeqdError` as it is, and for any other error one that people can understand."""
    match error:
        case SeqdError():
            return error
        case OSError():
            return storage_error(f"run {info.run}", error)
        case MemoryError():
            return RunError(f"run {info.run}: the system gives no memory", reason=StopReason.OUT_OF_MEMORY)
    log.exception("defect", run=info.run)
    return RunError(
        f"run {info.run}: {type(error).__name__}: {first_line(error)}; a defect of seqd, see the log for details",
        reason=StopReason.INTERNAL,
    )
