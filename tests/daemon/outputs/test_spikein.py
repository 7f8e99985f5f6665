"""Error rates of a control that is spiked into a run, against the truth."""

import gzip

import numpy as np
import pytest

from daemon.outputs.figures.runmetrics import RunMetrics
from daemon.outputs.figures.spikein import (
    LENGTHS,
    MAX_CLUSTERS,
    UNKNOWN,
    SpikeInError,
    SpikeInErrors,
    SpikeInReference,
)
from daemon.record.committed import open_run
from tests.support.spikein import SpikeIn, fasta, random_genome
from tests.support.writtenrun import run_info, write_run

GENOME = random_genome()


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    path = tmp_path_factory.mktemp("control") / "control.fa"
    path.write_text(fasta(GENOME))
    return SpikeInReference(path)


NOT_NUCLEOTIDES = "sequence {!r} is empty or has letters that are no nucleotides"


def errors_of(run, control):
    return SpikeInErrors(RunMetrics(run), control)


def everywhere(run, cycles):
    run.refresh(dict.fromkeys(run.info.tiles, cycles))


@pytest.fixture(scope="module")
def spiked(tmp_path_factory):
    """A finished run of four tiles of 48,000 clusters; a twentieth are the control's."""
    info = run_info("100T8B50T", tiles=(1101, 1102, 2101, 2102))
    root = tmp_path_factory.mktemp("run")
    truth = SpikeIn(info, 48_000, GENOME)
    write_run(root, info, truth.clusters, calls=truth, failing=0.1)
    return root, truth


def windows(rates, size=20):
    return rates.reshape(-1, size).mean(axis=1)


def pooled(wrong, compared, size=20):
    return wrong.sum(axis=0).reshape(-1, size).sum(axis=1) / compared.sum(axis=0).reshape(-1, size).sum(axis=1)


def test_rates_are_those_of_the_truth(spiked, control):
    root, truth = spiked
    with open_run(root) as run:
        errors = errors_of(run, control)
        passing = [run.passing(tile) for tile in run.info.tiles]
    first = pooled(errors.wrong[:, :100], errors.compared[:, :100])
    np.testing.assert_allclose(first, windows(truth.rates[:100]), rtol=0.1)
    second = pooled(errors.wrong[:, 108:158], errors.compared[:, 108:158], size=10)
    np.testing.assert_allclose(second, windows(truth.rates[108:158], 10), rtol=0.1)
    assert not errors.compared[:, 100:108].any(), "index reads have no control"
    for number in (0, 2):
        share = [100 * np.mean(truth.control[one]) for one in passing]
        np.testing.assert_allclose(errors.percent_aligned[:, number], share, rtol=0.003)


def test_every_error_of_a_read_is_counted(spiked, control):
    """In clusters that pass and are found, which are all but a few in a thousand."""
    root, truth = spiked
    with open_run(root) as run:
        errors = errors_of(run, control)
        for index, tile in enumerate(run.info.tiles):
            wrong = truth.wrong[tile][:100, run.passing(tile) & truth.control]
            found, true = (one.reshape(5, 20).sum(axis=1) for one in (errors.wrong[index, :100], wrong.sum(axis=1)))
            np.testing.assert_allclose(found, true, rtol=0.02)
            upto = np.cumsum(wrong, axis=0)
            expected = [[np.count_nonzero(row == count) for count in range(5)] for row in upto]
            np.testing.assert_allclose(errors.reads_by_errors[index, :100], expected, atol=0.006 * wrong.shape[1])


@pytest.mark.parametrize("committed", [24, 25, 49, 50, 99, 132, 133])
def test_a_running_run_shows_what_it_will_show_again(spiked, control, committed):
    """Figures depend on what is committed, not on when it was looked at."""
    root, truth = spiked
    with open_run(root) as run:
        everywhere(run, 10)
        metrics = RunMetrics(run)
        followed = SpikeInErrors(metrics, control)
        for cycles in (*[one for one in (26, 60) if one < committed], committed):
            everywhere(run, cycles)
            run.committed[run.info.tiles[0]] = max(1, cycles - 5)
            metrics.update()
            followed.update()
        run.refresh({tile: run.committed[tile] for tile in run.info.tiles})
        made_anew = errors_of(run, control)
        for name in ("sampled", "aligned", "compared", "wrong", "reads_by_errors"):
            np.testing.assert_array_equal(getattr(followed, name), getattr(made_anew, name), err_msg=name)
        assert made_anew.compared[1].any() == (committed >= LENGTHS[0])
        assert made_anew.compared[1, 108:committed].any() == (committed >= 108 + LENGTHS[0])
        assert not made_anew.compared[:, committed:].any()
        if committed in (49, 99):
            size = 24 if committed == 49 else 33
            upto = committed // size * size
            found = pooled(made_anew.wrong[1:, :upto], made_anew.compared[1:, :upto], size)
            np.testing.assert_allclose(found, windows(truth.rates[:upto], size), rtol=0.1)


def test_no_more_than_so_many_clusters_are_tried(tmp_path, control):
    info = run_info("25T", tiles=(1101,))
    truth = SpikeIn(info, MAX_CLUSTERS + 30_000, GENOME)
    write_run(tmp_path, info, truth.clusters, calls=truth, failing=0.0)
    with open_run(tmp_path) as run:
        errors = errors_of(run, control)
    assert errors.sampled[0, 0] == MAX_CLUSTERS
    # Evenly spaced: the share found is that of all clusters, not of the first.
    tried = truth.control[np.arange(MAX_CLUSTERS) * truth.clusters // MAX_CLUSTERS]
    assert errors.aligned[0, 0] == pytest.approx(tried.sum(), rel=0.003)


def test_a_run_without_the_control_has_no_errors(tmp_path, control):
    info = run_info("30T", tiles=(1101,))
    write_run(tmp_path, info, 5000)
    with open_run(tmp_path) as run:
        errors = errors_of(run, control)
    assert errors.sampled[0, 0] > 3000
    assert errors.percent_aligned[0, 0] == 0
    assert np.isnan(errors.percent_wrong).all()


def test_a_tile_without_clusters(tmp_path, control):
    info = run_info("30T", tiles=(1101,))
    write_run(tmp_path, info, 0)
    with open_run(tmp_path) as run:
        errors = errors_of(run, control)
    assert np.isnan(errors.percent_aligned).all()
    assert np.isnan(errors.percent_wrong).all()


def test_no_calls_are_not_compared(tmp_path, control):
    info = run_info("30T", tiles=(1101,))
    truth = SpikeIn(info, 2000, GENOME)
    write_run(
        tmp_path,
        info,
        truth.clusters,
        calls=lambda tile, cycle: truth(tile, cycle) * np.uint8(cycle != 12),
        failing=0.0,
    )
    with open_run(tmp_path) as run:
        errors = errors_of(run, control)
    assert errors.compared[0, 11] == 0
    assert np.isnan(errors.percent_wrong[0, 11])
    assert errors.compared[0, 10] == errors.compared[0, 12] == errors.aligned[0, 0] > 80
    np.testing.assert_array_equal(errors.reads_by_errors[0, 11], errors.reads_by_errors[0, 10])


def test_a_read_that_runs_beyond_the_controls_end_is_compared_up_to_it(tmp_path):
    path = tmp_path / "short.fa"
    path.write_text(fasta(GENOME[:40]))
    info = run_info("45T", tiles=(1101,))
    calls = np.concatenate([GENOME[10:40], np.full(15, 2, np.uint8)]) | np.uint8(30 << 2)
    write_run(tmp_path / "run", info, 10, calls=lambda _, cycle: np.repeat(calls[cycle - 1], 10), failing=0.0)
    with open_run(tmp_path / "run") as run:
        errors = errors_of(run, SpikeInReference(path))
    assert errors.aligned[0, 0] == 10
    assert errors.compared[0].tolist() == 30 * [10] + 15 * [0]
    assert errors.wrong.sum() == 0


def test_a_short_read_is_placed_by_all_of_it_at_its_end(tmp_path, control):
    """By its first 25 cycles four errors among them would hide it, and rates would be too low."""
    info = run_info("40T", tiles=(1101,))
    calls = GENOME[100:140].copy()
    calls[[9, 12, 18, 22, 39]] ^= 1
    calls |= 30 << 2
    write_run(tmp_path, info, 10, calls=lambda _, cycle: np.repeat(calls[cycle - 1], 10), failing=0.0)
    with open_run(tmp_path) as run:
        everywhere(run, 39)
        assert errors_of(run, control).aligned[0, 0] == 0
        everywhere(run, 40)
        errors = errors_of(run, control)
    assert errors.aligned[0, 0] == 10
    assert errors.wrong[0].tolist() == [10 * (cycle in (9, 12, 18, 22, 39)) for cycle in range(40)]


def cut(start, length, *, backward):
    piece = GENOME[start : start + length]
    return 3 - piece[::-1] if backward else piece


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("backward", [False, True])
def test_reads_are_placed_where_they_are_from(control, length, backward):
    rng = np.random.default_rng(length)
    starts = np.concatenate([[0, len(GENOME) - length], rng.integers(0, len(GENOME) - length + 1, 300)])
    reads = np.stack([cut(start, length, backward=backward) for start in starts])
    found, places = control.place(reads)
    np.testing.assert_array_equal(found, np.arange(len(reads)))
    expected = len(GENOME) + (len(GENOME) - starts - length) if backward else starts
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(control.stops(places), np.full(len(reads), (1 + backward) * len(GENOME)))


@pytest.mark.parametrize(
    ("length", "wrong", "least"), [(25, 1, 0.99), (25, 2, 0.97), (40, 5, 0.97), (50, 4, 0.99), (150, 12, 0.99)]
)
def test_errors_do_not_hide_a_read(control, length, wrong, least):
    """Each place of an error alike, or rates would be too low there."""
    rng = np.random.default_rng(length + wrong)
    reads = np.stack([cut(start, length, backward=False) for start in rng.integers(0, 5000, 2000)])
    hit = np.argsort(rng.random(reads.shape), axis=1)[:, :wrong]
    np.put_along_axis(reads, hit, (np.take_along_axis(reads, hit, 1) + 1) & 3, axis=1)
    found, _ = control.place(reads)
    assert len(found) >= least * len(reads)
    if wrong == 1:
        by_place = np.bincount(hit[found, 0], minlength=length) / np.bincount(hit[:, 0], minlength=length)
        assert by_place.min() > 0.95


@pytest.mark.parametrize("length", [*LENGTHS, *range(26, 50)])
def test_other_reads_are_not_the_controls(control, length):
    reads = np.random.default_rng(length).integers(0, 4, (3000, length), np.uint8)
    assert len(control.place(reads)[0]) == 0


def test_reads_with_gaps_and_of_no_calls_are_not_the_controls(control):
    deleted = np.stack([np.delete(GENOME[start : start + 101], 50) for start in range(0, 5000, 50)])
    inserted = np.stack([np.insert(GENOME[start : start + 99], 50, 3 - GENOME[start + 49]) for start in range(100)])
    unknown = np.full((3, 100), UNKNOWN, np.uint8)
    assert len(control.place(np.concatenate([deleted, inserted, unknown]))[0]) == 0


def test_reads_with_a_gap_close_to_their_end_are_not_used(control):
    """So few bases lie behind it that the errors alone would not tell."""
    reads = np.stack([np.delete(GENOME[start : start + 151], 137) for start in range(0, 5000, 50)])
    assert len(control.place(reads)[0]) < 0.1 * len(reads)


def test_a_read_of_a_repeat_is_placed_once_where_it_fits_best(tmp_path):
    other = GENOME[300:400].copy()
    other[[20, 50]] = (other[[20, 50]] + 1) & 3
    path = tmp_path / "repeat.fa"
    path.write_text(fasta(np.concatenate([GENOME[:1000], other, GENOME[1000:1500], GENOME[600:700]])))
    reads = np.stack([GENOME[310:360], other[10:60], GENOME[620:670], 3 - other[10:60][::-1]])
    found, places = SpikeInReference(path).place(reads)
    assert found.tolist() == [0, 1, 2, 3]
    assert places[:2].tolist() == [310, 1010]
    assert places[2] in (620, 1620)
    assert places[3] == 1700 + (1700 - 1060)


def test_index_reads_are_not_tried(tmp_path, control):
    info = run_info("25T25B", tiles=(1101,))
    truth = SpikeIn(info, 1000, GENOME)
    write_run(tmp_path, info, truth.clusters, calls=truth, failing=0.0)
    with open_run(tmp_path) as run:
        errors = errors_of(run, control)
    assert errors.sampled.tolist() == [[1000, 0]]


def test_several_sequences_in_either_case_compressed(tmp_path):
    path = tmp_path / "two.fa.gz"
    path.write_bytes(
        gzip.compress((fasta(GENOME[:1000], "one") + fasta(GENOME[1000:2500], "two").replace("A", "a")).encode())
    )
    reads = np.stack([GENOME[1100:1150], 3 - GENOME[500:550][::-1], GENOME[980:1030]])
    found, places = SpikeInReference(path).place(reads)
    assert found.tolist() == [0, 1], "no read spans two sequences"
    assert places.tolist() == [2000 + 100, 1000 + 450]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        ("", "not FASTA, or empty; a sequence starts with a line '>name'"),
        ("ACGTACGTTTGACGAGTAGGACTGA\n", "not FASTA, or empty; a sequence starts with a line '>name'"),
        (f"ACGT\n{fasta(GENOME)}", "not FASTA, or empty; a sequence starts with a line '>name'"),
        (
            "@read\nACGTACGTTTGACGAGTAGGACTGA\n+\n>" + 24 * "I" + "\n",
            "not FASTA, or empty; a sequence starts with a line '>name'",
        ),
        (f">none\n{fasta(GENOME)}", NOT_NUCLEOTIDES.format("none")),
        (">none\n", NOT_NUCLEOTIDES.format("none")),
        (">protein of it\nMSNIQTGAERMPHDLSHLGFLAGQIGRLITISTTPVIAGDSFEMDAVG\n", NOT_NUCLEOTIDES.format("protein")),
        (">one\nACGT\n", "no sequence has 25 bases, the minimum to place a read"),
        (fasta(GENOME[:50]) + fasta(GENOME[50:99]), "sequence 'control' occurs 2 times"),
    ],
)
def test_a_control_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "control.fa"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SpikeInError) as caught:
        SpikeInReference(path)
    assert str(caught.value) == f"control {path}: {message}"
    assert caught.value.exit_code == 3


def test_a_control_that_is_cut_off_or_no_text(tmp_path):
    path = tmp_path / "control.fa.gz"
    path.write_bytes(gzip.compress(fasta(GENOME).encode())[:-20])
    with pytest.raises(SpikeInError, match=f"control {path}: Compressed file ended before"):
        SpikeInReference(path)
    path.write_bytes(b">one\n" + 40 * b"A" + b"\n>\xff\n" + 40 * b"C" + b"\n")
    with pytest.raises(SpikeInError, match=f"control {path}: not FASTA: byte 47 is not ASCII"):
        SpikeInReference(path)


def test_a_folder_is_no_control(tmp_path):
    with pytest.raises(SpikeInError, match=f"control {tmp_path}: Is a directory"):
        SpikeInReference(tmp_path)
