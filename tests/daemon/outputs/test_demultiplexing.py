"""Counts and reports of demultiplexing, and what MultiQC makes of them."""

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from calib.runfolder.images import RUN_INFO, run_info_xml
from daemon.errors import ExportError
from daemon.outputs.reads.conversion import FilesBy
from daemon.outputs.reads.fastq import export_fastq
from daemon.outputs.samples import samplecounts
from daemon.outputs.samples.barcodes import Demultiplexer
from daemon.outputs.samples.samplecounts import count_samples
from daemon.outputs.samples.samplereports import report_files
from daemon.outputs.samples.samples import BclConvert, Sample, Samples
from daemon.record.committed import open_run
from tests.support.writtenrun import run_info, write_run

INFO = run_info("30T8B6B20T", lanes=2, tiles=(1101, 1102))
SAMPLES = Samples(
    samples=(
        Sample(name="alpha", barcodes=("ACGTACGT", "TTGGCC"), project="one"),
        Sample(name="beta", barcodes=("GATTACAG", "CATGCA"), lane=1),
        Sample(name="beta", barcodes=("CCCCTTTT", "GGGAAA"), lane=1),
        Sample(name="gamma", barcodes=("GATTACAG", "CATGCA"), lane=2),
    ),
    rule=BclConvert(),
    source="samples.csv",
)
READ = {  # what clusters read as, and what they are then
    "ACGTACGTTTGGCC": ("alpha", "alpha", 0),
    "ACGTACGATTGGCC": ("alpha", "alpha", 1),
    "ACGTACGNTTGGCA": ("alpha", "alpha", 2),
    "GATTACAGCATGCA": ("beta", "gamma", 0),
    "CCCCTTTTGGGAAC": ("beta", None, 1),
    "TTTTTTTTTTTTTT": (None, None, 0),
    "GGGGGGGGNNNNNN": (None, None, 0),
}
CLUSTERS = 700


@pytest.fixture(scope="module")
def made():
    """(cycles, n) bytes of every tile, and the number of each cluster's barcode in READ."""
    rng = np.random.default_rng(5)
    letters = np.array([["NACGT".index(base) for base in barcode] for barcode in READ])
    by_tile, shown = {}, {}
    for tile in INFO.tiles:
        shown[tile] = rng.choice(len(READ), CLUSTERS, p=[0.3, 0.1, 0.1, 0.2, 0.1, 0.15, 0.05])
        calls = (
            rng.choice([11, 29, 30, 37], (INFO.cycles, CLUSTERS)) << 2 | rng.integers(0, 4, (64, CLUSTERS))
        ).astype(np.uint8)
        calls[rng.random(calls.shape) < 0.02] = 0
        index = letters[shown[tile]].T
        calls[30:44] = np.where(index == 0, 0, 37 << 2 | (index - 1) & 3)
        by_tile[tile] = calls
    return by_tile, shown


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    by_tile, _ = made
    root = tmp_path_factory.mktemp("demultiplexing") / "run"
    return write_run(root, INFO, CLUSTERS, calls=lambda tile, cycle: by_tile[tile][cycle - 1]).root


@pytest.fixture(scope="module")
def expected(made, folder):
    """By lane and sample: passing clusters by mismatches, and the scores of their calls by template read."""
    by_tile, shown = made
    expected = {}
    with open_run(folder) as run:
        for tile, calls in by_tile.items():
            passing = run.passing(tile)
            assert 0 < passing.sum() < CLUSTERS
            for number, (first, second, mismatches) in enumerate(READ.values()):
                name = (first, second)[tile.lane - 1]
                of = expected.setdefault((tile.lane, name), {"clusters": [0, 0, 0], "scores": [[], []]})
                chosen = passing & (shown[tile] == number)
                of["clusters"][mismatches if name else 0] += int(chosen.sum())
                for read, part in enumerate((calls[:30], calls[44:])):
                    of["scores"][read].append(np.where(part == 0, 2, part >> 2)[:, chosen].ravel())
    return expected


@pytest.fixture(scope="module")
def stats(folder):
    with open_run(folder) as run:
        return count_samples(run, Demultiplexer(SAMPLES, INFO))


@pytest.fixture
def reports(stats, tmp_path):
    for file in report_files(stats, tmp_path):
        file.write()
    return tmp_path / "Reports"


def report_of(stats, name):
    (file,) = (file for file in report_files(stats, Path()) if file.path.name == name)
    return b"".join(file.content()).decode()


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_sample_is_counted_in_its_lane(reports, expected):
    rows = table(reports / "Demultiplex_Stats.csv")

    assert [(row["Lane"], row["SampleID"]) for row in rows] == [
        ("1", "alpha"), ("1", "beta"), ("1", "Undetermined"), ("2", "alpha"), ("2", "gamma"), ("2", "Undetermined")
    ]  # fmt: skip
    for row in rows:
        of = expected[int(row["Lane"]), None if row["SampleID"] == "Undetermined" else row["SampleID"]]
        known = row["SampleID"] != "Undetermined"
        kinds = ("Perfect", "One Mismatch", "Two Mismatch")
        assert int(row["# Reads"]) == sum(of["clusters"]) > 0
        assert [int(row[f"# {kind} Index Reads"]) for kind in kinds] == (of["clusters"] if known else [0, 0, 0])
        total = sum(sum(one["clusters"]) for (lane, _), one in expected.items() if lane == int(row["Lane"]))
        assert float(row["% Reads"]) == pytest.approx(sum(of["clusters"]) / total, abs=1e-6)
    assert rows[0]["Sample_Project"] == "one"
    assert rows[1]["Index"] == "GATTACAG-CATGCA;CCCCTTTT-GGGAAA"
    assert float(rows[1]["% One Mismatch Index Reads"]) == pytest.approx(
        expected[1, "beta"]["clusters"][1] / sum(expected[1, "beta"]["clusters"]), abs=1e-6
    )


def test_yield_and_quality_are_those_of_the_template_reads(reports, expected):
    rows = table(reports / "Quality_Metrics.csv")

    assert len(rows) == 2 * 6
    for row in rows:
        name = None if row["SampleID"] == "Undetermined" else row["SampleID"]
        scores = np.concatenate(expected[int(row["Lane"]), name]["scores"][int(row["ReadNumber"]) - 1])
        assert int(row["Yield"]) == len(scores) > 0
        assert int(row["YieldQ30"]) == np.count_nonzero(scores >= 30)
        assert int(row["QualityScoreSum"]) == scores.sum()
        assert float(row["Mean Quality Score (PF)"]) == pytest.approx(scores.mean(), abs=0.005)
        assert float(row["% Q30"]) == pytest.approx(np.mean(scores >= 30), abs=1e-6)
    assert [rows[2]["index"], rows[2]["index2"]] == ["GATTACAG;CCCCTTTT", "CATGCA;GGGAAA"]


def test_barcodes_of_no_sample_are_listed_by_their_number(reports, made, folder):
    _, shown = made
    rows = table(reports / "Top_Unknown_Barcodes.csv")

    counts = {}
    with open_run(folder) as run:
        for tile in INFO.tiles:
            for number, (barcode, names) in enumerate(READ.items()):
                if names[tile.lane - 1] is None:
                    key = str(tile.lane), barcode[:8], barcode[8:]
                    counts[key] = counts.get(key, 0) + int((run.passing(tile) & (shown[tile] == number)).sum())
    assert {(row["Lane"], row["index"], row["index2"]): int(row["# Reads"]) for row in rows} == counts
    assert [int(row["# Reads"]) for row in rows if row["Lane"] == "2"] == sorted(
        (count for (lane, *_), count in counts.items() if lane == "2"), reverse=True
    )
    of_first_lane = [row for row in rows if row["Lane"] == "1"]
    assert sum(float(row["% of Unknown Barcodes"]) for row in of_first_lane) == pytest.approx(1, abs=1e-5)
    assert sum(float(row["% of All Reads"]) for row in of_first_lane) < 0.5


def test_clusters_are_counted_the_same_however_many_are_read_at_a_time(stats, folder, monkeypatch):
    monkeypatch.setattr(samplecounts, "CHUNK", 64 * 90)
    with open_run(folder) as run:
        again = count_samples(run, Demultiplexer(SAMPLES, INFO))

    for name in ("clusters", "bases", "good", "scores"):
        assert np.array_equal(getattr(again, name), getattr(stats, name)), name
    assert again.unknown == stats.unknown


def test_the_most_frequent_unknown_barcodes_are_kept_when_there_are_too_many(folder, monkeypatch):
    monkeypatch.setattr(samplecounts, "MAX_UNKNOWN", 2)
    with open_run(folder) as run:
        stats = count_samples(run, Demultiplexer(SAMPLES, INFO))
    assert list(stats.unknown[2]) == [b"TTTTTTTTTTTTTT"]


def test_of_a_run_that_goes_on_the_committed_cycles_are_counted(made, tmp_path):
    by_tile, _ = made
    root = write_run(
        tmp_path / "run", INFO, CLUSTERS, calls=lambda tile, cycle: by_tile[tile][cycle - 1], cycles=50
    ).root
    with open_run(root) as run:
        stats = count_samples(run, Demultiplexer(SAMPLES, INFO))
    passed = stats.clusters[:, :, 1].sum(axis=2)
    assert np.array_equal(stats.bases[..., 0], 30 * passed)
    assert np.array_equal(stats.bases[..., 1], 6 * passed)


def test_a_run_whose_index_is_not_read_yet_is_refused_in_a_line(tmp_path):
    root = write_run(tmp_path / "run", INFO, 20, cycles=43).root
    with open_run(root) as run, pytest.raises(ExportError) as refused:
        count_samples(run, Demultiplexer(SAMPLES, INFO))
    assert str(refused.value) == (
        f"run {INFO.run} L001: finding the samples needs complete index reads, the run is at cycle 43"
    )


def test_lanes_and_cycles_that_are_written_are_counted(stats, folder):
    """Nothing of a lane that is not begun, and no more cycles of a tile than all tiles of its files have."""
    with open_run(folder) as run:
        run.refresh(dict(zip(INFO.tiles, (64, 50, 64, 0), strict=True)))
        one = count_samples(run, Demultiplexer(SAMPLES, INFO))
        run.refresh(dict(zip(INFO.tiles, (64, 64, 50, 64), strict=True)))
        whole = count_samples(run, Demultiplexer(SAMPLES, INFO), by=FilesBy.RUN)
    assert one.lanes == [1]
    assert np.array_equal(one.clusters, stats.clusters[:1])
    assert whole.lanes == [1, 2]
    assert np.array_equal(whole.clusters, stats.clusters)
    for found in (one, whole):
        passed = found.clusters[:, :, 1].sum(axis=2)
        assert np.array_equal(found.bases, np.stack([30 * passed, 6 * passed], axis=2))
    for name in ("Demultiplex_Stats.csv", "Quality_Metrics.csv", "Top_Unknown_Barcodes.csv"):
        assert {line.partition(",")[0] for line in report_of(one, name).splitlines()} == {"Lane", "1"}


def test_the_files_of_samples_hold_the_reads_that_are_counted(stats, folder, tmp_path):
    with open_run(folder) as run:
        export_fastq(run, tmp_path, passing_only=True, assign=Demultiplexer(SAMPLES, INFO), progress=lambda *_: None)

    passed = stats.clusters[:, :, 1].sum(axis=2)
    for at, lane in enumerate((1, 2)):
        for index, stem in enumerate(("alpha_S1", "beta_S2", "gamma_S3", "Undetermined_S0")):
            if (lane, index) in ((2, 1), (1, 2)):
                assert not (tmp_path / f"{stem}_L{lane:03d}_R2_001.fastq.gz").exists()
                continue
            with gzip.open(tmp_path / f"{stem}_L{lane:03d}_R2_001.fastq.gz", "rt") as file:
                assert sum(1 for _ in file) == 4 * passed[at, index if index < 3 else -1]


def test_multiqc_shows_samples_lanes_and_what_is_undetermined(stats, expected, tmp_path):
    folder = tmp_path / "run"
    for file in report_files(stats, folder):
        file.write()
    # The run folder has its own beside them.
    (folder / RUN_INFO).write_bytes(run_info_xml(INFO))

    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "multiqc",
            "--module",
            "bclconvert",
            "--outdir",
            tmp_path / "report",
            "--strict",
            folder,
        ],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"MPLCONFIGDIR": str(tmp_path), "NO_COLOR": "1"},
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    report = json.loads((tmp_path / "report/multiqc_data/multiqc_data.json").read_text())
    data = report["report_saved_raw_data"]

    by_sample = data["multiqc_bclconvert_bysample"]
    assert set(by_sample) == {"alpha", "beta", "gamma"}
    for name, shown in by_sample.items():
        of = [one for (_, sample), one in expected.items() if sample == name]
        scores = np.concatenate([part for one in of for read in one["scores"] for part in read])
        assert shown["clusters"] == sum(sum(one["clusters"]) for one in of)
        assert shown["perfect_index_reads"] == sum(one["clusters"][0] for one in of)
        assert shown["one_mismatch_index_reads"] == sum(one["clusters"][1] for one in of)
        assert shown["yield_"] == len(scores)
        assert shown["yield_q30"] == np.count_nonzero(scores >= 30)
        assert shown["mean_quality"] == pytest.approx(scores.mean())
        assert shown["run_id"] == INFO.run
    assert by_sample["alpha"]["sample_project"] == "one"

    by_lane = data["multiqc_bclconvert_bylane"]
    assert set(by_lane) == {f"{INFO.run} - L1", f"{INFO.run} - L2"}
    undetermined = expected[2, None]["clusters"][0]
    assert sum(by_lane[f"{INFO.run} - L2"]["top_unknown_barcodes"].values()) == undetermined
    drawn = json.dumps(report["report_plot_data"]["bclconvert_lane_counts"])
    assert "Undetermined Reads" in drawn
    assert str(undetermined) in drawn
