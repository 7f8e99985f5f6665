import json
import shutil
import signal
import sqlite3
import subprocess
import zlib

import numpy as np
import pytest
from seqd_client.runinfo import TileId
from seqd_client.status import RunState

from calib.offline.evaluation.agreement import compare
from calib.offline.evaluation.callers import read_fastq
from calib.offline.evaluation.oncodebook import codebook_hits
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from calib.runfolder.images import image_path
from daemon.record.runfiles import RunFiles
from daemon.record.tilefile import read_cycles
from tests.support.places import CROP
from tests.support.processes import SEQD, bench, finish, outputs, process

CYCLES = 12
TILES = 2
RUN = "SIM_A"


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A simulated run: other optics than the default, channel shifts and a drifting stage."""
    root = tmp_path_factory.mktemp("images")
    conditions = Conditions(
        density_k_mm2=70,
        sigma_px=(1.2, 1.3, 1.25, 1.4),
        channel_yield=(0.5, 1.0, 1.6, 0.8),
        drift_px=0.8,
        channel_shift_px=((0.3, -0.5), (-0.2, 0.1), (0.5, 0.2), (-0.6, 0.2)),
    )
    write_simulated_run(
        root, conditions, run=RUN, tiles=TILES, cycles=CYCLES, shape=(128, 112), seed=4, progress=lambda done: None
    )
    return root


@pytest.fixture(scope="session")
def undisturbed(images, tmp_path_factory):
    """Output folder of a run that nothing went wrong in."""
    there = bench(tmp_path_factory.mktemp("undisturbed"))
    with there.camera(images), there.daemon("--once") as daemon:
        assert finish(daemon) == 0
    return there.runs / RUN


def test_clusters_are_found_and_called(images, undisturbed):
    for number in (1101, 1102):
        tile = TileId(lane=1, tile=number)
        agreement = compare(images, tile, read_fastq(undisturbed / "fastq" / f"s_{tile}_R1.fastq.gz"))
        assert agreement.found > 0.9
        assert agreement.yielded > 0.8
        assert agreement.real > 0.97


@pytest.mark.parametrize(("readout", "right"), [("network", 0.7), ("fit", 0.85)])
def test_other_readouts_call_too(readout, right, images, tmp_path):
    here = bench(tmp_path, calling={"readout": readout, "binned_quality": True})
    with here.camera(images), here.daemon("--once") as daemon:
        assert finish(daemon) == 0
    reads = read_fastq(here.runs / RUN / "fastq" / "s_1_1101_R1.fastq.gz")
    agreement = compare(images, TileId(lane=1, tile=1101), reads)
    assert agreement.yielded > right
    assert agreement.real > 0.97
    assert set(np.unique(reads.qualities)) <= {2, 12, 24, 40}


def test_fastq_marks_what_the_chastity_filter_takes_out(undisturbed):
    files = RunFiles(undisturbed)
    tile = TileId(lane=1, tile=1101)
    passed = read_fastq(undisturbed / "fastq" / f"s_{tile}_R1.fastq.gz").passed
    percents = read_cycles(files.chastity_of(tile), range(1, CYCLES + 1))
    assert passed.tolist() == ((percents < 60).sum(axis=0) <= 1).tolist()
    assert 0.8 < passed.mean() < 1
    provenance = json.loads((undisturbed / "provenance.json").read_bytes())
    assert provenance["configuration"]["calling"]["chastity_failures"] == 1


def test_ledger_has_every_tile_cycle_and_the_checksum_of_its_bytes(undisturbed):
    database = sqlite3.connect(undisturbed / "run.db")
    rows = database.execute("SELECT lane, tile, cycle, status, crc32 FROM tile_cycle ORDER BY tile, cycle").fetchall()
    database.close()
    assert len(rows) == TILES * CYCLES
    for lane, tile, cycle, status, crc32 in rows:
        content = (undisturbed / "tiles" / f"s_{lane}_{tile}.bcls").read_bytes()
        clusters = int.from_bytes(content[:4], "little")
        start = 4 + clusters * (cycle - 1)
        assert status == "called"
        assert zlib.crc32(content[start : start + clusters]) == crc32


def test_killed_daemon_resumes_with_the_same_bytes(images, undisturbed, tmp_path):
    here = bench(tmp_path)
    with here.camera(images) as camera:
        for cycle in (4, 8):
            with here.daemon("--once") as daemon:
                here.wait_for(lambda status, cycle=cycle: status.cycle >= cycle)
                daemon.send_signal(signal.SIGKILL)
                assert finish(daemon) == -signal.SIGKILL
        with here.daemon("--once") as daemon:
            assert finish(daemon) == 0
        assert finish(camera) == 0
    assert outputs(here.runs / RUN) == outputs(undisturbed)


def test_daemon_killed_before_its_template_is_made_resumes(images, undisturbed, tmp_path):
    here = bench(tmp_path)
    with here.camera(images, "--tile-seconds", "0.4"):
        with here.daemon("--once") as daemon:
            here.wait_for(lambda status: status.tile_cycles.pending >= 3)
            daemon.send_signal(signal.SIGKILL)
            finish(daemon)
        with here.daemon("--once") as daemon:
            assert finish(daemon) == 0
    assert outputs(here.runs / RUN) == outputs(undisturbed)


def test_sigterm_drains_and_the_next_start_continues(images, undisturbed, tmp_path):
    here = bench(tmp_path)
    with here.camera(images, "--tile-seconds", "0.5"):
        with here.daemon("--once") as daemon:
            here.wait_for(lambda status: status.cycle >= 3)
            daemon.send_signal(signal.SIGTERM)
            assert finish(daemon) == 0
        assert '"state": "stopped"' in (tmp_path / "daemon.log").read_text()
        with here.daemon("--once") as daemon:
            assert finish(daemon) == 0
    assert outputs(here.runs / RUN) == outputs(undisturbed)


def test_dropped_corrupt_doubled_and_reordered_frames_change_nothing(images, undisturbed, tmp_path):
    here = bench(tmp_path)
    faults = "drop=0.1,corrupt=0.05,duplicate=0.1,reorder=0.1,seed=2"
    with here.camera(images, "--faults", faults), here.daemon() as daemon:
        status = here.wait_for(lambda status: status.state == RunState.FINISHED)
        daemon.send_signal(signal.SIGTERM)
        assert finish(daemon) == 0
    assert status.frames.gaps > 0
    assert status.frames.duplicate > 0
    assert status.frames.refused["checksum"] > 0
    assert status.frames.resend_requested > 0
    assert status.tile_cycles.called == TILES * CYCLES
    assert outputs(here.runs / RUN) == outputs(undisturbed)


def test_frames_that_never_come_become_no_calls_with_a_reason(images, tmp_path):
    gappy = tmp_path / "images"
    shutil.copytree(images, gappy)
    image_path(gappy, TileId(lane=1, tile=1101), 7, "G").unlink()
    for channel in "ACGT":
        image_path(gappy, TileId(lane=1, tile=1102), 2, channel).unlink()
    here = bench(tmp_path)
    with here.camera(gappy), here.daemon() as daemon:
        status = here.wait_for(lambda status: status.state == RunState.FINISHED)
        daemon.send_signal(signal.SIGTERM)
        assert finish(daemon) == 0
    counts = status.tile_cycles
    assert (counts.called, counts.missing, counts.failed, counts.pending) == (TILES * CYCLES - 2, 2, 0, 0)
    assert counts.received == counts.called + counts.missing + counts.failed
    for tile, cycle in (("1_1101", 7), ("1_1102", 2)):
        reads = read_fastq(here.runs / RUN / "fastq" / f"s_{tile}_R1.fastq.gz")
        assert len(reads.positions) > 30
        assert (reads.sequences[:, cycle - 1] == ord("N")).all()
        assert (reads.qualities[:, cycle - 1] == 2).all()
        assert (reads.sequences[:, cycle] != ord("N")).mean() > 0.95
    database = sqlite3.connect(here.runs / RUN / "run.db")
    reasons = database.execute("SELECT tile, reason FROM tile_cycle WHERE status = 'missing' ORDER BY tile").fetchall()
    database.close()
    assert reasons == [
        (1101, "channel G: the controller no longer has it"),
        (1102, "channel A,C,G,T: the controller no longer has it"),
    ]


def test_tail_writes_the_bytes_of_the_tile_files(images, undisturbed, tmp_path):
    here = bench(tmp_path)
    addresses = ["--calls", here.endpoint("calls"), "--control", here.endpoint("control")]
    with here.daemon() as daemon, here.camera(images):
        # Comes late: the first cycles have to be fetched.
        here.wait_for(lambda status: status.cycle >= 5)
        tail = subprocess.run(
            [*SEQD, "tail", *addresses, "--write", str(tmp_path / "tail"), "--timeout", "2"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert tail.returncode == 0, tail.stderr
        daemon.send_signal(signal.SIGTERM)
        assert finish(daemon) == 0
    for number in (1101, 1102):
        for ending in ("bcls", "locs"):
            name = f"s_1_{number}.{ending}"
            assert (tmp_path / "tail" / name).read_bytes() == (undisturbed / "tiles" / name).read_bytes()
    assert f"{RUN} tile 1_1101 cycle   12" in tail.stdout


def test_status_shows_balance_engine_and_model(images, tmp_path):
    here = bench(tmp_path)
    with here.daemon() as daemon, here.camera(images):
        here.wait_for(lambda status: status.cycle >= 5)
        command = [*SEQD, "status", "--control", here.endpoint("control")]
        shown = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=True)
        table = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        daemon.send_signal(signal.SIGTERM)
        assert finish(daemon) == 0
    status = json.loads(shown.stdout)
    counts = status["tile_cycles"]
    assert status["state"] in ("running", "finished")
    assert counts["received"] == counts["called"] + counts["missing"] + counts["failed"] + counts["pending"]
    assert counts["expected"] == TILES * CYCLES
    assert status["engine"]["backend"] == "openvino"
    assert status["engine"]["precision"] in ("f32", "bf16", "f16")
    assert len(status["engine"]["model_hash"]) == 64
    assert status["engine"]["reason"].startswith("the embedded engine")
    assert set(status["engine"]["passed_over"]) == {"tensorrt on a GPU", "torch on a GPU"}
    assert status["engine"]["golden_difference"] < 0.01
    assert 0 < status["engine"]["busy"] <= 1
    assert status["fit"] == {"place": "cpu", "reason": "not qualified on this machine; run `seqd qualify`"}
    assert "passed over" in table.stdout
    assert "tile-cycles" in table.stdout


def test_call_runs_real_images_in_one_command(tmp_path):
    # What could be markup is printed as it is.
    output = tmp_path / "[/x] :b:"
    command = [*SEQD, "call", str(CROP), "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert f"  {output}/ISS_CROP/fastq/s_1_1101_R1.fastq.gz\n" in done.stdout
    reads = read_fastq(output / "ISS_CROP" / "fastq" / "s_1_1101_R1.fastq.gz")
    hits = codebook_hits(CROP / "codebook.csv", reads)
    assert hits >= 180
    assert hits >= 0.85 * len(reads.positions)
    before = outputs(output / "ISS_CROP")
    again = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert again.returncode == 0, again.stderr
    assert "4 called, 0 missing, 0 failed" in again.stdout
    assert outputs(output / "ISS_CROP") == before


def test_run_begun_with_other_settings_is_refused(images, undisturbed, tmp_path):
    here = bench(tmp_path, calling={"template_cycles": 5})
    shutil.copytree(undisturbed, here.runs / RUN)
    with here.camera(images), here.daemon("--once") as daemon:
        assert finish(daemon) == 8
    last = (tmp_path / "daemon.log").read_text().strip().splitlines()[-1]
    assert last.startswith("seqd: run in ")
    assert "begun with template_cycles 4, this daemon has 5" in last


def test_full_disk_that_stays_full_ends_the_run_with_one_clear_line(images, tmp_path):
    here = bench(tmp_path, faults={"retry_for_s": 1})
    # A file size limit fails writes as a full disk does.
    limited = ["bash", "-c", f"ulimit -f 100; exec {SEQD[0]} -m daemon.cli run --once --config {here.config}"]
    with here.camera(images), process(limited, tmp_path / "daemon.log", None) as daemon:
        assert finish(daemon) == 7
    log = (tmp_path / "daemon.log").read_text("utf-8")
    assert log.strip().splitlines()[-1].startswith(("seqd: ledger ", "seqd: spool", "seqd: tile files", "seqd: run"))
    # SQLite takes the limit for a failing disk.
    assert '"stop_reason": "disk_full"' in log or '"stop_reason": "storage_failed"' in log
    assert "Traceback" not in log


def test_images_of_another_size_than_declared_are_refused(images, tmp_path):
    odd = tmp_path / "odd"
    shutil.copytree(images, odd)
    text = (odd / "RunInfo.xml").read_text().replace('Width="112"', 'Width="111"')
    (odd / "RunInfo.xml").write_text(text)
    done = subprocess.run(
        [*SEQD, "call", str(odd), "--output", str(tmp_path / "out")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3
    assert "128×112 px, RunInfo.xml declares 128×111" in done.stderr


def test_two_daemons_cannot_write_one_run(images, tmp_path):
    here = bench(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    there = bench(other)
    settings = here.config.read_text().replace(f"{tmp_path}/control", f"{other}/control")
    there.config.write_text(settings.replace(f"{tmp_path}/calls", f"{other}/calls"))
    with here.camera(images, "--tile-seconds", "0.5"), here.daemon():
        here.wait_for(lambda status: status.run == RUN)
        with there.daemon() as second:
            assert finish(second) == 8
    assert "another seqd writes to it" in (other / "daemon.log").read_text()


def test_a_controller_faster_than_calling_is_held_and_released(images, undisturbed, tmp_path):
    # A tile image is 115 kB and all 24 come at once.
    here = bench(
        tmp_path,
        memory={"spill_above": 2**19, "refuse_above": 2**20},
        spool={"release_below": 2**17, "hold_above": 2**19, "limit": 2**20},
    )
    with here.camera(images, "--faults", "drop=0.3,seed=3"), here.daemon("--once") as daemon:
        here.wait_for(lambda status: status.lag.holding and status.spool.images > 0)
        assert finish(daemon) == 0
    assert outputs(here.runs / RUN) == outputs(undisturbed)
