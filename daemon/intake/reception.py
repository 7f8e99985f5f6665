"""Reception: the controller's messages go into the assembler, and missing frames are asked for again."""

import time

from seqd_client.runinfo import RunInfo, TileId
from seqd_client.wire.codec import Refusal, WireError
from seqd_client.wire.messages import CycleEnd, Frame, Gone, Message, Position, Resend, RunEnd, RunStart

from daemon.intake.assembler import Assembler
from daemon.intake.ingest import Ingest
from daemon.watching.counters import Counters
from daemon.watching.liveness import Liveness

POLL_S = 0.05

UNHEARD_S = 5.0
"""A controller that says nothing for so long, although the daemon asks where it is, does not hear the daemon either."""


class Reception:
    """Receives the messages of one run; one thread uses it."""

    def __init__(
        self, info: RunInfo, ingest: Ingest, assembler: Assembler, counters: Counters, liveness: Liveness
    ) -> None:
        self._info, self._ingest, self._assembler = info, ingest, assembler
        self._counters, self._liveness = counters, liveness
        self.unheard = False
        """Whether the controller says nothing, so that it gets more time to send a frame."""

    def receive(self) -> None:
        """Take in the messages that have come, and ask for frames that are overdue; waits a moment for the first."""
        for message, payload in self._ingest.receive(POLL_S):
            try:
                self._take(message, payload)
            except WireError as error:
                self._ingest.refuse(error)
            except MemoryError:
                self._ingest.refuse(WireError(Refusal.MEMORY, f"{message.topic}: the system gives no memory"))
        unheard = self._liveness.silent_s > UNHEARD_S
        if self.unheard and not unheard:
            self._assembler.ask_anew()
        self.unheard = unheard
        for key in self._assembler.requests(time.monotonic()):
            request = Resend(
                run=self._info.run, lane=key.tile.lane, tile=key.tile.tile, cycle=key.cycle, channel=key.channel
            )
            if self._ingest.send(request):
                self._assembler.sent(key, time.monotonic())
                self._counters.asked("resend_requested")

    def _take(self, message: Message, payload: bytes) -> None:
        now = time.monotonic()
        run = getattr(message, "run", self._info.run)
        if run != self._info.run:
            raise WireError(Refusal.FOREIGN_RUN, f"{message.topic} of run {run}, this is run {self._info.run}")
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
                self._counters.asked("gone")
                self._assembler.gone(message)
            case RunStart() if message.info != self._info:
                raise WireError(Refusal.HEADER, f"run {run} is declared anew with other reads, tiles or sizes")
