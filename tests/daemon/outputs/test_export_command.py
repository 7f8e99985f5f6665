"""``seqd export`` as a user types it."""

import csv
import gzip
import json
import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from daemon.config import SinksConfig
from tests.support.processes import SEQD
from tests.support.writtenrun import FACTS, run_info, write_run

CLUSTERS = 40


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "run"
    write_run(folder, run_info("27T6B5T", tiles=(1101, 1102), lanes=2), CLUSTERS)
    return folder


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "run"
    write_run(folder, run_info("27T6B5T"), CLUSTERS, cycles=9)
    return folder


def export(*arguments):
    done = subprocess.run([*SEQD, "export", *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr
    return done


def wrote(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_fastq_of_lanes_runs_and_tiles(finished, tmp_path):
    paths = wrote(export("fastq", finished, "--output", tmp_path))
    run = "20260301_SEQ1_0042_FC7"
    assert paths == [f"{tmp_path}/{run}_L00{lane}_{read}.fastq.gz" for lane in (1, 2) for read in ("R1", "I1", "R2")]
    lane = gzip.decompress((tmp_path / f"{run}_L001_R2.fastq.gz").read_bytes())
    assert lane.count(b"\n") == 4 * 2 * CLUSTERS
    plain = wrote(export("fastq", finished, "--output", tmp_path / "plain", "--plain", "--by", "run", "--pf-only"))
    assert plain == [f"{tmp_path}/plain/{run}_{read}.fastq" for read in ("R1", "I1", "R2")]
    assert b":Y:" not in (tmp_path / "plain" / f"{run}_R1.fastq").read_bytes()
    assert len(wrote(export("fastq", finished, "--output", tmp_path / "tiles", "--by", "tile"))) == 3 * 4


def test_fastq_of_a_running_run_has_the_cycles_that_are_committed(running, tmp_path):
    (path,) = wrote(export("fastq", running, "--output", tmp_path))
    bases = gzip.decompress(Path(path).read_bytes()).splitlines()[1::4]
    assert len(bases) == 2 * CLUSTERS
    assert {len(read) for read in bases} == {9}


def test_samples_have_files_and_reports(finished, tmp_path):
    sheet = tmp_path / "samples.csv"
    sheet.write_text("name,barcode\nalpha,ACGTAC\nbeta,TGCATG\n")
    out = tmp_path / "out"
    paths = wrote(export("fastq", finished, "--output", out, "--samples", sheet, "--mismatches", "2"))
    assert f"{out}/alpha_S1_L001_R1_001.fastq.gz" in paths
    assert f"{out}/Undetermined_S0_L002_I1_001.fastq.gz" in paths
    assert f"{out}/Reports/Demultiplex_Stats.csv" in paths
    reads = dict.fromkeys(("alpha", "beta", "Undetermined"), 0)
    for path in paths:
        name = path.rpartition("/")[2].partition("_S")[0]
        if path.endswith("R1_001.fastq.gz"):
            reads[name] += gzip.decompress(Path(path).read_bytes()).count(b"\n") // 4
    assert sum(reads.values()) == 4 * CLUSTERS


@pytest.fixture
def uneven(tmp_path):
    """A running run: the first lane's tiles are at cycles 38 and 34, the second lane is not begun."""
    files = write_run(tmp_path / "run", run_info("27T6B5T", tiles=(1101, 1102), lanes=2), CLUSTERS)
    with closing(sqlite3.connect(files.ledger)) as ledger, ledger:
        ledger.execute("DELETE FROM tile_cycle WHERE lane = 2 OR tile = 1102 AND cycle > 34")
    return files.root


def test_samples_of_a_running_run_are_counted_as_they_are_written(uneven, tmp_path):
    sheet = tmp_path / "samples.csv"
    sheet.write_text("name,barcode\nalpha,ACGTAC\n")
    out = tmp_path / "out"
    paths = wrote(export("fastq", uneven, "--output", out, "--samples", sheet, "--pf-only"))
    assert sorted(paths) == sorted(str(path) for path in out.rglob("*") if path.is_file())
    assert not any("_L002_" in path for path in paths)
    bases = gzip.decompress((out / "Undetermined_S0_L001_R2_001.fastq.gz").read_bytes()).splitlines()[1::4]
    with (out / "Reports" / "Quality_Metrics.csv").open(newline="") as file:
        found = {(row["Lane"], row["SampleID"], row["ReadNumber"]): int(row["Yield"]) for row in csv.DictReader(file)}
    assert {lane for lane, _, _ in found} == {"1"}
    assert found["1", "Undetermined", "2"] == sum(map(len, bases)) > 0


def test_refused_samples_leave_nothing(finished, uneven, tmp_path):
    sheet, out = tmp_path / "samples.csv", tmp_path / "out"
    sheet.write_text("name,barcode\nalpha,ACGTAC\n")
    calls = uneven / "tiles" / "s_1_1102.bcls"
    calls.write_bytes(calls.read_bytes()[: calls.stat().st_size // 2])
    for arguments, code, line in (
        ((finished, "--by", "tile"), 2, "samples cannot be written by tile"),
        ((uneven, "--by", "run"), 2, "no run has a cycle that all its tiles have committed"),
        ((uneven,), 7, "s_1_1102.bcls"),
    ):
        for form in ("fastq", "bam"):
            done = export(form, *arguments, "--output", out, "--samples", sheet)
            assert (done.returncode, out.exists()) == (code, False)
            assert line in done.stderr


def test_bam_of_index_reads_alone_is_refused(tmp_path):
    write_run(tmp_path / "run", run_info("8B8B30T"), CLUSTERS, cycles=4)
    for cram in ((), ("--cram",)):
        done = export("bam", tmp_path / "run", "--output", tmp_path / "out", *cram)
        assert done.returncode == 2
        assert "BAM needs a cycle of a template read, but only cycles of I1 are committed" in done.stderr
        assert not (tmp_path / "out").exists()


def test_bam_says_what_it_was_made_with(finished, tmp_path):
    (path,) = wrote(export("bam", finished, "--output", tmp_path, "--by", "run"))
    header = subprocess.run(["samtools", "view", "-H", path], capture_output=True, text=True, check=True).stdout
    given = json.loads(export("provenance", finished).stdout)["hashes"]
    for value in given.values():
        assert value in header


def test_folder_of_each_kind(finished, tmp_path):
    for kind, ending in (("bcl", "bcl"), ("bcl.gz", "bcl.gz"), ("cbcl", "cbcl")):
        wrote(export("folder", finished, "--output", tmp_path / kind, "--kind", kind))
        (root,) = (tmp_path / kind).iterdir()
        assert {path.name.partition(".")[2] for path in root.glob("Data/**/C7.1/*")} == {ending}
        assert (root / "InterOp" / "QMetricsOut.bin").exists()
        assert (root / "CopyComplete.txt").exists()


@pytest.mark.parametrize(
    ("there", "kind"), [("bcl", "bcl.gz"), ("bcl", "cbcl"), ("bcl.gz", "cbcl"), ("cbcl", "bcl"), ("bcl.gz", "bcl")]
)
def test_folder_is_of_one_kind_of_base_calls(there, kind, tmp_path):
    write_run(tmp_path / "run", run_info("26T", tiles=(1101,)), CLUSTERS)
    for _ in range(2):
        # Once more with the same kind is fine.
        wrote(export("folder", tmp_path / "run", "--output", tmp_path / "out", "--kind", there))
    before = sorted(tmp_path.rglob("*"))
    done = export("folder", tmp_path / "run", "--output", tmp_path / "out", "--kind", kind)
    assert done.returncode == 2
    root = tmp_path / "out" / "20260301_SEQ1_0042_FC7"
    assert f"folder {root}: it holds base calls as .{there}, export .{kind} to another" in done.stderr
    assert "`seqd export sinks`" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("linked", [False, True])
def test_folder_is_not_one_that_the_daemon_writes_to(linked, tmp_path, monkeypatch):
    info = run_info("26T", tiles=(1101,))
    monkeypatch.setitem(FACTS, "sinks", SinksConfig(folder=tmp_path / "sinks").model_dump(mode="json"))
    write_run(tmp_path / "runs" / info.run, info, CLUSTERS)
    for of, what in (("runs", "the run itself"), ("sinks", "what the run's sinks write")):
        output = tmp_path / of
        if linked:
            output = tmp_path / f"to-{of}"
            output.symlink_to(tmp_path / of)
        before = sorted(tmp_path.rglob("*"))
        done = export("folder", tmp_path / "runs" / info.run, "--output", output)
        assert done.returncode == 2
        assert (
            f"folder {output / info.run}: it holds {what}, export to another folder; `seqd export sinks`" in done.stderr
        )
        assert sorted(tmp_path.rglob("*")) == before


def test_folder_is_named_as_it_is(finished, tmp_path):
    done = export("folder", finished, "--output", tmp_path / "[bold]x")
    assert done.stdout.startswith(f"{tmp_path}/[bold]x/20260301_SEQ1_0042_FC7: ")


def test_folder_of_a_running_run_is_not_complete(running, tmp_path):
    wrote(export("folder", running, "--output", tmp_path))
    (root,) = tmp_path.iterdir()
    assert len(list(root.glob("Data/**/*.bcl"))) == 2 * 9
    assert not list(root.glob("*Complete*"))


def test_summary_and_report(finished, tmp_path):
    shown = json.loads(export("summary", finished, "--json").stdout)
    assert shown["clusters"] == 4 * CLUSTERS
    figures = export("summary", finished).stdout
    assert {len(line) <= 80 for line in figures.splitlines()} == {True}
    heading = next(line for line in figures.splitlines() if "lane" in line)
    assert [one.strip() for one in heading.strip("┃ ").split("┃")] == [
        "read", "lane", "tiles", "clusters", "% PF", "K/mm²", "% Q30", "phas. %", "preph. %"
    ]  # fmt: skip
    wrote(export("report", finished, "--output", tmp_path))
    assert b"20260301_SEQ1_0042_FC7" in (tmp_path / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["fastq", "RUN/tiles", "--output", "OUT"], 3, "there is no run.db"),
        (["folder", "RUNNING", "--output", "OUT", "--kind", "cbcl"], 2, "CBCL needs 25 cycles"),
        (["fastq", "RUN", "--output", "OUT", "--mismatches", "1"], 2, "--samples"),
        (["fastq", "RUN", "--output", "OUT", "--samples", "RUN/run.db"], 2, "run.db"),
        (["fastq", "RUN", "--output", "OUT", "--samples", "RUN/nothing"], 2, "nothing"),
        (["fastq", "RUN", "--output", "RUN/run.db"], 7, "run.db"),
        (["summary", "RUN", "--control", "RUN/run.db"], 3, "run.db"),
        (["bam", "RUNNING", "--output", "OUT", "--by", "nothing"], 2, "nothing"),
    ],
)
def test_what_cannot_be_exported_is_one_clear_line(arguments, code, line, finished, running, tmp_path):
    places = {"RUNNING": running, "RUN": finished, "OUT": tmp_path}
    done = export(*(re.sub("^(RUNNING|RUN|OUT)", lambda name: str(places[name[0]]), one) for one in arguments))
    assert done.returncode == code
    assert line in done.stderr
