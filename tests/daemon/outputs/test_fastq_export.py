"""FASTQ of whole runs: merged, by sample, of runs that go on, and in bounded memory."""

import gzip
import re
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from daemon.errors import ExportError, OutputError
from daemon.outputs.reads import conversion
from daemon.outputs.reads.atomicfiles import open_outputs
from daemon.outputs.reads.conversion import FilesBy
from daemon.outputs.reads.fastq import export_fastq, fastq_due
from daemon.record.committed import open_run
from tests.support.picard import fastq_records
from tests.support.writtenrun import run_info, write_run

RUN = "20260301_SEQ1_0042_FC7"
READS = "27T8B5B26T"


@dataclass
class ByFirstBases:
    """A sample for each first base of the first index, no-calls and T are of none."""

    names: tuple[str, ...] = ("with-A", "with-C", "with-G", "never")

    def names_in(self, lane):
        return self.names

    def __call__(self, lane, calls):
        assert calls.shape[0] == 13
        found = (calls[0] & 3).astype(np.int32)
        return np.where((calls[0] == 0) | (found == 3), -1, found).astype(np.int32)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(conversion, "CLUSTERS", 70)


@pytest.fixture
def written(tmp_path, small_chunks):
    """Two lanes of two tiles, 200 clusters in one and none in another."""
    info = run_info(READS, lanes=2)
    numbers = dict(zip(info.tiles, (200, 90, 0, 131), strict=True))
    write_run(tmp_path / "run", info, numbers.__getitem__)
    with open_run(tmp_path / "run") as run:
        yield run


def export(run, folder, **options):
    steps = []
    paths = export_fastq(run, folder, progress=lambda done, of: steps.append((done, of)), **options)
    assert sorted(paths) == sorted(folder.iterdir())
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    assert steps[-1][0] == steps[-1][1]
    return {path.name: read(path) for path in paths}


def read(path):
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()


def from_sink(run, folder, tiles, label):
    """What the daemon wrote of tiles, one after the other, with the index put into the names."""
    texts = {}
    for tile in tiles:
        for part in run.info.reads:
            for file in fastq_due(run, folder, tile, run.info.cycles_of(part)[-1]):
                file.write()
                texts.setdefault(run.info.label(part), []).extend(fastq_records(read(file.path)))
    barcodes = [f"{first}+{second}" for (_, first, _), (_, second, _) in zip(texts["I1"], texts["I2"], strict=True)]
    return [
        f"@{name}{barcode}\n{bases}\n+\n{scores}\n"
        for (name, bases, scores), barcode in zip(texts[label], barcodes, strict=True)
    ]


LABELS = ("R1", "I1", "I2", "R2")


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
def test_merged_files_are_the_tiles_files_in_order(written, tmp_path, compress, threads):
    info, gz = written.info, ".gz" if compress else ""
    expected = {}
    for label in LABELS:
        expected[f"{RUN}_{label}.fastq{gz}"] = "".join(from_sink(written, tmp_path / "sink", info.tiles, label))
        for lane in (1, 2):
            tiles = [tile for tile in info.tiles if tile.lane == lane]
            name = f"{RUN}_L00{lane}_{label}.fastq{gz}"
            expected[name] = "".join(from_sink(written, tmp_path / "sink", tiles, label))
        for tile in info.tiles:
            name = f"s_{tile}_{label}.fastq{gz}"
            expected[name] = "".join(from_sink(written, tmp_path / "sink", [tile], label))
    found = {}
    for by in FilesBy:
        found |= export(written, tmp_path / f"by_{by}", by=by, compress=compress, threads=threads)
    assert found == expected
    assert expected[f"s_2_1101_R1.fastq{gz}"] == ""
    assert expected[f"{RUN}_R1.fastq{gz}"].count("\n") == 4 * 421


@pytest.mark.parametrize("by", [FilesBy.LANE, FilesBy.RUN])
@pytest.mark.parametrize("passing_only", [False, True])
def test_samples_have_the_records_that_are_theirs_in_order(written, tmp_path, by, passing_only):
    found = export(written, tmp_path / "out", by=by, passing_only=passing_only, assign=ByFirstBases())
    lanes = (1, 2) if by is FilesBy.LANE else (None,)
    expected = {}
    for lane in lanes:
        tiles = [tile for tile in written.info.tiles if lane in (None, tile.lane)]
        place = "" if lane is None else f"_L00{lane}"
        samples = {"A": "with-A_S1", "C": "with-C_S2", "G": "with-G_S3", "?": "never_S4"}
        for label in LABELS:
            for letter, stem in ({"NT": "Undetermined_S0"} | samples).items():
                records = [
                    record
                    for record in from_sink(written, tmp_path / "sink", tiles, label)
                    if re.search(f" [12]:{'N' if passing_only else '[NY]'}:0:[{letter}]", record)
                ]
                expected[f"{stem}{place}_{label}_001.fastq.gz"] = "".join(records)
    assert found == expected
    first = f"with-A_S1{'_L001' if by is FilesBy.LANE else ''}"
    assert found[f"{first}_R1_001.fastq.gz"] != ""
    assert (":Y:" in found[f"{first}_R1_001.fastq.gz"]) is not passing_only


class ByLane:
    """A sample for each lane, which has the clusters whose index begins with A or C; one of both has those with G."""

    names = ("first", "both", "second")

    def names_in(self, lane):
        return {"both", self.names[2 * (lane - 1)]}

    def __call__(self, lane, calls):
        return np.where(calls[0] == 0, -1, np.array([2 * (lane - 1)] * 2 + [1, -1])[calls[0] & 3]).astype(np.int32)


def test_samples_have_files_in_their_lanes_only(written, tmp_path):
    found = export(written, tmp_path / "out", assign=ByLane())
    expected = {}
    for lane, own in ((1, "first_S1"), (2, "second_S3")):
        tiles = [tile for tile in written.info.tiles if tile.lane == lane]
        for label in LABELS:
            records = from_sink(written, tmp_path / "sink", tiles, label)
            for letters, stem in (("AC", own), ("G", "both_S2"), ("NT", "Undetermined_S0")):
                mine = [record for record in records if re.search(f" [12]:[NY]:0:[{letters}]", record)]
                assert mine
                expected[f"{stem}_L00{lane}_{label}_001.fastq.gz"] = "".join(mine)
    assert found == expected
    whole = export(written, tmp_path / "run_out", by=FilesBy.RUN, assign=ByLane())
    assert whole["both_S2_R1_001.fastq.gz"] == "".join(expected[f"both_S2_L00{n}_R1_001.fastq.gz"] for n in (1, 2))
    assert whole["first_S1_R1_001.fastq.gz"] == expected["first_S1_L001_R1_001.fastq.gz"]


@pytest.mark.parametrize("reads", ["30T", "30T6B"])
def test_runs_of_few_reads(reads, tmp_path):
    info = run_info(reads, tiles=(1101,))
    write_run(tmp_path / "run", info, 20)
    with open_run(tmp_path / "run") as run:
        found = export(run, tmp_path / "out")
    index = "[ACGTN]{6}" if len(info.reads) == 2 else ""
    names = found[f"{RUN}_L001_R1.fastq.gz"].split("\n")[:-1:4]
    assert all(re.search(f" 1:[NY]:0:{index}$", name) for name in names)
    assert len(names) == 20
    assert len(found) == len(info.reads)


def test_a_run_that_goes_on_gives_the_cycles_that_all_tiles_have(written, tmp_path):
    """The index is not in names before it is whole, and a read that has not begun has no file."""
    tiles = written.info.tiles
    whole = {name: text.split("\n") for name, text in export(written, tmp_path / "whole").items()}
    for cycles, labels in ((1, ["R1"]), (27, ["R1"]), (30, ["R1", "I1"]), (39, ["R1", "I1", "I2"]), (41, LABELS)):
        written.refresh({tile: min(66, cycles + at) for at, tile in enumerate(tiles[:2])})
        found = export(written, tmp_path / f"at_{cycles}")
        assert sorted(found) == sorted(f"{RUN}_L001_{label}.fastq.gz" for label in labels)
        for name, text in found.items():
            lines, complete = text.split("\n"), whole[name]
            assert len(lines) == len(complete)
            length = len(lines[1])
            assert lines[1::4] == [bases[:length] for bases in complete[1::4]]
            assert lines[3::4] == [scores[:length] for scores in complete[3::4]]
            names = complete[:-1:4]
            if cycles < 40:
                names = [one[: one.rindex(":") + 1] for one in names]
            if cycles < 25:
                # Which clusters pass is not known.
                names = [one.replace(":Y:", ":N:") for one in names]
            assert lines[:-1:4] == names
        last = {"R1": min(cycles, 27), "I1": cycles - 27, "I2": cycles - 35, "R2": cycles - 40}[labels[-1]]
        assert len(found[f"{RUN}_L001_{labels[-1]}.fastq.gz"].split("\n")[1]) == last


def test_what_cannot_be_exported_is_said_and_leaves_nothing(written, tmp_path):
    cases = [
        (
            66,
            {"assign": ByFirstBases(), "by": FilesBy.TILE},
            "samples cannot be written by tile, only by lane or by run",
        ),
        (39, {"assign": ByFirstBases()}, f"run {RUN} L001: .* complete index reads, the run is at cycle 39"),
        (0, {}, f"run {RUN}: no lane has a cycle that all its tiles have committed"),
    ]
    for cycles, options, message in cases:
        written.refresh(dict.fromkeys(written.info.tiles, cycles))
        with pytest.raises(ExportError, match=message):
            export(written, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()


def test_samples_of_a_run_without_index_reads_are_refused(tmp_path):
    info = run_info("30T", tiles=(1101,))
    write_run(tmp_path / "run", info, 20)
    with open_run(tmp_path / "run") as run, pytest.raises(ExportError, match="complete index reads, the run has none"):
        export(run, tmp_path / "out", assign=ByFirstBases())


def test_a_damaged_tile_leaves_the_files_of_before(written, tmp_path):
    """All files of a lane are written at once; the other lane is done before."""
    before = export(written, tmp_path / "out", by=FilesBy.RUN)
    calls = written.files.calls_of(written.info.tiles[-1])
    calls.write_bytes(calls.read_bytes()[:-1])
    with pytest.raises(OutputError, match=r"s_2_1102\.bcls"):
        export(written, tmp_path / "out", by=FilesBy.RUN, passing_only=True)
    assert {path.name: read(path) for path in (tmp_path / "out").iterdir()} == before


def test_a_folder_that_cannot_be_written_is_named(written, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"file .*/out: File exists"):
        export(written, tmp_path / "out")


def test_what_a_kill_left_is_written_over(written, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / f".{RUN}_R1.fastq.tmp").write_text("half a rec")
    found = export(written, out, by=FilesBy.RUN, compress=False)
    assert found[f"{RUN}_R1.fastq"].startswith("@SEQ1:42:FC7:1:1101:")


def in_a_process(program, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


BIG = """
import re, sys
from pathlib import Path
from daemon.outputs.reads.fastq import export_fastq
from daemon.record.committed import open_run
with open_run(Path(sys.argv[1])) as run:
    export_fastq(run, Path(sys.argv[2]), progress=lambda done, of: None)
# Not ru_maxrss: a process begins with what the one that started it held.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_memory_is_bounded_however_many_clusters(tmp_path):
    """Ten million: names alone are 450 MB of text, calls and text of a chunk are a few."""
    clusters = 10_000_000
    info = run_info("2T", tiles=(1101,))
    write_run(tmp_path / "run", info, clusters, calls=lambda tile, cycle: np.full(clusters, 40 << 2 | cycle, np.uint8))
    most = int(in_a_process(BIG, tmp_path / "run", tmp_path / "out"))
    assert most < 700
    with gzip.open(tmp_path / "out" / f"{RUN}_L001_R1.fastq.gz", "rt") as file:
        assert sum(1 for _ in file) == 4 * clusters


MANY = """
import resource, sys
from pathlib import Path
import numpy as np
from daemon.outputs.reads.fastq import export_fastq
from daemon.record.committed import open_run
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
class Many:
    names = tuple(f"sample-{number}" for number in range(200))
    def names_in(self, lane):
        return self.names
    def __call__(self, lane, calls):
        return np.arange(calls.shape[1], dtype=np.int32) % 201 - 1
with open_run(Path(sys.argv[1])) as run:
    print(len(export_fastq(run, Path(sys.argv[2]), assign=Many(), progress=lambda done, of: None)))
"""


def test_there_may_be_more_samples_than_files_may_be_open(tmp_path):
    info = run_info("26T8B26T", tiles=(1101,))
    write_run(tmp_path / "run", info, 402)
    assert int(in_a_process(MANY, tmp_path / "run", tmp_path / "out")) == 3 * 201
    assert all(read(path).count("\n") == 8 for path in (tmp_path / "out").iterdir())


def test_two_exports_do_not_write_the_same_files(written, tmp_path):
    """Nor does the second take the first one's unfinished files for what a kill has left."""
    folder = tmp_path / "out"
    folder.mkdir()
    paths = [folder / f"{RUN}_{name}.fastq" for name in ("R1", "I1", "I2", "R2")]
    with open_outputs(paths) as outputs:
        outputs.append(1, b"half ")
        with pytest.raises(OutputError, match=r"R1\.fastq: another process writes it"):
            export(written, folder, by=FilesBy.RUN, compress=False)
        outputs.append(1, b"and whole")
    assert paths[1].read_bytes() == b"half and whole"
    assert sorted(paths) == sorted(folder.iterdir())
    export(written, folder, by=FilesBy.RUN, compress=False)
    assert len(list(fastq_records(paths[1].read_text()))) == 421


def test_a_tile_file_that_is_gone_is_named(written, tmp_path):
    path = written.files.calls_of(written.info.tiles[1])
    path.unlink()
    with pytest.raises(OutputError, match=f"^file {path}: No such file or directory"):
        export(written, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
