"""The reception: it passes the controller's messages to the assembler, and requests missing frames."""

import time

from seqd_client.runinfo import RunInfo, TileId
from seqd_client.wire.codec import Refusal, WireError
from seqd_client.wire.messages import CycleEnd, Frame, Gone, Message, Position, Resend, RunEnd, RunStart

from daemon.intake.assembler import Assembler
from daemon.intake.ingest import Ingest
from daemon.watching.counters import Counters
from daemon.watching.liveness import Liveness

POLL_S = 0.05

SILENT_S = 5.0
"""After a silence of this length the daemon assumes that the controller does not receive its requests either."""


class Reception:
    """Receives the messages of one run; one thread uses it."""

    def __init__(
        self, info: RunInfo, ingest: Ingest, assembler: Assembler, counters: Counters, liveness: Liveness
    ) -> None:
        self._info, self._ingest, self._assembler = info, ingest, assembler
        self._counters, self._liveness = counters, liveness
        self.silent = False
        """Whether the controller is silent, so that it gets more time to send a frame."""

    def receive(self) -> None:
        """Take the messages that come within a moment, and request frames that are overdue."""
        for message, payload in self._ingest.receive(POLL_S):
            try:
                self._take(message, payload)
            except WireError as error:
                self._ingest.refuse(error)
            except MemoryError:
                self._ingest.refuse(WireError(Refusal.MEMORY, f"{message.topic}: the system gives no memory"))
        silent = self._liveness.silent_s > SILENT_S
        if self.silent and not silent:
            self._assembler.forget_requests()
        self.silent = silent
        for key in self._assembler.requests(time.monotonic()):
            request = Resend(
                run=self._info.run, lane=key.tile.lane, tile=key.tile.tile, cycle=key.cycle, channel=key.channel
            )
            if self._ingest.send(request):
                self._assembler.mark_requested(key, time.monotonic())
                self._counters.resend("resend_requested")

    def _take(self, message: Message, payload: bytes) -> None:
        now = time.monotonic()
        run = getattr(message, "run", self._info.run)
        if run != self._info.run:
            raise WireError(Refusal.FOREIGN_RUN, f"{message.topic} of run {run}; the present run is {self._info.run}")
        match message:
            case Frame():
                outcome = self._assembler.add(message, payload, now)
                self._counters.frame(outcome, TileId(lane=message.lane, tile=message.tile), message.cycle)
            case CycleEnd():
                self._assembler.mark_due(message.cycle, now)
            case RunEnd():
                self._assembler.mark_due(self._info.cycles, now)
            case Position():
                self._assembler.mark_due(self._info.cycles if message.ended else message.cycle, now)
            case Gone():
                self._counters.resend("gone")
                self._assembler.mark_gone(message)
            case RunStart() if message.info != self._info:
                raise WireError(Refusal.HEADER, f"run {run} is declared again with different reads, tiles or sizes")
