"""Where a run is, what hinders it, and why it ended: the words of the state machine.

::

    waiting ──run_start──▶ running ──every tile-cycle committed and written──▶ finished
       ▲                      │  ╲
       │                      │   ╲──what cannot be waited out──▶ failed
       │                      │
       │                      └──asked to stop──▶ draining ──▶ stopped
       └── after finished, the next run

While a run is ``running``, a :class:`Phase` says how it fares. What can pass by itself (a full disk, an engine that is
opened again) is a phase and no end: the run goes on when its cause is gone. An end has a :class:`StopReason`.
"""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict


class RunState(StrEnum):
    """Where the daemon is."""

    WAITING = "waiting"
    """No run is known yet."""
    RUNNING = "running"
    """A run is carried; ``phase`` says how it fares."""
    DRAINING = "draining"
    """Asked to stop: what is held is finished, nothing new is begun."""
    FINISHED = "finished"
    """Every tile-cycle of the run is committed and its FASTQ written."""
    STOPPED = "stopped"
    """Drained before the run was finished; the next start goes on."""
    FAILED = "failed"
    """The run cannot go on; ``stop_reason`` and ``reason`` say why. The next start goes on where the ledger ends."""


ENDED = {RunState.FINISHED, RunState.STOPPED, RunState.FAILED}
"""States that a run does not leave while this daemon lives."""


class Phase(StrEnum):
    """How a running run fares; of several that hold, the first one here is shown."""

    STALLED = "stalled"
    """There is work and none gets done: systemd is no longer told of life and will start the daemon anew."""
    DISK_FULL = "disk_full"
    """A file cannot grow; tried again until there is room."""
    PERMISSION_LOST = "permission_lost"
    """A file may not be written; tried again until it may."""
    STORAGE_FAILED = "storage_failed"
    """The disk answers with an error; tried again."""
    OUT_OF_MEMORY = "out_of_memory"
    """The system gives no memory; tried again."""
    ENGINE_RESTARTING = "engine_restarting"
    """The engine failed and is opened again, or another one in its place."""
    OPENING = "opening"
    """The engine is being chosen and opened; a plan may be built for minutes."""
    HOLDING = "holding"
    """The controller is asked to hold the flow cell until calling has caught up."""
    CATCHING_UP = "catching_up"
    """Images wait on disk to be called."""
    SILENT = "silent"
    """Nothing comes from the controller, and something should."""
    CALLING = "calling"
    """All is well."""


class StopReason(StrEnum):
    """Why a run ended."""

    FINISHED = "finished"
    ASKED = "asked"
    """By SIGTERM, SIGINT or ``drain``."""
    REFUSED = "refused"
    """The run cannot be taken up: begun with something else, in use by another daemon, or not a plain folder."""
    CONTROLLER_SILENT = "controller_silent"
    """Nothing came for ``controller.silent_after_s``."""
    DISK_FULL = "disk_full"
    PERMISSION_LOST = "permission_lost"
    STORAGE_FAILED = "storage_failed"
    """The three above outlasted ``faults.retry_for_s``, or the daemon was asked to stop meanwhile."""
    OUTPUT_CHANGED = "output_changed"
    """A file is not what the ledger says; it was changed from outside."""
    ENGINE_FAILED = "engine_failed"
    """No engine could be opened, or opened again, or make a tile's template."""
    DEVICE_LOST = "device_lost"
    """The engine's device is gone, and no other engine is allowed by ``faults.fallback``."""
    OUT_OF_MEMORY = "out_of_memory"
    STUCK = "stuck"
    """A worker did nothing for too long while the daemon was draining."""
    INTERNAL = "internal"
    """A defect of seqd; the log has the details."""


class CycleStatus(StrEnum):
    """What became of a tile-cycle."""

    CALLED = "called"
    """Its images came and were called."""
    MISSING = "missing"
    """Its images did not come; all no-calls."""
    FAILED = "failed"
    """Its images came and could not be called; all no-calls."""


STATUS_VERSION = 1


class TileCycles(BaseModel):
    """The balance: received = called + missing + failed + pending."""

    model_config = ConfigDict(extra="forbid")

    expected: int = 0
    """Of the whole run."""
    received: int = 0
    """Taken over from the controller, or given up as missing."""
    called: int = 0
    missing: int = 0
    failed: int = 0
    pending: int = 0
    """Received and not committed yet: template cycles wait here, and in a read the two newest cycles of each tile."""
    balanced: bool = True
    """Whether the four add up to what was received; each is counted for itself."""


class Frames(BaseModel):
    """What came in: received = accepted + duplicate + late + refused, accepted + restored = committed + pending."""

    model_config = ConfigDict(extra="forbid")

    received: int = 0
    """Since the run was taken up, as all of these; messages that could not be read are among them."""
    accepted: int = 0
    duplicate: int = 0
    late: int = 0
    """Their tile-cycle had been called or given up."""
    refused: dict[str, int] = {}
    """By reason."""
    restored: int = 0
    """Found in the spool when the run was taken up."""
    committed: int = 0
    """Of tile-cycles that are committed."""
    pending: int = 0
    """Of tile-cycles that are not."""
    balanced: bool = True
    """Whether both sums come out."""
    gaps: int = 0
    """Sequence numbers that did not come in order."""
    resend_requested: int = 0
    gone: int = 0
    """Asked for again and no longer held by the controller."""


class Lag(BaseModel):
    """How far calling is behind imaging."""

    model_config = ConfigDict(extra="forbid")

    cycles: int = 0
    """Imaged and not committed; within a read two of them are always waited for."""
    tile_cycles: int = 0
    bytes: int = 0
    """Frames held in memory."""
    silent_s: float = 0
    """Since the last message of the controller."""
    cycle_s: float | None = None
    """That the controller takes to image a cycle."""
    holding: bool = False
    """Whether the controller is asked to hold the flow cell."""
    headroom_s: float | None = None
    """Until the spool is at its limit at the present rate; None while it does not grow."""


class SpoolStatus(BaseModel):
    """Images that wait on disk to be called."""

    model_config = ConfigDict(extra="forbid")

    images: int = 0
    bytes: int = 0
    limit: int = 0
    full_in_s: float | None = None
    """At the present rate; None while it does not grow."""


class DiskStatus(BaseModel):
    """The disk that the run is written to."""

    model_config = ConfigDict(extra="forbid")

    free: int = 0
    """Bytes."""
    full_in_s: float | None = None
    """At the present rate; None while it does not fill."""


class SinkStatus(BaseModel):
    """Files that are made of committed calls."""

    model_config = ConfigDict(extra="forbid")

    files: int = 0
    """In place."""
    behind: int = 0
    """Tile-cycles that are committed and not yet in them."""


class Trouble(BaseModel):
    """What hinders a run and is waited out."""

    model_config = ConfigDict(extra="forbid")

    what: str
    phase: Phase
    text: str
    since_s: float
    """How long it has lasted."""


class EngineStatus(BaseModel):
    """The engine that is really in use."""

    model_config = ConfigDict(extra="forbid")

    backend: str
    device: str
    gpu: bool
    software: str
    """Library and version that compute."""
    precision: str
    model: str
    model_hash: str
    slots: int
    strips: int
    reason: str
    """Why this backend."""
    passed_over: dict[str, str]
    """Backends that were tried before, and why not."""
    golden_positions: int
    """Of the bundle's golden tile, that it was held against; none on tiles hardly larger than the network's halo."""
    golden_difference: float
    """Root mean square by which its evidence there is off."""
    restarts: int = 0
    """How often an engine that failed was replaced since the run was taken up."""
    fallback: str = ""
    """Why it took over from the engine that was configured; empty for that one."""
    busy: float = 0
    """Share of the time since the run was taken up in which it had a tile to compute."""


class FitStatus(BaseModel):
    """Where the joint fit runs."""

    model_config = ConfigDict(extra="forbid")

    place: str
    """``cpu`` or ``gpu``."""
    reason: str


class Status(BaseModel):
    """The daemon's status."""

    model_config = ConfigDict(extra="forbid")

    v: Literal[1] = 1
    state: RunState = RunState.WAITING
    """``finished`` says by itself that every tile-cycle is committed and written."""
    phase: Phase | None = None
    """How a running run fares."""
    stop_reason: StopReason | None = None
    """Why the run ended; None until it does."""
    reason: str = ""
    """The same for a person, with names and values."""
    troubles: list[Trouble] = []
    """What is being waited out."""
    stalled_s: float = 0
    """Since anything got done, while there is something to do."""
    run: str = ""
    cycle: int = 0
    """Last cycle that every tile has committed."""
    cycles: int = 0
    """Of the run."""
    tile_cycles: TileCycles = TileCycles()
    frames: Frames = Frames()
    lag: Lag = Lag()
    spool: SpoolStatus = SpoolStatus()
    disk: DiskStatus = DiskStatus()
    engine: EngineStatus | None = None
    fit: FitStatus | None = None
    clusters: int = 0
    """In the templates that stand."""
    passing_filter: int = 0
    """Of them, those known to pass the chastity filter."""
    sinks: dict[str, SinkStatus] = {}
    """What is made of the calls, by name."""
    shut_out: dict[str, int] = {}
    """Connections refused since the daemon started, by socket: frames, recovery, calls, control, command."""
    requests_refused: dict[str, int] = {}
    """Since the daemon started, by socket (control, command) and reason."""
    slowed: int = 0
    """Requests that had to wait, since answering takes no more than its share of the processor."""
    stream_dropped: int = 0
    """Messages that were not streamed; consumers can ask for them again."""
    tile_cycles_per_s: float = 0
    """Committed since the run was taken up."""
    version: str = ""
    """Of seqd."""
