"""The controller of instrument software, against a subscriber and a dealer made here."""

import threading
import time

import numpy as np
import pytest
from seqd_client import CHANNELS, Controller, ControllerError, Read, RunInfo, SocketError, TileId, UnreachableError
from seqd_client.publisher import FrameKey, Ring
from seqd_client.wire.codec import decode
from seqd_client.wire.messages import (
    CycleEnd,
    Done,
    Frame,
    Gone,
    Hold,
    Idle,
    Kept,
    Position,
    Release,
    Resend,
    RunEnd,
    RunStart,
    Sync,
)

from tests.support.daemonsockets import PATIENCE_S, DaemonSockets

CYCLES = 3
INFO = RunInfo(
    run="R1",
    flowcell="FC",
    instrument="SEQ",
    reads=(Read(number=1, cycles=CYCLES),),
    tiles=(TileId(lane=1, tile=1), TileId(lane=2, tile=7)),
    height=8,
    width=10,
)
ONE = INFO.tiles[0]
KEYS = [FrameKey(tile, cycle, channel) for cycle in range(1, CYCLES + 1) for tile in INFO.tiles for channel in CHANNELS]
FRAME_BYTES = 8 * 10 * 2
QUIET_S = 0.4
"""Long enough for a controller that is not blocked to publish something."""


def image(number, shape=(8, 10)):
    return (np.arange(shape[0] * shape[1]) % 1000 + number).astype(np.uint16).reshape(shape)


def resend(key, run="R1"):
    return Resend(run=run, lane=key.tile.lane, tile=key.tile.tile, cycle=key.cycle, channel=key.channel)


def key_of(frame):
    return FrameKey(TileId(lane=frame.lane, tile=frame.tile), frame.cycle, frame.channel)


class Daemon(DaemonSockets):
    """Reads messages with their payloads."""

    def next(self, socket, within_s=PATIENCE_S):
        """The next message and its payload; None when nothing comes."""
        parts = self.next_parts(socket, within_s)
        return parts and decode(parts)

    def published(self, until):
        """All messages with their payloads up to one of a kind."""
        came = [self.next(self.frames)]
        while not isinstance(came[-1][0], until):
            came.append(self.next(self.frames))
            assert came[-1] is not None
        return came

    def ask(self, message):
        self.tell(message)
        return self.next(self.recovery)

    def where(self):
        """What the controller answers last to a sync."""
        self.tell(Sync())
        while not isinstance(answer := self.next(self.recovery)[0], Position | Idle):
            pass
        return answer


@pytest.fixture
def daemon(tmp_path):
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.close()


@pytest.fixture
def control(tmp_path):
    """Makes controllers; when the test ends they are closed and have left nothing behind."""
    before, controllers = set(threading.enumerate()), []

    def control(**options):
        options = {"timeout_s": PATIENCE_S} | options
        controllers.append(Controller(f"ipc://{tmp_path}/frames", f"ipc://{tmp_path}/recovery", **options))
        return controllers[-1]

    yield control
    for controller in controllers:
        controller.close()
        assert controller._publisher.context.closed
    assert set(threading.enumerate()) <= before


def publish_run(controller, info=INFO, first=1):
    controller.start(info, cycle=first - 1)
    numbers = iter(range(len(KEYS)))
    for cycle in range(first, info.cycles + 1):
        for tile in info.tiles:
            for channel in CHANNELS:
                controller.publish(tile, cycle, channel, image(next(numbers), (info.height, info.width)))
        controller.end_cycle(cycle)
    controller.end_run()


def test_run_comes_in_order_and_whole(control, daemon):
    controller = control()
    before_ns = time.time_ns()
    publish_run(controller)
    came = daemon.published(RunEnd)
    assert [message.seq for message, _ in came] == list(range(len(came)))
    assert came[0][0] == RunStart(run="R1", seq=0, info=INFO)
    frames = [(message, payload) for message, payload in came if isinstance(message, Frame)]
    assert [key_of(frame) for frame, _ in frames] == KEYS
    assert [payload for _, payload in frames] == [image(number).tobytes() for number in range(len(KEYS))]
    assert all(before_ns <= frame.t_ns <= time.time_ns() for frame, _ in frames)
    assert [message.cycle for message, _ in came if isinstance(message, CycleEnd)] == [1, 2, 3]
    assert isinstance(came[9][0], CycleEnd)
    daemon.tell(Done(run="R1"))
    controller.wait_done(PATIENCE_S)
    assert controller.done


def test_image_may_change_once_it_is_published(control, daemon):
    controller = control()
    controller.start(INFO)
    pixels = image(5)
    controller.publish(ONE, 1, "A", pixels, t_ns=77)
    pixels[:] = 0
    (frame, payload) = daemon.published(Frame)[-1]
    assert payload == image(5).tobytes()
    assert frame.t_ns == 77


def test_daemon_is_answered_while_the_instrument_does_something_else(control, daemon):
    controller = control()
    assert daemon.where() == Idle()
    controller.start(INFO)
    assert daemon.where() == Position(run="R1", seq=0, cycle=0, ended=False)
    for channel in CHANNELS:
        controller.publish(ONE, 1, channel, image(1))
    controller.end_cycle(1)
    daemon.published(CycleEnd)
    begun_s = time.monotonic()
    assert daemon.ask(Sync())[0] == RunStart(run="R1", seq=0, info=INFO)
    assert daemon.next(daemon.recovery)[0] == Position(run="R1", seq=5, cycle=1, ended=False)
    assert time.monotonic() - begun_s < 1


def test_frames_are_sent_again_until_they_are_kept(control, daemon):
    controller = control()
    publish_run(controller)
    daemon.published(RunEnd)
    for number, key in enumerate(KEYS):
        frame, payload = daemon.ask(resend(key))
        assert (key_of(frame), payload) == (key, image(number).tobytes())
    daemon.tell(Kept(run="R2", cycle=3))
    daemon.tell(Kept(run="R1", cycle=2))
    answers = [daemon.ask(resend(key))[0] for key in KEYS]
    assert [isinstance(answer, Gone) for answer in answers] == [key.cycle <= 2 for key in KEYS]
    assert key_of(answers[0]) == KEYS[0]
    daemon.tell(resend(KEYS[-1], run="R2"))
    assert daemon.where().ended


def test_ring_keeps_the_newest_frames_in_its_bytes(control, daemon):
    controller = control(ring_bytes=5 * FRAME_BYTES + FRAME_BYTES - 1)
    publish_run(controller)
    daemon.published(RunEnd)
    answers = [daemon.ask(resend(key))[0] for key in KEYS]
    assert [isinstance(answer, Frame) for answer in answers] == [False] * (len(KEYS) - 5) + [True] * 5


def test_ring_counts_a_frame_that_comes_twice_once():
    ring, key = Ring(2), FrameKey(ONE, 1, "A")
    other, third = key._replace(channel="C"), key._replace(cycle=2)
    for each in (key, other, key):
        ring.keep(each, lambda: [b"parts"])
    assert ring.source(other)() == [b"parts"]
    ring.keep(third, lambda: None)
    assert ring.source(other) is None
    ring.forget(1)
    assert ring.source(key) is None
    assert ring.source(third)() is None


def test_hold_stops_publishing_and_is_told_once(control, daemon):
    told = []
    controller = control(on_hold=lambda: told.append("hold"), on_release=lambda: told.append("release"))
    controller.start(INFO)
    controller.publish(ONE, 1, "A", image(0))
    daemon.published(Frame)
    for _ in range(3):
        daemon.tell(Hold(run="R1"))
    daemon.tell(Hold(run="R1"))
    daemon.where()
    assert controller.holding
    publishing = threading.Thread(target=controller.publish, args=(ONE, 1, "C", image(1)))
    publishing.start()
    assert daemon.next(daemon.frames, QUIET_S) is None
    daemon.tell(Release(run="R2"))
    daemon.where()
    assert publishing.is_alive()
    daemon.tell(Release(run="R1"))
    assert key_of(daemon.next(daemon.frames)[0]).channel == "C"
    publishing.join(PATIENCE_S)
    assert not publishing.is_alive()
    daemon.where()
    assert told == ["hold", "release"]


def test_hold_may_come_before_the_run(control, daemon):
    controller = control()
    daemon.tell(Hold(run="R1"))
    assert daemon.where() == Idle()
    assert not controller.holding
    controller.start(INFO)
    assert controller.holding


def test_next_run_counts_on_and_holds_nothing_of_the_last(control, daemon):
    controller = control()
    publish_run(controller)
    first = daemon.published(RunEnd)
    daemon.tell(Done(run="R1"))
    controller.wait_done(PATIENCE_S)
    assert daemon.where() == Idle()
    assert isinstance(daemon.ask(resend(KEYS[-1]))[0], Gone)
    publish_run(controller, INFO.model_copy(update={"run": "R2"}))
    second = daemon.published(RunEnd)
    assert [message.seq for message, _ in second] == list(range(len(first), 2 * len(first)))
    assert {message.run for message, _ in second} == {"R2"}
    assert not controller.done
    daemon.tell(Done(run="R1"))
    with pytest.raises(UnreachableError, match=r"the daemon did not finish the run within 0\.3 s"):
        controller.wait_done(0.3)


def test_restarted_controller_says_which_cycles_were_published(control, daemon):
    controller = control()
    controller.start(INFO, cycle=2)
    assert daemon.where() == Position(run="R1", seq=0, cycle=2, ended=False)
    with pytest.raises(ControllerError, match="run R1, end of cycle 2: allowed are cycles 3 to 3"):
        controller.end_cycle(2)
    controller.end_cycle(3)


def test_slow_daemon_gets_every_frame(control, tmp_path):
    # More than the queues of both ends and the socket between them take.
    info = INFO.model_copy(update={"reads": (Read(number=1, cycles=16),), "height": 256, "width": 256})
    daemon, controller = Daemon(tmp_path, queue=1), control()
    publishing = threading.Thread(target=publish_run_large, args=(controller, info))
    publishing.start()
    try:
        daemon.published(RunStart)
        seen = None
        while seen != (seen := daemon.where()):
            time.sleep(QUIET_S)
        assert seen.cycle < info.cycles
        came = daemon.published(RunEnd)
        assert [message.seq for message, _ in came] == list(range(1, 16 * 9 + 2))
    finally:
        daemon.close()
        publishing.join(PATIENCE_S)
    assert not publishing.is_alive()


def publish_run_large(controller, info):
    controller.start(info)
    for cycle in range(1, info.cycles + 1):
        for tile in info.tiles:
            for channel in CHANNELS:
                controller.publish(tile, cycle, channel, image(0, (256, 256)))
        controller.end_cycle(cycle)
    controller.end_run()


def test_daemon_that_takes_no_frames_and_is_silent_is_an_error(control, tmp_path):
    info = INFO.model_copy(update={"reads": (Read(number=1, cycles=16),), "height": 256, "width": 256})
    daemon, controller = Daemon(tmp_path, queue=1), control(timeout_s=0.5)
    try:
        with pytest.raises(UnreachableError, match=r"the daemon takes no frames and said nothing for 0\.5 s"):
            publish_run_large(controller, info)
    finally:
        daemon.close()


def test_daemon_that_holds_and_is_silent_is_an_error(control, daemon):
    controller = control(timeout_s=0.5)
    controller.start(INFO)
    daemon.tell(Hold(run="R1"))
    daemon.where()
    with pytest.raises(UnreachableError, match=r"the daemon asked to hold and said nothing for 0\.5 s"):
        controller.publish(ONE, 1, "A", image(0))


def test_no_daemon_is_an_error(control, tmp_path):
    with pytest.raises(UnreachableError, match=r"no daemon subscribed within 0\.2 s; start `seqd run`"):
        control().start(INFO, timeout_s=0.2)


def test_error_of_a_callback_reaches_the_program(control, daemon):
    def fail():
        raise ZeroDivisionError("the shutter is stuck")

    controller = control(on_hold=fail)
    controller.start(INFO)
    daemon.tell(Hold(run="R1"))
    deadline = time.monotonic() + PATIENCE_S
    while not controller.holding and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(ZeroDivisionError, match="the shutter is stuck"):
        controller.publish(ONE, 1, "A", image(0))
    with pytest.raises(ZeroDivisionError), controller:
        pass


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((TileId(lane=9, tile=1), 1, "A", image(0)), "tile 9_1, cycle 1, channel A: not a frame of the run; allowed"),
        ((ONE, 0, "A", image(0)), "its 2 tiles, cycles 1 to 3 and channels A, C, G, T"),
        ((ONE, 4, "A", image(0)), "cycle 4, channel A: not a frame of the run"),
        ((ONE, 1, "N", image(0)), "channel N: not a frame of the run"),
        ((ONE, 1, "A", image(0).astype(float)), r"the image is float64 \(8, 10\); a NumPy array of uint16 \(8, 10\)"),
        ((ONE, 1, "A", image(0).T), r"the image is uint16 \(10, 8\); "),
        ((ONE, 1, "A", image(0).tolist()), "the image is list; "),
    ],
)
def test_frame_that_the_run_does_not_declare_is_refused(given, text, control, daemon):
    controller = control()
    controller.start(INFO)
    with pytest.raises(ControllerError, match=text):
        controller.publish(*given)
    assert daemon.where().seq == 0


def test_calls_out_of_turn_are_refused(control, daemon):
    controller = control()
    for call in (
        lambda: controller.publish(ONE, 1, "A", image(0)),
        lambda: controller.end_cycle(1),
        controller.end_run,
    ):
        with pytest.raises(ControllerError, match="no run is under way"):
            call()
    with pytest.raises(ControllerError, match="the run has not ended"):
        controller.wait_done(1)
    controller.start(INFO)
    with pytest.raises(ControllerError, match="run R1: it has not ended"):
        controller.start(INFO)
    controller.close()
    controller.close()
    with pytest.raises(ControllerError, match="no run is under way"):
        controller.end_run()


def test_address_in_use_is_an_error_and_is_free_after_the_close(control, daemon, tmp_path):
    (tmp_path / "busy").write_text("a file where a folder has to be")
    with pytest.raises(SocketError, match="socket ipc"):
        Controller(f"ipc://{tmp_path}/busy/frames", f"ipc://{tmp_path}/recovery")
    for _ in range(2):
        with control() as controller:
            # A subscriber subscribes again only while its own thread polls.
            starting = threading.Thread(target=controller.start, args=(INFO,))
            starting.start()
            assert daemon.published(RunStart)
            starting.join(PATIENCE_S)
