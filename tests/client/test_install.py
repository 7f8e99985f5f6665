"""The client alone, in an environment that has nothing else of seqd: the examples of its README drive a real daemon."""

import os
import re
import shutil
import signal
import subprocess
import venv

import numpy as np
import pytest
from seqd_client.runinfo import CHANNELS

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from calib.runfolder.images import image_path, read_image, read_run_info
from tests.support.places import ROOT
from tests.support.processes import bench, finish

RUN, CYCLES, TILES = "ALONE", 8, 2
README = (ROOT / "client" / "README.md").read_text("utf-8")
CONTROLLER, CONSUMER = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

TAKE_IMAGE = """
import numpy as np
def take_image(tile, cycle, channel):
    return np.load(f"{tile}_{cycle}_{channel}.npy")
"""

ALONE = """
import importlib.util
for floor in ("daemon", "calib", "engines", "camera", "scipy", "torch"):
    assert importlib.util.find_spec(floor) is None, floor
"""

WRITE_CALLS = """
        if message.topic == "calls":
            open(f"s_{message.lane}_{message.tile}.calls", "ab").write(payload)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment that holds the client and what it needs."""
    folder = tmp_path_factory.mktemp("environment")
    source = folder / "client"
    shutil.copytree(ROOT / "client", source, ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"))
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", str(source)]
    subprocess.run(command, check=True, timeout=240, env=bare_environment(PIP_CONSTRAINT=ROOT / "constraints.txt"))
    return python


def bare_environment(**more):
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept | {name: str(value) for name, value in more.items()}


def lines_of(code):
    return [line for line in code.splitlines() if line.strip() and not line.startswith(("import", "from"))]


def test_examples_are_as_short_as_they_claim():
    assert len(lines_of(CONTROLLER)) <= 11
    assert len(lines_of(CONSUMER)) <= 5


def test_controller_and_consumer_alone_carry_a_run_to_its_fastq(python, tmp_path):
    images, work = tmp_path / "images", tmp_path / "work"
    work.mkdir()
    write_simulated_run(
        images, Conditions(), run=RUN, tiles=TILES, cycles=CYCLES, shape=(64, 64), seed=4, progress=lambda done: None
    )
    info = read_run_info(images)
    (work / "run_info.json").write_text(info.model_dump_json())
    for tile in info.tiles:
        for cycle in range(1, CYCLES + 1):
            for channel in CHANNELS:
                image = read_image(image_path(images, tile, cycle, channel))
                np.save(work / f"{tile}_{cycle}_{channel}.npy", image)
    here = bench(tmp_path)
    with here.daemon() as daemon:
        (work / "controller.py").write_text(ALONE + TAKE_IMAGE + addressed(CONTROLLER, here))
        (work / "consumer.py").write_text(ALONE + addressed(CONSUMER, here).rstrip() + WRITE_CALLS)
        started = [
            subprocess.Popen([python, name], cwd=work, env=bare_environment(), stderr=subprocess.PIPE)
            for name in ("consumer.py", "controller.py")
        ]
        try:
            for process in started:
                _, said = process.communicate(timeout=200)
                assert process.returncode == 0, said.decode()
        finally:
            for process in started:
                process.kill()
                process.wait()
        daemon.send_signal(signal.SIGTERM)
        assert finish(daemon) == 0
    run = here.runs / RUN
    assert sorted(path.name for path in (run / "fastq").iterdir()) == [f"s_{tile}_R1.fastq.gz" for tile in info.tiles]
    for tile in info.tiles:
        stored = (run / "tiles" / f"s_{tile}.bcls").read_bytes()[4:]
        assert (work / f"s_{tile}.calls").read_bytes() == stored
        assert stored


def addressed(code, here):
    """An example with the addresses of a test's daemon."""
    return re.sub(r"ipc:///run/seqd/(\w+)", lambda found: here.endpoint(found[1]), code)
