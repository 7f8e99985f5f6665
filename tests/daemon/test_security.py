import json
import os
import socket as sockets
import stat
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import msgpack
import pytest
import zmq
from seqd_client import (
    ControlClient,
    Controller,
    KeysError,
    Read,
    Replay,
    RunInfo,
    RunState,
    ServerKeys,
    SocketError,
    StatusQuery,
    TileId,
    UnreachableError,
    load_client_keys,
    load_server_keys,
)
from seqd_client.keys import load_allowed, load_certificate, load_public
from seqd_client.sockets import bind, connect
from seqd_client.wire.codec import decode, encode
from seqd_client.wire.messages import Accepted, Drain, RunStart

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from daemon.cli.makekeys import keys as make_keys
from daemon.config import ConfigError, ControlConfig, SecurityConfig, load_config
from daemon.serving.gate import Gate
from daemon.serving.requests import SHARE, RequestServer
from daemon.watching.logs import MAX_LINES
from daemon.watching.runstatus import RunStatus
from tests.support.places import DOCS
from tests.support.processes import SEQD, bench, finish, outputs, process

CYCLES = 4
RUN = "SECURE"
NAMES = ("daemon", "controller", "observer", "operator", "stranger")
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Certificates of everybody, and the lists of those who are let in."""
    folder = tmp_path_factory.mktemp("keys")
    for name in NAMES:
        make_keys(name, folder)
    for group, member in (("observers", "observer"), ("operators", "operator"), ("daemons", "daemon")):
        (folder / group).mkdir()
        (folder / group / f"{member}.key").write_bytes((folder / f"{member}.key").read_bytes())
    return folder


def security(keys):
    return {
        "certificate": str(keys / "daemon.key_secret"),
        "observers": str(keys / "observers"),
        "operators": str(keys / "operators"),
        "controller": str(keys / "controller.key"),
    }


def client_keys(keys, name, server="daemon"):
    return load_client_keys(keys / f"{name}.key_secret", keys / f"{server}.key")


def free_ports(number):
    with ExitStack() as stack:
        opened = [stack.enter_context(sockets.create_server(("", 0))) for _ in range(number)]
        return [server.getsockname()[1] for server in opened]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    conditions = Conditions(density_k_mm2=60, drift_px=0.2)
    write_simulated_run(
        root, conditions, run=RUN, tiles=1, cycles=CYCLES, shape=(64, 80), seed=5, progress=lambda done: None
    )
    return root


# Certificates.


def test_made_certificate_is_secret_and_public_and_not_overwritten(tmp_path, capsys):
    folder = tmp_path / "deep" / "keys"
    make_keys("lab-pc", folder)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "lab-pc.key": 0o644,
        "lab-pc.key_secret": 0o600,
    }
    own = load_certificate(folder / "lab-pc.key_secret")
    assert load_public(folder / "lab-pc.key") == own.public
    assert own.secret.decode() not in (folder / "lab-pc.key").read_text() + capsys.readouterr().out + repr(own)
    for name in ("lab-pc.key", "lab-pc.key_secret"):
        kept = (folder / name).read_bytes()
        with pytest.raises(
            ConfigError, match=r"certificate .*lab-pc\.key(_secret)?: the file exists; choose another name"
        ):
            make_keys("lab-pc", folder)
        assert (folder / name).read_bytes() == kept
        (folder / name).unlink()
        (folder / "lab-pc.key").write_bytes(kept)


def test_secret_is_never_readable_by_others_while_it_is_written(tmp_path):
    # The shim looks at the file at the moment it is opened, whatever mode it gets afterwards.
    script = (
        "import os, sys\n"
        "def look(event, arguments):\n"
        "    if event == 'open' and str(arguments[0]).endswith('.key_secret'):\n"
        "        mask = os.umask(0); os.umask(mask); print(oct(0o666 & ~mask))\n"
        "os.umask(0); sys.addaudithook(look)\n"
        "from pathlib import Path\n"
        "from daemon.cli.makekeys import keys\n"
        f"keys('k', Path({str(tmp_path)!r}))\n"
    )
    done = subprocess.run([SEQD[0], "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[0] == "0o600"


@pytest.mark.parametrize("name", ["", "../x", "a b", "x/y", ".hidden"])
def test_certificate_is_named_as_a_file_can_be(name, tmp_path):
    with pytest.raises(ConfigError, match="letters, digits"):
        make_keys(name, tmp_path)
    assert not list(tmp_path.iterdir())


def spoiled(path, change):
    path.write_text(change(path.read_text()))
    return path


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda text: "", "no public key in it"),
        (
            lambda text: text.replace('public-key = "', 'public-key = "x'),
            "its public key has 41 characters, a key has 40",
        ),
        (lambda text: "\n".join(line for line in text.split("\n") if "secret-key" not in line), "it has no secret key"),
        (
            lambda text: text.replace('secret-key = "', 'secret-key = "x'),
            "its secret key does not belong to its public key",
        ),
        (lambda text: text.replace(text[-12:-2], "0123456789"), "its secret key does not belong to its public key"),
    ],
)
def test_certificate_that_cannot_be_used_is_named(change, text, tmp_path):
    make_keys("k", tmp_path)
    path = spoiled(tmp_path / "k.key_secret", change)
    with pytest.raises(KeysError) as caught:
        load_certificate(path)
    assert str(caught.value).startswith(f"certificate {path}: {text}")


def test_secret_that_others_may_read_is_not_used(tmp_path):
    make_keys("k", tmp_path)
    (tmp_path / "k.key_secret").chmod(0o644)
    with pytest.raises(KeysError, match=r"its mode is 0644, others may read the secret; chmod 600 "):
        load_certificate(tmp_path / "k.key_secret")
    (tmp_path / "k.key_secret").chmod(0o640)
    load_certificate(tmp_path / "k.key_secret")


def test_list_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(KeysError, match=r"folder of public keys .*/none: No such file or directory"):
        load_allowed(tmp_path / "none")
    make_keys("k", tmp_path)
    (tmp_path / "k.key").rename(tmp_path / "k.public")
    with pytest.raises(KeysError, match=r"it has no file \*\.key, so nobody would be allowed"):
        load_allowed(tmp_path)
    (tmp_path / "k.key").write_text("nothing")
    with pytest.raises(KeysError, match=r"certificate .*/k\.key: no public key in it"):
        load_allowed(tmp_path)


def test_half_of_the_keys_is_refused(keys):
    for pair in ((keys / "observer.key_secret", None), (None, keys / "daemon.key")):
        with pytest.raises(KeysError, match=r"keys: both .* are needed"):
            load_client_keys(*pair)


# Who is let in.


@pytest.fixture
def status():
    return RunStatus("1")


@pytest.fixture
def guarded(keys, status):
    """A control socket on every address of this machine; gives its two addresses."""
    read, command = (f"tcp://0.0.0.0:{port}" for port in free_ports(2))
    with (
        zmq.Context() as context,
        Gate(context, SecurityConfig.model_validate(security(keys)), status.counters) as gate,
        RequestServer(context, ControlConfig(endpoint=read, command=command), status, lambda: None, gate),
    ):
        yield read, command


def shut_out(status, number=1):
    deadline = time.monotonic() + PATIENCE_S
    while sum(status.snapshot().shut_out.values()) < number and time.monotonic() < deadline:
        time.sleep(0.02)
    return status.snapshot().shut_out


def test_each_key_opens_its_own_socket(keys, guarded, status):
    read, command = guarded
    with ControlClient(read, keys=client_keys(keys, "observer")) as observer:
        assert observer.status().state is RunState.WAITING
    with ControlClient(command, keys=client_keys(keys, "operator")) as operator:
        assert operator.ask(Drain())[0] == Accepted()
    assert status.snapshot().shut_out == {}


@pytest.mark.parametrize(
    ("socket", "name", "server"),
    [
        ("control", "stranger", "daemon"),
        ("control", "operator", "daemon"),
        ("command", "observer", "daemon"),
        ("control", "observer", "stranger"),
    ],
)
def test_key_that_is_not_on_the_list_is_shut_out_and_counted(keys, guarded, status, socket, name, server):
    endpoint = dict(zip(("control", "command"), guarded, strict=True))[socket]
    with (
        ControlClient(endpoint, timeout_s=1, keys=client_keys(keys, name, server)) as client,
        pytest.raises(UnreachableError, match=r"no answer within 1 s; .*allow this key\?"),
    ):
        client.ask(Drain() if socket == "command" else StatusQuery())
    assert set(shut_out(status)) == {socket}


def test_client_without_keys_is_shut_out_and_counted(guarded, status):
    read, _ = guarded
    with zmq.Context() as context, context.socket(zmq.DEALER) as plain:
        plain.setsockopt(zmq.LINGER, 0)
        plain.connect(read)
        plain.send_multipart(encode(StatusQuery()))
        assert set(shut_out(status)) == {"control"}
        assert not plain.poll(200)
    # Nothing of it came as far as the thread that answers.
    assert status.snapshot().requests_refused == {}


def test_others_are_served_while_one_is_shut_out(keys, guarded, status):
    read, _ = guarded
    with (
        ControlClient(read, timeout_s=1, keys=client_keys(keys, "stranger", "observer")),
        ControlClient(read, keys=client_keys(keys, "observer")) as observer,
    ):
        shut_out(status, 3)
        assert observer.status().shut_out["control"] >= 3


def test_without_a_list_nobody_is_let_in(keys):
    endpoint = f"tcp://0.0.0.0:{free_ports(1)[0]}"
    own = load_certificate(keys / "daemon.key_secret")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as server, context.socket(zmq.DEALER) as client:
        bind(server, endpoint, keys=ServerKeys(own, "observers", frozenset()))
        client.setsockopt(zmq.LINGER, 0)
        connect(client, endpoint, keys=client_keys(keys, "observer"))
        client.send(b"anybody?")
        assert not server.poll(500)


@pytest.mark.parametrize("open_", [bind, connect])
@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://192.0.2.1:5555", "tcp://[::]:5555"])
def test_no_socket_reaches_beyond_this_machine_without_keys(open_, endpoint):
    with (
        zmq.Context() as context,
        context.socket(zmq.DEALER) as socket,
        pytest.raises(SocketError, match=r"an address beyond this machine needs keys; `seqd keys` makes them"),
    ):
        open_(socket, endpoint)


def test_controller_of_a_program_allows_the_daemon_of_its_list_and_nobody_else(keys):
    frames, recovery = (f"tcp://0.0.0.0:{port}" for port in free_ports(2))
    allowed = load_server_keys(keys / "controller.key_secret", "daemons", keys / "daemons")
    with (
        Controller(frames, recovery, keys=allowed) as controller,
        zmq.Context() as context,
        context.socket(zmq.SUB) as stranger,
        context.socket(zmq.SUB) as daemon,
    ):
        for socket, name in ((stranger, "stranger"), (daemon, "daemon")):
            socket.setsockopt(zmq.SUBSCRIBE, b"")
            connect(socket, frames, keys=client_keys(keys, name, "controller"))
            if socket is stranger:
                with pytest.raises(UnreachableError, match="no daemon subscribed within 1 s"):
                    controller.start(INFO, timeout_s=1)
        controller.start(INFO)
        assert daemon.poll(PATIENCE_S * 1000)
        assert decode(daemon.recv_multipart())[0] == RunStart(run="R1", seq=0, info=INFO)
        assert not stranger.poll(500)


def on_the_network(here, keys):
    """The bench's daemon with every socket on all addresses of this machine; its addresses by name."""
    names = ("frames", "recovery", "calls", "control", "command")
    addresses = {name: f"tcp://0.0.0.0:{port}" for name, port in zip(names, free_ports(5), strict=True)}
    again = bench(
        here,
        controller={"frames": addresses["frames"], "recovery": addresses["recovery"]},
        stream={"calls": addresses["calls"]},
        control={"endpoint": addresses["control"], "command": addresses["command"]},
        security=security(keys),
        calling={"template_cycles": 3},
    )
    return again, addresses


def with_keys(keys, name, *arguments):
    return [*arguments, "--certificate", str(keys / f"{name}.key_secret")]


def camera(here, addresses, keys, images, name):
    where = ["--frames", addresses["frames"], "--recovery", addresses["recovery"], "--daemons", str(keys / "daemons")]
    return process([*SEQD, "camera", str(images), *with_keys(keys, name, *where)], here.folder / f"{name}.log", None)


def wait_for(client, condition):
    deadline = time.monotonic() + 2 * PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if condition(status := client.status()):
                return status
        except UnreachableError:
            continue
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def secret_of(keys, name):
    return load_certificate(keys / f"{name}.key_secret").secret


def test_run_over_the_network_is_the_run_on_one_machine(images, keys, tmp_path):
    (tmp_path / "plain").mkdir()
    plain = bench(tmp_path / "plain", calling={"template_cycles": 3})
    with plain.camera(images), plain.daemon("--once") as daemon:
        assert finish(daemon) == 0
    (tmp_path / "keyed").mkdir()
    here, addresses = on_the_network(tmp_path / "keyed", keys)
    to_daemon = ["--server-key", str(keys / "daemon.key")]
    with (
        here.daemon() as daemon,
        ControlClient(addresses["control"], timeout_s=2, keys=client_keys(keys, "observer")) as observer,
    ):
        wait_for(observer, lambda status: status.state is RunState.WAITING)
        tail = [*SEQD, "tail", "--calls", addresses["calls"], "--control", addresses["control"]]
        written = ["--write", str(tmp_path / "tail")]
        with (
            process(with_keys(keys, "observer", *tail, *to_daemon, *written), tmp_path / "tail.log", None) as follower,
            camera(here, addresses, keys, images, "controller") as controller,
        ):
            assert finish(controller) == 0
            status = wait_for(observer, lambda status: status.state is RunState.FINISHED)
            assert finish(follower) == 0
        told = [*SEQD, "status", "--json", "--control", addresses["control"]]
        shown = subprocess.run(
            with_keys(keys, "observer", *told, *to_daemon), capture_output=True, text=True, check=True, timeout=60
        )
        drain = [*SEQD, "drain", "--command", addresses["command"]]
        subprocess.run(with_keys(keys, "operator", *drain, *to_daemon), check=True, timeout=60)
        assert finish(daemon) == 0
    assert status.shut_out == {}
    assert outputs(here.runs / RUN) == outputs(plain.runs / RUN) != {}
    assert (tmp_path / "tail/s_1_1101.bcls").read_bytes() == (here.runs / RUN / "tiles/s_1_1101.bcls").read_bytes()
    # Nobody's secret is told to anybody.
    told = shown.stdout.encode() + b"".join(path.read_bytes() for path in here.runs.rglob("*") if path.is_file())
    told += b"".join(path.read_bytes() for path in tmp_path.rglob("*.log"))
    assert str(keys / "daemon.key_secret").encode() in told
    for name in NAMES:
        assert secret_of(keys, name) not in told
        assert zmq.utils.z85.decode(secret_of(keys, name)) not in told


def test_controller_with_another_key_is_not_believed(images, keys, tmp_path):
    here, addresses = on_the_network(tmp_path, keys)
    with (
        here.daemon() as daemon,
        camera(here, addresses, keys, images, "stranger"),
        ControlClient(addresses["control"], timeout_s=2, keys=client_keys(keys, "observer")) as observer,
    ):
        status = wait_for(observer, lambda status: {"frames", "recovery"} <= set(status.shut_out))
        assert status.state is RunState.WAITING
        daemon.terminate()
        assert finish(daemon) == 0
    assert '"connection refused"' in (tmp_path / "daemon.log").read_text()


@pytest.mark.parametrize("setting", ["certificate", "observers", "operators", "controller"])
def test_key_file_that_is_missing_ends_the_start_in_one_line(setting, keys, tmp_path):
    here, _ = on_the_network(tmp_path, keys)
    text = here.config.read_text().replace(here.settings["security"][setting], str(tmp_path / "none"))
    here.config.write_text(text)
    with here.daemon() as daemon:
        assert finish(daemon) == 2
    (line,) = (tmp_path / "daemon.log").read_text().splitlines()
    assert line.startswith("seqd: ")
    assert line.endswith(f"{tmp_path / 'none'}: No such file or directory")


def test_daemon_whose_command_address_is_taken_ends_in_one_line(keys, tmp_path):
    here, addresses = on_the_network(tmp_path, keys)
    port = int(addresses["command"].rsplit(":", 1)[1])
    with sockets.create_server(("", port)), here.daemon() as daemon:
        assert finish(daemon) == 8
    (line,) = (tmp_path / "daemon.log").read_text().splitlines()
    assert line == f"seqd: socket {addresses['command']}: Address already in use"


@pytest.mark.parametrize("arguments", [["--certificate", "k"], ["--daemons", "k"]])
def test_controller_with_half_of_its_keys_is_refused(arguments, images):
    done = subprocess.run([*SEQD, "camera", str(images), *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "seqd: keys: both --certificate and --daemons are needed\n")


def test_configuration_in_the_document_is_one(tmp_path):
    document = (DOCS / "how-to" / "security.md").read_text("utf-8")
    path = tmp_path / "seqd.toml"
    path.write_text(document.split("```toml\n")[1].split("```")[0])
    assert load_config(path).security.observers == Path("/etc/seqd/keys/observers")


# Modes.


@pytest.mark.parametrize("mask", [0, 0o077])
def test_what_a_daemon_makes_is_for_owner_and_group_whatever_the_umask(images, tmp_path, mask):
    folder = tmp_path / "sockets" / "deep"
    here = bench(
        tmp_path,
        stream={"calls": f"ipc://{folder}/calls"},
        control={"endpoint": f"ipc://{folder}/control", "command": f"ipc://{folder}/command"},
        calling={"template_cycles": 3},
    )
    before = os.umask(mask)
    try:
        with (
            here.camera(images, "--tile-seconds", "0.3"),
            here.daemon() as daemon,
            ControlClient(f"ipc://{folder}/control") as client,
        ):
            os.umask(before)
            wait_for(client, lambda status: status.cycle >= 1)
            seen = modes(here.runs) | modes(folder)
            wait_for(client, lambda status: status.state is RunState.FINISHED)
            seen |= modes(here.runs)
            daemon.terminate()
            assert finish(daemon) == 0
            seen |= modes(here.runs)
    finally:
        os.umask(before)
    assert {"run.db-wal", "run.db-shm"} <= {path.name for path in seen}
    assert {path.suffix for path in seen} >= {".bcls", ".chastity", ".locs", ".npz", ".gz", ".json", ".xml", ".db"}
    wrong = {str(path): oct(mode) for path, (kind, mode) in seen.items() if mode != MODES[kind]}
    assert not wrong
    assert sum(kind == stat.S_IFSOCK for kind, _ in seen.values()) == 3


MODES = {stat.S_IFREG: 0o640, stat.S_IFDIR: 0o750, stat.S_IFSOCK: 0o660}


def modes(folder):
    found = {}
    for path in (folder, *folder.rglob("*")):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            continue
        found[path] = stat.S_IFMT(mode), stat.S_IMODE(mode)
    return found


@pytest.mark.parametrize("mask", [0, 0o077])
def test_socket_file_is_for_owner_and_group_from_its_first_moment(tmp_path, mask):
    class Looking(zmq.Socket):
        seen = 0

        def bind(self, address):
            super().bind(address)
            self.seen = stat.S_IMODE((tmp_path / "control").stat().st_mode)

    class Context(zmq.Context):
        _socket_class = Looking

    before = os.umask(mask)
    try:
        with Context() as context, context.socket(zmq.ROUTER) as socket:
            bind(socket, f"ipc://{tmp_path}/control")
            assert os.umask(mask) == mask
            assert socket.seen == stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o660
    finally:
        os.umask(before)


# Floods.


def resident_mib(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


NESTED = b"\x82\xa1v\x01\xa4info" + b"\xdd\x00\x00\x0f\xff" * 800
REQUESTS = [
    encode(StatusQuery()),
    encode(Replay(lane=1, tile=1101, cycle=0)),
    encode(Drain()),
    [b"status", NESTED[:4000], b""],
    [b"status", b"\xc1" * 4000, b""],
    [b"x"],
]


def test_flood_of_requests_neither_grows_the_daemon_nor_keeps_others_out(tmp_path):
    here = bench(tmp_path)
    with ExitStack() as stack:
        daemon = stack.enter_context(here.daemon())
        operator = stack.enter_context(ControlClient(here.endpoint("command"), timeout_s=PATIENCE_S))
        watcher = stack.enter_context(ControlClient(here.endpoint("control"), timeout_s=PATIENCE_S))
        watcher.status()
        context = stack.enter_context(zmq.Context())
        flood = [stack.enter_context(context.socket(zmq.DEALER)) for _ in range(8)]
        for socket in flood:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(here.endpoint("control"))
        before, sent = resident_mib(daemon.pid), 0
        until = time.monotonic() + 5
        while time.monotonic() < until:
            for socket in flood:
                try:
                    socket.send_multipart(REQUESTS[sent % len(REQUESTS)], zmq.NOBLOCK)
                    sent += 1
                except zmq.Again:
                    continue
        status = watcher.status()
        assert resident_mib(daemon.pid) - before < 32
        assert sent > 5000
        # Nobody reads the answers, and what waits is bounded: most of the flood is still with those who sent it.
        answered = status.requests_refused["control_topic"] * len(REQUESTS)
        assert answered < sent
        assert status.slowed > 0
        assert {"control_garbage", "control_topic"} <= set(status.requests_refused)
        assert operator.ask(Drain())[0] == Accepted()
        assert finish(daemon) == 0


FLOOD = """
import sys
import zmq
from seqd_client.wire.codec import encode
from seqd_client.wire.messages import StatusQuery

sockets = [zmq.Context.instance().socket(zmq.DEALER) for _ in range(4)]
poller = zmq.Poller()
for socket in sockets:
    socket.connect(sys.argv[1])
    poller.register(socket, zmq.POLLIN | zmq.POLLOUT)
while True:
    for socket, event in poller.poll():
        if event & zmq.POLLIN:
            socket.recv_multipart()
        if event & zmq.POLLOUT:
            socket.send_multipart(encode(StatusQuery()))
"""


def test_flood_that_takes_its_answers_gets_its_share_of_a_processor_and_no_more(status, tmp_path):
    config = ControlConfig(endpoint=f"ipc://{tmp_path}/control", command=f"ipc://{tmp_path}/command")
    with (
        zmq.Context() as context,
        Gate(context, SecurityConfig(), status.counters) as gate,
        RequestServer(context, config, status, lambda: None, gate),
        process([SEQD[0], "-c", FLOOD, config.endpoint], tmp_path / "flood.log", None),
    ):
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "control"]
        clock = time.pthread_getcpuclockid(thread.ident)
        deadline = time.monotonic() + PATIENCE_S
        while status.snapshot().slowed < 10 and time.monotonic() < deadline:
            time.sleep(0.05)
        slowed, spent_s, begun_s = status.snapshot().slowed, time.clock_gettime(clock), time.monotonic()
        time.sleep(4)
        spent_s, passed_s = time.clock_gettime(clock) - spent_s, time.monotonic() - begun_s
        assert status.snapshot().slowed > slowed
    assert 0 < spent_s < 1.5 * SHARE * passed_s


def test_answers_that_are_not_taken_are_dropped_and_counted(status, tmp_path):
    config = ControlConfig(endpoint=f"ipc://{tmp_path}/control", command=f"ipc://{tmp_path}/command")
    with (
        zmq.Context() as context,
        Gate(context, SecurityConfig(), status.counters) as gate,
        RequestServer(context, config, status, lambda: None, gate),
        context.socket(zmq.DEALER) as client,
    ):
        client.setsockopt(zmq.LINGER, 0)
        client.setsockopt(zmq.RCVHWM, 1)
        client.setsockopt(zmq.RCVBUF, 4096)
        client.connect(config.endpoint)
        deadline = time.monotonic() + PATIENCE_S
        while "control_unread" not in status.snapshot().requests_refused and time.monotonic() < deadline:
            client.send_multipart(encode(StatusQuery()))
        assert status.snapshot().requests_refused["control_unread"] > 0
        with ControlClient(config.endpoint, timeout_s=PATIENCE_S) as other:
            other.status()


def test_part_over_its_limit_closes_the_connection_and_takes_no_memory(tmp_path):
    here = bench(tmp_path)
    with here.daemon() as daemon, zmq.Context() as context, context.socket(zmq.DEALER) as sender:
        here.wait_for(lambda status: True)
        before = resident_mib(daemon.pid)
        sender.setsockopt(zmq.LINGER, 0)
        monitor = sender.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        sender.connect(here.endpoint("control"))
        sender.send_multipart([b"status", bytes(2**26), b""])
        try:
            assert monitor.poll(PATIENCE_S * 1000)
        finally:
            sender.disable_monitor()
            monitor.close()
        assert resident_mib(daemon.pid) - before < 16
        assert here.status().state is RunState.WAITING
        daemon.terminate()
        assert finish(daemon) == 0


INFO = RunInfo(
    run="R1",
    flowcell="F",
    instrument="I",
    reads=(Read(number=1, cycles=CYCLES),),
    tiles=(TileId(lane=1, tile=1101),),
    height=64,
    width=80,
)


class RawController:
    """Just sockets, so that anything can be sent."""

    def __init__(self, stack, here):
        context = stack.enter_context(zmq.Context())
        self.frames, self.recovery = context.socket(zmq.XPUB), context.socket(zmq.ROUTER)
        for socket, name in ((self.frames, "frames"), (self.recovery, "recovery")):
            stack.enter_context(socket)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.XPUB_NODROP, 1) if name == "frames" else None
            socket.bind(here.endpoint(name))

    def send(self, parts):
        self.frames.send_multipart(parts)

    def start(self, info):
        assert self.frames.poll(PATIENCE_S * 1000)
        self.frames.recv()
        self.send([b"run_start", msgpack.packb({"v": 1, "run": info["run"], "seq": 0, "info": info}), b""])


def test_flood_of_bad_messages_is_counted_and_fills_no_disk(tmp_path):
    here, number = bench(tmp_path), 20_000
    with ExitStack() as stack:
        daemon, controller = stack.enter_context(here.daemon()), RawController(stack, here)
        assert controller.frames.poll(PATIENCE_S * 1000)
        here.wait_for(lambda status: True)
        before = resident_mib(daemon.pid)
        for index in range(number):
            controller.send(REQUESTS[3] if index % 2 else [b"frame", b"\x81\xa1v\x01", bytes(1000)])
        status = here.wait_for(lambda status: sum(status.frames.refused.values()) == number)
        assert status.frames.refused == {"garbage": number // 2, "header": number // 2}
        assert resident_mib(daemon.pid) - before < 32
        daemon.terminate()
        assert finish(daemon) == 0
    lines = [json.loads(line) for line in (tmp_path / "daemon.log").read_text().splitlines()]
    written = [line for line in lines if line["event"] == "message refused"]
    periods = 1 + sum(line["event"] == "warnings left out" for line in lines)
    assert MAX_LINES <= len(written) <= MAX_LINES * periods
    assert len(written) + sum(line.get("number", 0) for line in lines if line["event"] == "warnings left out") == number


# Names and sizes.


@pytest.mark.parametrize(
    "change",
    [
        {"run": "../../elsewhere"},
        {"run": "/etc/seqd"},
        {"run": ".."},
        {"run": "a/b"},
        {"run": "R\0"},
        {"flowcell": "../x"},
        {"instrument": "x/../../y"},
        {"height": 2**40},
        {"tiles": [{"lane": 1, "tile": 10**9}]},
        {"reads": [{"number": 1, "cycles": 10**9}]},
        {"tiles": [[[[[[[[[[]]]]]]]]]]},
    ],
    ids=str,
)
def test_declared_run_that_is_no_plain_one_is_refused(change, tmp_path):
    (tmp_path / "deep").mkdir()
    here = bench(tmp_path / "deep")
    plain = INFO.model_dump(mode="json")
    with ExitStack() as stack:
        daemon, controller = stack.enter_context(here.daemon()), RawController(stack, here)
        controller.start(plain | change)
        status = here.wait_for(lambda status: bool(status.frames.refused))
        assert status.frames.refused == {"header": 1}
        assert status.state is RunState.WAITING
        daemon.terminate()
        assert finish(daemon) == 0
    assert not here.runs.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    refused = [line for line in (here.folder / "daemon.log").read_text().splitlines() if "message refused" in line]
    assert len(refused) == 1
    assert json.loads(refused[0])["detail"].startswith("run_start: ")


@pytest.mark.parametrize("part", ["", "tiles", "spool"])
def test_run_folder_that_is_a_link_is_refused_and_nothing_written_elsewhere(part, tmp_path):
    here, elsewhere = bench(tmp_path), tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = here.runs / "R1" / part if part else here.runs / "R1"
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    with ExitStack() as stack:
        daemon, controller = stack.enter_context(here.daemon()), RawController(stack, here)
        controller.start(INFO.model_dump(mode="json"))
        assert finish(daemon) == 8
    assert not list(elsewhere.iterdir())
    last = (tmp_path / "daemon.log").read_text().splitlines()[-1]
    assert last == f"seqd: run folder {link}: is a link to {elsewhere}; a real folder is needed"
