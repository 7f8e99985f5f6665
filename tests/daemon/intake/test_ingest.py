import time
import zlib

import pytest
import zmq
from seqd_client.runinfo import Read, RunInfo, TileId
from seqd_client.wire.codec import decode, encode
from seqd_client.wire.messages import CycleEnd, Frame, Hold, Resend, RunEnd, RunStart, Sync

from daemon.config import ControllerConfig, SecurityConfig
from daemon.intake.ingest import Ingest
from daemon.serving.gate import Gate
from daemon.watching.runstatus import RunStatus

INFO = RunInfo(
    run="R1",
    flowcell="FC",
    instrument="SEQ",
    reads=(Read(number=1, cycles=3),),
    tiles=(TileId(lane=1, tile=1),),
    height=8,
    width=8,
)


class Bench:
    """The two sockets of a controller, and the daemon's ends of them."""

    def __init__(self, context, folder):
        config = ControllerConfig(frames=f"ipc://{folder}/frames", recovery=f"ipc://{folder}/recovery")
        self.frames, self.recovery = context.socket(zmq.XPUB), context.socket(zmq.ROUTER)
        self.frames.bind(config.frames)
        self.recovery.bind(config.recovery)
        self.status = RunStatus("test")
        self.gate = Gate(context, SecurityConfig(), self.status.counters)
        self.ingest = Ingest(context, config, self.status.counters, self.status.liveness, self.gate)
        assert self.frames.poll(5000)
        self.frames.recv()  # the subscription

    def publish(self, message, payload=b""):
        self.frames.send_multipart(encode(message, payload))

    def received(self, number):
        """Messages until there are ``number`` of them or 5 s have passed."""
        deadline, messages = time.monotonic() + 5, []
        while len(messages) < number and time.monotonic() < deadline:
            messages += [message for message, _ in self.ingest.receive(0.05)]
        return messages


@pytest.fixture
def bench(tmp_path):
    with zmq.Context() as context:
        bench = Bench(context, tmp_path)
        with bench.gate, bench.ingest, bench.frames, bench.recovery:
            yield bench


def frame(seq, cycle=1):
    payload = bytes(128)
    header = Frame(
        run="R1",
        seq=seq,
        lane=1,
        tile=1,
        cycle=cycle,
        channel="A",
        height=8,
        width=8,
        t_ns=0,
        crc32=zlib.crc32(payload),
    )
    return header, payload


def test_published_messages_arrive_in_order(bench):
    bench.publish(RunStart(run="R1", seq=0, info=INFO))
    bench.publish(*frame(1))
    bench.publish(CycleEnd(run="R1", seq=2, cycle=1))
    assert [message.topic for message in bench.received(3)] == ["run_start", "frame", "cycle_end"]


def test_skipped_sequence_numbers_are_counted(bench):
    bench.ingest.set_run("R1")
    for seq in (10, 11, 15, 12, 16):
        bench.publish(*frame(seq))
    bench.received(5)
    assert bench.status.snapshot().frames.gaps == 3


def test_numbers_that_begin_again_are_watched_from_there(bench):
    bench.ingest.set_run("R1")
    bench.publish(*frame(40))
    bench.publish(RunStart(run="R1", seq=0, info=INFO))
    bench.publish(*frame(3))
    bench.received(3)
    assert bench.status.snapshot().frames.gaps == 2


def test_refused_messages_are_counted_by_reason_and_do_not_stop_the_rest(bench):
    bench.frames.send_multipart([b"frame", b"\xc1", b""])
    bench.frames.send_multipart([b"only one part"])
    bench.publish(Hold(run="R1"))
    header, payload = frame(1)
    bench.publish(header, b"\x01" + payload[1:])
    bench.publish(RunEnd(run="R1", seq=2))
    assert [message.topic for message in bench.received(1)] == ["run_end"]
    assert bench.status.snapshot().frames.refused == {"checksum": 1, "garbage": 2, "topic": 1}


def test_requests_reach_the_controller(bench):
    request = Resend(run="R1", lane=1, tile=1, cycle=2, channel="T")
    assert bench.ingest.send(request)
    assert bench.recovery.poll(5000)
    _, *parts = bench.recovery.recv_multipart()
    assert decode(parts) == (request, b"")


def test_daemon_that_joins_a_busy_run_asks_for_its_start(bench):
    bench.publish(*frame(100, cycle=2))
    assert len(bench.received(1)) == 1
    list(bench.ingest.receive(0.01))
    assert bench.recovery.poll(1000)
    identity, *parts = bench.recovery.recv_multipart()
    assert isinstance(decode(parts)[0], Sync)
    bench.recovery.send_multipart([identity, *encode(RunStart(run="R1", seq=0, info=INFO))])
    assert isinstance(bench.received(1)[0], RunStart)


def test_daemon_that_knows_the_run_does_not_ask_for_its_start(bench):
    bench.ingest.set_run("R1")
    bench.publish(*frame(100))
    assert len(bench.received(1)) == 1
    list(bench.ingest.receive(0.01))
    assert not bench.recovery.poll(200)
