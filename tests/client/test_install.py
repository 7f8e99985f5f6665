"""The client in an environment that has nothing else of seqd, with the programs of its README."""

import os
import re
import shutil
import subprocess
import sys
import venv

import numpy as np
import pytest
import seqd_client
from seqd_client import CHANNELS

import daemon
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from calib.runfolder.images import image_path, read_image, read_run_info
from tests.support.places import ROOT
from tests.support.processes import bench, finish, process

pytestmark = pytest.mark.timeout(600)

CLIENT = ROOT / "client"
CYCLES = 8
RUN = "R1"
EXPOSE = """
import numpy as np

def expose(tile, cycle, channel):
    return np.load(f"s_{tile}_{cycle}_{channel}.npy")

"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment with the client alone."""
    folder = tmp_path_factory.mktemp("empty")
    # A copy, because a build leaves files in the folder that it builds.
    shutil.copytree(CLIENT, folder / "client", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    venv.create(folder / "env", with_pip=False)
    interpreter = folder / "env" / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "-q", "./client"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return interpreter


def program(number):
    """A program of the README."""
    return re.findall(r"^```python\n(.*?)^```", (CLIENT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)[
        number
    ]


def test_client_is_of_the_version_of_the_daemon():
    assert seqd_client.__version__ == daemon.__version__


def test_programs_of_the_readme_drive_a_run_and_follow_it_in_an_empty_environment(python, tmp_path):
    images, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    write_simulated_run(
        images, Conditions(), run=RUN, tiles=2, cycles=CYCLES, shape=(64, 64), seed=3, progress=lambda done: None
    )
    tiles = read_run_info(images).tiles
    elsewhere.mkdir()
    for tile in tiles:
        for cycle in range(1, CYCLES + 1):
            for channel in CHANNELS:
                pixels = read_image(image_path(images, tile, cycle, channel))
                np.save(elsewhere / f"s_{tile}_{cycle}_{channel}.npy", pixels)
    here = bench(tmp_path, calling={"template_cycles": 3}, engine={"threads": 1})

    def started(code, name):
        # Isolated: neither PYTHONPATH nor the folder that the program is in leads to seqd.
        command = [str(python), "-I", "-W", "error", "-c", code.replace("ipc:///run/seqd/", f"ipc://{tmp_path}/")]
        return process(command, tmp_path / f"{name}.log", None, cwd=elsewhere)

    with (
        here.daemon() as running,
        started(program(1), "consumer") as consumer,
        started(EXPOSE + program(0), "controller") as controller,
    ):
        assert finish(controller) == 0, (tmp_path / "controller.log").read_text()
        assert finish(consumer) == 0, (tmp_path / "consumer.log").read_text()
        running.terminate()
        assert finish(running) == 0
    run_folder = here.runs / RUN
    for tile in tiles:
        calls = (run_folder / "tiles" / f"s_{tile}.bcls").read_bytes()
        clusters = int.from_bytes(calls[:4], "little")
        assert len(calls) == 4 + CYCLES * clusters > 4
        assert (elsewhere / f"{RUN}_{tile}.calls").read_bytes() == calls[4:]
    assert sum(path.stat().st_size for path in run_folder.glob("fastq/*.fastq.gz")) > 1000


def test_client_brings_what_it_needs_and_nothing_else_of_seqd(python):
    code = """
from importlib.util import find_spec
from pathlib import Path
import seqd_client
print([name for name in ("daemon", "calib", "engines", "camera", "scipy", "torch") if find_spec(name)])
folder = Path(seqd_client.__file__).parent
print((folder / "py.typed").exists(), len(list((folder / "wire" / "golden").glob("*.bin"))))
"""
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["[]", f"True {len(list(CLIENT.rglob('golden/*.bin')))}"]
