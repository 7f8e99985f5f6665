"""A control amid the clusters of real images: the error rates that Illumina's library reads, against the truth."""

import numpy as np
import pytest
from seqd_client.runinfo import TileId

from calib.fasta import Sequence
from calib.offline.evaluation.callers import read_fastq
from calib.offline.evaluation.clustermatch import match
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import read_truth, write_simulated_run
from tests.support.interopfiles import read_metrics
from tests.support.processes import bench, finish
from tests.support.spikein import fasta, random_genome

CYCLES, WINDOW = 50, 25
TILE = TileId(lane=1, tile=1101)
CONTROL, OTHER = random_genome(), random_genome(seed=175)
FAINT = Conditions(density_k_mm2=250, photons=150, phasing=0.006, prephasing=0.004)
"""Light so faint that a few calls of a hundred are wrong."""


def of_control(reads):
    """(n,) which reads are of the control."""
    places = np.lib.stride_tricks.sliding_window_view(CONTROL, reads.shape[1])
    known = {place.tobytes() for strand in (places, 3 - places[:, ::-1]) for place in strand}
    return np.array([read.tobytes() in known for read in reads])


@pytest.mark.timeout(300)
def test_rates_from_images_are_those_of_the_truth(tmp_path):
    images = tmp_path / "images"
    write_simulated_run(
        images,
        FAINT,
        run="SPIKED",
        tiles=1,
        cycles=CYCLES,
        shape=(320, 320),
        seed=3,
        progress=lambda done: None,
        reference=(Sequence("control", CONTROL), Sequence("other", OTHER)),
    )
    (tmp_path / "control.fa").write_text(fasta(CONTROL))
    here = bench(tmp_path, sinks={"interop": True, "control": str(tmp_path / "control.fa")})
    with here.camera(images), here.daemon("--once") as daemon:
        assert finish(daemon) == 0
    folder = here.runs / "SPIKED"

    errors = read_metrics(folder).error_metric_set()
    assert errors.size() == CYCLES
    shown = np.array([errors.at(row).error_rate() for row in range(CYCLES)])
    passing = read_fastq(folder / f"fastq/s_{TILE}_R1.fastq.gz").passing()
    matched = match(read_truth(images, TILE), passing, cycles=CYCLES)
    own = of_control(matched.true_bases)
    assert 200 < own.sum() < 0.7 * len(own)
    # A cluster whose neighbour was called in its place has a read of the neighbour's: no more of the control's.
    mistaken = matched.wrong.mean(axis=1) > 0.3
    assert mistaken[own].mean() < 0.01
    own &= ~mistaken
    wrong = (matched.wrong & matched.called)[own].sum(axis=0)
    truth = 100 * wrong / matched.called[own].sum(axis=0)
    assert shown.mean() == pytest.approx(truth.mean(), rel=0.05)
    np.testing.assert_allclose(*(rates.reshape(-1, WINDOW).mean(axis=1) for rates in (shown, truth)), rtol=0.1)
