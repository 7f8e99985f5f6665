"""The chaos campaign in short, and that it is a check that can fail."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from random import Random

import pytest

from camera.faults import Faults, parse_faults
from tests.chaos import carry as carrying
from tests.chaos.campaign import prepare
from tests.chaos.carry import carry, undisturbed
from tests.chaos.checks import Wrong, check_balance, check_ends, check_finished, check_kept, check_verified
from tests.chaos.disk import Disk, read_tree, write_tree
from tests.chaos.journal import Change, Kind, read_journal
from tests.chaos.ledger import read_ledger
from tests.chaos.plan import ENDINGS, FRAMES, STAGES, Blow, Case, Start, plan
from tests.chaos.plan import Kind as Disturbance
from tests.chaos.shim import Death, Error, build, environment

FORM_OF_FAULTS = {"delay_images", "clock_s", "pause_s", "crash_s", "seed"}
"""Fields of ``Faults`` that say how a fault is, not how often."""


def test_a_dozen_runs_of_all_kinds_lose_double_and_change_nothing(tmp_path):
    table = tmp_path / "table.md"
    command = [sys.executable, "-m", "tests.chaos", "--runs", "12", "--seed", "7", "--jobs", "2", "--table", str(table)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "runs carried out, 0 wrong, seed 7" in done.stdout
    lines = [line for line in table.read_text().splitlines() if line.startswith("|")]
    rows = {cells[1]: cells[2:] for cells in (line.replace(" ", "").split("|") for line in lines)}
    assert set(rows) >= set(Disturbance) - {Disturbance.DISK}  # which not every machine lets us fill
    runs, restarts = map(int, rows["all"][:2])
    assert runs >= 11
    assert restarts > runs / 2  # else little was disturbed


# What a campaign is made of.


def test_the_same_seed_is_the_same_plan():
    assert plan(3, 60) == plan(3, 60)
    assert plan(3, 20) == plan(3, 60)[:20]
    assert plan(3, 60) != plan(4, 60)


def test_a_plan_has_every_kind_stage_and_fault():
    assert {case.kind for case in plan(1, 7)} == set(Disturbance)
    cases = plan(1, 200)
    kills = [start.kill.stage for case in cases for start in case.starts if start.kill]
    assert set(kills) == set(STAGES)
    assert {case.faults.partition("=")[0] for case in cases} >= {form.partition("=")[0] for form in FRAMES.values()}
    blows = [case.starts[0].blow for case in cases if case.kind is Disturbance.DEATH]
    assert {int(10 * blow.at) for blow in blows} == set(range(10))
    assert {blow.ending for blow in blows} == set(ENDINGS)


def test_every_fault_of_the_controller_has_a_form():
    assert set(FRAMES) == set(Faults.model_fields) - FORM_OF_FAULTS
    for name, form in FRAMES.items():
        assert getattr(parse_faults(form), name) != Faults.model_fields[name].default


# Power loss, on journals made up.


def written(*changes):
    """Changes with numbers; 7 is the inode of every file."""
    return [
        Change(kind, number, path, 7, offset, other) for number, (kind, path, offset, other) in enumerate(changes, 1)
    ]


CREATE = (Kind.CREATE, "a/new", 0, b"")
WRITE = (Kind.WRITE, "a/new", 0, b"calls")
SYNC = (Kind.SYNC, "a/new", 0, b"")
FAILED = (Kind.SYNC_FAILED, "a/new", 0, b"")
RENAME = (Kind.RENAME, "a/new", 0, b"a/file")
UNLINK = (Kind.UNLINK, "a/file", 0, b"")
FOLDER = (Kind.SYNC_FOLDER, "a", 0, b"")


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ([CREATE, WRITE, RENAME], b"old"),
        ([CREATE, WRITE, SYNC, RENAME], b"old"),
        ([CREATE, WRITE, RENAME, FOLDER], b""),
        ([CREATE, WRITE, SYNC, RENAME, FOLDER], b"calls"),
        ([CREATE, WRITE, FAILED, SYNC, RENAME, FOLDER], b""),
        ([CREATE, WRITE, FAILED, WRITE, SYNC, RENAME, FOLDER], b"calls"),
        ([CREATE, WRITE, SYNC, (Kind.TRUNCATE, "a/new", 1, b""), RENAME, FOLDER], b"calls"),
        ([UNLINK], b"old"),
        ([UNLINK, FOLDER], None),
    ],
    ids=[
        "no sync",
        "folder not synced",
        "file not synced",
        "durable",
        "a failed sync is not made good by the next",
        "written again after a failed sync",
        "truncation not synced",
        "unlink not synced",
        "unlinked",
    ],
)
def test_a_strict_disk_keeps_what_was_synced_and_no_more(changes, left, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"old")
    disk = Disk(tmp_path)
    for change in written(*changes):
        disk.change(change)
    assert disk.after_power_loss().get("a/file") == left


def test_a_folder_that_was_never_synced_into_its_own_takes_all_with_it(tmp_path):
    disk = Disk(tmp_path)
    for change in written((Kind.MKDIR, "a", 0, b""), CREATE, WRITE, SYNC, FOLDER):
        disk.change(change)
    assert disk.now() == {"a": None, "a/new": b"calls"}
    assert disk.after_power_loss() == {}


def test_what_was_not_synced_is_kept_dropped_or_torn(tmp_path):
    (tmp_path / "a").mkdir()
    disk = Disk(tmp_path)
    for change in written(CREATE, FOLDER, WRITE, SYNC, (Kind.WRITE, "a/new", 5, b"torn"), RENAME):
        disk.change(change)
    left = [disk.after_power_loss(Random(seed)) for seed in range(60)]
    names = {name for tree in left for name in tree}
    assert names == {"a", "a/new", "a/file"}
    contents = {tree.get("a/new") or tree["a/file"] for tree in left}
    assert contents >= {b"calls", b"callst", b"callstorn"}
    assert all(b"callstorn".startswith(content) for content in contents)


def test_a_torn_journal_ends_before_the_tear(tmp_path, shim):
    journal = tmp_path / "journal"
    program(shim, tmp_path, DURABLE, journal=journal)
    whole = read_journal(journal)
    journal.write_bytes(journal.read_bytes()[:-3])
    assert read_journal(journal) == whole[:-1]


# The shim, before a real program.

DURABLE = """
import os, sqlite3, numpy
os.mkdir("runs/a")
with open("runs/a/.new", "wb") as file:
    file.write(b"calls")
    file.flush()
    os.fsync(file.fileno())
os.replace("runs/a/.new", "runs/a/new")
for folder in ("runs/a", "runs"):
    os.fsync(os.open(folder, os.O_RDONLY))
numpy.save("runs/a/array.npy", numpy.arange(1000))
database = sqlite3.connect("runs/a/run.db", isolation_level=None)
database.execute("PRAGMA journal_mode=WAL")
database.execute("PRAGMA synchronous=FULL")
database.execute("CREATE TABLE cycle (number INTEGER)")
for number in range(3):
    database.execute("INSERT INTO cycle VALUES (?)", (number,))
    print("committed", number, flush=True)
file = os.open("runs/a/new", os.O_RDWR)
os.pwrite(file, b"more", 5)
os.ftruncate(file, 7)
os.unlink("runs/a/array.npy")
"""
NAIVE = DURABLE.replace("synchronous=FULL", "synchronous=OFF")


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    return build(tmp_path_factory.mktemp("shim"))


def program(shim, folder, source, **what):
    """Run a program on an empty ``runs`` folder with the shim before it."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    (folder / "runs").mkdir()
    env = environment(shim, folder / "runs", **what)
    return subprocess.run([sys.executable, "-c", source], cwd=folder, env=env, capture_output=True, text=True)


def after(folder, journal):
    disk = Disk(folder)
    for change in read_journal(journal):
        disk.change(change)
    return disk


def committed(folder):
    """Numbers that the ledger of the program has."""
    with closing(sqlite3.connect(folder / "runs" / "a" / "run.db")) as database:
        return [number for (number,) in database.execute("SELECT number FROM cycle")]


def test_the_journal_makes_the_folder_again_byte_for_byte(shim, tmp_path):
    (tmp_path / "empty").mkdir()
    journal = tmp_path / "journal"
    done = program(shim, tmp_path, DURABLE, journal=journal)
    assert done.returncode == 0, done.stderr
    changes = read_journal(journal)
    assert after(tmp_path / "empty", journal).now() == read_tree(tmp_path / "runs")
    for at in range(1, changes[-1].number + 1, 5):
        for permille in (0, 500, 1000):
            journal.unlink()
            died = program(shim, tmp_path, DURABLE, journal=journal, death=Death(at, permille))
            assert died.returncode == -signal.SIGKILL
            assert after(tmp_path / "empty", journal).now() == read_tree(tmp_path / "runs"), f"change {at}"


def test_a_torn_write_stops_after_part_of_its_bytes(shim, tmp_path):
    died = program(shim, tmp_path, DURABLE, death=Death(3, 600))
    assert died.returncode == -signal.SIGKILL
    assert (tmp_path / "runs" / "a" / ".new").read_bytes() == b"cal"


@pytest.mark.parametrize(("source", "kept"), [(DURABLE, True), (NAIVE, False)], ids=["durable", "naive"])
def test_a_program_that_forgets_to_sync_is_caught(source, kept, shim, tmp_path):
    (tmp_path / "empty").mkdir()
    journal = tmp_path / "journal"
    told = program(shim, tmp_path, source, journal=journal).stdout.split()[1::2]
    assert told == ["0", "1", "2"]
    journal.unlink()
    # Dies at the first change after the last commit, as the whole run counts them.
    program(shim, tmp_path, source, journal=journal)
    last = next(change.number for change in read_journal(journal) if change.path == "a/new" and change.offset == 5)
    journal.unlink()
    died = program(shim, tmp_path, source, journal=journal, death=Death(last, 0))
    assert died.stdout.split()[1::2] == told
    write_tree(tmp_path / "runs", after(tmp_path / "empty", journal).after_power_loss())
    try:
        assert (committed(tmp_path) == [0, 1, 2]) is kept
    except sqlite3.OperationalError:
        assert not kept


def test_calls_fail_for_a_while_with_the_error_asked_for(shim, tmp_path):
    source = """
import errno, os, time
names = []
for wait in (0, 0, 0.5):
    time.sleep(wait)
    try:
        os.mkdir("runs/a")
        names.append("made")
    except OSError as error:
        names.append(errno.errorcode[error.errno])
print(*names)
"""
    done = program(shim, tmp_path, source, error=Error("EROFS", "n", 1, 0.4))
    assert done.stdout.split() == ["EROFS", "EROFS", "made"], done.stderr


def test_a_disk_that_gets_full_takes_part_of_a_write(shim, tmp_path):
    source = """
import errno, os
file = os.open("runs/file", os.O_WRONLY | os.O_CREAT)
taken = os.write(file, b"calls of a cycle")
try:
    os.write(file, b"rest")
except OSError as error:
    print(taken, errno.errorcode[error.errno])
"""
    done = program(shim, tmp_path, source, error=Error("ENOSPC", "w", 1, -1))
    assert done.stdout.split() == ["8", "ENOSPC"], done.stderr


# The checks, on a real run and what was done to it.


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("c"))


@pytest.fixture(scope="module")
def reference(setting):
    return undisturbed(setting)


@pytest.fixture
def run(setting, reference, tmp_path):
    """A finished run folder to spoil."""
    shutil.copytree(setting.folder / "undisturbed" / "runs" / reference.info.run, tmp_path / "run")
    return tmp_path / "run"


def found(run, reference, **allowed):
    """What the checks of a finished run say is wrong."""
    rows = read_ledger(run)
    told = {key: row.crc32 for key, row in reference.rows.items()}
    checks = [
        *check_kept(run, told),
        *check_balance(rows, reference.info, []),
        *check_finished(run, rows, reference, **({"may_miss": False} | allowed)),
    ]
    return {finding.wrong for finding in checks}


def ledger(run, statement):
    with closing(sqlite3.connect(run / "run.db", isolation_level=None)) as database:
        database.execute(statement)


def test_deaths_are_aimed_at_everything_that_a_run_writes(reference):
    aims = {ending: [path for path in reference.changed if path.endswith(ending)] for ending in ENDINGS}
    assert [ending for ending, paths in aims.items() if not paths] == []
    aimed = {path for ending, paths in aims.items() if ending for path in paths}
    # Whether these survive, nobody counts on; and the run's own folders, which are made at the start.
    left = {path for path in reference.changed if not path.endswith((".reading.npy", ".image", "-shm"))} - aimed
    above = ["/Data", "/Data/Intensities", "/Data/Intensities/BaseCalls"]
    assert left <= {"", *(reference.info.run + folder for folder in ("", *above))}


def test_nothing_is_wrong_with_the_undisturbed_run(run, reference):
    assert found(run, reference) == set()


def test_verify_is_asked_too(run, tmp_path):
    assert check_verified(run) == []
    (run / "tiles" / "s_1_1101.chastity").unlink()
    assert Wrong.CHANGED in {finding.wrong for finding in check_verified(run)}
    assert [finding.wrong for finding in check_verified(tmp_path)] == [Wrong.CHANGED]


def test_a_changed_byte_of_calls_is_found(run, reference):
    path = run / "tiles" / "s_1_1101.bcls"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert Wrong.CHANGED in found(run, reference)


def test_a_short_tile_file_is_found(run, reference):
    path = run / "tiles" / "s_1_1102.bcls"
    path.write_bytes(path.read_bytes()[:-1])
    assert found(run, reference) == {Wrong.LOST, Wrong.CHANGED}


def test_changed_chastity_positions_and_reads_are_found(run, reference):
    for name in ("tiles/s_1_1101.chastity", "tiles/s_1_1101.locs", "fastq/s_1_1101_R1.fastq.gz"):
        kept = (run / name).read_bytes()
        (run / name).write_bytes(kept[:-1])
        assert found(run, reference) == {Wrong.CHANGED}, name
        (run / name).unlink()
        assert Wrong.LOST in found(run, reference), name
        (run / name).write_bytes(kept)


def test_a_lost_row_of_the_ledger_is_found(run, reference):
    ledger(run, "DELETE FROM tile_cycle WHERE tile = 1101 AND cycle = 3")
    assert found(run, reference) == {Wrong.UNBALANCED, Wrong.LOST}


def test_a_tile_cycle_that_need_not_be_missing_is_found(run, reference):
    ledger(run, "UPDATE tile_cycle SET status = 'missing' WHERE tile = 1101 AND cycle = 6")
    assert found(run, reference) == {Wrong.LOST}
    assert found(run, reference, may_miss=True) == set()


def test_calls_before_a_missing_cycle_must_be_the_same(run, reference):
    other = reference.rows[1, 1101, 2].crc32
    ledger(run, "UPDATE tile_cycle SET status = 'missing' WHERE tile = 1101 AND cycle = 6")
    ledger(run, f"UPDATE tile_cycle SET crc32 = {other} WHERE tile = 1101 AND cycle = 1")
    rows = read_ledger(run)
    said = [finding.text for finding in check_finished(run, rows, reference, may_miss=True)]
    assert any(text.startswith("tile 1_1101, cycle 1: not as in the undisturbed run") for text in said)


def test_books_that_do_not_balance_are_found(reference):
    ended = {"state": "failed", "received": 9, "called": 6, "missing": 1, "failed": 0, "pending": 1}
    assert check_balance(reference.rows, reference.info, [ended | {"pending": 2}]) == []
    assert [finding.wrong for finding in check_balance(reference.rows, reference.info, [ended])] == [Wrong.UNBALANCED]
    finished = {"state": "finished", "received": 11, "called": 11, "missing": 0, "failed": 0, "pending": 0}
    assert [one.wrong for one in check_balance(reference.rows, reference.info, [finished])] == [Wrong.UNBALANCED]


@pytest.mark.parametrize(
    ("reasons", "wrong"), [(["disk_full"], 0), ([], 1), (["internal"], 1), (["output_changed"], 1)]
)
def test_a_failure_that_does_not_say_why_is_found(reasons, wrong):
    ended = [{"state": "failed", "stop_reason": reason} for reason in reasons]
    assert [finding.wrong for finding in check_ends(ended, 1)] == [Wrong.ENDED] * wrong


# Planted defects, in real daemons.

LATE = Case(Disturbance.POWER, 0, starts=(Start(blow=Blow("", 0.85, 0), power=0),))


@pytest.mark.parametrize("forgotten", [".bcls", ".db-wal"])
def test_a_daemon_that_forgets_a_sync_is_found(forgotten, setting, reference, tmp_path):
    (tmp_path / "f").mkdir()
    defective = carrying.Setting(tmp_path / "f", setting.images, setting.library, forgotten=forgotten)
    outcome = carry(LATE, defective, reference)
    assert Wrong.LOST in {finding.wrong for finding in outcome.found}


def test_a_run_that_takes_too_long_is_found(setting, reference, tmp_path, monkeypatch):
    monkeypatch.setattr(carrying, "LIMIT_S", 0.5)
    (tmp_path / "h").mkdir()
    slow = carrying.Setting(tmp_path / "h", setting.images, setting.library)
    outcome = carry(Case(Disturbance.FRAMES, 0), slow, reference)
    assert [finding.wrong for finding in outcome.found] == [Wrong.HUNG]
