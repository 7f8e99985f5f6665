"""The daemon's status: the state of its run, what hinders the run, and why it ended.

::

    waiting ──run_start──▶ running ──every tile-cycle committed and written──▶ finished
       ▲                      │  ╲
       │                      │   ╲──a lasting failure──▶ failed
       │                      │
       │                      └──asked to stop──▶ draining ──▶ stopped
       └── after finished, the next run

While a run is ``running``, a :class:`Phase` says what the daemon does or waits for. A hindrance that can pass (a full
disk, an engine that is opened again) is a phase: the run continues when its cause is gone. An end has a
:class:`StopReason`.
"""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict


class RunState(StrEnum):
    """The state of the daemon and its run."""

    WAITING = "waiting"
    """No run is known yet."""
    RUNNING = "running"
    """The daemon calls a run; ``phase`` says what it does or waits for."""
    DRAINING = "draining"
    """The daemon was asked to stop: it finishes the tile-cycles in work and begins no others."""
    FINISHED = "finished"
    """Every tile-cycle of the run is committed and its FASTQ written."""
    STOPPED = "stopped"
    """Drained before the run was finished; the next start of the daemon continues the run."""
    FAILED = "failed"
    """The run cannot continue; ``stop_reason`` and ``reason`` say why. The next start continues from the ledger."""


ENDED = {RunState.FINISHED, RunState.STOPPED, RunState.FAILED}
"""States that a run does not leave while this daemon lives."""


class Phase(StrEnum):
    """What a running run does or waits for; where several apply, the status shows the one listed first here."""

    STALLED = "stalled"
    """There is work and none gets done. The daemon no longer reports to systemd, which restarts it therefore."""
    DISK_FULL = "disk_full"
    """A file cannot grow; the daemon tries again until there is room."""
    PERMISSION_LOST = "permission_lost"
    """The daemon lacks the permission to write a file, and tries again."""
    STORAGE_FAILED = "storage_failed"
    """The disk answers with an error; the daemon tries again."""
    OUT_OF_MEMORY = "out_of_memory"
    """The system gives no memory; the daemon tries again."""
    ENGINE_RESTARTING = "engine_restarting"
    """The engine failed; the daemon opens it again, or opens another engine in its place."""
    OPENING = "opening"
    """The engine is being chosen and opened; a plan may be built for minutes."""
    HOLDING = "holding"
    """The controller is asked to hold the flow cell until calling has caught up."""
    CATCHING_UP = "catching_up"
    """Images wait on disk to be called."""
    SILENT = "silent"
    """The controller sends nothing although the run has not ended."""
    CALLING = "calling"
    """All is well."""


class StopReason(StrEnum):
    """Why a run ended."""

    FINISHED = "finished"
    ASKED = "asked"
    """The daemon was asked to stop, by SIGTERM, SIGINT or ``drain``."""
    REFUSED = "refused"
    """The run was begun with other settings, is in use by another daemon, or its folder is not a plain folder."""
    CONTROLLER_SILENT = "controller_silent"
    """Nothing came for ``controller.silent_after_s``."""
    DISK_FULL = "disk_full"
    PERMISSION_LOST = "permission_lost"
    STORAGE_FAILED = "storage_failed"
    """``disk_full``, ``permission_lost`` or ``storage_failed`` lasted longer than ``faults.retry_for_s``, or the daemon
    was asked to stop meanwhile."""
    OUTPUT_CHANGED = "output_changed"
    """A file does not have the content that the ledger records; another program changed it."""
    ENGINE_FAILED = "engine_failed"
    """No engine could be opened or reopened, or the engine could not make the template of a tile."""
    DEVICE_LOST = "device_lost"
    """The engine's device is gone, and no other engine is allowed by ``faults.fallback``."""
    OUT_OF_MEMORY = "out_of_memory"
    STUCK = "stuck"
    """A worker did nothing for too long while the daemon was draining."""
    INTERNAL = "internal"
    """A defect of seqd; the log has the details."""


class CycleStatus(StrEnum):
    """How a tile-cycle was committed."""

    CALLED = "called"
    """Its images came and were called."""
    MISSING = "missing"
    """Its images did not come; all no-calls."""
    FAILED = "failed"
    """Its images came and could not be called; all no-calls."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TileCycles(_Part):
    """The balance: received = called + missing + failed + pending."""

    expected: int = 0
    """Tile-cycles of the whole run."""
    received: int = 0
    """Tile-cycles that came from the controller or were given up as missing."""
    called: int = 0
    missing: int = 0
    failed: int = 0
    pending: int = 0
    """Tile-cycles received and not committed yet. Template cycles wait for the template. The two newest cycles of a
    tile wait for the two cycles after each of them."""
    balanced: bool = True
    """Whether called, missing, failed and pending, which are counted separately, add up to received."""


class Frames(_Part):
    """Frames: received = accepted + duplicate + late + refused, and accepted + restored = committed + pending."""

    received: int = 0
    """Frames that came, and messages that could not be read, since the daemon started or continued the run. All counts
    here begin at that time."""
    accepted: int = 0
    duplicate: int = 0
    late: int = 0
    """Frames whose tile-cycle had been called or given up."""
    refused: dict[str, int] = {}
    """Frames that were refused, by reason."""
    restored: int = 0
    """Frames that the daemon found in the spool when it continued the run."""
    committed: int = 0
    """Frames of tile-cycles that are committed."""
    pending: int = 0
    """Frames of tile-cycles that are not committed."""
    balanced: bool = True
    """Whether both equations hold."""
    gaps: int = 0
    """Sequence numbers that did not come in order."""
    resend_requested: int = 0
    gone: int = 0
    """Frames that were asked for again and that the controller no longer had."""


class Lag(_Part):
    """How far calling is behind imaging."""

    cycles: int = 0
    """Cycles imaged and not committed. Within a read there are at least two, because calls need the two next cycles."""
    tile_cycles: int = 0
    bytes: int = 0
    """Frames held in memory."""
    silent_s: float = 0
    """Seconds since the last message of the controller."""
    cycle_s: float | None = None
    """Seconds that the controller takes to image a cycle; None before it has finished two."""
    holding: bool = False
    """Whether the controller is asked to hold the flow cell."""
    headroom_s: float | None = None
    """Seconds until the spool reaches its limit at the present rate; None while it does not grow."""


class SpoolStatus(_Part):
    """Images that wait on disk to be called."""

    images: int = 0
    bytes: int = 0
    limit: int = 0
    full_in_s: float | None = None
    """Seconds until it is full at the present rate; None while it does not grow."""


class DiskStatus(_Part):
    """The disk that the run is written to."""

    free: int = 0
    """Bytes."""
    full_in_s: float | None = None
    """Seconds until it is full at the present rate; None while it does not fill."""


class SinkStatus(_Part):
    """Files that a sink makes from committed calls."""

    files: int = 0
    """Files that are complete."""
    behind: int = 0
    """Committed tile-cycles that the files do not have yet."""


class Trouble(_Part):
    """A fault that hinders the run; the daemon waits until it is over."""

    what: str
    phase: Phase
    text: str
    since_s: float
    """Seconds that it has lasted."""


class EngineStatus(_Part):
    """The engine in use."""

    backend: str
    device: str
    gpu: bool
    software: str
    """Name and version of the library that computes."""
    precision: str
    model: str
    model_hash: str
    slots: int
    strips: int
    reason: str
    """Why this backend was chosen."""
    passed_over: dict[str, str]
    """Backends that were tried first, each with the reason that it was not chosen."""
    golden_positions: int
    """Positions of the bundle's golden tile that the engine was compared at; 0 for tiles too small for the network."""
    golden_difference: float
    """Root mean square of the difference between its evidence and the bundle's at these positions."""
    restarts: int = 0
    """How often an engine was opened after one had failed, since the daemon started or continued the run."""
    fallback: str = ""
    """Why this engine took over from the configured engine; empty for the configured engine."""
    busy: float = 0
    """Share of the time in which the engine had a tile to compute, since the daemon started or continued the run."""


class FitStatus(_Part):
    """Where the joint fit runs."""

    place: str
    """``cpu`` or ``gpu``."""
    reason: str


class Status(_Part):
    """The daemon's status."""

    v: Literal[1] = 1
    """Version of this format."""
    state: RunState = RunState.WAITING
    """The state; ``finished`` implies that every tile-cycle is committed and written."""
    phase: Phase | None = None
    """What a running run does or waits for."""
    stop_reason: StopReason | None = None
    """Why the run ended; None before."""
    reason: str = ""
    """Why the run ended, as a sentence with names and values."""
    troubles: list[Trouble] = []
    """Faults that hinder the run; the daemon waits until they are over."""
    stalled_s: float = 0
    """Seconds in which nothing got done although there is work."""
    run: str = ""
    cycle: int = 0
    """Last cycle that every tile has committed."""
    cycles: int = 0
    """Cycles of the run."""
    tile_cycles: TileCycles = TileCycles()
    frames: Frames = Frames()
    lag: Lag = Lag()
    spool: SpoolStatus = SpoolStatus()
    disk: DiskStatus = DiskStatus()
    engine: EngineStatus | None = None
    fit: FitStatus | None = None
    clusters: int = 0
    """Clusters in the templates that are made."""
    passing_filter: int = 0
    """Clusters that are known to pass the chastity filter."""
    sinks: dict[str, SinkStatus] = {}
    """Outputs made from the calls, by name."""
    shut_out: dict[str, int] = {}
    """Connections that were refused since the daemon started, by socket: frames, recovery, calls, control, command."""
    requests_refused: dict[str, int] = {}
    """Requests that were refused since the daemon started, by socket (control, command) and reason."""
    slowed: int = 0
    """Requests that waited because answers may take only a share of the processor."""
    stream_dropped: int = 0
    """Messages that were not streamed; consumers can ask for them again."""
    tile_cycles_per_s: float = 0
    """Tile-cycles committed in a second, on average since the daemon started or continued the run."""
    version: str = ""
    """Version of seqd."""
