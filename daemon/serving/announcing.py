"""Announcing commits, to counters and stream, and events, to operators."""

import time

from seqd_client.wire.messages import Calls, Event, Template

from daemon.record.runrecord import CommittedCycle, CommittedTemplate
from daemon.serving.stream import Stream
from daemon.watching.counters import Counters
from daemon.watching.liveness import Liveness
from daemon.watching.runstatus import RunStatus


class Announcer:
    """The only observer of a run's commits."""

    def __init__(self, run: str, counters: Counters, liveness: Liveness, stream: Stream) -> None:
        self._run, self._counters, self._liveness, self._stream = run, counters, liveness, stream

    def __call__(self, committed: CommittedTemplate | CommittedCycle) -> None:
        """Count what was committed, and publish it."""
        tile = committed.tile
        if isinstance(committed, CommittedTemplate):
            n = len(committed.positions)
            self._counters.template(n)
            template = Template(run=self._run, seq=0, lane=tile.lane, tile=tile.tile, n=n)
            self._stream.send(template, committed.positions[:, ::-1].astype("<f4").tobytes())
            return
        outcome, calls = committed.outcome, committed.calls
        self._counters.committed(
            committed.tile, outcome.cycle, outcome.status, frames=outcome.frames, passing=committed.passing
        )
        self._liveness.worked()
        message = Calls(run=self._run, seq=0, lane=tile.lane, tile=tile.tile, cycle=outcome.cycle, n=len(calls))
        self._stream.send(message, calls.tobytes())


class EventPublisher:
    """Publishes events about the present run."""

    def __init__(self, stream: Stream, status: RunStatus) -> None:
        self._stream, self._status = stream, status

    def __call__(self, level: str, text: str) -> None:
        """Publish an event; the level is ``info``, ``warning`` or ``error``."""
        status = self._status.snapshot()
        facts = {"run": status.run, "run_state": status.state.value, "level": level, "text": text[:2000]}
        self._stream.send(Event.model_validate({"seq": 0, "t_ns": time.time_ns(), **facts}))
