"""Runs for the tests of verification: finished, with lost cycles, and killed."""

import shutil
import signal

import numpy as np
import pytest
import tifffile

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from calib.runfolder.images import image_path
from daemon.record.runfiles import RunFiles
from tests.daemon.verification.verifiedrun import CALLING, FIRST, READS, RUN, SECOND, SINKS, SIZE
from tests.support.processes import bench, finish


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("verified_images")
    write_simulated_run(
        root,
        Conditions(density_k_mm2=70),
        run=RUN,
        tiles=2,
        cycles=READS,
        shape=(SIZE, SIZE),
        seed=11,
        progress=lambda done: None,
    )
    return root


@pytest.fixture(scope="session")
def finished(images, tmp_path_factory):
    """Output folder of a run in which nothing is missing; not to be changed."""
    there = bench(tmp_path_factory.mktemp("verified"), calling=CALLING, sinks=SINKS)
    with there.camera(images), there.daemon("--once") as daemon:
        assert finish(daemon) == 0
    return there.runs / RUN


@pytest.fixture(scope="session")
def mixed(images, tmp_path_factory):
    """One with missing and failed cycles; not to be changed."""
    folder = tmp_path_factory.mktemp("mixed")
    gappy = folder / "images"
    shutil.copytree(images, gappy)
    for channel in "ACGT":
        image_path(gappy, FIRST, 2, channel).unlink()
        # Nothing to align: such a cycle fails.
        tifffile.imwrite(image_path(gappy, FIRST, 5, channel), np.zeros((SIZE, SIZE), np.uint16))
    image_path(gappy, SECOND, 8, "G").unlink()
    there = bench(folder, calling=CALLING, sinks=SINKS)
    with there.camera(gappy), there.daemon("--once") as daemon:
        assert finish(daemon) == 0
    return there.runs / RUN


@pytest.fixture
def files(finished, tmp_path):
    """A copy of the finished run to do harm to."""
    shutil.copytree(finished, tmp_path / RUN)
    return RunFiles(tmp_path / RUN)


@pytest.fixture(scope="session")
def killed(images, tmp_path_factory):
    """Folder of a run whose daemon was killed after some cycles; not to be changed."""
    there = bench(tmp_path_factory.mktemp("killed"), calling=CALLING)
    with there.camera(images, "--tile-seconds", "1"), there.daemon() as daemon:
        there.wait_for(lambda status: status.cycle >= 3)
        daemon.send_signal(signal.SIGKILL)
        assert finish(daemon) == -signal.SIGKILL
    assert (there.runs / RUN / "run.db-wal").exists()
    return there.runs / RUN


@pytest.fixture
def unfinished(killed, tmp_path):
    shutil.copytree(killed, tmp_path / RUN)
    return RunFiles(tmp_path / RUN)
