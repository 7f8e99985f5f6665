"""Runs that nobody changed: finished, unfinished and still being written."""

import json
import os
import shutil
import signal
import sqlite3
from contextlib import closing

import pytest
from seqd_client.status import RunState

from calib.runfolder.images import RUN_INFO, RunFolderError
from daemon.record.durable import write_sealed
from daemon.verification import verify_run
from tests.daemon.verification.verifiedrun import (
    CALLING,
    FIRST,
    READS,
    RUN,
    SECOND,
    SIZE,
    clusters_of,
    committed,
    fastq_of,
    flip,
    lines,
    seqd_verify,
    state_of,
    verified,
)
from tests.support.processes import bench, finish


def test_finished_run_is_as_committed(finished):
    before = state_of(finished)
    found = verified(finished)
    assert found.differences == ()
    assert found.not_compared == ()
    assert (found.run, found.finished) == (RUN, True)
    assert (found.tiles, found.templates) == (2, 2)
    assert (found.called, found.missing, found.failed, found.expected) == (18, 0, 0, 18)
    checked = [*(finished / "tiles").iterdir(), *(finished / "fastq").iterdir()]
    checked += [finished / RUN_INFO, finished / "provenance.json"]
    assert len(checked) == 4 * 2 + 2 * 2 + 2
    assert found.files == len(checked)
    assert found.bytes == sum(path.stat().st_size for path in checked)
    assert found.uncommitted_bytes == 0
    assert state_of(finished) == before


def test_run_with_missing_and_failed_cycles_is_as_committed(mixed):
    found = verified(mixed)
    assert found.differences == ()
    assert found.finished
    assert (found.called, found.missing, found.failed) == (15, 2, 1)


def test_command_shows_a_table_and_ends_with_0(finished):
    done = seqd_verify(finished)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"run {RUN}" in done.stdout
    assert "18 committed = 18 called + 0 missing + 0 failed; 18 expected" in done.stdout
    assert "6/6" in done.stderr


def test_json_is_the_verification(files):
    flip(files.locs_of(FIRST), 20)
    done = seqd_verify(files.root, "--json")
    assert done.returncode == 10
    assert json.loads(done.stdout) == json.loads(verified(files.root).model_dump_json())
    (difference,) = json.loads(done.stdout)["differences"]
    assert (difference["file"], difference["tile"], difference["cycle"]) == ("tiles/s_1_1101.locs", "1_1101", None)


def test_progress_reaches_its_end(finished):
    steps = []
    verify_run(finished, progress=lambda done, of: steps.append((done, of)))
    assert steps == [(done, 6) for done in range(1, 7)]


def test_run_is_verified_where_nothing_can_be_written(files):
    folders = [files.root, *(path for path in files.root.rglob("*") if path.is_dir())]
    try:
        for folder in folders:
            folder.chmod(0o550)
        assert lines(files.root) == []
    finally:
        for folder in folders:
            folder.chmod(0o750)


# Harm, of which every kind is found and named.


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_bytes(b"")])
def test_what_is_no_run_is_refused_in_one_line(make, tmp_path):
    make(tmp_path / "nothing")
    with pytest.raises(RunFolderError, match=r"run folder .*nothing: there is no run\.db"):
        verified(tmp_path / "nothing")
    done = seqd_verify(tmp_path / "nothing")
    assert done.returncode == 3
    assert done.stderr.startswith("seqd: run folder ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_folder_of_archived_images_is_no_output_folder(images):
    with pytest.raises(RunFolderError, match=r"there is no run\.db"):
        verified(images)


def test_killed_run_is_as_committed_and_told_not_to_be_finished(unfinished):
    found = verified(unfinished.root)
    assert found.differences == ()
    assert not found.finished
    assert found.called == committed(unfinished, FIRST) + committed(unfinished, SECOND)
    assert 6 <= found.called < found.expected
    shown = seqd_verify(unfinished.root)
    assert shown.returncode == 0
    assert any("finished" in line and "no" in line for line in shown.stdout.splitlines())


def test_torn_tail_of_an_unfinished_run_is_told_and_allowed(unfinished):
    before = verified(unfinished.root).uncommitted_bytes
    with unfinished.calls_of(FIRST).open("ab") as file:
        file.write(b"torn")
    found = verified(unfinished.root)
    assert found.differences == ()
    assert found.uncommitted_bytes == before + 4
    assert f"{before + 4} bytes at the ends of tile files" in seqd_verify(unfinished.root).stdout


def test_harm_to_an_unfinished_run_is_found(unfinished):
    last = committed(unfinished, FIRST)
    flip(unfinished.calls_of(FIRST), 4 + clusters_of(unfinished, FIRST) * (last - 1))
    os.truncate(unfinished.calls_of(SECOND), 4 + clusters_of(unfinished, SECOND) * 2)
    path = fastq_of(unfinished, SECOND, READS[1])
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    first, second, fastq = lines(unfinished.root)
    assert first.startswith(f"tiles/s_1_1101.bcls, tile 1_1101, cycle {last}: expected CRC-32 ")
    assert second.startswith("tiles/s_1_1102.bcls, tile 1_1102, cycle 3: expected ")
    assert fastq == "fastq/s_1_1102_I1.fastq.gz, tile 1_1102: expected no file before cycle 9 is committed, found one"


def test_spooled_images_are_whole(unfinished):
    size = 4 * SIZE * SIZE * 2
    write_sealed(unfinished.spooled(FIRST, 9), bytes(size))
    before = verified(unfinished.root)
    assert before.differences == ()
    flip(unfinished.spooled(FIRST, 9), 100)
    (line,) = lines(unfinished.root)
    assert line.startswith("spool/s_1_1101_C9.image: expected a whole file, found its SHA-256 ")
    write_sealed(unfinished.spooled(FIRST, 9), bytes(size - 2))
    assert lines(unfinished.root) == [f"spool/s_1_1101_C9.image: expected {size} bytes of pixels, found {size - 2}"]


def test_complete_run_whose_daemon_was_killed_before_fastq_is_not_finished(files):
    """A daemon leaves the database's log beside it until it has written everything."""
    fastq_of(files, FIRST, READS[1]).unlink()
    database = sqlite3.connect(files.ledger, isolation_level=None)
    database.execute("UPDATE run SET value = value")
    shutil.copytree(files.root, files.root.with_name("killed"))
    database.close()
    found = verified(files.root.with_name("killed"))
    assert (found.finished, found.differences, found.called) == (False, (), 18)


def test_rows_in_the_log_of_the_database_count(files):
    with closing(sqlite3.connect(files.ledger, isolation_level=None)) as database:
        database.execute("UPDATE tile_cycle SET crc32 = 5 WHERE tile = 1101 AND cycle = 2")
        (line,) = lines(files.root)
    assert line.startswith("tiles/s_1_1101.bcls, tile 1_1101, cycle 2: expected CRC-32 00000005")


def test_run_is_verified_while_a_daemon_writes_it(images, finished, tmp_path):
    here = bench(tmp_path, calling=CALLING)
    folder, seen = here.runs / RUN, []
    with here.camera(images, "--tile-seconds", "0.1"), here.daemon() as daemon:
        here.wait_for(lambda status: status.cycle >= 1)
        while here.status().state is not RunState.FINISHED:
            found = verified(folder)
            assert found.differences == ()
            seen.append(found.called)
        assert seqd_verify(folder).returncode == 0
        status = here.status()
        assert status.tile_cycles.called == 18
        assert status.troubles == []
        daemon.send_signal(signal.SIGTERM)
        assert finish(daemon) == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 1
    assert seen[0] < 18
    for name in ("tiles", "fastq"):
        for path in (finished / name).iterdir():
            if not path.name.endswith(".template.npz"):
                assert (folder / name / path.name).read_bytes() == path.read_bytes()
    assert verified(folder).finished
    assert not (folder / "run.db-wal").exists()
