"""Matching barcodes: rules on hand-made reads, and the counts of Picard's ExtractIlluminaBarcodes on the same run."""

import csv
import shutil
import subprocess

import numpy as np
import pytest

from daemon.outputs.illumina.basecalls import basecalls_due
from daemon.outputs.samples.barcodes import UNDETERMINED, Demultiplexer
from daemon.outputs.samples.samplecounts import count_samples
from daemon.outputs.samples.samples import BclConvert, Picard, Sample, SampleError, Samples
from daemon.outputs.sink import Encoding
from daemon.record.committed import open_run
from tests.support.writtenrun import run_info, write_run

SINGLE = (("alpha", "ACGTACGT"), ("beta", "TTGGCCAA"), ("gamma", "GATTACAG"))
NEAR = (*SINGLE, ("delta", "ACGTACGA"), ("epsilon", "ACGTACCC"), ("zeta", "TTGGCCTT"))
"""delta is one base from alpha, epsilon two from both, zeta two from beta."""
DUAL = (
    ("alpha", "ACGTACGT", "TTGGCCAA"),
    ("beta", "ACGTACGT", "CATGCATG"),
    ("gamma", "GATTACAG", "TTGGCCAA"),
    ("delta", "GATTACAG", "TTGGCCAT"),
)


def samples(declared, rule, lane=None):
    return Samples(
        samples=tuple(Sample(name=name, barcodes=(*barcodes, "")[:2], lane=lane) for name, *barcodes in declared),
        rule=rule,
        source="samples.csv",
    )


def read_as(*letters, quality=37):
    """(cycles, n) bytes of read barcodes; a small letter has quality 10."""
    calls = [
        [0 if base == "N" else (10 if base.islower() else quality) << 2 | "ACGT".index(base.upper()) for base in read]
        for read in letters
    ]
    return np.array(calls, np.uint8).T


def named(demultiplexer, *letters, lane=1):
    match = demultiplexer.match(lane, read_as(*letters))
    assert demultiplexer(lane, read_as(*letters)).tolist() == match.sample.tolist()
    names = [None if index == UNDETERMINED else demultiplexer.names[index] for index in match.sample]
    return list(zip(names, match.mismatches.tolist(), strict=True))


def test_picards_rule_counts_mismatches_over_all_index_reads_and_no_calls_apart():
    demultiplexer = Demultiplexer(samples(DUAL, Picard()), run_info("26T8B8B"))

    found = named(
        demultiplexer,
        "ACGTACGTTTGGCCAA",
        "ACGTACGTTTGGCCAC",  # one mismatch
        "ACGTACGATTGGCCAC",  # one in each read: two
        "NCGTACGTTTGGCCAN",  # two no-calls are none
        "NCGTACGTTTGGCCNN",  # three are too many
        "NCGTACGTTTGGCCCN",  # two no-calls and a mismatch
        "GATTACAGTTGGCCAC",  # one from gamma and one from delta
        "GATTACAGTTGGCCAT",
    )

    assert found == [
        ("alpha", 0), ("alpha", 1), (None, 0), ("alpha", 0), (None, 0), ("alpha", 1), (None, 0), ("delta", 0)
    ]  # fmt: skip


def test_picards_limits_are_taken_as_they_are_given():
    reads = ("ACGTACTA", "NNNTACGT", "acGTACGT", "ACGTACGA")

    wide = Demultiplexer(samples(SINGLE, Picard(max_mismatches=2, max_no_calls=3)), run_info("26T8B"))
    assert named(wide, *reads) == [("alpha", 2), ("alpha", 0), ("alpha", 0), ("alpha", 1)]
    doubtful = Demultiplexer(samples(SINGLE, Picard(minimum_base_quality=20)), run_info("26T8B"))
    assert named(doubtful, *reads, "aCGTACGT") == [(None, 0), (None, 0), (None, 0), ("alpha", 1), ("alpha", 1)]
    apart = Demultiplexer(samples(NEAR, Picard(min_mismatch_delta=2)), run_info("26T8B"))
    assert named(apart, "ACGTACGT", "GATTACAG") == [(None, 0), ("gamma", 0)]


def test_bcl_converts_rule_counts_each_index_read_for_itself_and_no_calls_as_mismatches():
    declared = DUAL[:3]
    demultiplexer = Demultiplexer(samples(declared, BclConvert(index1=1, index2=0)), run_info("26T8B8B"))
    reads = ("ACGTACGATTGGCCAA", "ACGTACGTTTGGCCAC", "NCGTACGTCATGCATG", "NNGTACGTCATGCATG", "NCGTACGTCATGCATN")

    assert named(demultiplexer, *reads) == [("alpha", 1), (None, 0), ("beta", 1), (None, 0), (None, 0)]
    both = Demultiplexer(samples(declared, BclConvert()), run_info("26T8B8B"))
    assert named(both, "ACGTACGATTGGCCAC", *reads[3:]) == [("alpha", 2), (None, 0), ("beta", 2)]


def test_shorter_barcodes_are_compared_with_the_first_cycles_of_each_index_read():
    declared = (("alpha", "ACGTAC", "TTGG"), ("beta", "GATTAC", "CATG"))
    reads = "ACGTACTTTTTTGGAAAA", "GATTACNNNNCATGNNNN"

    assert named(Demultiplexer(samples(declared, Picard()), run_info("26T10B8B")), *reads) == [
        ("alpha", 0), ("beta", 0)
    ]  # fmt: skip
    first_only = samples((("alpha", "ACGTAC"), ("beta", "GATTAC")), BclConvert())
    assert named(Demultiplexer(first_only, run_info("26T10B8B")), *reads) == [("alpha", 0), ("beta", 0)]


def test_a_sample_may_have_several_barcodes_and_a_lane_its_own():
    several = samples((("alpha", "ACGTACGT"), ("beta", "TTGGCCAA"), ("alpha", "GATTACAG")), BclConvert())
    assert named(Demultiplexer(several, run_info("26T8B")), "GATTACAG", "TTGGCCAA") == [("alpha", 0), ("beta", 0)]

    of_lanes = Samples(
        samples=samples(SINGLE[:1], Picard(), lane=1).samples
        + samples((("beta", "ACGTACGT"),), Picard(), lane=2).samples,
        rule=Picard(),
        source="samples.csv",
    )
    demultiplexer = Demultiplexer(of_lanes, run_info("26T8B", lanes=3))
    assert [named(demultiplexer, "ACGTACGT", lane=lane)[0][0] for lane in (1, 2, 3)] == ["alpha", "beta", None]


def test_no_clusters_match_nothing():
    demultiplexer = Demultiplexer(samples(DUAL, Picard()), run_info("26T8B8B"))
    assert demultiplexer(1, np.zeros((16, 0), np.uint8)).shape == (0,)


@pytest.mark.parametrize("rule", [Picard(), BclConvert(index1=1, index2=1), BclConvert(index1=2, index2=0)])
def test_many_barcodes_are_matched_as_one_by_one(rule):
    rng = np.random.default_rng(3)
    declared, chosen = [], rng.choice(list("ACGT"), (600, 30))
    for number, letters in enumerate("".join(row) for row in chosen):
        try:
            Demultiplexer(samples([*declared, (f"s{number}", letters[:14], letters[14:])], rule), run_info("26T14B16B"))
        except SampleError:
            continue
        declared.append((f"s{number}", letters[:14], letters[14:]))
        if len(declared) == 40:
            break
    truth = rng.integers(0, len(declared), 3000)
    reads = np.array([list(declared[index][1] + declared[index][2]) for index in truth])
    wrong = rng.random(reads.shape) < 0.03
    reads[wrong] = rng.choice(list("ACGTN"), np.count_nonzero(wrong))
    demultiplexer = Demultiplexer(samples(declared, rule), run_info("26T14B16B"))

    found = named(demultiplexer, *("".join(read) for read in reads))

    assert found == [expected(declared, rule, "".join(read)) for read in reads]
    assert 0 < sum(name is None for name, _ in found) < len(found)


def expected(declared, rule, read):
    """What the rules say, in words of their own."""
    candidates = []
    for name, first, second in declared:
        pairs = [list(zip(barcode, part, strict=True)) for barcode, part in ((first, read[:14]), (second, read[14:]))]
        if isinstance(rule, BclConvert):
            counts = [sum(a != b for a, b in part) for part in pairs]
            if counts[0] <= rule.index1 and counts[1] <= rule.index2:
                return name, sum(counts)
        else:
            candidates.append((sum(a != b and b != "N" for part in pairs for a, b in part), name))
    if candidates and read.count("N") <= rule.max_no_calls:
        (best, name), (second_best, _) = sorted(candidates)[:2]
        if best <= rule.max_mismatches and second_best - best >= rule.min_mismatch_delta:
            return name, best
    return None, 0


@pytest.mark.parametrize(
    ("declared", "rule", "reads", "lane", "says"),
    [
        (SINGLE, Picard(), "26T", None, "run 20260301_SEQ1_0042_FC7 has no index reads"),
        (SINGLE, Picard(), "26T8B", 2, "sample 'alpha' is in lane 2, the run has 1"),
        (
            SINGLE,
            Picard(),
            "26T6B",
            None,
            "sample 'alpha': barcode ACGTACGT has 8 bases, index read 1 of the run has 6",
        ),
        (DUAL, Picard(), "26T8B", None, "sample 'alpha': barcode TTGGCCAA has 8 bases, index read 2 of the run has 0"),
        (
            (*SINGLE, ("eta", "ACGTAC")),
            Picard(),
            "26T8B",
            None,
            "lane 1: barcode 1 of 'eta' has 6 bases, but that of 'alpha' has 8; all barcodes of a lane need the same",
        ),
        ((*SINGLE, ("eta", "ACGTACGT")), Picard(), "26T8B", None, "samples 'alpha' and 'eta' both have ACGTACGT"),
        (
            (("alpha", "ACGTACGT"), ("beta", "ACGTACAA")),
            BclConvert(),
            "26T8B",
            None,
            "lane 1: ACGTACGT of 'alpha' and ACGTACAA of 'beta' are too similar for the mismatches allowed, "
            "BarcodeMismatchesIndex1,1 and BarcodeMismatchesIndex2,1",
        ),
        (DUAL, BclConvert(index1=0), "26T8B8B", None, "GATTACAG-TTGGCCAA of 'gamma' and GATTACAG-TTGGCCAT of 'delta'"),
    ],
)
def test_what_does_not_fit_the_run_is_refused_in_a_line(declared, rule, reads, lane, says):
    with pytest.raises(SampleError) as refused:
        Demultiplexer(samples(declared, rule, lane), run_info(reads))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


def test_barcodes_that_come_together_in_one_index_read_only_are_allowed():
    same_first = samples((("alpha", "ACGTACGT", "TTGGCCAA"), ("beta", "ACGTACGT", "TTGGCGTT")), BclConvert())
    assert Demultiplexer(same_first, run_info("26T8B8B")).names == ("alpha", "beta")
    # Three bases apart are as near as a mismatch on one side and two on the other.
    nearer = (("alpha", "ACGTACGT"), ("beta", "ACGTAAAA"))
    assert Demultiplexer(samples(nearer, BclConvert(index1=1)), run_info("26T8B")).names == ("alpha", "beta")
    with pytest.raises(SampleError, match="too similar"):
        Demultiplexer(samples(nearer, BclConvert(index1=2)), run_info("26T8B"))


def indexed_calls(rng, declared, info, clusters, *, no_calls):
    """(cycles, n) bytes: reads of the declared barcodes and of none, with errors and no-calls; random templates."""
    shape = info.cycles, clusters
    scores = rng.choice([11, 22, 37], shape)
    index = np.concatenate([list(info.cycles_of(read)) for read in info.reads if read.index]) - 1
    # Picard lowers qualities below 30 at the end of reads (EAMSS), which ExtractIlluminaBarcodes cannot be told not to.
    scores[index] = rng.choice([31, 37], scores[index].shape, p=[0.05, 0.95])
    calls = (scores << 2 | rng.integers(0, 4, shape)).astype(np.uint8)
    codes = np.array([["ACGT".index(base) for base in "".join(barcodes)] for _, *barcodes in declared], np.uint8)
    known = np.flatnonzero(rng.random(clusters) < 0.85)
    bases = codes[rng.integers(0, len(declared), len(known))].T
    wrong = rng.random(bases.shape) < 0.03
    bases = np.where(wrong, rng.integers(0, 4, bases.shape, np.uint8), bases)
    calls[np.ix_(index, known)] = calls[np.ix_(index, known)] & 0xFC | bases
    calls[rng.random(shape) < no_calls] = 0
    return calls


def written(folder, info, declared, clusters=2000, *, no_calls=0.03):
    """A run, and the folder of base calls that the sink makes of it."""
    rng = np.random.default_rng(11)
    by_tile = {tile: indexed_calls(rng, declared, info, clusters, no_calls=no_calls) for tile in info.tiles}
    files = write_run(folder, info, clusters, calls=lambda tile, cycle: by_tile[tile][cycle - 1])
    with open_run(files.root) as run:
        for tile in info.tiles:
            for cycle in range(1, info.cycles + 1):
                for file in basecalls_due(run, folder, tile, cycle, encoding=Encoding.PLAIN):
                    file.write()
    return files.root


def picard(folder, lane, structure, declared, **options):
    """Rows of ExtractIlluminaBarcodes' metrics by sample name, of no sample under None; and its calls by tile."""
    command = shutil.which("PicardCommandLine")
    assert command, "PicardCommandLine is not installed (Debian: picard-tools libcommons-lang-java)"
    out = folder / f"picard{lane}"
    out.mkdir()
    columns = ["barcode_sequence_1", "barcode_sequence_2"][: len(declared[0]) - 1]
    lines = ["\t".join([*columns, "barcode_name", "library_name"])]
    lines += ["\t".join([*barcodes, name, name]) for name, *barcodes in declared]
    (out / "barcodes.tsv").write_text("\n".join(lines) + "\n")
    given = {
        "BASECALLS_DIR": folder / "Data/Intensities/BaseCalls",
        "LANE": lane,
        "READ_STRUCTURE": structure,
        "BARCODE_FILE": out / "barcodes.tsv",
        "METRICS_FILE": out / "metrics.txt",
        "OUTPUT_DIR": out,
        "NUM_PROCESSORS": 1,
        "USE_JDK_DEFLATER": "true",
        "USE_JDK_INFLATER": "true",
    }
    run = subprocess.run(
        [command, "ExtractIlluminaBarcodes", *(f"{key}={value}" for key, value in (given | options).items())],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    table = [line for line in (out / "metrics.txt").read_text().splitlines() if line and not line.startswith("#")]
    rows = list(csv.DictReader(table, delimiter="\t"))
    # Histograms may follow the table: it ends with its last row of bases.
    rows = [row for row in rows if row["BARCODE"] and set(row["BARCODE"]) <= set("ACGTN-")]
    return {None if set(row["BARCODE"]) <= {"N", "-"} else row["BARCODE_NAME"]: row for row in rows}, out


COLUMNS = (
    "READS", "PF_READS", "PERFECT_MATCHES", "PF_PERFECT_MATCHES", "ONE_MISMATCH_MATCHES", "PF_ONE_MISMATCH_MATCHES"
)  # fmt: skip


@pytest.mark.parametrize(
    ("declared", "reads", "lanes", "options"),
    [
        (SINGLE, "26T8B", 1, {}),
        (NEAR, "26T8B12T", 1, {"max_mismatches": 2, "max_no_calls": 1}),
        (DUAL, "26T8B8B12T", 2, {}),
        (DUAL[:3], "26T8B8B", 1, {"minimum_base_quality": 33, "max_mismatches": 3, "min_mismatch_delta": 2}),
    ],
    ids=["single", "near", "dual", "quality"],
)
def test_every_cluster_goes_where_picard_puts_it(tmp_path, declared, reads, lanes, options):
    info = run_info(reads, lanes=lanes)
    # A no-call's quality, 2, sets the EAMSS filter off too.
    folder = written(tmp_path / "run", info, declared, no_calls=0 if "minimum_base_quality" in options else 0.03)
    demultiplexer = Demultiplexer(samples(declared, Picard(**options)), info)
    index = np.concatenate([list(info.cycles_of(read)) for read in info.reads if read.index])
    with open_run(folder) as run:
        stats = count_samples(run, demultiplexer)
        for at, lane in enumerate(stats.lanes):
            rows, out = picard(
                folder, lane, reads, declared, **{name.upper(): value for name, value in options.items()}
            )

            assert set(rows) == {None, *demultiplexer.names}
            for name, row in rows.items():
                counted = stats.clusters[at, -1 if name is None else demultiplexer.names.index(name)]
                ours = [counted.sum(), counted[1].sum()]
                ours += [0] * 4 if name is None else [
                    counted[:, 0].sum(), counted[1, 0], counted[:, 1].sum(), counted[1, 1]
                ]  # fmt: skip
                assert ours == [int(row[column]) for column in COLUMNS], name
            assert min(int(row["READS"]) for row in rows.values()) > 10

            for tile in (tile for tile in info.tiles if tile.lane == lane):
                calls = np.stack([run.calls(tile, cycle) for cycle in index])
                match = demultiplexer.match(lane, calls)
                lines = (out / f"s_{lane}_{tile.tile:04d}_barcode.txt").read_text().splitlines()
                barcodes = {"".join(barcodes): name for name, *barcodes in declared}
                theirs = [
                    barcodes[cells[2]] if cells[1] == "Y" else None for cells in (line.split("\t") for line in lines)
                ]
                ours = [None if one < 0 else demultiplexer.names[one] for one in match.sample]
                assert ours == theirs
