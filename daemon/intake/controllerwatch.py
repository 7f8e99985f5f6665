"""Watching the controller: when it is asked to hold, which frames it may forget, and how long it has been silent."""

import shutil
import time

import structlog
from seqd_client.runinfo import RunInfo
from seqd_client.status import DiskStatus, Lag, Phase, SpoolStatus, StopReason
from seqd_client.wire.messages import Hold, Kept, Release

from daemon.config import Config
from daemon.errors import RunError
from daemon.intake.assembler import Assembler
from daemon.intake.ingest import Ingest
from daemon.intake.pressure import Backpressure, Forecast
from daemon.record.runrecord import RunRecord
from daemon.watching.runstatus import RunStatus

WATCH_S = 0.2
"""Time between two checks."""

HOLD_AGAIN_S = 5.0
"""Hold or release is sent again at this interval, because a restarted controller does not know whether to hold."""

SILENT_CYCLES, SILENT_S = 3, 30.0
"""The status shows that a controller is silent after the time of ``SILENT_CYCLES`` cycles, at least ``SILENT_S``."""

log = structlog.get_logger()


class ControllerWatch:
    """Checks how much one run holds and has committed, and informs the controller and the status."""

    def __init__(
        self,
        config: Config,
        info: RunInfo,
        record: RunRecord,
        assembler: Assembler,
        ingest: Ingest,
        status: RunStatus,
    ) -> None:
        self._config, self._info, self._record = config, info, record
        self._assembler, self._ingest, self._status = assembler, ingest, status
        self._backpressure = Backpressure(config.memory, config.spool)
        self._spool_forecast, self._disk_forecast = Forecast(), Forecast()
        self._checked_s, self._hold_sent_s = 0.0, 0.0
        self._kept = 0
        self._logged_cycle = self.committed_by_all

    @property
    def committed_by_all(self) -> int:
        """Last cycle that every tile has committed."""
        return min(self._record.committed.get(tile, 0) for tile in self._info.tiles)

    def check(self) -> None:
        """Check everything, if ``WATCH_S`` has passed since the last time.

        Raises
        ------
        RunError : the controller was silent for ``controller.silent_after_s``.
        """
        now = time.monotonic()
        if now - self._checked_s < WATCH_S:
            return
        self._checked_s = now
        assembler, spool = self._assembler, self._spool_status(now)
        self._hold_or_release(spool.bytes, now)
        lag = Lag(
            bytes=assembler.bytes_held,
            cycle_s=assembler.cycle_time.cycle_s,
            holding=bool(self._backpressure.holding),
            headroom_s=spool.full_in_s,
        )
        self._status.set_lag(newest_cycle=assembler.newest_cycle, lag=lag, spool=spool, disk=self._disk_status(now))
        self._check_silence()
        self._announce_kept_cycle()
        self._log_cycle()

    def _spool_status(self, now_s: float) -> SpoolStatus:
        images, limit = self._assembler.spooled, self._config.spool.limit
        spooled_bytes = images * self._assembler.image_bytes
        self._spool_forecast.add(spooled_bytes, now_s)
        full_in_s = self._spool_forecast.full_in_s(limit)
        return SpoolStatus(images=images, bytes=spooled_bytes, limit=limit, full_in_s=full_in_s)

    def _disk_status(self, now_s: float) -> DiskStatus:
        try:
            free = shutil.disk_usage(self._record.files.root).free
        except OSError:
            return DiskStatus()
        # The forecast is made from the free bytes: blocks that are reserved for the system are neither free nor used.
        self._disk_forecast.add(-free, now_s)
        return DiskStatus(free=free, full_in_s=self._disk_forecast.full_in_s(0))

    def _hold_or_release(self, spooled_bytes: int, now_s: float) -> None:
        pressure, run = self._backpressure, self._info.run
        change = pressure.change(waiting_bytes=self._assembler.bytes_waiting, spooled_bytes=spooled_bytes)
        holding = pressure.holding if change is None else change
        if change is None and now_s - self._hold_sent_s < HOLD_AGAIN_S:
            return
        if self._ingest.send(Hold(run=run) if holding else Release(run=run)):
            pressure.holding, self._hold_sent_s = holding, now_s
            if change is not None:
                log.info("hold" if holding else "release", run=run, spooled_bytes=spooled_bytes)

    def _check_silence(self) -> None:
        silent_s, settings = self._status.liveness.silent_s, self._config.controller
        if self._assembler.finished:
            self._status.troubles.end("controller")
            return
        if silent_s > settings.silent_after_s:
            raise RunError(
                f"run {self._info.run}: nothing came from the controller at {settings.frames} "
                f"for {settings.silent_after_s:g} s",
                reason=StopReason.CONTROLLER_SILENT,
            )
        if silent_s > max(SILENT_S, SILENT_CYCLES * (self._assembler.cycle_time.cycle_s or 0)):
            text = f"nothing comes from {settings.frames}; after {settings.silent_after_s:g} s the run is given up"
            self._status.troubles.begin("controller", Phase.SILENT, text)
        else:
            self._status.troubles.end("controller")

    def _announce_kept_cycle(self) -> None:
        """Tell the controller that it may forget the frames up to a cycle, because all are on the disk."""
        committed, spool = self._record.committed, self._record.spool
        kept = min(spool.kept_up_to(tile, committed.get(tile, 0)) for tile in self._info.tiles)
        if kept > self._kept and self._ingest.send(Kept(run=self._info.run, cycle=kept)):
            self._kept = kept

    def _log_cycle(self) -> None:
        cycle = self.committed_by_all
        if cycle <= self._logged_cycle:
            return
        self._logged_cycle = cycle
        status = self._status.snapshot()
        counts = status.tile_cycles.model_dump(include={"called", "missing", "failed"})
        log.info("cycle", cycle=cycle, of=self._info.cycles, **counts, lag=status.lag.cycles)
