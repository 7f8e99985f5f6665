import gzip
import json
import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
from seqd_client.errors import SeqdError
from seqd_client.runinfo import Read, RunInfo, TileId

from calib.offline.cli import UsageError
from calib.offline.codebook import CodebookError, read_codebook
from calib.offline.evaluation import breakdown
from calib.offline.evaluation.agreement import agreement, compare, equal_yield, error_curve
from calib.offline.evaluation.callerfigures import against_truth, write_json
from calib.offline.evaluation.callers import Reads, callers, read_fastq
from calib.offline.evaluation.clustermatch import NO_READ, match, pooled
from calib.offline.evaluation.evaluationrun import evaluate_runs
from calib.offline.evaluation.oncodebook import codebook_hits, compare_with_codebook
from calib.offline.evaluation.scorecalibration import Calls, by_cycle, by_quality, calls_of, joined
from calib.offline.evaluation.superresolution import bicubic, fidelity, measure
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.optics import spots
from calib.offline.simulation.simulatedrun import Truth, simulated_tile_of, write_simulated_run
from calib.offline.simulation.simulatedtile import superresolved
from calib.runfolder.images import RUN_INFO, RunFolderError, read_run_info, run_info_xml
from tests.support.places import CROP
from tests.support.processes import SEQD

TILE = TileId(lane=1, tile=1101)
CONDITIONS = sorted(Path(breakdown.__file__).parent.joinpath("conditions").glob("*.json"))


def letters(*sequences):
    return np.array([list(sequence.encode()) for sequence in sequences], np.uint8)


def truth_at(positions, *sequences):
    return Truth(np.array(positions, float).reshape(-1, 2), np.array([["ACGT".index(b) for b in s] for s in sequences]))


def reads_at(positions, *sequences, quality=30, passed=None):
    """Reads with one quality, or one a read, or one a base."""
    rows = letters(*sequences)
    qualities = np.broadcast_to(
        np.array(quality, np.uint8).reshape(-1, 1) if np.ndim(quality) == 1 else quality, rows.shape
    )
    flags = np.ones(len(rows), bool) if passed is None else np.array(passed, bool)
    return Reads(np.array(positions, float).reshape(-1, 2), rows, qualities.astype(np.uint8), flags)


def at_clusters(true, called, quality=30):
    """Clusters far apart, each with its read."""
    positions = [(0, 20 * index) for index in range(len(true))]
    return match(truth_at(positions, *true), reads_at(positions, *called, quality=quality), cycles=len(true[0]))


def test_a_read_near_two_clusters_is_of_the_nearer_one():
    matched = match(truth_at([(5, 5), (5, 6.2)], "A", "C"), reads_at([(5, 5.7)], "A"), cycles=1)
    assert matched.read_of.tolist() == [NO_READ, 0]
    figures = agreement(matched)
    assert (figures.found, figures.real, figures.yielded) == (0.5, 1.0, 0.0)


def test_of_two_reads_at_a_cluster_the_farther_is_not_real():
    matched = match(truth_at([(5, 5)], "ACGT"), reads_at([(5, 5.4), (5, 5.1)], "ACGT", "TTTT"), cycles=4)
    assert matched.read_of.tolist() == [1]
    figures = agreement(matched)
    assert (figures.found, figures.real, figures.error_rate) == (1.0, 0.5, 0.75)


def test_closest_pairs_come_first_and_leave_the_rest_to_others():
    truth = truth_at([(0, 0), (0, 1.5)], "A", "A")
    assert match(truth, reads_at([(0, 0.8), (0, 1.6)], "A", "A"), cycles=1).read_of.tolist() == [0, 1]


def test_a_read_at_the_bound_is_found_and_one_beyond_is_not():
    truth = truth_at([(10, 10), (30, 30)], "A", "A")
    matched = match(truth, reads_at([(10, 11), (30, 31.1)], "A", "A"), cycles=1)
    assert matched.found.tolist() == [True, False]


def test_many_at_random_are_one_to_one_within_reach_and_leave_no_free_pair():
    rng = np.random.default_rng(1)
    true, called = rng.uniform(0, 30, (300, 2)), rng.uniform(0, 30, (400, 2))
    read_of = match(truth_at(true, *["A"] * 300), reads_at(called, *["A"] * 400), cycles=1).read_of
    distances = np.linalg.norm(true[:, None] - called[None], axis=2)
    found = np.flatnonzero(read_of != NO_READ)
    assert len(set(read_of[found])) == len(found) > 100
    assert (distances[found, read_of[found]] <= 1).all()
    free = np.setdiff1d(np.arange(400), read_of[found])
    assert (distances[np.ix_(read_of == NO_READ, free)] > 1).all()


def test_no_calls_are_wrong_in_reads_and_nothing_among_called_bases():
    figures = agreement(at_clusters(["ACGT", "ACGT"], ["ACGN", "NTGT"], quality=[40, 20]))
    assert figures.error_rate == 3 / 8
    assert figures.called_error_rate == 1 / 6
    assert figures.no_calls == 2 / 8
    assert figures.q30 == 3 / 6


def test_a_read_is_right_up_to_five_per_cent_wrong():
    true = "A" * 20
    figures = agreement(at_clusters([true] * 4, [true, "C" + true[1:], "N" + true[1:], "CN" + true[2:]]))
    assert figures.yielded == 3 / 4
    # The last ten cycles are right in all of them.
    assert figures.error_rate == 4 / 80
    assert figures.last_error_rate == 0


def test_last_cycles_are_those_at_the_end():
    figures = agreement(at_clusters(["A" * 30], ["A" * 25 + "C" * 5]))
    assert figures.error_rate == pytest.approx(5 / 30)
    assert figures.last_error_rate == 0.5


def test_precision_counts_reads_far_from_every_cluster():
    figures = agreement(match(truth_at([(5, 5)], "A"), reads_at([(5, 5), (9, 9), (20, 4)], "A", "A", "A"), cycles=1))
    assert figures.real == pytest.approx(1 / 3)
    assert (figures.clusters, figures.reads) == (1, 3)


@pytest.mark.parametrize(("clusters", "reads"), [(0, 0), (2, 0), (0, 2)])
def test_nothing_to_compare_gives_no_figures(clusters, reads):
    positions = [(0, 0), (9, 9)]
    matched = match(
        truth_at(positions[:clusters], *["ACG"] * clusters), reads_at(positions[:reads], *["ACG"] * reads), cycles=3
    )
    figures = agreement(matched)
    assert math.isnan(figures.error_rate)
    assert math.isnan(figures.called_error_rate)
    assert figures.found == 0 if clusters else math.isnan(figures.found)
    assert figures.real == 0 if reads else math.isnan(figures.real)
    assert all(map(math.isnan, breakdown.error_by_cycle(matched)))
    assert np.sum(breakdown.confusion(matched)) == 0
    assert len(breakdown.by_distance(matched)) == len(breakdown.NEIGHBOUR_EDGES_PX) - 1
    assert by_quality(calls_of(matched)).bins == ()
    assert error_curve(matched).bases == 0
    assert math.isnan(error_curve(matched).error_rate(0))


def test_reads_of_another_length_than_the_run_are_refused():
    with pytest.raises(RunFolderError, match="calls: 2 cycles, the run declares 3"):
        match(truth_at([(0, 0)], "ACG"), reads_at([(0, 0)], "AC"), cycles=3)
    with pytest.raises(RunFolderError, match="truth: 2 cycles, the run declares 3"):
        match(truth_at([(0, 0)], "AC"), reads_at([(0, 0)], "ACG"), cycles=3)


def test_a_truth_of_several_reads_is_compared_in_its_first():
    figures = agreement(match(truth_at([(0, 0)], "ACGTTT"), reads_at([(0, 0)], "ACG"), cycles=3))
    assert (figures.error_rate, figures.yielded) == (0, 1)


def test_pooled_tiles_keep_their_pairs():
    one = match(truth_at([(0, 0), (9, 9)], "AC", "GT"), reads_at([(9, 9)], "GA"), cycles=2)
    other = match(truth_at([(0, 0)], "TT"), reads_at([(5, 5), (0, 0)], "CC", "TT"), cycles=2)
    both = pooled([one, other])
    assert both.read_of.tolist() == [NO_READ, 0, 2]
    assert both.wrong.tolist() == [[False, True], [False, False]]
    assert agreement(both).real == 2 / 3


def test_equal_yield_compares_the_best_reads():
    # Best reads first: 0, 1 and 2 wrong of four.
    whole = at_clusters(["AAAA"] * 3, ["AAAC", "AACC", "AAAA"], quality=[20, 10, 30])
    curve = error_curve(whole)
    assert curve.called.tolist() == [0, 4, 8, 12]
    assert curve.wrong.tolist() == [0, 0, 1, 3]
    assert curve.error_rate(8) == 1 / 8
    assert curve.error_rate(10) == pytest.approx(2 / 10)
    # This one calls 7 bases, 1 of them wrong.
    fewer = error_curve(at_clusters(["AAAA"] * 2, ["AAAC", "AANA"], quality=[30, 20]))
    assert equal_yield([curve, fewer]) == 7
    assert fewer.error_rate(7) == pytest.approx(1 / 7)
    assert curve.error_rate(7) == pytest.approx(0.75 / 7)


def test_reads_of_equal_quality_come_in_together():
    one = error_curve(at_clusters(["AAAA"] * 3, ["CCCC", "AAAA", "AAAA"]))
    other = error_curve(at_clusters(["AAAA"] * 3, ["AAAA", "AAAA", "CCCC"]))
    assert one.error_rate(4) == other.error_rate(4) == pytest.approx(1 / 3)


def test_no_calls_lower_the_mean_quality_that_orders_reads():
    qualities = [[30, 30, 2, 2], [20, 20, 20, 20]]
    curve = error_curve(at_clusters(["AAAA"] * 2, ["CCNN", "AAAA"], quality=qualities))
    assert curve.called.tolist() == [0, 4, 6]


def some_calls(*groups):
    """From (quality, cycle, bases, wrong) groups."""
    return joined(
        [
            Calls(np.full(bases, cycle), np.full(bases, quality, np.uint8), np.arange(bases) < wrong)
            for quality, cycle, bases, wrong in groups
        ]
    )


def test_calibration_counts_by_quality():
    calibration = by_quality(some_calls((20, 1, 9999, 99), (30, 2, 99_999, 999), (10, 3, 1999, 1999)))
    assert [(one.value, one.bases, one.wrong, one.judged) for one in calibration.bins] == [
        (10, 1999, 1999, False),
        (20, 9999, 99, True),
        (30, 99_999, 999, True),
    ]
    assert [one.predicted for one in calibration.bins] == pytest.approx([10, 20, 30])
    assert [one.empirical for one in calibration.bins] == pytest.approx([0, 20, 20])
    assert calibration.mean_deviation == pytest.approx(5)
    assert calibration.worst_overstatement == pytest.approx(10)


def test_bins_need_errors_expected_or_seen():
    # At Q40, 5,000 bases let expect half an error: none seen proves nothing, fifty do.
    assert not by_quality(some_calls((40, 1, 5000, 0))).bins[0].judged
    assert by_quality(some_calls((40, 1, 5000, 50))).bins[0].judged
    assert math.isnan(by_quality(some_calls((40, 1, 5000, 0))).mean_deviation)
    # Understated only: the worst overstatement is negative.
    assert by_quality(some_calls((10, 1, 9999, 9))).worst_overstatement == pytest.approx(-20)


def test_calibration_by_cycle_averages_probabilities():
    calibration = by_cycle(some_calls((10, 1, 3000, 0), (30, 1, 3000, 0), (20, 2, 9999, 99)))
    assert [one.value for one in calibration.bins] == [1, 2]
    assert calibration.bins[0].predicted == pytest.approx(-10 * math.log10((0.1 + 0.001) / 2))
    assert calibration.bins[1].empirical == pytest.approx(20)


def test_scores_that_are_true_are_found_to_be():
    rng = np.random.default_rng(2)
    qualities = rng.integers(5, 26, 400_000).astype(np.uint8)
    calls = Calls(np.ones(len(qualities), np.int64), qualities, rng.random(len(qualities)) < 10 ** (qualities / -10))
    assert by_quality(calls).mean_deviation < 0.5
    overstated = Calls(calls.cycles, calls.qualities + np.uint8(5), calls.wrong)
    assert by_quality(overstated).mean_deviation == pytest.approx(5, abs=0.3)


def test_calls_judged_are_those_of_clusters_found():
    matched = match(
        truth_at([(0, 0), (9, 9)], "AC", "GT"), reads_at([(0, 0), (30, 30)], "AN", "TT", quality=[31, 12]), cycles=2
    )
    calls = calls_of(matched)
    assert (calls.cycles.tolist(), calls.qualities.tolist(), calls.wrong.tolist()) == ([1], [31], [False])


def test_confusion_has_the_truth_in_rows_and_no_calls_last():
    counts = breakdown.confusion(at_clusters(["AACGT", "TTTTT"], ["ACCGN", "TTTAT"]))
    assert counts == ((1, 1, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 1, 0, 0), (1, 0, 0, 4, 1))


def test_errors_by_cycle():
    assert breakdown.error_by_cycle(at_clusters(["ACG", "ACG"], ["ACT", "ANT"])) == (0, 0.5, 1)


def test_composition_leaves_no_calls_out():
    shares = breakdown.composition(np.array([[0, 4, 3], [0, 4, 2], [1, 4, 2]], np.uint8))
    assert shares[0] == pytest.approx((2 / 3, 1 / 3, 0, 0))
    assert all(map(math.isnan, shares[1]))
    assert shares[2] == pytest.approx((0, 0, 2 / 3, 1 / 3))


def test_errors_by_distance_of_the_nearest_true_cluster():
    truth = truth_at([(0, 0), (0, 1.2), (50, 50)], "AAAA", "AAAA", "AAAA")
    matched = match(truth, reads_at([(0, 0), (50, 50)], "AAAC", "AAAA"), cycles=4)
    assert matched.neighbour_px.tolist() == pytest.approx([1.2, 1.2, math.hypot(50, 48.8)])
    near = next(one for one in breakdown.by_distance(matched) if one.low == 1.0)
    far = breakdown.by_distance(matched)[-1]
    assert (near.clusters, near.found, near.yielded, near.error_rate) == (2, 0.5, 0, 0.25)
    assert (far.clusters, far.found, far.yielded, far.error_rate) == (1, 1, 1, 0)
    assert sum(one.clusters for one in breakdown.by_distance(matched)) == 3
    alone = match(truth_at([(0, 0)], "A"), reads_at([(0, 0)], "A"), cycles=1)
    assert breakdown.by_distance(alone)[-1].clusters == 1


def write_fastq(path, reads):
    path.parent.mkdir(parents=True, exist_ok=True)
    records = []
    for (y, x), sequence, quality, passed in zip(
        reads.positions, reads.sequences, reads.qualities, reads.passed, strict=True
    ):
        name = f"@M:1:F:1:1101:{round(10 * x + 1000)}:{round(10 * y + 1000)} 1:{'N' if passed else 'Y'}:0:"
        records.append(f"{name}\n{bytes(sequence).decode()}\n+\n{bytes(quality + 33).decode()}\n")
    path.write_bytes(gzip.compress("".join(records).encode()))


def test_fastq_gives_positions_bases_scores_and_flags(tmp_path):
    path = tmp_path / "reads.fastq.gz"
    written = reads_at([(1.5, -2.3), (40, 8)], "ACGN", "TTTT", quality=[[2, 12, 40, 41], [5] * 4], passed=[True, False])
    write_fastq(path, written)
    back = read_fastq(path)
    np.testing.assert_allclose(back.positions, written.positions)
    for name in ("sequences", "qualities", "passed"):
        np.testing.assert_array_equal(getattr(back, name), getattr(written, name))
    assert back.passing().sequences.tolist() == [list(b"ACGN")]
    path.write_bytes(gzip.compress(b""))
    assert read_fastq(path).positions.shape == (0, 2)


@pytest.mark.parametrize(
    "content",
    [
        b"not gzip",
        gzip.compress(b"@a:b:c:1:1101:1000:1000 1:N:0:\nACGT\n+\nIIII\n", mtime=0)[:-12],
        gzip.compress(b"@name\nACGT\n+\nIIII\n", mtime=0),
        gzip.compress(b"@a:b:c:1:1101:1000:1000 1:N:0:\nACGT\n+\nIII\n", mtime=0),
        gzip.compress(b"@a:b:c:1:1101:1000:1000 1:N:0:\nACGT\n+\nII I\n", mtime=0),
        gzip.compress("@ä".encode(), mtime=0),
    ],
)
def test_damaged_fastq_is_refused(content, tmp_path):
    path = tmp_path / "reads.fastq.gz"
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"FASTQ .*reads\.fastq\.gz"):
        read_fastq(path)


def run_folder(root, name, truth):
    """A run folder without images: what evaluating FASTQ needs."""
    info = RunInfo(
        run=name,
        flowcell="F",
        instrument="M",
        reads=(Read(number=1, cycles=truth.reads.shape[1]),),
        tiles=(TILE,),
        height=64,
        width=64,
    )
    (root / "Truth").mkdir(parents=True)
    (root / RUN_INFO).write_bytes(run_info_xml(info))
    rows = [f"{y},{x},{''.join('ACGT'[b] for b in read)},0" for (y, x), read in zip(*vars(truth).values(), strict=True)]
    (root / "Truth" / f"s_{TILE}.csv").write_text("\n".join(["y,x,read,polyclonal", *rows, ""]))
    return info


@pytest.fixture
def two_runs(tmp_path):
    """Two runs and two callers: a good one, and one that reads half of the clusters with errors."""
    rng = np.random.default_rng(5)
    for name, cycles in (("R1", 20), ("R2", 12)):
        positions = np.round(rng.uniform(2, 62, (80, 2)), 1)
        bases = rng.integers(0, 4, (80, cycles))
        run_folder(tmp_path / name, name, Truth(positions, bases.astype(np.uint8)))
        sequences = np.frombuffer(b"ACGT", np.uint8)[bases]
        bad = np.where(rng.random(bases.shape) < 0.2, ord("A"), sequences).astype(np.uint8)
        bad[0, 0] = ord("N")
        passed = np.arange(80) % 2 == 0
        scores = np.full(bases.shape, 35, np.uint8)
        fastq = f"fastq/s_{TILE}_R1.fastq.gz"
        write_fastq(tmp_path / "good" / name / fastq, Reads(positions, sequences, scores, passed))
        write_fastq(tmp_path / "bad" / name / fastq, Reads(positions[:40], bad[:40], scores[:40] - 20, passed[:40]))
    return tmp_path


def evaluated(root, *names):
    infos = {root / name: read_run_info(root / name) for name in names}
    chosen = callers(
        [f"good={root}/good/{{run}}/fastq", f"bad={root}/bad/{{run}}/fastq"], classical=False, runs=list(infos.values())
    )
    return against_truth(infos, chosen, superresolved=None, progress=lambda: None)


def test_callers_are_held_side_by_side(two_runs, tmp_path):
    evaluation = evaluated(two_runs, "R1", "R2")
    first, second = evaluation.runs
    assert (first.run, first.cycles, second.cycles, first.clusters) == ("R1", 20, 12, 80)
    good, bad = first.callers["good"], first.callers["bad"]
    assert (good.all.found, good.all.yielded, good.all.error_rate) == (1, 1, 0)
    assert (bad.all.found, bad.all.real) == (0.5, 1)
    assert 0.1 < bad.all.error_rate < 0.25
    assert first.equal_yield_bases == 40 * 20 - 1
    assert good.equal_yield_error_rate == 0
    assert bad.equal_yield_error_rate == pytest.approx(bad.all.called_error_rate)
    assert (good.passed.reads, good.passed.found, good.passed.error_rate) == (40, 0.5, 0)
    assert good.tiles[0].all == good.all
    assert evaluation.calibration["good"].bins[0].bases == 80 * 32
    write_json(tmp_path / "figures.json", evaluation)
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["runs"][0]["callers"]["bad"]["all"]["found"] == 0.5
    assert written["runs"][0]["callers"]["good"]["by_distance"][-1]["high"] is None


def test_filtered_reads_do_not_hold_a_cluster_from_those_that_passed(tmp_path):
    info = run_folder(tmp_path / "R", "R", truth_at([(10, 10)], "ACGT"))
    reads = reads_at([(10, 10), (10, 10.5)], "TTTT", "ACGT", passed=[False, True])
    evaluation = against_truth(
        {tmp_path / "R": info}, {"one": lambda *_: reads}, superresolved=None, progress=lambda: None
    )
    figures = evaluation.runs[0].callers["one"]
    assert (figures.all.yielded, figures.all.real) == (0, 0.5)
    assert (figures.passed.yielded, figures.passed.real) == (1, 1)
    assert compare(tmp_path / "R", TILE, reads) == figures.all


@pytest.mark.parametrize(
    ("arguments", "classical", "message"),
    [
        (["fused"], False, "--calls fused: NAME=FOLDER is expected"),
        (["=x{run}"], False, "NAME=FOLDER is expected"),
        (["a=out"], False, "for 2 runs the folder needs {run} in it"),
        (["a={run}", "a={run}/b"], False, "there is a caller a already"),
        (["classical={run}"], True, "there is a caller classical already"),
    ],
)
def test_callers_that_cannot_be_are_refused(arguments, classical, message, tmp_path):
    runs = [run_folder(tmp_path / name, name, truth_at([(1, 1)], "A")) for name in ("R1", "R2")]
    with pytest.raises(UsageError, match=re.escape(message)):
        callers(arguments, classical=classical, runs=runs)


def evaluate(*arguments):
    return subprocess.run(
        [*SEQD, "calib", "evaluate", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_command_prints_a_table_and_writes_report_and_figures(two_runs):
    callers = [f"--calls=good={two_runs}/good/{{run}}/fastq", f"--calls=bad={two_runs}/bad/{{run}}/fastq"]
    outputs = ["--report", two_runs / "out" / "report.html", "--json", two_runs / "out" / "figures.json"]
    done = evaluate(two_runs / "R1", two_runs / "R2", *callers, *outputs)
    assert done.returncode == 0, done.stderr
    assert re.search(r"│ R1\s+│ good\s+│ +80 │ +80 │ +100\.00 │ +1000 │", done.stdout)
    report = (two_runs / "out" / "report.html").read_text()
    assert report.count("data:image/svg+xml;base64,") == 4
    # Nothing is fetched from anywhere.
    assert not re.search(r'(src|href)="(?!data:)', report)
    assert "http" not in report
    assert "R2" in report
    assert json.loads((two_runs / "out" / "figures.json").read_text())["runs"][1]["run"] == "R2"


def test_one_run_and_one_folder_need_no_names(two_runs):
    done = evaluate(two_runs / "R1", two_runs / "bad" / "R1" / "fastq")
    assert done.returncode == 0, done.stderr
    assert "run R1 against its truth" in done.stdout
    assert re.search(r"│ 1_1101 │ +40 │ +80 │ +50\.00 │", done.stdout)


def test_command_refuses_in_one_line(two_runs):
    done = evaluate(two_runs / "R1", two_runs / "nowhere")
    assert done.returncode == 3
    assert done.stderr.strip().splitlines()[-1].startswith("seqd: ")
    assert "No such file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("folders", "options", "message"),
    [
        (["R1"], {}, "1 folders: without --calls and --classical, RUN and FASTQ are expected"),
        (["R1", "R1"], {"calls": ["a={run}"]}, "run R1: given 2 times"),
        (["R1", "good/R2/fastq"], {}, "calls: 12 cycles, the run declares 20"),
        (["R1", "good/R1/fastq"], {"codebook": CROP / "codebook.csv", "superresolved": "sr"}, "not with a codebook"),
        (["R1", "R2"], {"calls": ["a={run}"], "superresolved": "sr"}, "for 2 runs the folder needs {run} in it"),
        (["R1", "good/R1/fastq"], {"codebook": CROP / "codebook.csv"}, "codes of 4 bases, the reads have 20"),
    ],
)
def test_evaluations_that_cannot_be_are_refused(folders, options, message, two_runs):
    nothing = {"calls": [], "classical": False, "codebook": None, "superresolved": None, "report": None, "json": None}
    with pytest.raises(SeqdError, match=re.escape(message)):
        evaluate_runs([two_runs / folder for folder in folders], **(nothing | options))


def test_reads_on_the_codebook_and_off_it():
    book = letters("AAAA", "CCCC", "GGTT")
    held = compare_with_codebook(book, letters("AAAA", "AAAA", "CCCA", "GGTT", "NGTT", "NNNN"))
    assert (held.reads, held.codes, held.hits) == (6, 3, 3)
    assert held.share == 0.5
    assert held.distances == (3, 2, 0, 0, 1)


def test_decoys_tell_what_chance_gives():
    rng = np.random.default_rng(3)
    spaced = np.unique(rng.integers(0, 4, (60, 5)), axis=0)
    book = np.frombuffer(b"ACGT", np.uint8)[spaced]
    at_random = compare_with_codebook(book, np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, (20_000, 5))])
    assert at_random.chance == pytest.approx(at_random.hits, rel=0.15)
    assert at_random.hits == pytest.approx(20_000 * len(book) / 4**5, rel=0.15)
    true = compare_with_codebook(book, book[rng.integers(0, len(book), 1000)])
    assert (true.hits, true.chance) == (1000, 0)


def test_a_book_without_decoys_and_no_reads_give_no_figures():
    whole = letters(*(a + b for a in "ACGT" for b in "ACGT"))
    assert math.isnan(compare_with_codebook(whole, letters("AC")).chance)
    nothing = compare_with_codebook(whole, np.zeros((0, 2), np.uint8))
    assert math.isnan(nothing.share)
    assert nothing.distances == (0, 0, 0)


def test_codebook_of_another_length_is_refused():
    with pytest.raises(CodebookError, match="codes of 4 bases, the reads have 2"):
        compare_with_codebook(letters("ACGT"), letters("AC"))


def test_codebook_evaluation_of_real_codes(tmp_path):
    codes = read_codebook(CROP / "codebook.csv")
    reads = reads_at([(1, 1)] * 3, bytes(codes[0]).decode(), bytes(codes[1]).decode(), "NNNN")
    assert codebook_hits(CROP / "codebook.csv", reads) == 2
    write_fastq(tmp_path / "fastq" / f"s_{TILE}_R1.fastq.gz", reads)
    done = evaluate(
        *(CROP, tmp_path / "fastq", "--codebook", CROP / "codebook.csv", "--report", tmp_path / "report.html")
    )
    assert done.returncode == 0, done.stderr
    assert "2 (66.67 %)" in done.stdout
    assert "mismatches to the nearest code" in (tmp_path / "report.html").read_text()


def test_fidelity_does_not_depend_on_units():
    rng = np.random.default_rng(1)
    truth = rng.random((40, 50))
    same = fidelity(truth, 3 * truth - 20)
    assert same.psnr_db > 200
    assert same.ssim == pytest.approx(1)
    noisy = truth + rng.normal(0, 0.01, truth.shape)
    assert fidelity(truth, noisy).psnr_db == pytest.approx(20 * np.log10(np.ptp(truth) / 0.01), abs=0.2)
    assert fidelity(truth, 100 - 7 * noisy).psnr_db == pytest.approx(fidelity(truth, noisy).psnr_db)
    flat = fidelity(truth, np.ones_like(truth))
    assert flat.psnr_db == pytest.approx(20 * np.log10(np.ptp(truth) / truth.std()))


def test_bicubic_keeps_places_and_light():
    frame = spots(positions_px=np.array([[12.0, 15.25]]), photons=np.array([1e4]), sigma_px=2.0, shape=(24, 30))
    finer = bicubic(np.rint(frame).astype(np.uint16))
    y, x = np.indices(finer.shape)
    assert (finer * y).sum() / finer.sum() == pytest.approx(24.5, abs=0.05)
    assert (finer * x).sum() / finer.sum() == pytest.approx(31.0, abs=0.05)
    assert finer.sum() == pytest.approx(4 * frame.sum(), rel=0.01)


def test_superresolved_images_are_measured_against_the_truth(tmp_path):
    info = write_simulated_run(
        tmp_path / "R",
        Conditions(density_k_mm2=100),
        run="R",
        tiles=1,
        cycles=2,
        shape=(48, 56),
        seed=3,
        progress=lambda done: None,
    )
    with pytest.raises(RunFolderError, match="no super-resolved image of run R"):
        measure(tmp_path / "R", info, folder=str(tmp_path / "{run}_sr"))
    truth = superresolved(simulated_tile_of(tmp_path / "R", TILE), 2, gain=np.ones(4))
    for channel, image in zip("ACGT", truth, strict=True):
        path = tmp_path / "R_sr" / "L001" / "C2.1" / f"s_{TILE}_{channel}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, (50 + 2 * image).astype(np.float32))
    measured = measure(tmp_path / "R", info, folder=str(tmp_path / "{run}_sr"))
    assert measured.images == 4
    assert measured.fidelity.ssim > 0.999
    assert measured.fidelity.psnr_db > 80
    assert 10 < measured.bicubic.psnr_db < 40
    assert measured.bicubic.ssim < 0.95
    tifffile.imwrite(path, truth[0, ::2, ::2])
    with pytest.raises(RunFolderError, match=r"its shape is \(48, 56\), but twice the frame is \(96, 112\)"):
        measure(tmp_path / "R", info, folder=str(tmp_path / "{run}_sr"))


def test_the_classical_pipeline_is_a_caller(tmp_path):
    info = write_simulated_run(
        tmp_path,
        Conditions(density_k_mm2=60, polyclonal=0),
        run="R",
        tiles=1,
        cycles=10,
        shape=(96, 96),
        seed=6,
        progress=lambda done: None,
    )
    chosen = callers([], classical=True, runs=[info])
    figures = against_truth({tmp_path: info}, chosen, superresolved=None, progress=lambda: None).runs[0]
    assert figures.callers["classical"].all.yielded > 0.8
    assert figures.callers["classical"].all.real > 0.9


@pytest.mark.parametrize("path", CONDITIONS, ids=lambda path: path.stem)
def test_held_out_conditions_are_whole(path):
    conditions = Conditions.model_validate_json(path.read_bytes())
    assert conditions.drift_px == 0.5
    assert conditions.polyclonal == 0.04
    assert np.abs(conditions.channel_shift_px).max() == 0.6
    # Truth and calls share a frame only where the channels' shifts average out.
    np.testing.assert_allclose(np.mean(conditions.channel_shift_px, axis=0), 0, atol=1e-9)


def test_held_out_conditions_are_all_there():
    names = [path.stem for path in CONDITIONS]
    for name in (
        "density_57",
        "density_156",
        "density_284",
        "density_530",
        "density_850",
        "blurred",
        "dim",
        "patterned",
        "phased",
    ):
        assert name in names
