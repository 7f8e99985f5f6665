"""Followers of a run: what they deliver against a model of the daemon, over real sockets, and from killed daemons."""

import asyncio
import re
import signal
import sys
import threading
import time
from collections import deque
from contextlib import ExitStack

import numpy as np
import pytest
import zmq
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from seqd_client import (
    AsyncCallsStream,
    AsyncControlClient,
    CallsStream,
    ControlClient,
    MissedError,
    RunState,
    Status,
    TileId,
    UnreachableError,
)
from seqd_client.consumer.runfollower import RunFollower
from seqd_client.status import CycleStatus
from seqd_client.wire.codec import decode, encode
from seqd_client.wire.messages import (
    Calls,
    Event,
    Refused,
    Replay,
    StatusAnswer,
    StatusQuery,
    Template,
    TileProgress,
    TilesAnswer,
    TilesQuery,
)

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from daemon.config import ControlConfig, SecurityConfig
from daemon.record.runfiles import RunFiles
from daemon.record.tilefile import encode_locs, open_tile_file
from daemon.serving.announcing import EventPublisher
from daemon.serving.gate import Gate
from daemon.serving.requests import RequestServer
from daemon.serving.stream import Stream
from daemon.watching.runstatus import RunStatus
from tests.support.places import DOCS
from tests.support.processes import bench, finish, process

CLIENTS = DOCS / "how-to" / "follow.md"

CYCLES = 4
MODEL_CYCLES = 2
"""Few, so that the state machine gets through several runs."""
TILES = (1101, 1102)


class ModelDaemon:
    """What a daemon publishes and answers, without sockets; committed cycles outlive its death, ``seq`` does not."""

    def __init__(self):
        self.committed = []
        self.finished = set()
        self.start()

    def start(self):
        self.seq, self.run, self.state, self.wire = 0, None, RunState.WAITING, deque()
        self.opened = False

    def name(self, run):
        return "" if run is None else f"R{run}"

    def publish(self, kind, **fields):
        self.wire.append(kind(run=self.name(self.run), seq=self.seq, **fields))
        self.seq += 1

    def event(self):
        self.publish(Event, t_ns=0, level="info", run_state=self.state.value, text="")

    def take_up(self):
        """The newest run goes on, or another begins when it is finished."""
        if len(self.committed) == len(self.finished):
            self.committed.append({})
        self.run, self.state, self.opened = len(self.committed) - 1, RunState.RUNNING, False

    def open(self):
        """The engine stands: only from here on it knows what is committed."""
        self.opened = True
        self.event()

    def commit(self, tile):
        cycles = self.committed[self.run]
        cycle = cycles[tile] = cycles.get(tile, -1) + 1
        if cycle:
            self.publish(Calls, lane=1, tile=tile, cycle=cycle, n=0)
        else:
            self.publish(Template, lane=1, tile=tile, n=0)

    def uncommitted(self):
        return [tile for tile in TILES if self.committed[self.run].get(tile, -1) < MODEL_CYCLES]

    def end(self):
        self.finished.add(self.run)
        self.state = RunState.FINISHED
        self.event()

    def answer(self, request):
        cycles = self.committed[self.run] if self.opened else {}
        run = self.name(self.run)
        match request:
            case StatusQuery():
                total = MODEL_CYCLES if self.opened else 0
                return StatusAnswer(), Status(state=self.state, run=run, cycles=total)
            case TilesQuery():
                tiles = [
                    TileProgress(lane=1, tile=tile, cycle=max(0, cycles.get(tile, 0))) for tile in TILES if self.opened
                ]
                return TilesAnswer(run=run, tiles=tuple(tiles)), None
            case Replay(tile=tile, cycle=cycle) if cycles.get(tile, -1) >= max(cycle, 1):
                if cycle:
                    return Calls(run=run, seq=0, lane=1, tile=tile, cycle=cycle, n=0), None
                return Template(run=run, seq=0, lane=1, tile=tile, n=0), None
            case _:
                return Refused(reason="not committed"), None


class Follower(RuleBasedStateMachine):
    """A follower of a daemon that is killed, drops messages and goes on to other runs, at any moment."""

    def __init__(self):
        super().__init__()
        self.daemon, self.up = ModelDaemon(), True
        self.follower = RunFollower()
        self.follower.begin()
        self.delivered, self.missed, self.ended = {}, set(), set()

    # The daemon's side.

    @precondition(lambda self: self.up and self.daemon.state is not RunState.RUNNING)
    @rule()
    def take_up(self):
        if len(self.daemon.committed) < 4 or self.daemon.state is RunState.WAITING:
            self.daemon.take_up()

    @precondition(lambda self: self.up and self.daemon.state is RunState.RUNNING and not self.daemon.opened)
    @rule()
    def open(self):
        self.daemon.open()

    @precondition(lambda self: self.up and self.daemon.opened and self.daemon.uncommitted())
    @rule(data=st.data())
    def commit(self, data):
        self.daemon.commit(data.draw(st.sampled_from(self.daemon.uncommitted())))

    @precondition(lambda self: self.up and self.daemon.opened and not self.daemon.uncommitted())
    @rule()
    def end(self):
        if self.daemon.state is RunState.RUNNING:
            self.daemon.end()

    @precondition(lambda self: self.up)
    @rule()
    def kill(self):
        self.up = False

    @precondition(lambda self: not self.up)
    @rule(lose=st.booleans())
    def start(self, lose):
        wire = self.daemon.wire
        self.daemon.start()
        if not lose:
            self.daemon.wire = wire
        self.up = True

    @precondition(lambda self: self.daemon.wire)
    @rule(data=st.data())
    def drop(self, data):
        del self.daemon.wire[data.draw(st.integers(0, len(self.daemon.wire) - 1))]

    # The follower's side.

    @rule()
    def ask(self):
        request = self.follower.request
        if request is None:
            return
        answer, status = self.daemon.answer(request) if self.up else (None, None)
        if answer is None or isinstance(answer, Refused):
            self.follower.silent()
        else:
            self.hear(lambda: self.follower.answered(answer, status), answer)

    @precondition(lambda self: self.daemon.wire and self.follower.request is None)
    @rule()
    def read(self):
        message = self.daemon.wire.popleft()
        self.hear(lambda: self.follower.published(message), message)

    @rule()
    def silent(self):
        self.follower.silent()

    def hear(self, take, message):
        try:
            deliver = take()
        except MissedError:
            run = self.follower.run
            self.missed.add(run)
            self.follower.begin()
            return
        if deliver and not isinstance(message, Event):
            tile, cycle = (message.run, message.tile), getattr(message, "cycle", 0)
            assert cycle == self.delivered.get(tile, -1) + 1, f"{tile}: {cycle} out of turn"
            assert message.run not in self.missed
            self.delivered[tile] = cycle
        if self.follower.ended:
            self.ended.add(self.follower.run)
            assert self.whole(self.follower.run), "it ended too early"
            self.follower.begin()

    def whole(self, run):
        return all(self.delivered.get((run, tile)) == MODEL_CYCLES for tile in TILES)

    @invariant()
    def nothing_is_delivered_that_is_not_committed(self):
        for (run, tile), cycle in self.delivered.items():
            assert cycle <= self.daemon.committed[int(run[1:])].get(tile, -1)

    @invariant()
    def no_run_is_left_behind_without_a_word(self):
        """Before a run that something was delivered of, everything was, or it was said."""
        newest = max((int(run[1:]) for run, _ in self.delivered), default=0)
        begun = {run for run, _ in self.delivered}
        for run in (f"R{number}" for number in range(newest)):
            if run in begun:
                assert self.whole(run) or run in self.missed

    def teardown(self):
        """In the end the daemon lives, finishes its run, and the follower catches up without any further message."""
        if not self.up:
            self.start(lose=True)
        if self.daemon.state is RunState.WAITING:
            self.daemon.take_up()
        if not self.daemon.opened:
            self.daemon.open()
        while self.daemon.state is RunState.RUNNING:
            if self.daemon.uncommitted():
                self.daemon.commit(self.daemon.uncommitted()[0])
            else:
                self.daemon.end()
        self.daemon.wire.clear()
        last = self.daemon.name(self.daemon.run)
        for _ in range(100):
            if last in self.ended:
                break
            if self.follower.request is None:
                self.follower.silent()
            self.ask()
        assert last in self.ended
        assert self.whole(last)


Follower.TestCase.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
TestFollower = Follower.TestCase


def test_stream_without_gaps_asks_nothing_more():
    daemon, follower = ModelDaemon(), RunFollower()
    daemon.take_up()
    daemon.open()
    daemon.wire.clear()
    while (request := follower.request) is not None:
        assert not follower.answered(*daemon.answer(request))
    asked = []
    for tile in TILES * (MODEL_CYCLES + 1):
        daemon.commit(tile)
        assert follower.published(daemon.wire.popleft())
        # The first message shows that the subscription stands: all before it may have been missed.
        while (request := follower.request) is not None:
            asked.append(type(request))
            assert not follower.answered(*daemon.answer(request))
    assert asked == [TilesQuery]
    daemon.end()
    assert not follower.ended
    assert follower.published(daemon.wire.popleft())
    assert follower.ended


def test_backlog_of_the_run_before_is_no_news():
    daemon, follower = ModelDaemon(), RunFollower()
    daemon.take_up()
    daemon.open()
    for tile in TILES * (MODEL_CYCLES + 1):
        daemon.commit(tile)
    daemon.end()
    follower.begin()
    while (request := follower.request) is not None:
        follower.answered(*daemon.answer(request))
    # All of the first run was replayed; what was streamed of it was not read yet.
    assert follower.ended
    follower.begin()
    daemon.take_up()
    daemon.open()
    while (request := follower.request) is not None:
        follower.answered(*daemon.answer(request))
    assert follower.run == "R1"
    backlog = [message for message in daemon.wire if message.run == "R0"]
    asked = 0
    for message in backlog:
        assert follower.published(message) == isinstance(message, Event)
        while (request := follower.request) is not None:
            asked += 1
            follower.answered(*daemon.answer(request))
    assert asked == 2  # once: the first message shows that the subscription stands
    assert (follower.run, follower.ended) == ("R1", False)


def test_gap_has_all_tiles_looked_through_at_once():
    daemon, follower = ModelDaemon(), RunFollower()
    daemon.take_up()
    daemon.open()
    follower.published(daemon.wire.popleft())
    while (request := follower.request) is not None:
        follower.answered(*daemon.answer(request))
    for tile in TILES:
        daemon.commit(tile)
        daemon.commit(tile)
    # All of the first tile are lost; what comes of the second one is in turn.
    assert follower.published(daemon.wire[2])
    assert follower.request == TilesQuery()
    follower.answered(*daemon.answer(TilesQuery()))
    assert follower.request == Replay(lane=1, tile=1101, cycle=0)


def test_sequence_that_fits_by_chance_hides_no_cycle():
    daemon, follower = ModelDaemon(), RunFollower()
    daemon.take_up()
    daemon.open()
    while (request := follower.request) is not None:
        follower.answered(*daemon.answer(request))
    daemon.commit(1101)
    for message in daemon.wire:
        assert follower.published(message)
    while (request := follower.request) is not None:
        follower.answered(*daemon.answer(request))
    # Killed and started again: seq 0 and 1 are lost, 2 comes next.
    daemon.start()
    daemon.take_up()
    daemon.open()
    daemon.commit(1101)
    daemon.commit(1101)
    assert not follower.published(daemon.wire[-1])
    assert follower.request == Replay(lane=1, tile=1101, cycle=1)
    assert follower.answered(*daemon.answer(follower.request))
    assert follower.answered(*daemon.answer(follower.request))
    assert follower.request is None


class Instrument:
    """Real control socket, stream and tile files; commits what it is told to."""

    def __init__(self, stack, folder):
        self.folder, self.run_status = folder, RunStatus("1")
        self.calls, self.endpoint = f"ipc://{folder}/calls", f"ipc://{folder}/control"
        context = stack.enter_context(zmq.Context())
        gate = stack.enter_context(Gate(context, SecurityConfig(), self.run_status.counters))
        self.stream = stack.enter_context(Stream(context, self.calls, 10**6, self.run_status.counters, gate))
        config = ControlConfig(endpoint=self.endpoint, command=f"ipc://{folder}/command")
        self.control = stack.enter_context(RequestServer(context, config, self.run_status, lambda: None, gate))
        self.events = EventPublisher(self.stream, self.run_status)
        self._stack, self.clusters = stack, 50

    def begin(self, run, cycles=CYCLES):
        self.run, self.files, self._open = run, RunFiles(self.folder / run), {}
        self.files.create()
        self.control.serve_run(run, self.files)
        committed = {TileId(lane=1, tile=tile): 0 for tile in TILES}
        totals = dict.fromkeys(CycleStatus, 0)
        self.run_status.name_run(run)
        self.run_status.counters.begin(
            cycles=cycles,
            committed=committed,
            totals=totals,
            clusters=0,
            passing_filter=0,
            spooled=(),
        )
        self.events("info", "taken up")

    def commit(self, cycle, stream=True):
        """A cycle of every tile, the template before the first."""
        for number in TILES:
            tile, n = TileId(lane=1, tile=number), self.clusters + number % 100
            if cycle == 1:
                positions = np.arange(2 * n, dtype=np.float32).reshape(-1, 2)
                self.files.locs_of(tile).write_bytes(encode_locs(positions))
                self._open[tile] = open_tile_file(self.files.calls_of(tile), clusters=n, cycles=0)
                self._stack.callback(self._open[tile].close)
                if stream:
                    template = Template(run=self.run, seq=0, lane=1, tile=number, n=n)
                    self.stream.send(template, positions[:, ::-1].astype("<f4").tobytes())
            calls = np.full(n, cycle % 256, np.uint8)
            self._open[tile].put(cycle, calls)
            self.run_status.counters.committed(tile, cycle, CycleStatus.CALLED, frames=0, passing=0)
            if stream:
                message = Calls(run=self.run, seq=0, lane=1, tile=number, cycle=cycle, n=n)
                self.stream.send(message, calls.tobytes())

    def end(self, state=RunState.FINISHED):
        self.run_status.set_state(state)
        self.events("info", f"{state}")

    def tile_files(self):
        """Bytes of the tile files, by tile."""
        return {number: self.files.calls_of(TileId(lane=1, tile=number)).read_bytes() for number in TILES}


@pytest.fixture
def instrument(tmp_path):
    with ExitStack() as stack:
        yield Instrument(stack, tmp_path)


class Kept:
    """What a consumer has of a run; falls over what does not come in turn."""

    def __init__(self):
        self.tiles, self.cycles, self.events, self.over = {}, {}, [], False

    def take(self, message, payload):
        match message:
            case Template():
                assert message.tile not in self.tiles
                self.tiles[message.tile] = message.n.to_bytes(4, "little")
                self.cycles[message.tile] = 0
            case Calls():
                assert message.cycle == self.cycles[message.tile] + 1
                self.cycles[message.tile] += 1
                self.tiles[message.tile] += payload
            case Event():
                self.events.append(message)


def follow_blocking(calls, control, *, timeout_s, kept, runs=1):
    with ControlClient(control) as client, CallsStream(calls, client) as stream:
        for number in range(runs):
            for message, payload in stream.messages(timeout_s=timeout_s):
                kept[number].take(message, payload)
            kept[number].over = True


def follow_asyncio(calls, control, *, timeout_s, kept, runs=1):
    async def follow():
        async with AsyncControlClient(control) as client, AsyncCallsStream(calls, client) as stream:
            for number in range(runs):
                async for message, payload in stream.messages(timeout_s=timeout_s):
                    kept[number].take(message, payload)
                kept[number].over = True

    asyncio.run(follow())


both = pytest.mark.parametrize("follow", [follow_blocking, follow_asyncio])


@pytest.fixture
def start():
    """Starts a follower in a thread; gives what it keeps, and a call that waits for its end and raises its error."""
    threads = []

    def start(follow, calls, control, *, timeout_s=20.0, runs=1):
        kept, errors = [Kept() for _ in range(runs)], []

        def run():
            try:
                follow(calls, control, timeout_s=timeout_s, kept=kept, runs=runs)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        threads.append(thread)
        thread.start()

        def end():
            thread.join(60)
            assert not thread.is_alive()
            if errors:
                raise errors[0]

        return kept, end

    yield start
    for thread in threads:
        thread.join(60)


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@both
def test_late_joiner_gets_what_was_before_and_then_what_comes(follow, instrument, start):
    instrument.begin("R1")
    instrument.commit(1)
    instrument.commit(2)
    (kept,), end = start(follow, instrument.calls, instrument.endpoint)
    wait_until(lambda: list(kept.cycles.values()) == [2, 2])
    instrument.commit(3)
    instrument.commit(4)
    instrument.end()
    end()
    assert kept.tiles == instrument.tile_files()
    assert [event.run_state for event in kept.events][-1] == "finished"


@both
def test_run_that_is_over_comes_whole_and_ends(follow, instrument, start):
    instrument.begin("R1")
    for cycle in range(1, CYCLES + 1):
        instrument.commit(cycle)
    instrument.end()
    (kept,), end = start(follow, instrument.calls, instrument.endpoint)
    end()
    assert kept.tiles == instrument.tile_files()


@both
def test_what_was_not_streamed_is_replayed_also_when_nothing_comes_after_it(follow, instrument, start):
    instrument.begin("R1")
    (kept,), end = start(follow, instrument.calls, instrument.endpoint, timeout_s=1.0)
    instrument.commit(1)
    wait_until(lambda: list(kept.cycles.values()) == [1, 1])
    instrument.commit(2, stream=False)
    wait_until(lambda: list(kept.cycles.values()) == [2, 2])
    instrument.commit(3, stream=False)
    instrument.commit(4)
    instrument.run_status.set_state(RunState.FINISHED)  # the event of its end is lost
    end()
    assert kept.tiles == instrument.tile_files()


@both
def test_slow_consumer_loses_nothing_and_is_not_given_up(follow, instrument, start, monkeypatch):
    """It stands still for longer than the timeout while more is streamed than anybody keeps."""
    take, slept = Kept.take, threading.Event()
    cycles = 600

    def slowly(kept, message, payload):
        take(kept, message, payload)
        if isinstance(message, Calls) and not slept.is_set():
            slept.set()
            assert go_on.wait(60)

    go_on = threading.Event()
    monkeypatch.setattr(Kept, "take", slowly)
    instrument.clusters = 4000  # 5 MB in all, more than both ends and the system keep; templates are not streamed
    instrument.begin("R1", cycles=cycles)
    (kept,), end = start(follow, instrument.calls, instrument.endpoint, timeout_s=1.0)
    instrument.commit(1)
    assert slept.wait(60)
    for cycle in range(2, cycles + 1):
        instrument.commit(cycle)
    time.sleep(1.5)
    instrument.end()
    go_on.set()
    end()
    assert kept.tiles == instrument.tile_files()


@both
def test_two_runs_after_each_other_are_followed_one_by_one(follow, instrument, start):
    kept, end = start(follow, instrument.calls, instrument.endpoint, runs=2)
    files = []
    for number, run in enumerate(("R1", "R2")):
        instrument.begin(run)
        for cycle in range(1, CYCLES + 1):
            instrument.commit(cycle, stream=cycle != 3)
        instrument.end()
        wait_until(lambda number=number: list(kept[number].cycles.values()) == [CYCLES, CYCLES])
        files.append(instrument.tile_files())
    end()
    assert [one.tiles for one in kept] == files


@both
def test_run_that_was_stopped_goes_on_for_the_same_stream(follow, instrument, start):
    kept, end = start(follow, instrument.calls, instrument.endpoint, runs=2)
    kept[1].tiles, kept[1].cycles = kept[0].tiles, kept[0].cycles
    instrument.begin("R1")
    instrument.commit(1)
    instrument.commit(2)
    instrument.end(RunState.STOPPED)
    wait_until(lambda: kept[0].over)
    assert list(kept[0].cycles.values()) == [2, 2]
    instrument.run_status.set_state(RunState.RUNNING)
    instrument.commit(3)
    instrument.commit(4)
    instrument.end()
    end()
    assert kept[1].tiles == instrument.tile_files()


@both
def test_daemon_that_goes_on_before_all_was_delivered_is_an_error(follow, instrument, start, monkeypatch):
    take, held, go_on = Kept.take, threading.Event(), threading.Event()

    def hold(kept, message, payload):
        take(kept, message, payload)
        if isinstance(message, Calls):
            held.set()
            assert go_on.wait(60)

    monkeypatch.setattr(Kept, "take", hold)
    instrument.begin("R1")
    _, end = start(follow, instrument.calls, instrument.endpoint)
    instrument.commit(1)
    assert held.wait(60)
    instrument.commit(2, stream=False)
    instrument.begin("R2")
    go_on.set()
    with pytest.raises(MissedError, match=r"run R1: the daemon began run R2 before all calls were delivered"):
        end()


@both
def test_nobody_there_is_an_error_in_time(follow, tmp_path, start):
    _, end = start(follow, f"ipc://{tmp_path}/calls", f"ipc://{tmp_path}/control", timeout_s=0.5)
    with pytest.raises(
        UnreachableError, match=r"calls: given up after 0\.5 s; control socket .*no answer within 0\.5 s"
    ):
        end()


@both
def test_daemon_that_goes_away_is_an_error_in_time(follow, tmp_path, start):
    with ExitStack() as stack:
        instrument = Instrument(stack, tmp_path)
        instrument.begin("R1")
        (kept,), end = start(follow, instrument.calls, instrument.endpoint, timeout_s=1.0)
        instrument.commit(1)
        wait_until(lambda: list(kept.cycles.values()) == [1, 1])
    with pytest.raises(UnreachableError, match=r"given up after 1 s; .*is `seqd run` running"):
        end()


@both
def test_replay_that_stays_refused_is_an_error_with_its_reason(follow, instrument, start):
    instrument.begin("R1")
    instrument.commit(1)
    instrument.files.calls_of(TileId(lane=1, tile=1102)).unlink()
    _, end = start(follow, instrument.calls, instrument.endpoint, timeout_s=0.5)
    with pytest.raises(
        UnreachableError, match=r"replay lane 1, tile 1102, cycle 1: tile 1_1102, cycle 1: not committed"
    ):
        end()


def test_late_answer_is_not_taken_for_the_next_one(tmp_path):
    endpoint = f"ipc://{tmp_path}/control"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket, ControlClient(endpoint) as client:
        socket.bind(endpoint)
        with pytest.raises(UnreachableError):
            client.ask(StatusQuery(), timeout_s=0.2)
        late = socket.recv_multipart()
        answers = threading.Thread(target=lambda: _answer_late_then(socket, late))
        answers.start()
        assert client.ask(TilesQuery(), timeout_s=20) == (TilesAnswer(run="R1", tiles=()), b"")
        answers.join()


def _answer_late_then(socket, late):
    identity, *_ = late
    socket.send_multipart([identity, *encode(StatusAnswer(), b"{}")])
    identity, *parts = socket.recv_multipart()
    assert decode(parts)[0] == TilesQuery()
    socket.send_multipart([identity, *encode(TilesAnswer(run="R1", tiles=()))])


def test_tasks_that_ask_at_once_get_their_own_answers(instrument):
    instrument.begin("R1")
    for cycle in range(1, CYCLES + 1):
        instrument.commit(cycle)

    async def ask_all():
        async with AsyncControlClient(instrument.endpoint) as client:
            cancelled = asyncio.ensure_future(client.status())
            await asyncio.sleep(0)
            cancelled.cancel()
            requests = [Replay(lane=1, tile=tile, cycle=cycle) for tile in TILES for cycle in range(1, CYCLES + 1)]
            answers = await asyncio.gather(*map(client.ask, requests))
            assert [(answer.tile, answer.cycle) for answer, _ in answers] == [
                (request.tile, request.cycle) for request in requests
            ]
            return await client.status()

    assert asyncio.run(ask_all()).run == "R1"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A small simulated run."""
    root = tmp_path_factory.mktemp("images")
    write_simulated_run(
        root, Conditions(), run="SIM", tiles=2, cycles=8, shape=(64, 64), seed=3, progress=lambda done: None
    )
    return root


def tile_files(here):
    return {number: (here.runs / "SIM" / "tiles" / f"s_1_{number}.bcls").read_bytes() for number in TILES}


@both
def test_killed_daemon_that_is_started_again_is_followed_on(follow, images, tmp_path, start):
    here = bench(tmp_path, calling={"template_cycles": 3}, engine={"threads": 1})
    with here.camera(images, "--tile-seconds", "0.3"):
        (kept,), end = start(follow, here.endpoint("calls"), here.endpoint("control"), timeout_s=60.0)
        for cycle in (2, 5):
            with here.daemon() as daemon:
                wait_until(lambda cycle=cycle: min(kept.cycles.values(), default=0) >= cycle)
                daemon.send_signal(signal.SIGKILL)
                finish(daemon)
        with here.daemon() as daemon:
            end()
            daemon.send_signal(signal.SIGTERM)
            assert finish(daemon) == 0
    assert kept.tiles == tile_files(here)
    assert all(len(content) == 4 + 8 * int.from_bytes(content[:4], "little") for content in kept.tiles.values())


def documented(number):
    """A block of code of the document, for the addresses of a test."""
    return re.findall(r"^```python\n(.*?)^```", CLIENTS.read_text("utf-8"), re.MULTILINE | re.DOTALL)[number]


def test_documented_programs_follow_a_run(images, tmp_path):
    here = bench(tmp_path, calling={"template_cycles": 3}, engine={"threads": 1})
    with ExitStack() as stack:
        daemon = stack.enter_context(here.daemon())
        programs = []
        for number in range(3):
            code = documented(number).replace("ipc:///run/seqd/", f"ipc://{tmp_path}/")
            command = [sys.executable, "-W", "error", "-c", code]
            programs.append(
                stack.enter_context(process(command, tmp_path / f"{number}.log", {"PYTHONUNBUFFERED": "1"}))
            )
        stack.enter_context(here.camera(images))
        for program in programs:
            finish(program)
        daemon.send_signal(signal.SIGTERM)
        assert finish(daemon) == 0
    printed = [(tmp_path / f"{number}.log").read_text() for number in range(3)]
    assert [program.returncode for program in programs] == [0, 0, 0], printed
    for text in printed[:2]:
        assert text.count("calls SIM ") == 2 * 8
        assert text.count("template SIM ") == 2
        assert text.count("event SIM ") >= 1
    assert printed[2].count("clusters") == 2
    assert [f"tile 1102 cycle {cycle} no-calls" in printed[2] for cycle in range(1, 10)] == [True] * 8 + [False]


def test_every_documented_block_is_run():
    assert CLIENTS.read_text("utf-8").count("```python") == 3
