"""The simulated controller: the real encoder and sockets, against a subscriber and a dealer made here."""

import itertools
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import tifffile
import zmq
from seqd_client.errors import SeqdError, SocketError, UnreachableError
from seqd_client.runinfo import CHANNELS, Read, RunInfo, TileId
from seqd_client.wire.codec import WireError, decode, encode
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

from calib.runfolder.images import image_path
from camera.faultdraws import Crash, FaultDraws
from camera.faults import FaultError, Faults, parse_faults
from camera.simulatedcontroller import Pace, SimulatedController
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
FRAMES = CYCLES * len(INFO.tiles) * len(CHANNELS)
QUIET_S = 0.4
"""Longer than the controller takes for a tile image."""

# What befalls a run of 24 frames with seed 1: part of what is promised of a seed.
DROPPED = [1, 2, 6, 10, 11, 17]
DUPLICATED = [0, 3, 4, 5, 11, 15, 16, 19]
REORDERED = [0, 1, 2, 4, 3, 5, 6, 7, 8, 10, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 20, 22, 23]
DELAYED, AFTER_THE_END = [3, 16], [16]
CORRUPTED = [1, 2, 3, 5, 6, 8, 13, 15, 21]
TRUNCATED = [2, 8, 10, 16]
LEAPT = [2, 5, 12, 13, 16, 19, 21, 22, 23]
ANSWERED = [1, 3, 1, 2, 2, 2, 2, 1]
"""Of four requests for each of the first frames."""


def pixels(number):
    return (np.arange(80, dtype="<u2") + 1000 * number).reshape(8, 10)


def write_archive(root, info, pixels):
    numbers = itertools.count()
    for cycle in range(1, info.cycles + 1):
        for tile in info.tiles:
            for channel in CHANNELS:
                path = image_path(root, tile, cycle, channel)
                path.parent.mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(path, pixels(next(numbers)))
    return root


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Frames of 8 × 10 pixels, each with its number in its values."""
    return write_archive(tmp_path_factory.mktemp("archive"), INFO, pixels)


def number_of(frame):
    """Place of a frame in the order of imaging."""
    tile = INFO.tiles.index(TileId(lane=frame.lane, tile=frame.tile))
    return ((frame.cycle - 1) * len(INFO.tiles) + tile) * len(CHANNELS) + CHANNELS.index(frame.channel)


def resend(number):
    """The request for a frame."""
    image, channel = divmod(number, len(CHANNELS))
    cycle, place = divmod(image, len(INFO.tiles))
    tile = INFO.tiles[place]
    return Resend(run="R1", lane=tile.lane, tile=tile.tile, cycle=cycle + 1, channel=CHANNELS[channel])


@dataclass
class Spoilt:
    """A frame that does not pass the decoder."""

    reason: str
    payload: bytes


class Host(DaemonSockets):
    """Reads messages without their payloads, which it checks."""

    def next(self, socket, within_s=PATIENCE_S):
        """The next message; a spoilt frame as :class:`Spoilt`; None when nothing comes."""
        parts = self.next_parts(socket, within_s)
        if parts is None:
            return None
        try:
            message, payload = decode(parts)
        except WireError as error:
            return Spoilt(error.refusal.value, parts[2])
        if isinstance(message, Frame):
            assert payload == pixels(number_of(message)).tobytes()
        return message

    def published(self, until=RunEnd):
        """Everything that is published up to a kind of message."""
        messages = [self.next(self.frames)]
        while not isinstance(messages[-1], until):
            messages.append(self.next(self.frames))
            assert messages[-1] is not None, f"nothing came for {PATIENCE_S} s after {messages}"
        return messages

    def ask(self, message, within_s=PATIENCE_S):
        self.tell(message)
        return self.next(self.recovery, within_s)


def where(host, within_s=PATIENCE_S):
    """What the controller says last of where it is; None when it does not."""
    host.tell(Sync())
    while not isinstance(answer := host.next(host.recovery, within_s), Position | Idle | None):
        pass
    return answer


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    yield host
    host.close()


@pytest.fixture
def deaf(host):
    """A daemon that asks, but does not listen yet."""
    host.frames.setsockopt(zmq.UNSUBSCRIBE, b"")
    return host


@contextmanager
def controlling(archive, folder, *, faults="", info=INFO, **pace):
    """A controller in a thread; ends when it is told `done` or when it fails, with what it failed of."""
    failures = []
    pace = Pace(**{"wait_s": PATIENCE_S, "linger_s": PATIENCE_S} | pace)
    addresses = {"frames": f"ipc://{folder}/frames", "recovery": f"ipc://{folder}/recovery"}

    def work():
        try:
            with SimulatedController(archive, info, pace=pace, faults=parse_faults(faults), **addresses) as controller:
                controller.run(lambda taken: None)
        except SeqdError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield failures
    finally:
        thread.join(2 * PATIENCE_S)
        assert not thread.is_alive()


def published(archive, folder, faults=""):
    """All messages of a run with faults, and what came after its end."""
    host = Host(folder)
    try:
        with controlling(archive, folder, faults=faults) as failures:
            messages = host.published()
            while (late := host.next(host.frames, QUIET_S)) is not None:
                messages.append(late)
            host.tell(Done(run="R1"))
        assert not failures
    finally:
        host.close()
    return messages


def frames_of(messages):
    """Numbers of the frames that came whole, in their order."""
    return [number_of(message) for message in messages if isinstance(message, Frame)]


def test_undisturbed_run_is_published_in_order(archive, tmp_path):
    messages = published(archive, tmp_path)
    assert [message.seq for message in messages] == list(range(len(messages)))
    assert messages[0] == RunStart(run="R1", seq=0, info=INFO)
    assert frames_of(messages) == list(range(FRAMES))
    per_cycle = FRAMES // CYCLES
    assert [messages[n * (per_cycle + 1)].cycle for n in range(1, CYCLES + 1)] == [1, 2, 3]
    assert isinstance(messages[-1], RunEnd)


def test_dropped_frames_leave_their_sequence_numbers_out(archive, tmp_path):
    messages = published(archive, tmp_path, "drop=0.25,seed=1")
    came = frames_of(messages)
    assert sorted(set(range(FRAMES)) - set(came)) == DROPPED
    seqs = [message.seq for message in messages]
    assert seqs == sorted(set(seqs))
    assert seqs[-1] == FRAMES + CYCLES + 1


def test_doubled_frames_come_twice(archive, tmp_path):
    came = frames_of(published(archive, tmp_path, "duplicate=0.25,seed=1"))
    twice = [number for number in range(FRAMES) if came.count(number) == 2]
    assert twice == DUPLICATED
    assert came == sorted([*range(FRAMES), *twice])


def test_reordered_frames_come_after_the_next(archive, tmp_path):
    came = frames_of(published(archive, tmp_path, "reorder=0.25,seed=1"))
    assert came == REORDERED
    assert sorted(came) == list(range(FRAMES))


def test_delayed_frames_come_tile_images_later_and_after_the_end(archive, tmp_path):
    messages = published(archive, tmp_path, "delay=0.2,delay_images=3,seed=1")
    came = frames_of(messages)
    assert sorted(came) == list(range(FRAMES))
    late = [number for place, number in enumerate(came) if number < max(came[:place], default=-1)]
    assert sorted(late) == DELAYED
    for number in late:
        before = [earlier for earlier in came[: came.index(number)] if earlier not in late]
        assert max(before) == min(number + 12, FRAMES - 1)
    assert frames_of(messages[messages.index(next(m for m in messages if isinstance(m, RunEnd))) :]) == AFTER_THE_END


def test_corrupt_frames_have_one_bit_flipped(archive, tmp_path):
    messages = published(archive, tmp_path, "corrupt=0.25,seed=1")
    spoilt = [message for message in messages if isinstance(message, Spoilt)]
    lost = sorted(set(range(FRAMES)) - set(frames_of(messages)))
    assert lost == CORRUPTED
    assert {one.reason for one in spoilt} == {"checksum"}
    for number, one in zip(lost, spoilt, strict=True):
        flipped = int.from_bytes(one.payload, "little") ^ int.from_bytes(pixels(number).tobytes(), "little")
        assert flipped.bit_count() == 1


def test_truncated_frames_are_beginnings(archive, tmp_path):
    messages = published(archive, tmp_path, "truncate=0.25,seed=1")
    spoilt = [message for message in messages if isinstance(message, Spoilt)]
    lost = sorted(set(range(FRAMES)) - set(frames_of(messages)))
    assert lost == TRUNCATED
    assert {one.reason for one in spoilt} == {"size"}
    for number, one in zip(lost, spoilt, strict=True):
        assert pixels(number).tobytes().startswith(one.payload)
        assert len(one.payload) < 160


def test_clock_leaps_forth_and_back(archive, tmp_path):
    before = time.time_ns()
    messages = published(archive, tmp_path, "clock=0.5,clock_s=86400,seed=1")
    times = {number_of(message): message.t_ns - before for message in messages if isinstance(message, Frame)}
    # What the run itself takes is no leap.
    leaps = [number for number, off_ns in times.items() if not 0 <= off_ns < 60e9]
    assert leaps == LEAPT
    assert min(times.values()) < -3600e9
    assert max(times.values()) > 3600e9
    assert max(abs(off_ns) for off_ns in times.values()) < 86460e9


def test_resent_frames_are_those_published_with_their_time(archive, tmp_path, host):
    with controlling(archive, tmp_path, faults="drop=0.25,clock=1,seed=1"):
        sent = {number_of(message): message for message in host.published() if isinstance(message, Frame)}
        for number in range(FRAMES):
            again = host.ask(resend(number))
            assert number_of(again) == number
            if number in sent:
                assert again.t_ns == sent[number].t_ns
        host.tell(Done(run="R1"))


def test_lost_answers_have_to_be_asked_for_again(archive, tmp_path, host):
    with controlling(archive, tmp_path, faults="resend_drop=0.5,seed=1"):
        host.published()
        needed = []
        for number in range(8):
            for _ in range(4):
                host.tell(resend(number))
            # Answers keep their order, so that of the sync is the last.
            host.tell(Sync())
            answers = []
            while not isinstance(answer := host.next(host.recovery), Position):
                answers += [answer] * isinstance(answer, Frame)
            assert all(number_of(answer) == number for answer in answers)
            needed.append(len(answers))
        host.tell(Done(run="R1"))
    assert needed == ANSWERED


def test_frames_older_than_the_ring_are_gone(archive, tmp_path, host):
    with controlling(archive, tmp_path, faults="ring=5"):
        host.published()
        answers = [host.ask(resend(number)) for number in range(FRAMES)]
        host.tell(Done(run="R1"))
    assert [isinstance(answer, Gone) for answer in answers] == [True] * (FRAMES - 5) + [False] * 5


def test_frames_that_are_kept_are_held_no_longer(archive, tmp_path, host):
    with controlling(archive, tmp_path):
        host.published()
        assert isinstance(host.ask(resend(0)), Frame)
        host.tell(Kept(run="R0", cycle=3))
        host.tell(Kept(run="R1", cycle=2))
        # An earlier cycle frees nothing more, and nothing less.
        host.tell(Kept(run="R1", cycle=1))
        answers = [host.ask(resend(number)) for number in range(FRAMES)]
        host.tell(Done(run="R1"))
    assert [isinstance(answer, Gone) for answer in answers] == [True] * 16 + [False] * 8


def test_what_has_not_been_imaged_or_is_not_of_the_run_is_gone(archive, tmp_path, host):
    with controlling(archive, tmp_path):
        host.published(until=Frame)
        host.tell(Hold(run="R1"))
        beyond = Resend(run="R1", lane=1, tile=1, cycle=CYCLES + 1, channel="A")
        elsewhere = Resend(run="R1", lane=9, tile=1, cycle=1, channel="A")
        assert isinstance(host.ask(beyond), Gone)
        assert isinstance(host.ask(elsewhere), Gone)
        assert host.ask(Resend(run="R2", lane=1, tile=1, cycle=1, channel="A"), within_s=QUIET_S) is None
        host.tell(Done(run="R1"))


def test_controller_is_idle_before_the_run_and_says_then_where_it_is(archive, tmp_path, deaf):
    with controlling(archive, tmp_path):
        assert deaf.ask(Sync()) == Idle()
        deaf.frames.setsockopt(zmq.SUBSCRIBE, b"")
        last = deaf.published()[-1]
        assert deaf.ask(Sync()) == RunStart(run="R1", seq=0, info=INFO)
        assert deaf.next(deaf.recovery) == Position(run="R1", seq=last.seq, cycle=CYCLES, ended=True)
        deaf.tell(Done(run="R1"))


def test_questions_without_end_do_not_stop_imaging(archive, tmp_path, host):
    enough = threading.Event()

    def ask_on():
        # Faster than anyone can answer: there is always another.
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(f"ipc://{tmp_path}/recovery")
            while not enough.is_set():
                if socket.poll(10, zmq.POLLOUT):
                    socket.send_multipart(encode(resend(0)))
                while socket.poll(0):
                    socket.recv_multipart()

    with controlling(archive, tmp_path, tile_s=0.05):
        asking = [threading.Thread(target=ask_on) for _ in range(3)]
        for thread in asking:
            thread.start()
        try:
            assert frames_of(host.published()) == list(range(FRAMES))
        finally:
            enough.set()
            for thread in asking:
                thread.join()
        host.tell(Done(run="R1"))


def test_held_controller_stops_and_goes_on_when_released(archive, tmp_path, host):
    with controlling(archive, tmp_path, tile_s=0.1):
        host.published(until=Frame)
        host.tell(Hold(run="R1"))
        # Asked after the hold, so answered after it.
        position = where(host)
        while host.next(host.frames, QUIET_S) is not None:
            pass
        host.tell(Release(run="R2"))
        assert where(host) == position
        assert host.next(host.frames, QUIET_S) is None
        host.tell(Release(run="R1"))
        rest = host.published()
        # Nothing was lost: the numbers go on.
        assert [message.seq for message in rest] == list(range(position.seq + 1, FRAMES + CYCLES + 2))
        host.tell(Done(run="R1"))


def lives(messages):
    """Messages of each life of the controller."""
    starts = [place for place, message in enumerate(messages) if isinstance(message, RunStart)]
    return [messages[one:other] for one, other in zip(starts, [*starts[1:], None], strict=True)]


@pytest.mark.parametrize(("skip", "again"), [("crash_skip=1", False), ("crash_skip=0", True)])
def test_crashed_controller_comes_back_and_numbers_anew(skip, again, archive, tmp_path):
    faults = parse_faults(f"crash=0.4,crash_s=0.1,{skip},seed=3")
    expected = [[]]
    for image in range(FRAMES // 4):
        numbers = range(4 * image, 4 * image + 4)
        if (crash := FaultDraws(faults).crash(image)) is None:
            expected[-1] += numbers
            continue
        assert crash.skip is not again
        expected[-1] += numbers[: crash.after]
        expected.append([*numbers] if again else [])
    assert len(expected) == 4
    # Time for what was published to leave before the controller dies.
    host = Host(tmp_path)
    try:
        with controlling(archive, tmp_path, faults=f"crash=0.4,crash_s=0.1,{skip},seed=3", tile_s=0.3) as failures:
            came = lives(host.published())
            host.tell(Done(run="R1"))
    finally:
        host.close()
    assert not failures
    assert len(came) == len(expected)
    for life, numbers in zip(came, expected, strict=True):
        # The last messages of a life may die with it; those that came are in order and without a gap.
        assert [message.seq for message in life] == list(range(len(life)))
        assert frames_of(life) == numbers[: len(frames_of(life))]
    assert frames_of(came[-1]) == expected[-1]
    assert ({number for life in came for number in frames_of(life)} == set(range(FRAMES))) is again
    ends = [message.cycle for life in came for message in life if isinstance(message, CycleEnd)]
    assert ends == sorted(set(ends))


def crashes(faults):
    """What befalls each of the six tile images."""
    return [FaultDraws(parse_faults(faults)).crash(image) for image in range(6)]


def test_hold_goes_with_the_life_that_it_was_said_to(archive, tmp_path, deaf):
    faults = "crash=0.2,crash_s=0.1,seed=235"
    assert crashes(faults) == [Crash(after=0, skip=False), None, None, None, None, None]
    with controlling(archive, tmp_path, faults=faults) as failures:
        deaf.tell(Hold(run="R1"))
        assert deaf.ask(Sync()) == Idle()
        deaf.frames.setsockopt(zmq.SUBSCRIBE, b"")
        # It dies while holding; nobody released it, and yet it goes on.
        messages = deaf.published()
        deaf.tell(Done(run="R1"))
    assert not failures
    assert frames_of(lives(messages)[-1]) == list(range(FRAMES))


def test_restarted_controller_is_idle_until_someone_listens_and_knows_its_cycle_but_no_frame(archive, tmp_path, deaf):
    faults = "crash=0.2,crash_s=0.1,seed=70"
    assert crashes(faults) == [None, None, Crash(after=0, skip=False), None, None, None]
    with controlling(archive, tmp_path, faults=faults, tile_s=0.1) as failures:
        deaf.tell(Hold(run="R1"))
        deaf.frames.setsockopt(zmq.SUBSCRIBE, b"")
        deaf.published(until=RunStart)
        deaf.frames.setsockopt(zmq.UNSUBSCRIBE, b"")
        deaf.tell(Release(run="R1"))
        deadline = time.monotonic() + PATIENCE_S
        # What is asked of the dying controller is not answered.
        while (answer := where(deaf, within_s=0.5)) != Idle():
            assert time.monotonic() < deadline, f"not idle, but {answer}"
        deaf.tell(Hold(run="R1"))
        deaf.frames.setsockopt(zmq.SUBSCRIBE, b"")
        assert deaf.published(until=RunStart) == [RunStart(run="R1", seq=0, info=INFO)]
        while (answer := where(deaf)) == Idle():
            pass  # to what was asked before
        assert answer == Position(run="R1", seq=0, cycle=1, ended=False)
        deaf.tell(Release(run="R1"))
        assert frames_of(deaf.published()) == list(range(8, FRAMES))
        answers = [deaf.ask(resend(number)) for number in range(FRAMES)]
        assert [isinstance(answer, Gone) for answer in answers] == [True] * 8 + [False] * 16
        deaf.tell(Done(run="R1"))
    assert not failures


def test_frames_held_back_are_lost_in_a_crash(archive, tmp_path):
    faults = "delay=1,delay_images=2,crash=0.2,crash_s=0.1,seed=70"
    assert crashes(faults) == [None, None, Crash(after=0, skip=False), None, None, None]
    assert frames_of(published(archive, tmp_path, faults)) == list(range(8, FRAMES))


def test_paused_controller_stands_still_and_goes_on(archive, tmp_path, host):
    began = time.monotonic()
    with controlling(archive, tmp_path, faults="pause=1,pause_s=0.2"):
        messages = host.published()
        took_s = time.monotonic() - began
        host.tell(Done(run="R1"))
    assert frames_of(messages) == list(range(FRAMES))
    assert took_s >= 6 * 0.2


def test_no_daemon_is_an_error(archive, tmp_path):
    with controlling(archive, tmp_path, wait_s=0.2) as failures:
        pass
    assert [type(failure) for failure in failures] == [UnreachableError]
    assert "no daemon subscribed within 0.2 s" in str(failures[0])


def test_daemon_that_never_comes_back_after_a_crash_is_an_error(archive, tmp_path):
    host = Host(tmp_path)
    with controlling(archive, tmp_path, faults="crash=1,crash_s=0.1", tile_s=0.1, wait_s=0.5) as failures:
        host.published(until=RunStart)
        host.close()
    assert "no daemon subscribed within 0.5 s" in str(failures[0])


def test_daemon_that_holds_and_leaves_is_an_error(archive, tmp_path):
    host = Host(tmp_path)
    with controlling(archive, tmp_path, tile_s=0.1, wait_s=0.5) as failures:
        host.published(until=Frame)
        host.tell(Hold(run="R1"))
        assert host.ask(Sync()) is not None
        host.close()
    assert [type(failure) for failure in failures] == [UnreachableError]


def test_daemon_that_holds_and_falls_silent_is_an_error(archive, tmp_path, host):
    with controlling(archive, tmp_path, tile_s=0.1, no_progress_s=0.5) as failures:
        host.published(until=Frame)
        host.tell(Hold(run="R1"))
    assert "asked to hold and said nothing for 0.5 s" in str(failures[0])


def test_daemon_that_takes_no_frames_is_answered_and_then_given_up(tmp_path):
    # More than the queues of both ends and the socket between them take.
    info = INFO.model_copy(update={"reads": (Read(number=1, cycles=16),), "height": 256, "width": 256})
    archive = write_archive(tmp_path / "large", info, lambda number: np.full((256, 256), number, np.uint16))
    host = Host(tmp_path, queue=1)
    try:
        with controlling(archive, tmp_path, info=info, no_progress_s=2) as failures:
            seen = None
            while isinstance(seen, Idle | None) or seen != where(host):
                time.sleep(0.3)
                seen = where(host)
            assert seen.cycle < info.cycles
        assert "takes no frames and said nothing for 2 s" in str(failures[0])
    finally:
        host.close()


def test_daemon_that_stays_silent_after_the_end_is_left(archive, tmp_path, host):
    with controlling(archive, tmp_path, linger_s=0.2) as failures:
        host.published()
    assert not failures


def test_address_in_use_is_an_error(archive, tmp_path):
    busy = f"ipc://{tmp_path}/busy/frames"
    (tmp_path / "busy").write_text("a file, where a folder has to be")
    with pytest.raises(SocketError, match="socket ipc"):
        SimulatedController(archive, INFO, frames=busy, recovery=busy, pace=Pace(), faults=Faults())


KINDS = ("drop", "duplicate", "reorder", "delay", "corrupt", "truncate", "clock", "pause", "crash", "resend_drop")


def befallen(faults, kind):
    """The numbers below 400 that a kind of fault befalls."""
    draws = FaultDraws(faults)
    return [number for number in range(400) if draws._draw(kind, number) is not None]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_befalls_the_same_whatever_the_others_are(kind):
    alone = befallen(Faults(**{kind: 0.2, "seed": 5}), kind)
    among = Faults(**dict.fromkeys(KINDS, 0.6) | {kind: 0.2, "seed": 5})
    assert befallen(among, kind) == alone
    # Backwards, as with requests that come in another order.
    draws = FaultDraws(among)
    backwards = [number for number in reversed(range(400)) if draws._draw(kind, number) is not None]
    assert backwards == alone[::-1]
    assert 50 < len(alone) < 110
    assert befallen(Faults(**{kind: 0.2, "seed": 6}), kind) != alone
    assert len({tuple(befallen(among.model_copy(update={kind: 0.2}), kind)) for kind in KINDS}) == len(KINDS)


def test_all_faults_together_are_the_same_twice(archive, tmp_path):
    faults = "drop=0.1,duplicate=0.2,reorder=0.2,delay=0.1,corrupt=0.1,truncate=0.1,seed=9"
    runs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        messages = published(archive, tmp_path / name, faults)
        runs.append([message if isinstance(message, Spoilt) else message.seq for message in messages])
    assert runs[0] == runs[1]
    assert sum(isinstance(message, Spoilt) for message in runs[0]) > 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("drop=2", "fault drop = '2': Input should be less than or equal to 1"),
        ("drop=nan", "fault drop = 'nan': Input should be a finite number"),
        ("crash_s=-1", "fault crash_s = '-1': Input should be greater than or equal to 0"),
        ("drop", "fault 'drop': write NAME=VALUE, as in drop=0.05"),
        ("drop=0.1,drop=0.2", "fault drop: given twice, as 0.1 and as 0.2"),
        ("burn=1", f"fault 'burn': no such fault; the faults are {', '.join(Faults.model_fields)}"),
    ],
)
def test_faults_that_cannot_be_read_say_why(text, complaint):
    with pytest.raises(FaultError) as raised:
        parse_faults(text)
    assert str(raised.value) == complaint
    assert raised.value.exit_code == 2


def test_faults_are_read():
    assert parse_faults("ring=8, drop = 0.1,") == Faults(ring=8, drop=0.1)
    assert parse_faults("") == Faults()
