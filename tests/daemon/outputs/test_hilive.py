"""HiLive2, which aligns a run cycle by cycle while it is written, reads the files as they appear."""

import shutil
import subprocess
import time
from functools import partial

import pytest

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from tests.support.processes import PATIENCE_S, bench, finish

RUN, CYCLES, SIZE = "HILIVE", 20, 96

ATTEMPTS = 5
"""HiLive2 crashes now and then, by a signal, when its threads end."""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("hilive_images")
    write_simulated_run(
        root,
        Conditions(density_k_mm2=120),
        run=RUN,
        tiles=1,
        cycles=CYCLES,
        shape=(SIZE, SIZE),
        seed=5,
        progress=lambda done: None,
    )
    return root


def hilive(folder, index, out):
    command = shutil.which("hilive")
    assert command, "hilive is missing: apt-get install hilive"
    where = ["--bcl-dir", folder / "Data/Intensities/BaseCalls", "--index", index, "--reads", f"{CYCLES}R"]
    what = ["--lanes", "1", "--tiles", "1101", "--num-threads", "1", "--out-format", "SAM", "--report-unmapped"]
    out.mkdir()
    with (out / "log").open("wb") as log:
        return subprocess.Popen(
            [command, *where, *what, "--out-dir", out, "--temp-dir", out / "temp"], stdout=log, stderr=log
        )


def alignments(started, out):
    """Lines of the reads that it aligned; None if a signal ended it, which is a crash of HiLive2 itself."""
    try:
        code = started.wait(PATIENCE_S)
    finally:
        started.kill()
        started.wait()
    if code < 0:
        return None
    assert code == 0, (out / "log").read_text()
    (found,) = out.glob("*.sam")
    return sorted(line for line in found.read_text().splitlines() if not line.startswith("@"))


def without_crash(attempt, scratch):
    """What an attempt gives the first time that HiLive2 does not crash in it."""
    for number in range(ATTEMPTS):
        (scratch / str(number)).mkdir(parents=True)
        if (found := attempt(scratch / str(number))) is not None:
            return found
    return pytest.xfail(f"HiLive2 itself crashed in each of {ATTEMPTS} attempts")


def align_while_written(images, index, scratch):
    here = bench(scratch)
    folder = here.runs / RUN
    with here.daemon("--once") as daemon, here.camera(images, "--tile-seconds", "0.7"):
        deadline = time.monotonic() + PATIENCE_S
        while not any((folder / "Data/Intensities/BaseCalls/L001").glob("C1.1/s_*.bcl")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running = hilive(folder, index, scratch / "out")
        assert not (folder / "CopyComplete.txt").exists()
        assert finish(daemon) == 0
    found = alignments(running, scratch / "out")
    assert (folder / "CopyComplete.txt").exists()
    return None if found is None else (folder, found)


@pytest.mark.timeout(1500)
def test_hilive_aligns_a_run_while_it_is_written(images, tmp_path):
    index = tmp_path / "index"
    reference = images / "Truth" / "reference.fasta"
    subprocess.run(["hilive-build", "--input", reference, "--out-prefix", index], check=True, capture_output=True)
    folder, meanwhile = without_crash(partial(align_while_written, images, index), tmp_path / "running")

    def align_finished(scratch):
        return alignments(hilive(folder, index, scratch / "out"), scratch / "out")

    finished = without_crash(align_finished, tmp_path / "finished")
    assert meanwhile == finished
    aligned = [line for line in finished if line.split("\t")[2] == "simulated"]
    assert len(aligned) > 50
    assert len(aligned) > 0.9 * len(finished)
