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
