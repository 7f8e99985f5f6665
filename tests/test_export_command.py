"""``seqd export`` as a user types it."""

import gzip
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.processes import SEQD
from tests.writtenrun import run_info, write_run

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


def test_folder_of_a_running_run_is_not_complete(running, tmp_path):
    wrote(export("folder", running, "--output", tmp_path))
    (root,) = tmp_path.iterdir()
    assert len(list(root.glob("Data/**/*.bcl"))) == 2 * 9
    assert not list(root.glob("*Complete*"))


def test_summary_and_report(finished, tmp_path):
    shown = json.loads(export("summary", finished, "--json").stdout)
    assert shown["clusters"] == 4 * CLUSTERS
    assert "R1" in export("summary", finished).stdout
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
