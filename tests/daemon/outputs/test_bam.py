"""Unaligned BAM and CRAM: what Picard, samtools and pysam make of them."""

import gzip
import shutil
import subprocess

import numpy as np
import pysam
import pytest

from daemon import __version__
from daemon.errors import ExportError, OutputError
from daemon.outputs.bgzf import END
from daemon.outputs.reads import conversion
from daemon.outputs.reads.bam import export_bam
from daemon.outputs.reads.conversion import FilesBy
from daemon.outputs.reads.fastq import fastq_due
from daemon.record.committed import open_run
from tests.support.picard import fastq_records, picard
from tests.support.writtenrun import run_info, write_run

RUN = "20260301_SEQ1_0042_FC7"
PROVENANCE = {"model": "8097c1aa953d", "configuration": "SHA-256\tof\nit"}


class ByFirstBase:
    """Two samples, by the parity of the first base."""

    names = ("even", "odd")

    def names_in(self, lane):
        return self.names

    def __call__(self, lane, calls):
        return np.where(calls[0] == 0, np.int32(-1), calls[0] & 1)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Writes a run, and exports it."""
    monkeypatch.setattr(conversion, "CLUSTERS", 60)

    def make(reads, clusters=100, *, cycles=None, info=None, **options):
        info = info or run_info(reads, lanes=2, tiles=(1101, 1102))
        if not (tmp_path / "run").exists():
            write_run(tmp_path / "run", info, clusters)
        with open_run(tmp_path / "run") as run:
            run.refresh(dict.fromkeys(info.tiles, cycles or info.cycles))
            paths = export_bam(run, tmp_path / "out", provenance=PROVENANCE, progress=lambda done, of: None, **options)
        assert sorted(paths) == sorted((tmp_path / "out").iterdir())
        return paths

    return make


def samtools(*arguments):
    command = shutil.which("samtools")
    assert command, "samtools is missing: apt-get install samtools"
    return subprocess.run([command, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def expect_valid(path):
    checked = samtools("quickcheck", "-u", "-v", path)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    if path.suffix == ".bam":
        output = path.with_suffix(".txt")
        picard("ValidateSamFile", INPUT=path, OUTPUT=output, MODE="VERBOSE")
        assert output.read_text() == "No errors found\n"
        output.unlink()


def records(path):
    mode = "rc" if path.suffix == ".cram" else "rb"
    with pysam.AlignmentFile(str(path), mode, check_sq=False) as file:
        return file.header.to_dict(), [one.to_dict() | {"flag": one.flag} for one in file.fetch(until_eof=True)]


def from_sink(tmp_path, lanes=(1, 2)):
    """What the daemon's FASTQ says of each cluster: name, whether it passes, and bases and scores of each read."""
    reads = {}
    with open_run(tmp_path / "run") as run:
        for tile in (tile for tile in run.info.tiles if tile.lane in lanes):
            for read in run.info.reads:
                for file in fastq_due(run, tmp_path / "sink", tile, run.info.cycles_of(read)[-1]):
                    file.write()
                    text = gzip.decompress(file.path.read_bytes()).decode()
                    reads.setdefault(run.info.label(read), []).extend(fastq_records(text))
    clusters = []
    for together in zip(*reads.values(), strict=True):
        names = {name.split(" ")[0] for name, _, _ in together}
        assert len(names) == 1
        passes = together[0][0].split(":")[7] == "N"
        called = {label: (bases, scores) for label, (_, bases, scores) in zip(reads, together, strict=True)}
        clusters.append((names.pop(), passes, called))
    return clusters


def expected_records(clusters, flags):
    for name, passes, called in clusters:
        tags = []
        index = [called[label] for label in ("I1", "I2") if label in called]
        if index:
            tags += ["BC:Z:" + "-".join(bases for bases, _ in index), "QT:Z:" + " ".join(scores for _, scores in index)]
        tags.append(f"RG:Z:FC7.{name.split(':')[3]}")
        for label, flag in flags.items():
            bases, scores = called[label]
            yield {
                "name": name,
                "flag": flag | (0 if passes else 0x200),
                "ref_name": "*",
                "ref_pos": "0",
                "map_quality": "0",
                "cigar": "*",
                "next_ref_name": "*",
                "next_ref_pos": "0",
                "length": "0",
                "seq": bases,
                "qual": scores,
                "tags": tags,
            }


@pytest.mark.parametrize(
    ("reads", "flags"),
    [
        ("27T8B8B26T", {"R1": 77, "R2": 141}),
        ("26T7B", {"R1": 4}),
        ("1T", {"R1": 4}),
        ("26T5T4T", {"R1": 77, "R2": 205, "R3": 141}),
    ],
)
@pytest.mark.parametrize("cram", [False, True])
def test_records_are_those_of_the_fastq(reads, flags, cram, make, tmp_path):
    (path,) = make(reads, by=FilesBy.RUN, cram=cram)
    assert path.name == f"{RUN}.cram" if cram else f"{RUN}.bam"
    _, found = records(path)
    assert found == list(expected_records(from_sink(tmp_path), flags))
    if reads != "1T":
        # One failure is allowed, two cycles decide at least.
        assert len({one["flag"] for one in found}) == 2 * len(flags)
    if len(flags) < 3:
        # Picard does not know of templates with more reads.
        expect_valid(path)


def test_header_says_what_made_it(make):
    (path,) = make("26T", by=FilesBy.RUN)
    header, _ = records(path)
    assert header == {
        "HD": {"VN": "1.6", "SO": "unsorted", "GO": "query"},
        "RG": [{"ID": f"FC7.{lane}", "SM": RUN, "LB": RUN, "PU": f"FC7.{lane}", "PL": "ILLUMINA"} for lane in (1, 2)],
        "PG": [{"ID": "seqd", "PN": "seqd", "VN": __version__}],
        "SQ": [],
        "CO": ["model: 8097c1aa953d", "configuration: SHA-256 of it"],
    }


def test_lanes_and_tiles_have_files_of_their_own(make, tmp_path):
    flags = {"R1": 77, "R2": 141}
    for lane, path in enumerate(make("26T8B5T", by=FilesBy.LANE), 1):
        assert path.name == f"{RUN}_L00{lane}.bam"
        header, found = records(path)
        assert [group["ID"] for group in header["RG"]] == [f"FC7.{lane}"]
        assert found == list(expected_records(from_sink(tmp_path, [lane]), flags))
        path.unlink()
    names = [path.name for path in make("26T8B5T", by=FilesBy.TILE)]
    assert names == ["s_1_1101.bam", "s_1_1102.bam", "s_2_1101.bam", "s_2_1102.bam"]


@pytest.mark.parametrize("cram", [False, True])
def test_samples_have_files_of_their_own(make, tmp_path, cram):
    paths = make("26T8B5T", by=FilesBy.RUN, assign=ByFirstBase(), cram=cram)
    ending = "cram" if cram else "bam"
    assert [path.name for path in paths] == [f"{stem}.{ending}" for stem in ("Undetermined_S0", "even_S1", "odd_S2")]
    clusters = from_sink(tmp_path)
    for path, name, letters in zip(paths, ("Undetermined", "even", "odd"), ("N", "AG", "CT"), strict=True):
        header, found = records(path)
        assert {(group["SM"], group["PU"]) for group in header["RG"]} == {(name, f"FC7.{n}.{name}") for n in (1, 2)}
        mine = [one for one in clusters if one[2]["I1"][0][0] in letters]
        assert mine
        assert found == list(expected_records(mine, {"R1": 77, "R2": 141}))
        expect_valid(path)


def test_clusters_that_fail_the_filter_can_be_left_out(make, tmp_path):
    (path,) = make("26T", by=FilesBy.RUN, passing_only=True)
    _, found = records(path)
    passing = [cluster for cluster in from_sink(tmp_path) if cluster[1]]
    assert found == list(expected_records(passing, {"R1": 4}))
    assert len(passing) < 400


def test_a_run_that_goes_on_has_single_reads_until_the_second_begins(make):
    (path,) = make("26T8B9T", cycles=34, by=FilesBy.RUN)
    _, found = records(path)
    assert {one["flag"] & ~0x200 for one in found} == {4}
    assert all(one["tags"][0].startswith("BC:Z:") for one in found)
    (path,) = make("26T8B9T", cycles=35, by=FilesBy.RUN)
    _, found = records(path)
    assert {(one["flag"] & ~0x200, len(one["seq"])) for one in found} == {(77, 26), (141, 1)}
    expect_valid(path)


@pytest.mark.parametrize("cram", [False, True])
def test_no_clusters_are_a_valid_empty_file(make, cram):
    for path in make("26T8B", 0, cram=cram):
        header, found = records(path)
        assert found == []
        assert len(header["RG"]) == 1
        expect_valid(path)


def test_records_are_in_the_bin_of_what_is_not_placed(make):
    """SAM specification, 4.2.1: reg2bin(-1, 0)."""
    (path,) = make("26T", by=FilesBy.RUN)
    with pysam.AlignmentFile(str(path), check_sq=False) as file:
        assert {one.bin for one in file.fetch(until_eof=True)} == {4680}


def test_samtools_gives_the_fastq_back(make, tmp_path):
    (path,) = make("26T8B9T", by=FilesBy.RUN)
    made = samtools("fastq", "-n", "-1", tmp_path / "1.fq", "-2", tmp_path / "2.fq", path)
    assert made.returncode == 0, made.stderr
    clusters = from_sink(tmp_path)
    for label, file in (("R1", "1.fq"), ("R2", "2.fq")):
        found = list(fastq_records((tmp_path / file).read_text()))
        assert found == [(name, *called[label]) for name, _, called in clusters]


def test_a_file_that_was_cut_off_shows(make):
    (path,) = make("26T", by=FilesBy.RUN)
    path.write_bytes(path.read_bytes()[: -len(END)])
    assert samtools("quickcheck", "-u", path).returncode != 0


def test_names_too_long_for_bam_are_refused(make, tmp_path):
    info = run_info("26T", instrument="I" * 128, flowcell="F" * 128)
    with pytest.raises(ExportError, match=f"run {RUN}: names of reads take 2.. bytes, BAM allows 254"):
        make("26T", info=info)
    assert not (tmp_path / "out").exists()


def test_names_as_long_as_bam_has_room_for(make):
    (path, _) = make("26T", info=run_info("26T", instrument="I" * 110, flowcell="F" * 110, lanes=2))
    _, found = records(path)
    assert len(found) == 200
    assert max(len(one["name"]) for one in found) > 230


@pytest.mark.parametrize("cram", [False, True])
@pytest.mark.parametrize(("reads", "cycles", "there"), [("8B8B", 16, "I1, I2"), ("8B8B30T", 4, "I1")])
def test_index_reads_alone_are_refused(reads, cycles, there, cram, make, tmp_path):
    with pytest.raises(ExportError) as refused:
        make(reads, cycles=cycles, cram=cram)
    message = f"run {RUN} L001: BAM needs a cycle of a template read, but only cycles of {there} are committed"
    assert str(refused.value) == message
    assert not (tmp_path / "out").exists()


def test_a_lane_without_template_is_refused_before_another_is_written(make, tmp_path):
    info = run_info("8B8T", lanes=2, tiles=(1101,))
    write_run(tmp_path / "run", info, 20)
    with open_run(tmp_path / "run") as run:
        run.refresh(dict(zip(info.tiles, (16, 8), strict=True)))
        with pytest.raises(ExportError, match=f"run {RUN} L002: BAM needs"):
            export_bam(run, tmp_path / "out", provenance={}, progress=lambda done, of: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cram", [False, True])
def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(cram, make, tmp_path):
    path = tmp_path / "out" / f"{RUN}.{'cram' if cram else 'bam'}"
    path.mkdir(parents=True)
    with pytest.raises(OutputError, match=rf"file {path}: Is a directory"):
        make("26T", by=FilesBy.RUN, cram=cram)
    assert list((tmp_path / "out").iterdir()) == [path]
