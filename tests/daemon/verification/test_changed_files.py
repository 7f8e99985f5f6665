"""Changes to the files of a run."""

import gzip
import os

import numpy as np
import pytest

from calib.runfolder.images import RUN_INFO
from daemon.outputs.reads.fastq import fastq_records
from daemon.outputs.sink import Encoding, SinkFile
from daemon.record.committed import open_run
from daemon.record.durable import write_sealed
from daemon.verification.findings import Findings
from daemon.verification.sinkfiles import check_sink_file
from tests.daemon.verification.verifiedrun import (
    CYCLES,
    FILTERED,
    FIRST,
    READS,
    SECOND,
    clusters_of,
    encode,
    fastq_of,
    flip,
    lines,
    seqd_verify,
    verified,
)


@pytest.mark.parametrize("cycle", [1, 4, CYCLES])
def test_flipped_byte_of_calls_is_found(cycle, files):
    flip(files.calls_of(SECOND), 4 + clusters_of(files, SECOND) * (cycle - 1) + 3)
    found = verified(files.root)
    (difference,) = found.differences
    assert str(difference).startswith(f"tiles/s_1_1102.bcls, tile 1_1102, cycle {cycle}: expected CRC-32 ")
    assert difference.expected != f"CRC-32 {difference.found}"
    # FASTQ cannot be compared with them.
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
