import threading
from contextlib import ExitStack, contextmanager

import pytest
import zmq
from seqd_client.status import RunState
from seqd_client.wire.codec import decode
from seqd_client.wire.messages import Calls, Event

from daemon.config import SecurityConfig
from daemon.serving.announcing import EventPublisher
from daemon.serving.gate import Gate
from daemon.serving.stream import MAX_MESSAGES, OVERHEAD, Stream
from daemon.watching.runstatus import RunStatus

MIB = 2**20
PATIENCE_MS = 20_000


def calls(cycle, payload):
    return Calls(run="R", seq=0, lane=1, tile=1101, cycle=cycle, n=len(payload)), payload


def event(level, text):
    return Event(run="", seq=0, t_ns=1, level=level, run_state="waiting", text=text)


class Consumer:
    """A consumer that keeps nothing to itself: what it does not read waits at the daemon."""

    def __init__(self, context, endpoint):
        self.socket = context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.RCVHWM, 1)
        self.socket.setsockopt(zmq.SUBSCRIBE, b"")
        self.socket.connect(endpoint)

    def read(self, timeout_ms=PATIENCE_MS):
        return decode(self.socket.recv_multipart()) if self.socket.poll(timeout_ms) else None

    def rest(self):
        """Sequence numbers of what still comes."""
        seqs = []
        while read := self.read(500):
            seqs.append(read[0].seq)
        return seqs

    def subscribed(self, stream):
        """Wait until what is sent comes; gives the sequence number of the last that was sent."""
        while True:
            stream.send(event("info", "are you there?"))
            if self.read(50):
                break
        stream.send(event("warning", "then we begin"))
        while (read := self.read()) and read[0].level != "warning":
            pass
        return read[0].seq


@pytest.fixture
def status():
    return RunStatus("1")


@pytest.fixture
def there(tmp_path, status):
    """Opens streams and consumers, and closes them after the test."""
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        gate = stack.enter_context(Gate(context, SecurityConfig(), status.counters))
        endpoint = f"ipc://{tmp_path}/calls"

        class There:
            def stream(self, queue_bytes):
                return stack.enter_context(Stream(context, endpoint, queue_bytes, status.counters, gate))

            def consumer(self):
                consumer = Consumer(context, endpoint)
                stack.callback(consumer.socket.close, 0)
                return consumer

        yield There()


def test_messages_come_in_order_with_rising_sequence_numbers(there, status):
    stream, consumer = there.stream(MIB), there.consumer()
    first = consumer.subscribed(stream) + 1
    for cycle in range(1, 20):
        stream.send(*calls(cycle, bytes([cycle]) * cycle))
    status.set_state(RunState.FAILED)
    EventPublisher(stream, status)("error", "it ends")
    for cycle in range(1, 20):
        message, payload = consumer.read()
        assert message == Calls(run="R", seq=first + cycle - 1, lane=1, tile=1101, cycle=cycle, n=cycle)
        assert payload == bytes([cycle]) * cycle
    event, payload = consumer.read()
    assert isinstance(event, Event)
    assert (event.seq, event.level, event.run_state, event.text, payload) == (
        first + 19,
        "error",
        "failed",
        "it ends",
        b"",
    )
    assert status.snapshot().stream_dropped == 0


def test_what_waits_for_a_consumer_that_does_not_read_is_bounded_in_bytes(there, status):
    size = 100_000
    stream, reader = there.stream(MAX_MESSAGES * (size + OVERHEAD + 200)), there.consumer()
    reader.subscribed(stream)
    stalled = there.consumer()
    stalled.subscribed(stream)
    reader.rest()
    payload = bytes(size)
    for cycle in range(1, 301):
        stream.send(*calls(cycle, payload))
        last, _ = reader.read()
    assert last.cycle == 300
    assert status.snapshot().stream_dropped == 0
    kept = stalled.rest()
    # Beside the queue, what the sockets' buffers of the system hold.
    assert MAX_MESSAGES // 2 <= len(kept) <= MAX_MESSAGES + 20
    assert last.seq not in kept
    stream.send(event("info", "room again"))
    message, _ = stalled.read()
    assert message.seq > kept[-1] + 1


def test_message_that_would_leave_no_room_for_others_is_dropped_and_leaves_a_gap(there, status):
    stream, consumer = there.stream(MAX_MESSAGES * 10_000), there.consumer()
    before = consumer.subscribed(stream)
    stream.send(*calls(1, bytes(10_000)))
    stream.send(*calls(2, bytes(8_000)))
    message, _ = consumer.read()
    assert (message.cycle, message.seq) == (2, before + 2)
    assert status.snapshot().stream_dropped == 1


@contextmanager
def held_back(tmp_path, status, queue_bytes):
    """A stream whose socket sends nothing before the gate is opened."""
    gate = threading.Event()

    class HeldBack(zmq.Socket):
        def send_multipart(self, parts, *arguments, **keywords):
            assert gate.wait(60)
            return super().send_multipart(parts, *arguments, **keywords)

    class Context(zmq.Context):
        _socket_class = HeldBack

    with (
        Context() as context,
        Gate(context, SecurityConfig(), status.counters) as guarded,
        Stream(context, f"ipc://{tmp_path}/calls", queue_bytes, status.counters, guarded) as stream,
    ):
        yield stream, gate


def test_what_waits_to_be_sent_is_bounded_in_bytes_and_nobody_waits(tmp_path, status):
    size = 10_000
    with held_back(tmp_path, status, MAX_MESSAGES * (size + OVERHEAD + 200)) as (stream, gate):
        for cycle in range(1, 201):
            stream.send(*calls(cycle, bytes(size)))
        dropped = status.snapshot().stream_dropped
        gate.set()
    assert 0 < 200 - MAX_MESSAGES - dropped <= 2


def test_room_is_given_back_when_messages_are_sent(tmp_path, status):
    with held_back(tmp_path, status, MIB) as (stream, gate), zmq.Context() as context:
        consumer = Consumer(context, f"ipc://{tmp_path}/calls")
        gate.set()
        consumer.subscribed(stream)
        for cycle in range(1, 401):
            stream.send(*calls(cycle, bytes(6_000)))
            assert consumer.read()[0].cycle == cycle
        consumer.socket.close(0)
    assert status.snapshot().stream_dropped == 0


def test_stream_ends_while_its_queue_is_full(tmp_path, status):
    with held_back(tmp_path, status, MIB) as (stream, gate):
        while not status.snapshot().stream_dropped:
            stream.send(*calls(1, bytes(1000)))
        opened = threading.Timer(0.2, gate.set)
        opened.start()
    opened.join()
