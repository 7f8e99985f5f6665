import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from itertools import count
from threading import Event, Thread

import numpy as np
import pytest
import tifffile
from seqd_client.runinfo import Read, TileId
from seqd_client.status import RunState

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from calib.runfolder.images import RUN_INFO, RunFolderError, image_path
from daemon.errors import OutputError
from daemon.outputs.reads.fastq import fastq_records
from daemon.outputs.sink import Encoding, SinkFile, encoded
from daemon.record.committed import open_run
from daemon.record.durable import write_sealed
from daemon.record.ledgercopy import copy_ledger
from daemon.record.runfiles import RunFiles
from daemon.verification import verify_run
from daemon.verification.findings import Findings
from daemon.verification.sinkfiles import check_sink_file
from tests.support.processes import SEQD, bench, finish

RUN = "VERIFIED"
FIRST, SECOND = TileId(lane=1, tile=1101), TileId(lane=1, tile=1102)
READS = (Read(number=1, cycles=6), Read(number=2, cycles=3, index=True))
CYCLES = 9
FILTERED = 6
"""Cycles that decide about the chastity filter: the first read's."""
SIZE = 96
CALLING = {"template_cycles": 3}
SINKS = {"bcl": "off", "interop": False, "report": False}


def verified(folder):
    return verify_run(folder, progress=lambda done, of: None)


def lines(folder):
    return [str(difference) for difference in verified(folder).differences]


def seqd_verify(*arguments):
    return subprocess.run([*SEQD, "verify", *map(str, arguments)], capture_output=True, text=True, timeout=120)


def state_of(folder):
    """Everything in a folder, with times of change."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.stat().st_ino,
            path.is_file() and path.read_bytes(),
        )
        for path in folder.rglob("*")
    }


def encode(pieces):
    return b"".join(encoded(pieces, Encoding.BGZF))


def fastq_of(files, tile, read):
    return files.root / "fastq" / f"s_{tile}_{'I' if read.index else 'R'}1.fastq.gz"


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


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def change(files, statement, *values):
    with closing(sqlite3.connect(files.ledger, isolation_level=None)) as database:
        assert database.execute(statement, values).rowcount != 0


def clusters_of(files, tile):
    return int.from_bytes(files.calls_of(tile).read_bytes()[:4], "little")


# Runs that are as they should be.


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
    told = []
    verify_run(finished, progress=lambda done, of: told.append((done, of)))
    assert told == [(done, 6) for done in range(1, 7)]


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


@pytest.mark.parametrize("cycle", [1, 4, CYCLES])
def test_flipped_byte_of_calls_is_found(cycle, files):
    flip(files.calls_of(SECOND), 4 + clusters_of(files, SECOND) * (cycle - 1) + 3)
    found = verified(files.root)
    (difference,) = found.differences
    assert str(difference).startswith(f"tiles/s_1_1102.bcls, tile 1_1102, cycle {cycle}: expected CRC-32 ")
    assert difference.expected != f"CRC-32 {difference.found}"
    # FASTQ cannot be held against them.
    assert found.not_compared == ("fastq/s_1_1102_R1.fastq.gz", "fastq/s_1_1102_I1.fastq.gz")
    shown = seqd_verify(files.root)
    assert shown.returncode == 10
    assert str(difference) in shown.stdout.splitlines()
    assert "fastq/s_1_1102_I1.fastq.gz: undamaged, but not compared" in shown.stdout


def test_flipped_byte_of_chastity_is_found(files):
    flip(files.chastity_of(FIRST), 4 + clusters_of(files, FIRST) * (FILTERED - 1))
    (line,) = lines(files.root)
    assert line.startswith(f"tiles/s_1_1101.chastity, tile 1_1101, cycle {FILTERED}: expected CRC-32 ")


@pytest.mark.parametrize("name", ["bcls", "chastity"])
def test_flipped_byte_of_a_header_is_found(name, files):
    flip(files.tiles / f"s_1_1101.{name}", 2)
    (line,) = lines(files.root)
    assert line.startswith(f"tiles/s_1_1101.{name}, tile 1_1101: expected a header of ")


def test_flipped_bytes_of_positions_are_found(files):
    flip(files.locs_of(FIRST), 30)
    (line,) = lines(files.root)
    assert line.startswith("tiles/s_1_1101.locs, tile 1_1101: expected CRC-32 ")
    flip(files.locs_of(FIRST), 1)
    crc32, layout = lines(files.root)
    assert crc32.startswith("tiles/s_1_1101.locs, tile 1_1101: expected CRC-32 ")
    assert layout == "tiles/s_1_1101.locs, tile 1_1101: expected a whole file, found not of the .locs layout"


@pytest.mark.parametrize("at", [0, 500, -1])
def test_flipped_byte_of_a_template_is_found(at, files):
    flip(files.template_of(SECOND), at)
    (line,) = lines(files.root)
    assert line.startswith("tiles/s_1_1102.template.npz, tile 1_1102: expected a whole file, found its SHA-256 ")


def test_sealed_template_of_no_tile_is_found(files):
    write_sealed(files.template_of(FIRST), b"")
    assert lines(files.root) == [
        "tiles/s_1_1101.template.npz, tile 1_1101: expected a whole file, found not a template"
    ]


@pytest.mark.parametrize("at", [*range(10), 10, 400, -9, -8, -5, -4, -1])
def test_flipped_byte_of_fastq_is_found_wherever_it_is(at, files):
    path = fastq_of(files, FIRST, READS[0])
    assert path.stat().st_size > 500
    flip(path, at)
    found = lines(files.root)
    assert found
    assert {line.partition(": ")[0] for line in found} == {"fastq/s_1_1101_R1.fastq.gz, tile 1_1101"}


def test_flipped_byte_of_run_info_is_found(files):
    flip(files.root / RUN_INFO, 200)
    (line,) = lines(files.root)
    assert line.startswith("RunInfo.xml: expected the run of the ledger, ")


def test_provenance_that_cannot_be_read_is_found(files):
    flip(files.provenance, 0)
    assert lines(files.root) == ["provenance.json: expected a JSON object, found none that can be read"]
    files.provenance.write_bytes(b"\xff")
    assert lines(files.root) == ["provenance.json: expected a JSON object, found none that can be read"]


@pytest.mark.parametrize(
    ("name", "cycle"),
    [
        ("s_1_1101.bcls", CYCLES),
        ("s_1_1101.chastity", FILTERED),
        ("s_1_1101.locs", None),
        ("s_1_1101.template.npz", None),
    ],
)
@pytest.mark.parametrize("change", [-1, +1])
def test_cut_and_grown_tile_files_are_found(name, cycle, change, files):
    path = files.tiles / name
    size = path.stat().st_size
    os.truncate(path, size + change)
    found = verified(files.root).differences
    assert found
    assert {(difference.file, difference.tile) for difference in found} == {(f"tiles/{name}", "1_1101")}
    if cycle is not None:
        (difference,) = found
        assert difference.found == f"{size + change}"
        assert difference.expected == (f"{size} bytes or more" if change < 0 else f"{size} bytes")
        assert difference.cycle == (cycle if change < 0 else None)


def test_file_that_is_cut_to_nothing_is_found(files):
    os.truncate(files.calls_of(FIRST), 0)
    size, header = lines(files.root)
    assert size.startswith("tiles/s_1_1101.bcls, tile 1_1101, cycle 1: expected ")
    assert header.endswith("found none")


@pytest.mark.parametrize("kept", [0, 5, 18, 700, -8, -1])
def test_cut_fastq_is_found(kept, files):
    path = fastq_of(files, SECOND, READS[1])
    path.write_bytes(path.read_bytes()[:kept])
    found = lines(files.root)
    assert found
    assert {line.partition(": ")[0] for line in found} == {"fastq/s_1_1102_I1.fastq.gz, tile 1_1102"}


@pytest.mark.parametrize(
    "more",
    [b"\0", b"\0" * 3_000_000, b"x", gzip.compress(b"", mtime=0), gzip.compress(b"@more\nA\n+\nI\n", mtime=0)],
    ids=["zero", "zeros", "letter", "empty member", "member"],
)
def test_grown_fastq_is_found(more, files):
    with fastq_of(files, SECOND, READS[1]).open("ab") as file:
        file.write(more)
    name = "fastq/s_1_1102_I1.fastq.gz, tile 1_1102"
    assert lines(files.root) == [f"{name}: expected a whole file, found something follows after the last gzip block"]


@pytest.mark.parametrize(
    "name",
    [
        "RunInfo.xml",
        "provenance.json",
        "tiles/s_1_1101.bcls",
        "tiles/s_1_1101.chastity",
        "tiles/s_1_1101.locs",
        "tiles/s_1_1101.template.npz",
        "fastq/s_1_1101_R1.fastq.gz",
        "fastq/s_1_1102_I1.fastq.gz",
    ],
)
def test_removed_file_is_found(name, files):
    (files.root / name).unlink()
    found = verified(files.root)
    (difference,) = found.differences
    assert difference.file == name
    assert found.finished


@pytest.mark.parametrize("name", ["tiles/s_1_1101.bcls", "fastq/s_1_1101_R1.fastq.gz", "RunInfo.xml"])
def test_folder_in_place_of_a_file_is_found(name, files):
    (files.root / name).unlink()
    (files.root / name).mkdir()
    assert {line.partition(",")[0].partition(":")[0] for line in lines(files.root)} == {name}


@pytest.mark.parametrize("name", ["tiles/s_1_1103.bcls", "tiles/notes.txt", "fastq/s_1_1101_R3.fastq.gz", "fastq/more"])
def test_stray_file_is_found(name, files):
    (files.root / name).write_bytes(b"")
    assert lines(files.root) == [f"{name}: expected no such file in this run, found one"]


def test_what_a_killed_write_left_is_no_stray_file(files):
    (files.root / "fastq" / ".s_1_1101_R1.fastq.gz.tmp").write_bytes(b"half")
    assert lines(files.root) == []


@pytest.mark.parametrize("ending", ["bcls", "chastity", "locs", "template.npz"])
def test_swapped_tiles_are_found(ending, files):
    first, second = (files.tiles / f"s_{tile}.{ending}" for tile in (FIRST, SECOND))
    first.rename(files.tiles / "away")
    second.rename(first)
    (files.tiles / "away").rename(second)
    assert {difference.file for difference in verified(files.root).differences} == {
        f"tiles/s_{tile}.{ending}" for tile in (FIRST, SECOND)
    }


def test_swapped_fastq_is_found_at_the_first_byte_that_differs(files):
    first, second = (fastq_of(files, tile, READS[0]) for tile in (FIRST, SECOND))
    second.write_bytes(first.read_bytes())
    (line,) = lines(files.root)
    assert line.startswith("fastq/s_1_1102_R1.fastq.gz, tile 1_1102: expected '2:")
    # The tile's number in the name of the first read.
    at = len("@" + ":".join(gzip.decompress(first.read_bytes()).decode().split(":")[:4])) + len(":110") - 1
    assert f" at byte {at}, found '1:" in line
    assert line.endswith(f" at byte {at}")


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content[:-2] + bytes([content[-2] ^ 1]) + content[-1:],
        lambda content: content[: content.rindex(b"@")],
        lambda content: content + content[content.rindex(b"@") :],
        lambda content: b"",
    ],
    ids=["another quality", "a read less", "a read more", "no reads"],
)
def test_fastq_of_other_content_is_found(edit, files):
    path = fastq_of(files, FIRST, READS[1])
    path.write_bytes(encode([edit(gzip.decompress(path.read_bytes()))]))
    (line,) = lines(files.root)
    assert line.startswith("fastq/s_1_1101_I1.fastq.gz, tile 1_1101: expected ")
    assert " at byte " in line


def test_fastq_filtered_otherwise_is_found(files):
    read = READS[0]
    with open_run(files.root) as run:
        otherwise = ~run.passing(FIRST)
        run.passing = lambda tile: otherwise
        fastq_of(files, FIRST, read).write_bytes(encode(fastq_records(run, FIRST, read)))
    (line,) = lines(files.root)
    assert f"found '{'N' if otherwise[0] else 'Y'}:0:" in line


def differences_of(path, content, pieces):
    """Of a sink's file that holds some content, and should hold other pieces."""
    path.write_bytes(encode([content]))
    findings = Findings(path.parent)
    check_sink_file(SinkFile(path, lambda: iter(pieces), Encoding.BGZF, FIRST, 1), findings, compared=True)
    return [(difference.expected, difference.found) for difference in findings.differences]


def test_file_of_many_pieces_is_compared_to_the_last_byte(tmp_path):
    content = np.random.default_rng(3).integers(0, 4, 5_000_000, np.uint8).tobytes()
    pieces = [content[at : at + 700_001] for at in range(0, len(content), 700_001)]
    path = tmp_path / "made.gz"
    assert differences_of(path, content, pieces) == []
    for at in (0, 700_001, 3 * 2**20, len(content) - 1):
        changed = content[:at] + b"!" + content[at + 1 :]
        ((expected, found),) = differences_of(path, changed, pieces)
        assert expected.endswith(f" at byte {at}")
        assert found.startswith("'!")
        assert found.endswith(f" at byte {at}")
    assert differences_of(path, content[:-1], pieces)[0][1] == f"its end at byte {len(content) - 1}"
    assert differences_of(path, content + b"!", pieces) == [
        (f"its end at byte {len(content)}", f"'!' at byte {len(content)}")
    ]


def test_file_of_nothing_is_compared(tmp_path):
    assert differences_of(tmp_path / "made.gz", b"", []) == []
    assert differences_of(tmp_path / "made.gz", b"!", []) == [("its end at byte 0", "'!' at byte 0")]


# Harm to the ledger.


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
            ["run.db, tile 1_1101, cycle 4: expected a checksum of chastity up to cycle 6 and none after, found none"],
        ),
        (
            "UPDATE tile_cycle SET chastity_crc32 = 17 WHERE tile = 1102 AND cycle = 7",
            [
                "run.db, tile 1_1102, cycle 7: "
                "expected a checksum of chastity up to cycle 6 and none after, found 00000011"
            ],
        ),
        (
            "UPDATE tile_cycle SET engine = 9 WHERE tile = 1101 AND cycle = 4",
            ["run.db: expected an engine for every tile-cycle, found 1 of an engine that is not listed"],
        ),
        (
            "DELETE FROM tile_cycle WHERE tile = 1101 AND cycle = 4",
            ["run.db, tile 1_1101, cycle 4: expected a row, later cycles have one, found none"],
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
        ("DROP TABLE tile", "table tile is not seqd's"),
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


# Runs that are not finished.


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


def committed(files, tile):
    with closing(sqlite3.connect(files.ledger)) as database:
        return database.execute("SELECT max(cycle) FROM tile_cycle WHERE tile = ?", (tile.tile,)).fetchone()[0]


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
