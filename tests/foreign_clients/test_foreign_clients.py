"""A controller and a consumer in Node.js, written from docs/reference/protocol.md alone, with a real daemon."""

import json
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from seqd_client.runinfo import CHANNELS
from seqd_client.wire.codec import decode

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from calib.runfolder.images import image_path, read_image, read_run_info
from tests.support.places import GOLDEN
from tests.support.processes import bench, finish, outputs, process

HERE = Path(__file__).parent

RUN = "SIM_N"
TILES = 2
CYCLES = 8
FRAMES = TILES * CYCLES * 4
SHAPE = (128, 120)
NPM_CI_S = 300


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Folder of the programs with their packages."""
    for needed in ("node", "npm"):
        assert shutil.which(needed), f"{needed} is not installed: these tests need Node.js 20.15 or newer and npm"
    folder = tmp_path_factory.mktemp("node") / "interop"
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(["npm", "ci"], cwd=folder, capture_output=True, text=True, timeout=NPM_CI_S)
    assert done.returncode == 0, f"npm ci in {HERE} failed: {done.stderr}"
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A run folder whose tiles have so many clusters that a template is over 1/128 of the smallest stream queue."""
    root = tmp_path_factory.mktemp("images")
    write_simulated_run(
        root,
        Conditions(density_k_mm2=500),
        run=RUN,
        tiles=TILES,
        cycles=CYCLES,
        shape=SHAPE,
        seed=3,
        progress=lambda done: None,
    )
    return root


@pytest.fixture(scope="session")
def raw(images, tmp_path_factory):
    """The same run as the controller reads it."""
    root = tmp_path_factory.mktemp("raw")
    info = read_run_info(images)
    (root / "run.json").write_text(info.model_dump_json())
    for cycle in range(1, CYCLES + 1):
        (root / f"C{cycle}").mkdir()
        for tile in info.tiles:
            for channel in CHANNELS:
                pixels = read_image(image_path(images, tile, cycle, channel)).astype("<u2")
                (root / f"C{cycle}" / f"s_{tile}_{channel}.raw").write_bytes(pixels.tobytes())
    return root


@pytest.fixture(scope="session")
def expected(images, tmp_path_factory):
    """What the daemon writes of the run with the controller that comes with it."""
    there = small_bench(tmp_path_factory.mktemp("expected"))
    with there.camera(images), there.daemon("--once") as daemon:
        assert finish(daemon) == 0
    files = outputs(there.runs / RUN)
    # Calls, chastity, positions and FASTQ; base calls of each cycle, positions and filter.
    assert len(files) == (4 + CYCLES + 2) * TILES
    return files


def small_bench(folder, **sections):
    return bench(folder, calling={"template_cycles": 3}, **sections)


def node(here, program, name, *arguments):
    return process(["node", str(program), *arguments], here.folder / f"{name}.log", None)


def controller(here, programs, raw, *arguments):
    sockets = ["--frames", here.endpoint("frames"), "--recovery", here.endpoint("recovery")]
    return node(here, programs / "controller.mjs", "controller", str(raw), *sockets, *arguments)


def consumer(here, programs, name):
    sockets = ["--calls", here.endpoint("calls"), "--control", here.endpoint("control")]
    return node(here, programs / "consumer.mjs", name, RUN, *sockets, "--output", str(here.folder / name))


def summary(here, name, started):
    """What a program printed, once it ended well."""
    code = finish(started)
    log = (here.folder / f"{name}.log").read_text()
    assert code == 0, log
    return json.loads(log)


def streamed(expected):
    """The tile files that can be made from the stream."""
    return {Path(path).name: content for path, content in expected.items() if Path(path).suffix in (".bcls", ".locs")}


def parts_of(file):
    """The parts of a message in a golden file."""
    content, parts = file.read_bytes(), []
    while content:
        (length,) = struct.unpack_from("<I", content)
        parts.append(content[4 : 4 + length])
        content = content[4 + length :]
    return parts


def written(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_golden_message_is_read_and_written(programs, tmp_path):
    subprocess.run(["node", str(programs / "golden.mjs"), str(GOLDEN), str(tmp_path)], check=True, timeout=60)
    files = sorted(GOLDEN.glob("*.bin"))
    assert files
    for file in files:
        assert decode(parts_of(tmp_path / file.name)) == decode(parts_of(file))


def test_controller_that_loses_messages_drives_a_run_to_its_fastq(programs, raw, expected, tmp_path):
    here = small_bench(tmp_path)
    with here.daemon("--once") as daemon, controller(here, programs, raw, "--lose-every", "2") as camera:
        assert finish(daemon) == 0
        done = summary(here, "controller", camera)
    # Half of the frames, four times cycle_end, and run_end.
    assert (done["published"], done["lost"]) == (37, 37)
    assert done["resent"] >= FRAMES // 2
    assert done["gone"] == done["unreadable"] == 0
    assert done["syncs"] > 0
    assert outputs(here.runs / RUN) == expected


def test_controller_goes_on_with_a_daemon_that_was_killed(programs, raw, expected, tmp_path):
    here = small_bench(tmp_path)
    with controller(here, programs, raw, "--cycle-ms", "300") as camera:
        with here.daemon() as daemon:
            here.wait_for(lambda status: status.cycle >= 1)
            daemon.kill()
            daemon.wait()
        with here.daemon("--once") as daemon:
            assert finish(daemon) == 0
        done = summary(here, "controller", camera)
    assert done["kept"] > 0
    assert done["held"] == CYCLES - done["kept"]
    assert done["gone"] == done["unreadable"] == 0
    assert outputs(here.runs / RUN) == expected


def test_controller_holds_and_goes_on(programs, raw, expected, tmp_path):
    # One image that waits is over the mark, and the first three take longer than the run is imaged.
    memory = {"spill_above": 2**16, "refuse_above": 2**17}
    here = small_bench(tmp_path, memory=memory, spool={"limit": 2**24, "hold_above": 2**16, "release_below": 0})
    slow = [
        sys.executable,
        "-m",
        "tests.support.slowed",
        "1.5",
        "1",
        "3",
        "run",
        "--once",
        "--config",
        str(here.config),
    ]
    with (
        process(slow, tmp_path / "daemon.log", None) as daemon,
        controller(here, programs, raw, "--cycle-ms", "500") as camera,
    ):
        assert finish(daemon) == 0
        done = summary(here, "controller", camera)
    assert done["holds"] > 0
    assert outputs(here.runs / RUN) == expected


def test_consumers_write_the_bytes_of_the_tile_files_whenever_they_join(programs, raw, expected, tmp_path):
    here = small_bench(tmp_path)
    with here.daemon() as daemon:
        with (
            consumer(here, programs, "before") as before,
            controller(here, programs, raw, "--cycle-ms", "300"),
        ):
            here.wait_for(lambda status: status.cycle >= 2)
            with consumer(here, programs, "late") as late:
                counts = {name: summary(here, name, one) for name, one in (("before", before), ("late", late))}
        with consumer(here, programs, "after") as after:
            counts["after"] = summary(here, "after", after)
        daemon.send_signal(signal.SIGTERM)
        assert finish(daemon) == 0
    messages = TILES * (1 + CYCLES)
    for name, count in counts.items():
        assert written(tmp_path / name) == streamed(expected)
        assert count["streamed"] + count["replayed"] == messages
        assert count["tiles"] == {"s_1_1101": CYCLES, "s_1_1102": CYCLES}
    assert counts["before"]["streamed"] > 0
    assert counts["late"]["replayed"] > 0
    assert counts["after"]["replayed"] == messages


def test_consumer_replays_what_the_stream_dropped(programs, raw, expected, tmp_path):
    # Templates are too large for this queue, and are dropped.
    here = small_bench(tmp_path, stream={"queue": 10**6})
    with here.daemon() as daemon, consumer(here, programs, "gap") as started, controller(here, programs, raw):
        count = summary(here, "gap", started)
        assert here.status().stream_dropped == TILES
        daemon.send_signal(signal.SIGTERM)
        assert finish(daemon) == 0
    assert count["gaps"] > 0
    assert count["replayed"] >= TILES
    assert written(tmp_path / "gap") == streamed(expected)
