"""What Picard reads from our run folders is what our own FASTQ says: bases, scores, coordinates, filter."""

import gzip

import numpy as np
import pysam
import pytest

from daemon.outputs.reads.fastq import fastq_due
from daemon.outputs.sinks.folderexport import FolderKind, folder_files, write_files
from daemon.record.committed import open_run
from tests.support.picard import base_calls, fastq_records, picard
from tests.support.writtenrun import run_info, write_run

CLUSTERS = 61
SAMPLES = (("sample", "AAAAAAAA", "CCCCCCCC"), ("none", "N", "N"))


def calls_of(scores):
    def calls(tile, cycle):
        rng = np.random.default_rng((tile.lane, tile.tile, cycle))
        called = (rng.choice(np.array(scores, np.uint8), CLUSTERS) << 2) | rng.integers(0, 4, CLUSTERS, np.uint8)
        called[rng.random(CLUSTERS) < 0.05] = 0
        return called.astype(np.uint8)

    return calls


def exported(tmp_path, kind, reads, *, scores=(2, 12, 19, 24, 33, 40), **info):
    """A run, and its folder for Picard."""
    run = run_info(reads, **info)
    write_run(tmp_path / "run", run, CLUSTERS, calls=calls_of(scores))
    root = tmp_path / "folder" / run.run
    with open_run(tmp_path / "run") as committed:
        write_files(folder_files(committed, root, kind, None), written=lambda _: None)
    return run, root


def our_reads(tmp_path, run, lane):
    """Records by label of the read, of all tiles of a lane, from the FASTQ that the daemon's sink makes."""
    found = {}
    with open_run(tmp_path / "run") as committed:
        for tile in (tile for tile in run.tiles if tile.lane == lane):
            for read in run.reads:
                (file,) = fastq_due(committed, tmp_path / "live", tile, run.cycles_of(read)[-1])
                file.write()
                text = gzip.decompress(file.path.read_bytes()).decode()
                found.setdefault(run.label(read), []).extend(fastq_records(text))
    return found


def picard_reads(tmp_path, root, reads, lane):
    """The same as Picard converts the folder."""
    out = tmp_path / f"picard_{lane}"
    out.mkdir()
    picard(
        "IlluminaBasecallsToFastq",
        BASECALLS_DIR=base_calls(root),
        READ_STRUCTURE=reads,
        LANE=lane,
        OUTPUT_PREFIX=out / "r",
        MACHINE_NAME="SEQ1",
        FLOWCELL_BARCODE="FC7",
        RUN_BARCODE=42,
        READ_NAME_FORMAT="CASAVA_1_8",
        APPLY_EAMSS_FILTER="false",
        NUM_PROCESSORS=1,
    )
    labels = {"barcode_": "I", "": "R"}
    found = {}
    for path in out.iterdir():
        kind, number = path.name.removeprefix("r.").removesuffix(".fastq")[:-1], path.name.split(".")[-2][-1]
        found[f"{labels[kind]}{number}"] = list(fastq_records(path.read_text()))
    return found


def placed(records):
    """Place, filter, bases and scores; names of index reads have no read number in Picard, and no index in ours."""
    split = [(name.split(" "), bases, scores) for name, bases, scores in records]
    return sorted((place, fields.split(":")[1], bases, scores) for (place, fields), bases, scores in split)


@pytest.mark.parametrize(
    ("kind", "reads", "tiles"),
    [
        (FolderKind.BCL, "31T8B8B29T", (1101, 1204, 2101)),
        (FolderKind.BCL_GZ, "30T8B30T", (1101, 2312)),
        (FolderKind.BCL, "28T", (11101, 21304)),
        (FolderKind.CBCL, "27T8B8B26T", (1101, 1102, 2101)),
        (FolderKind.CBCL, "27T6B", (1101,)),
    ],
)
def test_picard_reads_the_same(kind, reads, tiles, tmp_path):
    scores = (12, 24, 40) if kind is FolderKind.CBCL else (2, 12, 19, 24, 33, 40)
    run, root = exported(tmp_path, kind, reads, scores=scores, tiles=tiles, lanes=2)
    picard("CheckIlluminaDirectory", BASECALLS_DIR=base_calls(root), READ_STRUCTURE=reads, LANES=2)
    ours, theirs = our_reads(tmp_path, run, 2), picard_reads(tmp_path, root, reads, 2)
    assert ours.keys() == theirs.keys()
    for label, records in theirs.items():
        # Picard reads clusters that pass only from CBCL, as instruments write them.
        mine = [one for one in placed(ours[label]) if kind is not FolderKind.CBCL or one[1] == "N"]
        assert placed(records) == mine, label
        assert len(mine) > 0.7 * CLUSTERS * len(tiles)
        numbers = {name.split(" ")[1].split(":")[0] for name, _, _ in records}
        if label.startswith("R") and "R2" in ours:
            # Picard leaves the number of a lone read out.
            assert numbers == {name.split(" ")[1].split(":")[0] for name, _, _ in ours[label]} == {label[1:]}


def test_cbcl_keeps_few_scores_and_bins_many(tmp_path):
    """Where there are more than three scores, those of a bin become the one of its mean error probability."""
    reads = "26T"
    run, root = exported(tmp_path, FolderKind.CBCL, reads, scores=(2, 12, 24, 40), tiles=(1101,))
    (ours,), (theirs,) = our_reads(tmp_path, run, 1).values(), picard_reads(tmp_path, root, reads, 1).values()
    mine = {name.split(" ")[0]: (bases, scores) for name, bases, scores in ours}
    for cycle in range(26):
        pairs = [(mine[name.split(" ")[0]], (bases, scores)) for name, bases, scores in theirs]
        assert all(kept[0][cycle] == read[0][cycle] for kept, read in pairs)
        found = [(ord(kept[1][cycle]) - 33, ord(read[1][cycle]) - 33, kept[0][cycle]) for kept, read in pairs]
        assert {(kept, read) for kept, read, _ in found if kept in (24, 40)} == {(24, 24), (40, 40)}
        low = [kept for kept, _, base in found if kept in (2, 12) and base != "N"]
        mean = -10 * np.log10(np.mean([10 ** (-score / 10) for score in low]))
        assert {read for kept, read, base in found if kept in (2, 12) and base != "N"} == {round(mean)}


def test_picard_makes_the_same_bam_records(tmp_path):
    reads = "26T8B8B25T"
    run, root = exported(tmp_path, FolderKind.BCL, reads, tiles=(1101, 2102))
    # Picard makes no BAM of a run with index reads before it knows a sample; all clusters but a few have none.
    barcodes, libraries = tmp_path / "barcodes", tmp_path / "libraries"
    barcodes.write_text("barcode_sequence_1\tbarcode_sequence_2\nAAAAAAAA\tCCCCCCCC\n")
    rows = [f"{tmp_path}/{name}.bam\ts\tl\t{first}\t{second}" for name, first, second in SAMPLES]
    libraries.write_text("\n".join(["OUTPUT\tSAMPLE_ALIAS\tLIBRARY_NAME\tBARCODE_1\tBARCODE_2", *rows]) + "\n")
    folder = {"BASECALLS_DIR": base_calls(root), "READ_STRUCTURE": reads, "LANE": 1, "NUM_PROCESSORS": 1}
    extracted = {"BARCODE_FILE": barcodes, "METRICS_FILE": tmp_path / "metrics", "OUTPUT_DIR": tmp_path}
    picard("ExtractIlluminaBarcodes", **folder, **extracted)
    picard(
        "IlluminaBasecallsToSam",
        **folder,
        BARCODES_DIR=tmp_path,
        LIBRARY_PARAMS=libraries,
        RUN_BARCODE="R",
        READ_GROUP_ID="1",
        SEQUENCING_CENTER="S",
        APPLY_EAMSS_FILTER="false",
    )
    theirs = set()
    for sample, _, _ in SAMPLES:
        with pysam.AlignmentFile(tmp_path / f"{sample}.bam", check_sq=False) as file:
            for one in file:
                # Picard names a read <run>:<lane>:<tile>:<x>:<y>.
                read = "R1" if one.is_read1 else "R2"
                assert one.query_name is not None
                place = one.query_name.partition(":")[2]
                theirs.add((read, place, one.is_qcfail, one.query_sequence, one.qual, one.get_tag("BC")))
    found = our_reads(tmp_path, run, 1)
    index = {
        name.split(" ")[0]: f"{first}-{second}"
        for (name, first, _), (_, second, _) in zip(found["I1"], found["I2"], strict=True)
    }
    ours = set()
    for label in ("R1", "R2"):
        for name, bases, scores in found[label]:
            place, fields = name.split(" ")
            filtered = fields.split(":")[1] == "Y"
            ours.add((label, ":".join(place.split(":")[3:]), filtered, bases, scores, index[place]))
    assert ours == theirs
    assert len(ours) == 2 * 2 * CLUSTERS
