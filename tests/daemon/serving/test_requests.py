import threading

import msgpack
import numpy as np
import pytest
import zmq
from seqd_client.consumer import ControlClient
from seqd_client.errors import SocketError, UnreachableError
from seqd_client.runinfo import TileId
from seqd_client.sockets import bind
from seqd_client.status import CycleStatus, RunState, StopReason
from seqd_client.wire.codec import decode
from seqd_client.wire.messages import Accepted, Calls, Drain, Hold, Refused, Replay, StatusQuery, Template, TilesQuery

from daemon.config import ControlConfig, SecurityConfig
from daemon.record.runfiles import RunFiles
from daemon.record.tilefile import encode_locs, open_tile_file
from daemon.serving.gate import Gate
from daemon.serving.requests import RequestServer
from daemon.watching.runstatus import RunStatus

TILE, EMPTY = TileId(lane=1, tile=1101), TileId(lane=1, tile=1102)
POSITIONS = np.array([[1.5, 20.25], [3.0, 4.0], [7.75, 0.5]], np.float32)
"""y and x."""
CALLS = np.array([[161, 0, 9], [8, 10, 11]], np.uint8)


@pytest.fixture
def endpoint(tmp_path):
    return f"ipc://{tmp_path}/sockets/control"


@pytest.fixture
def command(tmp_path):
    return f"ipc://{tmp_path}/sockets/command"


@pytest.fixture
def drained():
    return threading.Event()


@pytest.fixture
def status():
    return RunStatus("1")


@pytest.fixture
def control(endpoint, command, status, drained):
    config = ControlConfig(endpoint=endpoint, command=command)
    with (
        zmq.Context() as context,
        Gate(context, SecurityConfig(), status.counters) as gate,
        RequestServer(context, config, status, drained.set, gate) as control,
    ):
        yield control


@pytest.fixture
def client(control, endpoint):
    with ControlClient(endpoint) as client:
        yield client


@pytest.fixture
def run(control, status, tmp_path):
    """A run with two committed cycles of a tile, a third one on its way, and two of a tile without clusters."""
    files = RunFiles(tmp_path / "R1")
    files.create()
    for tile, positions, cycles in ((TILE, POSITIONS, [*CALLS, CALLS[0]]), (EMPTY, POSITIONS[:0], [CALLS[0, :0]] * 2)):
        files.locs_of(tile).write_bytes(encode_locs(positions))
        file = open_tile_file(files.calls_of(tile), clusters=len(positions), cycles=0)
        for cycle, calls in enumerate(cycles, 1):
            file.put(cycle, calls)
        file.close()
    status.name_run("R1")
    status.start_run(
        cycles=5,
        committed={TILE: 2, EMPTY: 2},
        totals=dict.fromkeys(CycleStatus, 0),
        clusters=3,
        passing_filter=0,
        spooled=(),
    )
    control.serve_run("R1", files)
    return files


def replay(client, cycle, tile=TILE):
    return client.ask(Replay(lane=tile.lane, tile=tile.tile, cycle=cycle))


def test_status_is_answered(client, status):
    status.set_state(RunState.FAILED, StopReason.ENGINE_FAILED, "why")
    status = client.status()
    assert (status.state, status.reason, status.version) == (RunState.FAILED, "why", "1")


def test_drain_is_accepted_and_carried_out(control, command, drained):
    with ControlClient(command) as operator:
        assert operator.ask(Drain()) == (Accepted(), b"")
    assert drained.is_set()


def test_command_on_the_socket_that_reads_is_refused_with_where_to_ask(client, drained, status):
    assert client.ask(Drain())[0] == Refused(reason="drain: this is a command: ask at control.command")
    assert not drained.is_set()
    assert status.snapshot().requests_refused == {"control_topic": 1}


@pytest.mark.parametrize("request_", [StatusQuery(), TilesQuery(), Replay(lane=1, tile=1101, cycle=1)])
def test_question_on_the_socket_for_commands_is_refused_with_where_to_ask(control, command, status, request_):
    with ControlClient(command) as operator:
        answer, _ = operator.ask(request_)
    assert answer == Refused(reason=f"{request_.topic}: this is not a command: ask at control.endpoint")
    assert status.snapshot().requests_refused == {"command_topic": 1}


@pytest.mark.parametrize("cycle", [1, 2])
def test_replay_gives_the_committed_bytes(client, run, cycle):
    assert replay(client, cycle) == (
        Calls(run="R1", seq=0, lane=1, tile=1101, cycle=cycle, n=3),
        CALLS[cycle - 1].tobytes(),
    )


def test_replay_of_cycle_0_gives_the_positions_x_first(client, run):
    message, payload = replay(client, 0)
    assert message == Template(run="R1", seq=0, lane=1, tile=1101, n=3)
    assert np.frombuffer(payload, "<f4").tolist() == POSITIONS[:, ::-1].ravel().tolist()


@pytest.mark.parametrize("cycle", [3, 4, 5000])
def test_replay_of_what_is_not_committed_is_refused(client, run, cycle):
    message, _ = replay(client, cycle)
    assert message == Refused(reason=f"tile 1_1101, cycle {cycle}: not committed")


def test_replay_of_an_unknown_tile_is_refused(client, run):
    message, _ = replay(client, 0, TileId(lane=2, tile=1))
    assert message == Refused(reason="tile 2_1, cycle 0: not committed")


def test_replay_of_a_tile_without_clusters_ends_where_it_is_committed(client, run):
    assert [type(replay(client, cycle, EMPTY)[0]) for cycle in range(4)] == [Template, Calls, Calls, Refused]


def test_replay_before_the_first_run_is_refused(client):
    assert replay(client, 1)[0] == Refused(reason="there is no run")


def test_tiles_are_empty_before_the_first_run_and_then_say_how_far_each_is(client, control, request):
    answer, _ = client.ask(TilesQuery())
    assert (answer.run, answer.tiles) == ("", ())
    request.getfixturevalue("run")
    answer, _ = client.ask(TilesQuery())
    assert answer.run == "R1"
    assert [(tile.tile, tile.cycle) for tile in answer.tiles] == [(1101, 2), (1102, 2)]


def test_message_that_is_no_request_is_refused_and_counted(client, status):
    assert client.ask(Hold(run="R1"))[0] == Refused(reason="hold: this is not a request")
    assert status.snapshot().requests_refused == {"control_topic": 1}


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([b"status"], "garbage"),
        ([b"status", b"\xc1", b""], "garbage"),
        ([b"status", msgpack.packb({"v": 2}), b""], "version"),
        ([b"state", msgpack.packb({"v": 1}), b""], "topic"),
        ([b"status", msgpack.packb({"v": 1, "watch": True}), b""], "header"),
        ([b"status", b"\x81\xa1v" + b"\x91" * 1000 + b"\xc0", b""], "version"),
    ],
)
def test_what_cannot_be_read_is_refused_and_the_next_request_answered(client, endpoint, status, parts, reason):
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(endpoint)
        socket.send_multipart(parts)
        assert socket.poll(5000)
        assert isinstance(decode(socket.recv_multipart())[0], Refused)
    assert status.snapshot().requests_refused == {f"control_{reason}": 1}
    assert client.status().state is RunState.WAITING


def test_many_clients_get_their_own_answers(client, endpoint, run):
    with ControlClient(endpoint) as other:
        for cycle in (1, 2):
            assert replay(client, cycle)[1] == CALLS[cycle - 1].tobytes()
            assert replay(other, 3 - cycle)[1] == CALLS[2 - cycle].tobytes()


def test_client_says_when_nobody_answers(tmp_path):
    with (
        ControlClient(f"ipc://{tmp_path}/nobody", timeout_s=0.2) as client,
        pytest.raises(UnreachableError, match=r"nobody: no answer within 0\.2 s; is `seqd run` running\?"),
    ):
        client.status()


def test_endpoint_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as socket,
        pytest.raises(SocketError, match=r"socket ipc://.*/file/control: "),
    ):
        bind(socket, f"ipc://{tmp_path}/file/control")
