"""Programs that labs run on FASTQ read what the daemon and the export write."""

import json
import shutil
import subprocess

import numpy as np
import pytest

from daemon.outputs.reads.fastq import export_fastq
from daemon.record.committed import open_run
from tests.support.writtenrun import run_info, write_run

CLUSTERS, GENOME = 400, 5000


@pytest.fixture(scope="module")
def lane(tmp_path_factory):
    """FASTQ of a lane whose pairs are cut from a genome, and the genome."""
    folder = tmp_path_factory.mktemp("readers")
    rng = np.random.default_rng(4)
    genome = rng.integers(0, 4, GENOME, np.uint8)
    info = run_info("60T8B8B60T", tiles=(1101, 1102))
    starts = {tile: rng.integers(0, GENOME - 300, CLUSTERS) for tile in info.tiles}

    def calls(tile, cycle):
        first = cycle <= 60
        at = starts[tile] + (cycle - 1 if first else 299 - (cycle - 77))
        bases = genome[at % GENOME] if first or cycle <= 76 else 3 - genome[at]
        return (np.uint8(35 << 2) | bases).astype(np.uint8)

    write_run(folder / "run", info, CLUSTERS, calls=calls)
    letters = np.frombuffer(b"ACGT", np.uint8)[genome].tobytes().decode()
    (folder / "genome.fasta").write_text(f">genome\n{letters}\n")
    with open_run(folder / "run") as run:
        paths = export_fastq(run, folder, progress=lambda done, of: None)
    return folder, {path.name.removesuffix(".fastq.gz").rpartition("_")[2]: path for path in paths}


def tool(*command):
    assert shutil.which(command[0]), f"{command[0]} is missing: apt-get install {command[0]}"
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, timeout=120)


def test_bwa_places_every_pair(lane):
    folder, files = lane
    assert files.keys() == {"R1", "I1", "I2", "R2"}
    tool("bwa", "index", folder / "genome.fasta")
    aligned = tool("bwa", "mem", "-t", "1", folder / "genome.fasta", files["R1"], files["R2"]).stdout
    flags = [int(line.split("\t")[1]) for line in aligned.splitlines() if not line.startswith("@")]
    assert len(flags) == 2 * 2 * CLUSTERS
    assert all(flag & 0x2 for flag in flags)


def test_fastp_counts_what_was_called(lane):
    folder, files = lane
    outputs = ["--json", folder / "fastp.json", "--html", folder / "fastp.html"]
    tool("fastp", "--in1", files["R1"], "--in2", files["R2"], *outputs, "--thread", "1", "--disable_adapter_trimming")
    before = json.loads((folder / "fastp.json").read_text())["summary"]["before_filtering"]
    assert before["total_reads"] == 2 * 2 * CLUSTERS
    assert before["total_bases"] == 60 * 2 * 2 * CLUSTERS
    assert before["q30_rate"] == 1
    assert (before["read1_mean_length"], before["read2_mean_length"]) == (60, 60)
