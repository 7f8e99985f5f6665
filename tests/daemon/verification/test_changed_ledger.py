"""Changes to the ledger of a run."""

import os
import shutil
import sqlite3
from contextlib import closing
from itertools import count
from threading import Event, Thread

import pytest

from daemon.errors import OutputError
from daemon.record.ledgercopy import copy_ledger
from daemon.record.runfiles import RunFiles
from tests.daemon.verification.verifiedrun import RUN, change, lines, seqd_verify, verified


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "UPDATE tile_cycle SET status = 'guessed' WHERE tile = 1101 AND cycle = 4",
            ["run.db, tile 1_1101, cycle 4: expected status called, missing, failed, found 'guessed'"],
        ),
        (
            "UPDATE tile_cycle SET frames = 3 WHERE tile = 1101 AND cycle = 4",
            ["run.db, tile 1_1101, cycle 4: expected 4 frames of a called tile-cycle, found 3"],
        ),
        (
            "UPDATE tile_cycle SET reason = 'dark' WHERE tile = 1101 AND cycle = 4",
            ["run.db, tile 1_1101, cycle 4: expected no reason, it was called, found 'dark'"],
        ),
        (
            "UPDATE tile_cycle SET chastity_crc32 = NULL WHERE tile = 1101 AND cycle = 4",
            [
                "run.db, tile 1_1101, cycle 4: "
                "expected a chastity checksum up to cycle 6 and none in later cycles, found none"
            ],
        ),
        (
            "UPDATE tile_cycle SET chastity_crc32 = 17 WHERE tile = 1102 AND cycle = 7",
            [
                "run.db, tile 1_1102, cycle 7: "
                "expected a chastity checksum up to cycle 6 and none in later cycles, found 00000011"
            ],
        ),
        (
            "UPDATE tile_cycle SET engine = 9 WHERE tile = 1101 AND cycle = 4",
            ["run.db: expected a listed engine for every tile-cycle, found tile-cycles with another engine: 1"],
        ),
        (
            "DELETE FROM tile_cycle WHERE tile = 1101 AND cycle = 4",
            ["run.db, tile 1_1101, cycle 4: expected a row, because later cycles have a row, found none"],
        ),
        (
            "DELETE FROM tile_cycle WHERE tile = 1101 AND cycle = 9",
            ["fastq/s_1_1101_I1.fastq.gz, tile 1_1101: expected no file before cycle 9 is committed, found one"],
        ),
        (
            "DELETE FROM tile WHERE tile = 1102",
            ["run.db, tile 1_1102: expected a template of a tile with cycles, found none"],
        ),
        (
            "UPDATE tile SET clusters = -1 WHERE tile = 1102",
            [
                "run.db, tile 1_1102: expected 0 to 4294967295 clusters, found -1",
                "run.db, tile 1_1102: expected a template of a tile with cycles, found none",
            ],
        ),
        (
            "INSERT INTO tile VALUES (1, 1103, 5, 5)",
            ["run.db, tile 1_1103: expected tiles of the run, found rows in tile"],
        ),
        (
            "UPDATE tile_cycle SET cycle = 10 WHERE tile = 1102 AND cycle = 9",
            [
                "run.db, tile 1_1102, cycle 10: expected cycles 1 to 9, found a row",
                "fastq/s_1_1102_I1.fastq.gz, tile 1_1102: expected no file before cycle 9 is committed, found one",
            ],
        ),
    ],
)
def test_changed_ledger_is_found(statement, expected, files):
    change(files, statement)
    assert lines(files.root) == expected


@pytest.mark.parametrize(
    ("table", "row", "expected"),
    [
        ("tile_cycle", "tile = 1102 AND cycle = 3", "run.db, tile 1_1102, cycle 3: expected one row, found another"),
        ("tile", "tile = 1102", "run.db, tile 1_1102: expected one template, found 2"),
    ],
)
def test_row_that_is_there_twice_is_found(table, row, expected, files):
    """No ledger of ours can hold one: its primary key is taken away first."""
    with closing(sqlite3.connect(files.ledger, isolation_level=None)) as database:
        (made,) = database.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        columns, _, rest = made.rpartition("PRIMARY KEY")
        database.execute(f"ALTER TABLE {table} RENAME TO original")
        database.execute(f"{columns.rstrip().rstrip(',')}{rest.partition(')')[2]}")
        database.execute(f"INSERT INTO {table} SELECT * FROM original")
        database.execute("DROP TABLE original")
        database.execute(f"INSERT INTO {table} SELECT * FROM {table} WHERE {row}")
    assert lines(files.root) == [expected]


def test_changed_checksums_of_the_ledger_are_found(files):
    change(files, "UPDATE tile_cycle SET crc32 = 5 WHERE tile = 1101 AND cycle = 2")
    change(files, "UPDATE tile_cycle SET chastity_crc32 = 6 WHERE tile = 1101 AND cycle = 2")
    change(files, "UPDATE tile SET locs_crc32 = 7 WHERE tile = 1102")
    calls, chastity, positions, template = lines(files.root)
    assert calls.startswith("tiles/s_1_1101.bcls, tile 1_1101, cycle 2: expected CRC-32 00000005, found ")
    assert chastity.startswith("tiles/s_1_1101.chastity, tile 1_1101, cycle 2: expected CRC-32 00000006, found ")
    assert positions.startswith("tiles/s_1_1102.locs, tile 1_1102: expected CRC-32 00000007, found ")
    assert template.startswith(
        "tiles/s_1_1102.template.npz, tile 1_1102: expected positions of CRC-32 00000007, found "
    )


def test_changed_number_of_clusters_is_found(files):
    change(files, "UPDATE tile SET clusters = clusters + 1 WHERE tile = 1101")
    found = verified(files.root).differences
    assert {difference.file for difference in found} == {
        "tiles/s_1_1101.bcls",
        "tiles/s_1_1101.chastity",
        "tiles/s_1_1101.locs",
    }


@pytest.mark.parametrize(("status", "frames"), [("missing", 3), ("failed", 4)])
def test_calls_of_a_cycle_that_was_not_called_are_found(status, frames, files):
    """Also where the checksums are those of the bytes."""
    change(
        files,
        "UPDATE tile_cycle SET status = ?, frames = ?, reason = 'gone' WHERE tile = 1101 AND cycle = 5",
        status,
        frames,
    )
    calls, chastity = lines(files.root)
    assert calls.startswith("tiles/s_1_1101.bcls, tile 1_1101, cycle 5: expected 0 throughout, found ")
    assert chastity.startswith("tiles/s_1_1101.chastity, tile 1_1101, cycle 5: expected 255 throughout, found ")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "UPDATE tile_cycle SET reason = '' WHERE cycle = 2",
            "run.db, tile 1_1101, cycle 2: expected a reason why it is missing, found none",
        ),
        (
            "UPDATE tile_cycle SET reason = '' WHERE cycle = 5 AND tile = 1101",
            "run.db, tile 1_1101, cycle 5: expected a reason why it is failed, found none",
        ),
        (
            "UPDATE tile_cycle SET frames = 4 WHERE status = 'missing' AND cycle = 8",
            "run.db, tile 1_1102, cycle 8: expected fewer than 4 frames of a missing tile-cycle, found 4",
        ),
        (
            "UPDATE tile_cycle SET frames = 3 WHERE status = 'failed'",
            "run.db, tile 1_1101, cycle 5: expected 4 frames of a failed tile-cycle, found 3",
        ),
    ],
)
def test_changed_ledger_of_missing_and_failed_cycles_is_found(statement, expected, mixed, tmp_path):
    shutil.copytree(mixed, tmp_path / RUN)
    files = RunFiles(tmp_path / RUN)
    change(files, statement)
    assert expected in lines(files.root)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE run SET value = '2' WHERE key = 'schema'", "schema 2, this seqd reads "),
        ("DELETE FROM run", "schema None, this seqd reads "),
        ("UPDATE run SET value = '{}' WHERE key = 'info'", "does not say which run it is of"),
        ("UPDATE run SET value = 'x' WHERE key = 'info'", "does not say which run it is of"),
        ("DELETE FROM run WHERE key = 'info'", "does not say which run it is of"),
        ("DELETE FROM run WHERE key = 'chastity_failures'", "does not say which run it is of"),
        ("DROP TABLE tile", "seqd did not create table tile"),
        ("ALTER TABLE tile_cycle DROP COLUMN crc32", "no such column: crc32"),
    ],
)
def test_ledger_that_cannot_be_read_is_an_error(statement, message, files):
    change(files, statement)
    with pytest.raises(OutputError, match=f"^ledger .*run.db: .*{message}"):
        verified(files.root)


def test_damaged_database_is_found(files):
    """The tree of an index, with an entry less than its table has."""
    change(files, "PRAGMA writable_schema = ON")
    with closing(sqlite3.connect(files.ledger, isolation_level=None)) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_tile_cycle_1'"
        ).fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
    content = bytearray(files.ledger.read_bytes())
    cells = (page - 1) * size + 3
    content[cells + 1] -= 1
    files.ledger.write_bytes(content)
    found = lines(files.root)
    assert any(line.startswith("run.db: expected a whole database, found ") for line in found)


def test_cut_database_is_an_error_of_one_line(files):
    os.truncate(files.ledger, files.ledger.stat().st_size // 2)
    done = seqd_verify(files.root)
    assert done.returncode == 7
    assert done.stderr.startswith("seqd: ledger ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_ledger_that_another_program_locks_is_read(files):
    with closing(sqlite3.connect(files.ledger, isolation_level=None)) as database:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("BEGIN IMMEDIATE")
        database.execute("DELETE FROM tile_cycle")
        assert lines(files.root) == []
        database.execute("ROLLBACK")


def test_ledger_is_copied_in_one_state_while_it_is_written(tmp_path):
    """Also while its log is written back and begun anew all the time: both ends of the file are of one transaction."""
    path, copy, stop = tmp_path / "run.db", tmp_path / "copy.db", Event()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        for table, content in (("first", "0"), ("middle", "zeroblob(15000000)"), ("last", "0")):
            database.execute(f"CREATE TABLE {table} (number)")
            database.execute(f"INSERT INTO {table} VALUES ({content})")

    def write():
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            for number in count(1):
                database.execute("BEGIN")
                database.execute("UPDATE first SET number = ?", (number,))
                database.execute("UPDATE last SET number = ?", (number,))
                database.execute("COMMIT")
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                if stop.wait(0.003 if number % 10 else 0.3):
                    return

    writer = Thread(target=write)
    writer.start()
    try:
        seen = set()
        for _ in range(15):
            copy_ledger(path, copy)
            with closing(sqlite3.connect(copy)) as database:
                ((first, last),) = database.execute("SELECT first.number, last.number FROM first, last").fetchall()
                assert first == last
                seen.add(first)
    finally:
        stop.set()
        writer.join()
