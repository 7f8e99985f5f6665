"""The controller's side for instrument software, over real sockets."""

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import zmq
from seqd_client import CHANNELS, Controller, PublishError, Read, RunInfo, TileId, UnreachableError
from seqd_client.controller.ring import Ring
from seqd_client.controller.session import frame_of
from seqd_client.wire.codec import decode, encode
from seqd_client.wire.messages import Done, Gone, Hold, Idle, Kept, Position, Release, Resend, RunStart, Sync

CYCLES, TILE, OTHER = 3, TileId(lane=1, tile=1101), TileId(lane=1, tile=1102)
INFO = RunInfo(
    run="R1",
    flowcell="FC",
    instrument="SEQ",
    reads=(Read(number=1, cycles=CYCLES),),
    tiles=(TILE, OTHER),
    height=8,
    width=10,
)
PATIENCE_MS = 20_000


def image(cycle=1, channel="A", tile=TILE):
    return np.full((8, 10), 100 * cycle + 10 * CHANNELS.index(channel) + tile.tile, np.uint16)


class Daemon:
    """A subscriber and a dealer, as the daemon has them."""

    def __init__(self, context, folder):
        self.frames, self.recovery = context.socket(zmq.SUB), context.socket(zmq.DEALER)
        self.frames.setsockopt(zmq.SUBSCRIBE, b"")
        self.frames.connect(f"ipc://{folder}/frames")
        self.recovery.connect(f"ipc://{folder}/recovery")

    def published(self):
        assert self.frames.poll(PATIENCE_MS)
        return decode(self.frames.recv_multipart())

    def tell(self, message):
        self.recovery.send_multipart(encode(message))

    def answer(self):
        assert self.recovery.poll(PATIENCE_MS)
        return decode(self.recovery.recv_multipart())

    def ask(self, message):
        self.tell(message)
        return self.answer()


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def daemon(folder):
    with zmq.Context() as context:
        daemon = Daemon(context, folder)
        yield daemon
        daemon.frames.close(0)
        daemon.recovery.close(0)


@contextmanager
def controller_in(folder, **options):
    with Controller(f"ipc://{folder}/frames", f"ipc://{folder}/recovery", **options) as controller:
        yield controller


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def resend(cycle, channel="A", tile=TILE):
    return Resend(run="R1", lane=tile.lane, tile=tile.tile, cycle=cycle, channel=channel)


def test_run_is_published_in_order_and_done_ends_it(folder, daemon):
    with controller_in(folder) as controller:
        controller.start(INFO)
        for cycle in range(1, CYCLES + 1):
            for tile in INFO.tiles:
                for channel in CHANNELS:
                    controller.publish(tile, cycle, channel, image(cycle, channel, tile))
            controller.end_cycle(cycle)
        controller.end_run()
        heard = [daemon.published() for _ in range(2 + CYCLES * (1 + 2 * 4))]
        assert [message.seq for message, _ in heard] == list(range(len(heard)))
        assert heard[0][0] == RunStart(run="R1", seq=0, info=INFO)
        assert [message.topic for message, _ in heard[1:10]] == ["frame"] * 8 + ["cycle_end"]
        assert heard[-1][0].topic == "run_end"
        frame, payload = heard[2]
        assert (frame.cycle, frame.channel, frame.tile) == (1, "C", 1101)
        assert np.frombuffer(payload, "<u2").tolist() == image(1, "C").ravel().tolist()
        daemon.tell(Done(run="R1"))
        controller.wait_done()
        assert controller.done


def test_daemon_learns_where_the_run_is_while_the_instrument_is_busy(folder, daemon):
    with controller_in(folder) as controller:
        assert daemon.ask(Sync())[0] == Idle()
        controller.start(INFO)
        assert daemon.published()[0].topic == "run_start"
        controller.publish(TILE, 1, "A", image())
        controller.end_cycle(1)
        wait_until(lambda: daemon.frames.poll(0))
        assert daemon.ask(Sync())[0] == RunStart(run="R1", seq=0, info=INFO)
        assert daemon.answer()[0] == Position(run="R1", seq=2, cycle=1, ended=False)


def test_frame_is_sent_again_until_the_daemon_has_kept_its_cycle(folder, daemon):
    with controller_in(folder) as controller:
        controller.start(INFO)
        for cycle in (1, 2):
            controller.publish(TILE, cycle, "A", image(cycle), t_ns=cycle)
        frame, payload = daemon.ask(resend(1))
        assert (frame.cycle, frame.seq, frame.t_ns) == (1, 0, 1)
        assert payload == image(1).tobytes()
        daemon.tell(Kept(run="R1", cycle=1))
        assert isinstance(daemon.ask(resend(1))[0], Gone)
        assert daemon.ask(resend(2))[0].cycle == 2
        assert isinstance(daemon.ask(resend(2, "C"))[0], Gone)
        daemon.tell(resend(2).model_copy(update={"run": "R2"}))
        assert not daemon.recovery.poll(200)


def test_hold_calls_back_and_publishing_waits_for_the_release(folder, daemon):
    told = []
    with controller_in(
        folder, on_hold=lambda: told.append("hold"), on_release=lambda: told.append("release")
    ) as controller:
        controller.start(INFO)
        daemon.tell(Hold(run="R1"))
        wait_until(lambda: controller.holding)
        publishing = threading.Thread(target=controller.publish, args=(TILE, 1, "A", image()))
        publishing.start()
        assert daemon.published()[0].topic == "run_start"
        assert not daemon.frames.poll(300)
        daemon.tell(Release(run="R1"))
        assert daemon.published()[0].topic == "frame"
        publishing.join()
        wait_until(lambda: len(told) == 2)
    assert told == ["hold", "release"]


def test_ring_holds_the_newest_frames_up_to_its_bytes():
    ring = Ring(3 * 160)
    for cycle in range(1, 6):
        ring.hold(*frame_of("R1", TILE, cycle, "A", image(cycle), t_ns=0))
    assert [ring.find(resend(cycle)) is not None for cycle in range(1, 6)] == [False, False, True, True, True]
    ring.hold(*frame_of("R1", TILE, 5, "A", image(5), t_ns=7))
    assert ring.find(resend(3)) is not None
    ring.release(4)
    assert [ring.find(resend(cycle)) is not None for cycle in (3, 4, 5)] == [False, False, True]
    assert ring.find(resend(5))[0].t_ns == 7


@pytest.mark.parametrize(
    ("tile", "cycle", "channel", "pixels", "reason"),
    [
        (TileId(lane=2, tile=1), 1, "A", image(), r"tile 2_1, cycle 1, channel A: run R1 does not declare the tile"),
        (TILE, 4, "A", image(), r"tile 1_1101, cycle 4, channel A: run R1 declares cycles 1 to 3"),
        (TILE, 0, "A", image(), r"declares cycles 1 to 3"),
        (TILE, 1, "N", image(), r"channel N: the channels are A, C, G, T"),
        (TILE, 1, "A", image()[:7], r"the image is 7×10 px, run R1 declares 8×10"),
        (TILE, 1, "A", image().astype(np.uint8), r"2-dimensional uint8, a frame is 2-dimensional uint16"),
    ],
)
def test_frame_that_the_run_does_not_declare_is_refused(folder, daemon, tile, cycle, channel, pixels, reason):
    with controller_in(folder) as controller:
        controller.start(INFO)
        with pytest.raises(PublishError, match=reason):
            controller.publish(tile, cycle, channel, pixels)
        controller.publish(TILE, 1, "A", image())
        assert [daemon.published()[0].topic for _ in range(2)] == ["run_start", "frame"]


def test_nothing_is_published_before_a_run_was_started(folder):
    with controller_in(folder) as controller:
        for act in (lambda: controller.publish(TILE, 1, "A", image()), controller.end_run, controller.wait_done):
            with pytest.raises(PublishError, match="no run was started"):
                act()


def test_missing_daemon_is_an_error_in_time(folder):
    with controller_in(folder, wait_s=0.2) as controller, pytest.raises(UnreachableError, match="no daemon subscribed"):
        controller.start(INFO)


def test_daemon_that_takes_nothing_is_an_error_in_time(folder):
    large = INFO.model_copy(update={"height": 256, "width": 256, "reads": (Read(number=1, cycles=4000),)})
    pixels = np.zeros((256, 256), np.uint16)
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber, controller_in(folder, stuck_s=0.5) as there:
        subscriber.setsockopt(zmq.RCVHWM, 1)
        subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        subscriber.connect(f"ipc://{folder}/frames")
        there.start(large)
        publish = (there.publish(TILE, cycle, "A", pixels) for cycle in range(1, 4001))
        with pytest.raises(UnreachableError, match="the daemon takes no frames"):
            list(publish)


def test_daemon_that_is_silent_after_the_run_is_an_error_in_time(folder, daemon):
    with controller_in(folder) as controller:
        controller.start(INFO)
        controller.end_run()
        with pytest.raises(UnreachableError, match=r"is not done with the run and says nothing, for 0\.2 s"):
            controller.wait_done(timeout_s=0.2)


def test_second_run_follows_the_first(folder, daemon):
    second = INFO.model_copy(update={"run": "R2"})
    with controller_in(folder) as controller:
        for info in (INFO, second):
            controller.start(info)
            controller.publish(TILE, 1, "A", image())
            controller.end_run()
            assert [daemon.published()[0].run for _ in range(3)] == [info.run] * 3
            daemon.tell(Done(run=info.run))
            controller.wait_done()
        assert isinstance(daemon.ask(resend(1).model_copy(update={"run": "R2"}))[0].run, str)
