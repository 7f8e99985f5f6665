"""What ``seqd status`` shows: one versioned model."""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

STATUS_VERSION = 1


class RunState(StrEnum):
    """Where the daemon is."""

    WAITING = "waiting"
    """No run is known yet."""
    RUNNING = "running"
    """Frames of a run are being called."""
    DRAINING = "draining"
    """Asked to stop: what is held is finished, nothing new is begun."""
    FINISHED = "finished"
    """Every tile-cycle of the run is committed and its FASTQ written."""
    STOPPED = "stopped"
    """Drained before the run was finished; the next start goes on."""
    FAILED = "failed"
    """The run cannot go on; ``reason`` says why."""


ENDED = {RunState.FINISHED, RunState.STOPPED, RunState.FAILED}
"""States that a run does not leave while this daemon lives."""


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


class Frames(BaseModel):
    """What came in."""

    model_config = ConfigDict(extra="forbid")

    accepted: int = 0
    duplicate: int = 0
    late: int = 0
    refused: dict[str, int] = {}
    """By reason."""
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
    holding: bool = False
    """Whether the controller was asked to hold the flow cell."""


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
    reason: str = ""
    """Why it stopped or failed, else empty."""
    run: str = ""
    cycle: int = 0
    """Last cycle that every tile has committed."""
    cycles: int = 0
    """Of the run."""
    tile_cycles: TileCycles = TileCycles()
    frames: Frames = Frames()
    lag: Lag = Lag()
    engine: EngineStatus | None = None
    fit: FitStatus | None = None
    clusters: int = 0
    """In the templates that stand."""
    passing_filter: int = 0
    """Of them, those known to pass the chastity filter."""
    fastq_files: int = 0
    """Written."""
    stream_dropped: int = 0
    """Messages that were not streamed; consumers can ask for them again."""
    tile_cycles_per_s: float = 0
    """Committed since the run was taken up."""
    version: str = ""
    """Of seqd."""
