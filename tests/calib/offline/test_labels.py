import json
from shutil import copytree

import numpy as np
import pytest
import tifffile
from scipy.spatial import cKDTree
from seqd_client.runinfo import TileId
from typer.testing import CliRunner

from calib.fasta import FastaError
from calib.offline.codebook import CodebookError
from calib.offline.commands import app
from calib.offline.labels.fastamatch import FastaReference
from calib.offline.labels.labelfiles import labels_path, read_labels, read_summary
from calib.offline.labels.labelledtile import match_reads
from calib.offline.labels.sequencematch import Codebook, Match, Outcome, Strand, allowed_distance, chance
from calib.offline.simulation.simulatedrun import read_truth
from calib.runfolder.images import RunFolderError
from tests.support.places import CROP

TILE = TileId(lane=1, tile=1101)
COMPLEMENT = str.maketrans("ACGT", "TGCA")


def bases(length, seed=1):
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), length))


def reverse(read):
    return read.translate(COMPLEMENT)[::-1]


def wrong_at(read, *places):
    letters = list(read)
    for place in places:
        letters[place] = "ACGT"[("ACGT".index(letters[place]) + 1) % 4]
    return "".join(letters)


@pytest.fixture
def fasta(tmp_path):
    def write(*sequences, cycles, strand=Strand.BOTH):
        path = tmp_path / "reference.fasta"
        path.write_text("".join(f">s{index}\n{sequence}\n" for index, sequence in enumerate(sequences)))
        return FastaReference(path, cycles=cycles, strand=strand)

    return write


@pytest.fixture
def codebook(tmp_path):
    def write(*codes):
        path = tmp_path / "codebook.csv"
        path.write_text("\n".join(["code", *codes]))
        return Codebook(path, cycles=len(codes[0]))

    return write


def label(*arguments):
    return CliRunner().invoke(app, ["label", *map(str, arguments)])


def test_the_methods_example(fasta):
    """Cycle 3 is corrected from G to C, a read without a match is removed, one that matches stays."""
    reference = fasta("TTGACCTGTCAGTGGA", cycles=10)
    reads = ("ACGTGTCAGT", "ACAGTTCAGT", "ACCTGTCAGT")
    assert match_reads(reads, np.ones(3, bool), reference) == (
        Match(Outcome.ALIGNED, "ACCTGTCAGT"),
        Match(Outcome.UNALIGNED),
        Match(Outcome.ALIGNED, "ACCTGTCAGT"),
    )


@pytest.mark.parametrize("length", [30, 50, 51, 100])
def test_a_read_is_corrected_to_the_reference_on_either_strand(fasta, length):
    genome = bases(5000)
    reference = fasta(genome[:2000], genome[2000:], cycles=length)
    for start in (0, 700, 1800, 2000, 5000 - length):
        true = genome[start : start + length]
        for read in (true, reverse(true)):
            for called in (read, wrong_at(read, 0, length - 1), wrong_at(read, 4, length // 2), "N" + read[1:]):
                assert reference.match(called, distance=3) == Match(Outcome.ALIGNED, read)
    assert reference.match(bases(length, seed=7), distance=3) == Match(Outcome.UNALIGNED)


@pytest.mark.parametrize("length", [40, 80])
def test_no_read_spans_two_sequences_or_an_unknown_base(fasta, length):
    genome = bases(1000)
    reference = fasta(genome[:500], genome[500:700] + "N" + genome[701:], cycles=length)
    assert reference.match(genome[480 : 480 + length], distance=4).corrected is None
    assert reference.match(genome[690 : 690 + length], distance=4).corrected is None


@pytest.mark.parametrize("length", [40, 80])
def test_unknown_bases_hide_no_place(fasta, length):
    genome = bases(1000)
    reference = fasta("N" * 500 + genome, cycles=length)
    assert reference.match(wrong_at(genome[:length], 20), distance=4) == Match(Outcome.ALIGNED, genome[:length])


@pytest.mark.parametrize("length", [40, 80])
def test_only_one_strand_when_told(fasta, length):
    genome = bases(1000)
    reference = fasta(genome, cycles=length, strand=Strand.FORWARD)
    assert reference.match(genome[100 : 100 + length], distance=2).outcome is Outcome.ALIGNED
    assert reference.match(reverse(genome[100 : 100 + length]), distance=2).outcome is Outcome.UNALIGNED
    assert reference.places(length) == 1001 - length


@pytest.mark.parametrize("length", [40, 80])
def test_two_equally_near_places_are_ambiguous_unless_they_read_the_same(fasta, length):
    one = bases(length)
    other = wrong_at(one, 10, 20)
    spacer = bases(100, seed=3)
    reference = fasta(one + spacer + other + spacer[::-1] + one, cycles=length)
    assert reference.match(one, distance=4) == Match(Outcome.ALIGNED, one)
    assert reference.match(wrong_at(one, 5), distance=4) == Match(Outcome.ALIGNED, one)
    assert reference.match(wrong_at(one, 20), distance=4) == Match(Outcome.AMBIGUOUS)


@pytest.mark.parametrize("length", [40, 80])
def test_a_read_that_skips_or_repeats_a_base_is_removed(fasta, length):
    genome = bases(1000)
    reference = fasta(genome, cycles=length)
    middle = 300 + length // 2
    skipped = genome[300:middle] + genome[middle + 1 : 301 + length]
    repeated = genome[300:middle] + wrong_at(genome[middle - 1]) + genome[middle : 299 + length]
    assert reference.match(skipped, distance=4) == Match(Outcome.GAPPED)
    assert reference.match(repeated, distance=4) == Match(Outcome.GAPPED)


def test_chance_is_what_random_reads_match():
    rng = np.random.default_rng(2)
    places = rng.integers(0, 4, (40, 6))
    reads = rng.integers(0, 4, (20000, 6))
    matched = ((reads[:, None] != places[None]).sum(axis=2) <= 1).sum(axis=1).mean()
    assert chance(length=6, places=40, distance=1) == pytest.approx(matched, rel=0.05)
    assert chance(length=4, places=256, distance=0) == 1


@pytest.mark.parametrize(
    ("length", "places", "distance"),
    [(4, 50, 0), (10, 30, 1), (10, 10_000, 0), (25, 10_700, 2), (40, 10_700, 4), (150, 10_700, 15), (20, 6e9, 0)],
)
def test_a_tenth_of_the_bases_may_be_wrong_unless_chance_would_find_too_much(length, places, distance):
    assert allowed_distance(length=length, places=int(places)) == distance


def test_codes_are_matched_exactly_or_to_the_only_nearest(codebook):
    known = codebook("ACGT", "TTGC", "TTAC")
    for read, distance, match in (
        ("ACGT", 0, Match(Outcome.ALIGNED, "ACGT")),
        ("ACGA", 0, Match(Outcome.UNALIGNED)),
        ("ACGA", 1, Match(Outcome.ALIGNED, "ACGT")),
        ("TTCC", 1, Match(Outcome.AMBIGUOUS)),
        ("TTNC", 0, Match(Outcome.AMBIGUOUS)),
        ("NCGT", 0, Match(Outcome.ALIGNED, "ACGT")),
    ):
        assert known.match(read, distance=distance) == match


def test_a_match_that_chance_would_give_needs_the_chastity_filter(codebook):
    reads = ("ACGT", "ACGT", "NNNN")
    matches = match_reads(reads, np.array([True, False, True]), codebook("ACGT", "TTGC", "TTAC", "GGAC"))
    assert [match.outcome for match in matches] == [Outcome.ALIGNED, Outcome.UNPROVEN, Outcome.UNALIGNED]
    long = bases(20)
    assert match_reads((long,), np.array([False]), codebook(long))[0].outcome is Outcome.ALIGNED


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A simulated run with its labels."""
    root = tmp_path_factory.mktemp("labelled")
    arguments = ["simulate", root, "--size", 128, "--cycles", 36, "--density", 150, "--seed", 3]
    assert CliRunner().invoke(app, list(map(str, arguments))).exit_code == 0
    result = label(root, "--reference", root / "Truth" / "reference.fasta")
    assert result.exit_code == 0, result.output
    return root


def test_labels_of_a_simulated_run_are_true(labelled):
    labels = read_labels(labelled, TILE)
    truth = read_truth(labelled, TILE)
    # The truth lists the clusters inside; labels may also hold one whose centre lies just outside.
    inner = np.all((labels.positions > 2) & (labels.positions < 125), axis=1)
    distance, nearest = cKDTree(truth.positions).query(labels.positions[inner])
    assert labels.bases.shape == (len(labels.positions), 36)
    assert len(labels.positions) > 0.85 * len(truth.positions)
    assert (distance < 1).mean() > 0.99
    # A read corrected to the reference is right as a whole, or that of a neighbour as a whole.
    assert (labels.bases[inner] == truth.reads[nearest]).all(axis=1).mean() > 0.97
    summary = read_summary(labelled, TILE)
    assert summary.clusters == len(labels.positions) + len(labels.removed_positions)
    assert summary.aligned_share == len(labels.positions) / summary.clusters
    assert sum(summary.removed.values()) == len(labels.removed_positions) > 0
    assert summary.shuffled_share < 0.01
    assert sum(summary.corrected_by_cycle) == summary.corrected_bases > 0


def test_corrections_are_written_back_and_the_called_read_stays_beside_them(labelled):
    lines = labels_path(labelled, TILE, ".csv").read_text().splitlines()
    assert lines[0] == "y,x,called,corrected"
    changed = [
        (called, corrected)
        for *_, called, corrected in (line.split(",") for line in lines[1:])
        if "N" not in called and called != corrected
    ]
    assert 0 < len(changed) < len(lines) / 2
    assert all(sum(a != b for a, b in zip(*pair, strict=True)) <= 3 for pair in changed)


def test_the_mask_is_one_at_the_centres(labelled):
    mask = tifffile.imread(labels_path(labelled, TILE, "_mask.tif"))
    assert mask.shape == (128, 128)
    assert mask.dtype == np.uint8
    labels = read_labels(labelled, TILE)
    centres = {tuple(centre) for centre in np.clip(np.rint(labels.positions), 0, 127).astype(int).tolist()}
    assert {tuple(place) for place in np.argwhere(mask == 1).tolist()} == centres
    assert mask.max() == 1
    assert labels_path(labelled, TILE, ".png").stat().st_size > 10_000


def test_real_images_are_labelled_from_their_codebook(tmp_path):
    copytree(CROP, tmp_path / "run")
    result = label(tmp_path / "run", "--codebook", CROP / "codebook.csv")
    assert result.exit_code == 0, result.output
    labels = read_labels(tmp_path / "run", TILE)
    codes = {line.split(",")[1] for line in (CROP / "codebook.csv").read_text().split()[1:]}
    assert len(labels.positions) > 150
    assert {"".join("ACGT"[base] for base in read) for read in labels.bases} <= codes
    summary = read_summary(tmp_path / "run", TILE)
    assert summary.aligned_share > 0.8
    assert 0.02 < summary.shuffled_share < 0.45
    assert summary.corrected_bases == 0


def test_labels_without_a_reference_are_refused():
    for arguments in ([], ["--reference", "a", "--codebook", "b"]):
        error = label(CROP, *arguments).exception
        assert str(error) == "label: give either --reference FASTA or --codebook CSV"


def test_references_of_another_length_than_the_reads_are_refused(fasta, codebook, tmp_path):
    with pytest.raises(FastaError, match=r"reference .*: no sequence has 40 bases, the length of the reads$"):
        fasta("ACGT", cycles=40)
    codebook("ACGT")
    with pytest.raises(CodebookError, match=r"codebook .*codebook\.csv: codes of 4 bases, the run reads 5$"):
        Codebook(tmp_path / "codebook.csv", cycles=5)


def test_labels_that_cannot_be_read_are_refused(labelled, tmp_path):
    with pytest.raises(RunFolderError, match=r"No such file or directory; seqd calib label writes them$"):
        read_labels(tmp_path, TILE)
    root = tmp_path / "run"
    copytree(labelled / "Labels", root / "Labels")
    table, summary = labels_path(root, TILE, ".csv"), labels_path(root, TILE, ".json")
    good, facts = table.read_text(), json.loads(summary.read_text())
    for content, message in (
        ("y,x,called,corrected\n1,2,ACGT,ACGT\n", r"read 'ACGT' is not 36 bases of A, C, G, T$"),
        ("y,x,called\n1,2,ACGT\n", r"read '' is not 36 bases of A, C, G, T$"),
        ("a,b\n1,2\n", r"columns a, b; y and x are needed$"),
        (good.replace("\n", "\nq", 1), r"could not convert string to float"),
    ):
        table.write_text(content)
        with pytest.raises(RunFolderError, match=message):
            read_labels(root, TILE)
    table.write_text(good)
    summary.write_text(json.dumps({**facts, "aligned_share": 2}))
    with pytest.raises(RunFolderError, match=r"s_1_1101\.json: aligned_share: Input should be less than or equal to 1"):
        read_labels(root, TILE)
