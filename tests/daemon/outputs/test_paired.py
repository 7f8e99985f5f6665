"""Paired reads and index reads from images: both ends, and the sample of each cluster."""

import gzip
import subprocess

import numpy as np
import pytest
from scipy.spatial import cKDTree
from seqd_client.runinfo import parse_reads

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import read_truth, write_simulated_run
from daemon.record.committed import open_run
from tests.support.processes import SEQD, bench, finish

SAMPLES = {"one": ("ACGTAC", "TTGGCC"), "two": ("TTGCAT", "GGAATT")}
READS = parse_reads("20T6B6B20T")


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    """Folders of the images and of the run that was called from them."""
    images = tmp_path_factory.mktemp("paired_images")
    write_simulated_run(
        images,
        Conditions(density_k_mm2=120),
        run="PAIRED",
        tiles=1,
        cycles=READS,
        shape=(128, 128),
        seed=7,
        progress=lambda done: None,
        barcodes=tuple("".join(barcodes) for barcodes in SAMPLES.values()),
    )
    there = bench(tmp_path_factory.mktemp("paired"))
    with there.camera(images), there.daemon("--once") as daemon:
        assert finish(daemon) == 0
    return images, there.runs / "PAIRED"


def test_both_ends_and_index_reads_are_called(paired):
    images, folder = paired
    with open_run(folder) as run:
        (tile,) = run.info.tiles
        truth = read_truth(images, tile)
        distances, nearest = cKDTree(run.positions(tile)).query(truth.positions)
        found = (distances < 1) & np.all((truth.positions > 8) & (truth.positions < 120), axis=1)
        assert found.sum() > 150
        calls = np.stack([run.calls(tile, cycle) for cycle in range(1, 1 + run.info.cycles)])[:, nearest[found]]
        wrong = ((calls & 3) != truth.reads[found].T) | (calls == 0)
        for read in run.info.reads:
            cycles = run.info.cycles_of(read)
            assert wrong[cycles.start - 1 : cycles.stop - 1].mean() < 0.015, run.info.label(read)


def test_each_sample_gets_its_reads(paired, tmp_path):
    images, folder = paired
    sheet = tmp_path / "samples.tsv"
    rows = ["name\tbarcode\tbarcode2", *("\t".join((name, *barcodes)) for name, barcodes in SAMPLES.items())]
    sheet.write_text("\n".join(rows) + "\n")
    command = [*SEQD, "export", "fastq", folder, "--output", tmp_path / "fastq", "--samples", sheet]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with open_run(folder) as run:
        (tile,) = run.info.tiles
        clusters = run.clusters[tile]
    truth = read_truth(images, tile).reads
    number = {}
    for name, stem in (("one", "one_S1"), ("two", "two_S2"), ("Undetermined", "Undetermined_S0")):
        for label in ("R1", "R2", "I1", "I2"):
            with gzip.open(tmp_path / "fastq" / f"{stem}_L001_{label}_001.fastq.gz", "rt") as file:
                lines = file.read().splitlines()
            number[name] = len(lines) // 4
            if name in SAMPLES and label.startswith("I"):
                right = [read == SAMPLES[name][int(label[1]) - 1] for read in lines[1::4]]
                assert np.mean(right) > 0.97
    assert sum(number.values()) == clusters
    assert number["Undetermined"] < 0.03 * clusters
    for name, barcodes in SAMPLES.items():
        barcode = ["ACGT".index(base) for base in "".join(barcodes)]
        assert number[name] == pytest.approx((truth[:, 20:32] == barcode).all(axis=1).sum(), rel=0.05)
