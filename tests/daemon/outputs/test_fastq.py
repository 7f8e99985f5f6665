"""FASTQ records and BGZF: as a plain loop lays them out, with Picard's coordinates, read by others."""

import gzip
import os
import struct
import subprocess
import zlib

import dnaio
import numpy as np
import pysam
import pytest

from daemon.errors import OutputError
from daemon.outputs.bgzf import CONTENT, END, bgzf
from daemon.outputs.reads import conversion
from daemon.outputs.reads.fastq import fastq_due, fastq_records, fastq_text
from daemon.outputs.reads.readnames import ReadNames, coordinates
from daemon.outputs.reads.recordbytes import Column, constant, put_together
from daemon.outputs.sinks.folderexport import FolderKind, folder_files, write_files
from daemon.record.committed import open_run
from daemon.record.durable import write_durably
from daemon.record.tilefile import encode_locs, read_locs
from tests.support.picard import base_calls, picard
from tests.support.writtenrun import run_info, write_run


def slow_records(run, tile, read, index=()):
    """As :func:`fastq_records`, a cluster and a call at a time."""
    info, label = run.info, run.info.label(read)
    calls = np.stack([run.calls(tile, cycle) for cycle in info.cycles_of(read)], axis=1).tolist()
    indexes = [np.stack([run.calls(tile, cycle) for cycle in info.cycles_of(one)], axis=1).tolist() for one in index]

    def bases(called):
        return "".join("N" if call == 0 else "ACGT"[call & 3] for call in called)

    for cluster, ((y, x), passes) in enumerate(zip(run.positions(tile), run.passing(tile), strict=True)):
        place = ":".join(str(int(np.floor(float(np.float32(10) * at + np.float32(1000)) + 0.5))) for at in (x, y))
        name = f"{info.instrument}:{info.number}:{info.flowcell}:{tile.lane}:{tile.tile}:{place}"
        barcode = "+".join(bases(one[cluster]) for one in indexes)
        scores = "".join("#" if call == 0 else chr(33 + (call >> 2)) for call in calls[cluster])
        mark = "N" if passes else "Y"
        yield f"@{name} {label[1:]}:{mark}:0:{barcode}\n{bases(calls[cluster])}\n+\n{scores}\n"


@pytest.mark.parametrize("reads", ["27T8B5B1T", "31T"])
def test_records_are_those_of_a_plain_loop(reads, tmp_path, monkeypatch):
    """Names of all lengths, several chunks with a rest, passing or not, no-calls, every read."""
    info = run_info(reads, tiles=(1101, 21304), lanes=2, height=16384, width=16384)
    write_run(tmp_path, info, 333)
    monkeypatch.setattr(conversion, "CLUSTERS", 100)
    with open_run(tmp_path) as run:
        for tile in info.tiles:
            for read in info.reads:
                assert b"".join(fastq_records(run, tile, read)).decode() == "".join(slow_records(run, tile, read))
        text = "".join(slow_records(run, info.tiles[0], info.reads[0]))
        widths = {tuple(map(len, line.split()[0].split(":")[5:])) for line in text.split("\n")[:-1:4]}
        assert len(widths) >= 4
        assert " 1:N:0:" in text
        assert " 1:Y:0:" in text
        assert "N" in "".join(text.split("\n")[1::4])


def test_the_index_stands_in_the_names_where_it_is_given(tmp_path):
    info = run_info("27T8B5B1T", tiles=(1101,))
    write_run(tmp_path, info, 50)
    index = info.reads[1:3]
    with open_run(tmp_path) as run:
        (tile,) = info.tiles
        every = np.stack([run.calls(tile, cycle) for cycle in range(1, info.cycles + 1)])
        chosen = np.array([40, 3, 7])
        for read in info.reads:
            cycles = info.cycles_of(read)
            text, starts = fastq_text(
                ReadNames(run, tile),
                chosen,
                info.label(read),
                every[cycles.start - 1 : cycles.stop - 1, chosen],
                [every[27:35, chosen], every[35:40, chosen]],
            )
            slow = list(slow_records(run, tile, read, index))
            for record, cluster in enumerate(chosen):
                assert text[starts[record] : starts[record + 1]].tobytes().decode() == slow[cluster]
            assert starts[-1] == len(text)


def test_columns_of_any_length_are_laid_one_after_the_other():
    rng = np.random.default_rng(3)
    wide = rng.integers(65, 90, (200, 7), np.uint8)
    lengths = rng.integers(0, 8, 200)
    end = rng.integers(97, 122, (200, 7), np.uint8)
    laid, starts = put_together(200, [constant(b">"), Column(wide, lengths), Column(end)])
    expected = [b">" + bytes(row[:length]) + bytes(last) for row, length, last in zip(wide, lengths, end, strict=True)]
    assert laid.tobytes() == b"".join(expected)
    assert starts.tolist() == [0, *np.cumsum([len(one) for one in expected])]
    assert put_together(0, [constant(b">")])[0].tobytes() == b""


def test_coordinates_are_equal_to_picards(tmp_path):
    """Halves, and places where single precision decides, on images of every size."""
    info = run_info("26T", tiles=(1101,), height=16384, width=16384)
    rng = np.random.default_rng(5)
    halves = (rng.integers(0, 163_839, 800) / 10 + 0.05).astype(np.float32)
    near = np.nextafter(halves, np.where(rng.random(800) < 0.5, 0, 1e6).astype(np.float32))
    negative = np.array([-0.5, -0.25, -0.05, -0.049999, 0, 0.05, 8999.95, 899.95], np.float32)
    x = np.concatenate([halves, near, negative])
    positions = np.stack([x[::-1], x], axis=1)
    files = write_run(tmp_path / "run", info, len(x))
    (tile,) = info.tiles
    write_durably(files.locs_of(tile), encode_locs(positions))
    with open_run(tmp_path / "run") as run:
        write_files(folder_files(run, tmp_path / "bcl", FolderKind.BCL, None), written=lambda _: None)
        ours = b"".join(fastq_records(run, tile, info.reads[0])).decode().split("\n")[:-1:4]
    picard(
        "IlluminaBasecallsToFastq",
        BASECALLS_DIR=base_calls(tmp_path / "bcl"),
        READ_STRUCTURE="26T",
        LANE=1,
        OUTPUT_PREFIX=tmp_path / "theirs",
        MACHINE_NAME="SEQ1",
        FLOWCELL_BARCODE="FC7",
        RUN_BARCODE=42,
        READ_NAME_FORMAT="CASAVA_1_8",
        SORT="false",
        NUM_PROCESSORS=1,
        TMP_DIR=tmp_path,
    )
    theirs = (tmp_path / "theirs.1.fastq").read_text().split("\n")[:-1:4]
    assert [name.split(" ")[0] for name in ours] == [name.split(" ")[0] for name in theirs]
    in_double_precision = np.rint(x.astype(np.float64) * 10 + 1000)
    assert np.count_nonzero(coordinates(x) != in_double_precision) > 100


@pytest.mark.parametrize("damage", [np.nan, -101, 30000, np.inf])
def test_positions_beyond_every_image_are_an_error_of_the_file(damage, tmp_path):
    info = run_info("26T", tiles=(1101,))
    files = write_run(tmp_path, info, 20)
    (tile,) = info.tiles
    positions = read_locs(files.locs_of(tile))
    positions[7, 1] = damage
    write_durably(files.locs_of(tile), encode_locs(positions))
    with open_run(tmp_path) as run, pytest.raises(OutputError, match=r"s_1_1101\.locs: a cluster at x .* px.*outside"):
        list(fastq_records(run, tile, info.reads[0]))


def test_positions_of_other_clusters_are_an_error_of_the_file(tmp_path):
    info = run_info("26T", tiles=(1101,))
    files = write_run(tmp_path, info, 20)
    (tile,) = info.tiles
    write_durably(files.locs_of(tile), encode_locs(read_locs(files.locs_of(tile))[:19]))
    with (
        open_run(tmp_path) as run,
        pytest.raises(OutputError, match=r"s_1_1101\.locs: 19 clusters, the ledger has 20;"),
    ):
        list(fastq_records(run, tile, info.reads[0]))


def test_a_tile_without_clusters_is_an_empty_file(tmp_path):
    info = run_info("26T", tiles=(1101,))
    write_run(tmp_path, info, 0)
    with open_run(tmp_path) as run:
        (file,) = fastq_due(run, tmp_path / "out", info.tiles[0], 26)
        file.write()
    assert gzip.decompress(file.path.read_bytes()) == b""


@pytest.mark.parametrize("size", [0, 1, CONTENT - 1, CONTENT, CONTENT + 1, 5 * CONTENT + 77])
@pytest.mark.parametrize("content", ["random", "text"])
def test_bgzf_is_gzip_in_blocks_that_say_their_size(size, content, tmp_path):
    rng = np.random.default_rng(1)
    written = rng.bytes(size) if content == "random" else rng.choice(list(b"ACGT\n"), size).astype(np.uint8).tobytes()
    path = tmp_path / "content.gz"
    path.write_bytes(b"".join(bgzf([written[:1000], b"", written[1000:]])))
    packed = path.read_bytes()
    assert gzip.decompress(packed) == written
    assert packed.endswith(END)
    at, found = 0, b""
    while at < len(packed):
        assert packed[at : at + 4] == b"\x1f\x8b\x08\x04"
        assert packed[at + 10 : at + 16] == b"\x06\0BC\x02\0"
        size = 1 + struct.unpack_from("<H", packed, at + 16)[0]
        block = zlib.decompress(packed[at + 18 : at + size - 8], wbits=-15)
        assert struct.unpack_from("<II", packed, at + size - 8) == (zlib.crc32(block), len(block))
        assert len(block) <= 2**16
        found, at = found + block, at + size
    assert found == written
    assert at == len(packed)
    with pysam.BGZFile(str(path)) as file:
        assert file.read() == written


def test_others_read_the_fastq_of_a_tile(tmp_path):
    info = run_info("30T8B30T", tiles=(1101,))
    write_run(tmp_path, info, 150)
    (tile,) = info.tiles
    with open_run(tmp_path) as run:
        for read in info.reads:
            (file,) = fastq_due(run, tmp_path, tile, info.cycles_of(read)[-1])
            assert file.path.name == f"s_1_1101_{info.label(read)}.fastq.gz"
            file.write()
            with dnaio.open(file.path) as records:
                found = [(one.name, one.sequence, one.qualities) for one in records]
            expected = [record.split("\n") for record in slow_records(run, tile, read)]
            assert found == [(name[1:], bases, scores) for name, bases, _, scores, _ in expected]
            subprocess.run(["gzip", "--test", os.fspath(file.path)], check=True)
