"""A run's summary is what Illumina's InterOp library, R's savR and MultiQC read out of the InterOp files."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from seqd_client.status import CycleStatus

from daemon.outputs.figures.runmetrics import RunMetrics
from daemon.outputs.figures.spikein import SpikeInReference
from daemon.outputs.figures.summary import Summary, summarise
from daemon.outputs.interop.summarycsv import summary_csv
from daemon.record.committed import open_run
from tests.support.interopfiles import read_summary, write_interop
from tests.support.spikein import SpikeIn, fasta, random_genome
from tests.support.writtenrun import run_info, write_run

FOUR_DIGITS = (1101, 1102, 1204, 2103)
FIVE_DIGITS = (11101, 11204, 21303, 22101)

BINNED = np.array([2, 12, 24, 40], np.uint8)

RUNS = {
    "single end": run_info("60T", tiles=FOUR_DIGITS),
    "single index, lanes": run_info("36T8B", tiles=FOUR_DIGITS, lanes=3),
    "dual index, lanes": run_info("40T8B8B40T", tiles=FOUR_DIGITS, lanes=2),
    "five digits": run_info("30T8B10B30T", tiles=FIVE_DIGITS, lanes=2),
    "shorter than the filter": run_info("20T6B", tiles=FOUR_DIGITS),
    "reads of one cycle": run_info("26T1B1T", tiles=FOUR_DIGITS),
    "binned": run_info("30T8B", tiles=FOUR_DIGITS),
}


def tiles_of(info):
    """Clusters of each tile, all otherwise."""
    return lambda tile: 150 + 40 * (info.tiles.index(tile) % 5)


def unequal(info):
    """About half of the cycles, of each tile another number."""
    return {tile: max(0, info.cycles // 2 + 6 - 3 * (at % 4)) for at, tile in enumerate(info.tiles)}


def moments(info):
    """What is committed in a run's life, by name."""
    return {
        "before the filter": dict.fromkeys(info.tiles, min(25, info.reads[0].cycles) - 1),
        "some tiles filtered": {tile: 24 + at % 2 for at, tile in enumerate(info.tiles)},
        "half": unequal(info),
        "one tile is late": {tile: info.cycles - (3 if at == 0 else 0) for at, tile in enumerate(info.tiles)},
        "finished": dict.fromkeys(info.tiles, info.cycles),
    }


@pytest.fixture(scope="module", params=RUNS)
def written(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    info = RUNS[request.param]

    def lost(tile, cycle):
        return (CycleStatus.MISSING, "no frame came") if (tile.tile % 10, cycle) == (4, 7) else None

    clusters = tiles_of(info)

    def binned(tile, cycle):
        rng = np.random.default_rng((tile.tile, cycle))
        scores = BINNED[rng.choice(4, clusters(tile), p=[0.1, 0.1, 0.2, 0.6])]
        return ((scores << 2) | rng.integers(0, 4, len(scores), np.uint8)).astype(np.uint8)

    write_run(root, info, clusters, lost=lost, calls=binned if request.param == "binned" else None)
    return root, info


def same(ours, theirs, rel=1e-5, abs=1e-9):
    """Theirs is a float32, not a number where nothing is known."""
    if ours is None:
        assert np.isnan(theirs) or theirs == 0
    else:
        assert theirs == pytest.approx(ours, rel=rel, abs=abs)


def compare_figures(ours, theirs):
    same(ours.yield_bases / 1e9 or None, theirs.yield_g())
    same(ours.projected_bases / 1e9 or None, theirs.projected_yield_g(), rel=1e-4)
    same(ours.percent_q30, theirs.percent_gt_q30())


def compare_level(ours, theirs):
    compare_figures(ours, theirs)
    same(ours.percent_aligned, theirs.percent_aligned())
    same(ours.percent_error, theirs.error_rate())
    # Records hold whole counts.
    same(ours.first_cycle_intensity, theirs.first_cycle_intensity(), abs=0.5)


def compare(ours: Summary, theirs) -> None:
    compare_level(ours.total, theirs.total_summary())
    compare_level(ours.template, theirs.nonindex_summary())
    assert theirs.size() == len(ours.reads)
    for number, read in enumerate(ours.reads):
        compare_level(read, theirs.at(number).summary())
        assert theirs.at(number).size() == len(read.lanes)
        for at, lane in enumerate(read.lanes):
            seen = theirs.at(number).at(at)
            compare_figures(lane, seen)
            assert (seen.lane(), seen.reads(), seen.reads_pf()) == (lane.lane, lane.clusters, lane.passing)
            same(lane.percent_passing, seen.percent_pf().mean())
            same(lane.density_k_mm2, seen.density().mean() / 1000)
            same(lane.density_passing_k_mm2, seen.density_pf().mean() / 1000)
            same(lane.percent_phasing, seen.phasing().mean())
            same(lane.percent_prephasing, seen.prephasing().mean())
            same(lane.percent_aligned, seen.percent_aligned().mean())
            same(lane.percent_error, seen.error_rate().mean())
            same(lane.first_cycle_intensity, seen.first_cycle_intensity().mean(), abs=0.5)
            assert seen.cycle_state().error_cycle_range().last_cycle() == lane.error_cycles


@pytest.mark.parametrize("moment", ["before the filter", "some tiles filtered", "half", "one tile is late", "finished"])
def test_illuminas_library_reads_the_same(written, moment):
    root, info = written
    shutil.rmtree(root / "InterOp", ignore_errors=True)
    summary, metrics, _ = write_interop(root, moments(info)[moment])
    assert summary.filtered_tiles == np.count_nonzero(metrics.counted)
    compare(summary, read_summary(root))


@pytest.fixture(scope="module")
def spiked(tmp_path_factory):
    """Two lanes, a tenth of whose tiles' clusters do not pass, with a control in them."""
    root = tmp_path_factory.mktemp("spiked")
    info = run_info("55T8B52T", tiles=(1101, 1102, 2101), lanes=2)
    genome = random_genome()
    truth = SpikeIn(info, 4000, genome)
    write_run(root, info, truth.clusters, calls=truth, failing=0.1)
    path = root / "control.fa"
    path.write_text(fasta(genome))
    return root, info, SpikeInReference(path), truth


@pytest.mark.parametrize("moment", ["some tiles filtered", "half", "one tile is late", "finished"])
def test_illuminas_library_reads_the_same_of_a_control(spiked, moment):
    root, info, control, truth = spiked
    shutil.rmtree(root / "InterOp", ignore_errors=True)
    summary, _, _ = write_interop(root, moments(info)[moment], control)
    compare(summary, read_summary(root))
    if moment == "finished":
        assert summary.template.percent_aligned == pytest.approx(100 * truth.control.mean(), rel=0.05)
        assert summary.template.percent_error == pytest.approx(1.55, rel=0.05)
        assert [read.lanes[0].error_cycles for read in summary.reads] == [55, 0, 52]
        assert summary.reads[1].percent_error is None
        assert summary.reads[1].percent_aligned is None


def test_yield_leaves_out_the_last_cycle_of_each_read(tmp_path):
    """By hand: all of 10 clusters pass, half of their calls have Q30 and a tenth is no-call."""
    info = run_info("30T8B", tiles=(1101, 1102))

    def calls(tile, cycle):
        scores = np.array([30, 30, 30, 30, 30, 29, 29, 29, 2, 0], np.uint8)
        return np.where(scores == 0, 0, (scores << 2) | 3).astype(np.uint8)

    write_run(tmp_path, info, 10, calls=calls, failing=0.0)
    with open_run(tmp_path) as run:
        finished = summarise(RunMetrics(run))
        run.refresh({info.tiles[0]: 34, info.tiles[1]: 26})
        running = summarise(RunMetrics(run))
    assert finished.total.yield_bases == finished.total.projected_bases == 2 * 10 * (29 + 7)
    assert finished.template.yield_bases == 2 * 10 * 29
    assert finished.total.percent_q30 == 50
    assert (finished.committed, finished.cycles, finished.filtered_tiles) == (38, 38, 2)
    assert (running.committed, running.clusters, running.passing) == (26, 20, 20)
    assert running.template.yield_bases == 10 * (29 + 26)
    assert running.total.yield_bases == 10 * (29 + 26 + 4)
    assert running.total.projected_bases == 2 * 10 * (29 + 7)


def test_before_anything_is_committed(tmp_path):
    info = run_info("30T", tiles=(1101, 1102))
    write_run(tmp_path, info, 10, cycles=0)
    with open_run(tmp_path) as run:
        summary = summarise(RunMetrics(run))
    assert (summary.committed, summary.filtered_tiles, summary.clusters, summary.density_k_mm2) == (0, 0, 0, None)
    assert summary.total.model_dump() == {
        "yield_bases": 0,
        "projected_bases": 0,
        "percent_q30": None,
        "percent_aligned": None,
        "percent_error": None,
        "first_cycle_intensity": None,
    }
    assert summary.reads[0].lanes[0].tiles == 0


@pytest.mark.parametrize(("committed", "known"), [(37, False), (38, True)])
def test_phasing_needs_some_cycles_of_a_read(tmp_path, committed, known):
    """Of fewer it would be shown as none at all."""
    info = run_info("30T30T", tiles=(1101,))
    write_run(tmp_path, info, 10, cycles=committed)
    with open_run(tmp_path) as run:
        first, second = (read.lanes[0] for read in summarise(RunMetrics(run)).reads)
    assert first.percent_phasing > 0.1
    assert (second.percent_phasing is not None, second.percent_prephasing is not None) == (known, known)


def test_density_needs_the_size_of_a_pixel(tmp_path):
    write_run(tmp_path / "known", run_info("30T", height=1000, width=500, pixel_um=0.5), 4000, failing=0.0)
    write_run(tmp_path / "unknown", run_info("30T", pixel_um=None), 4000)
    with open_run(tmp_path / "known") as run:
        known = summarise(RunMetrics(run))
    with open_run(tmp_path / "unknown") as run:
        unknown = summarise(RunMetrics(run))
    assert known.density_k_mm2 == pytest.approx(4 / (0.5 * 0.25))
    assert known.reads[0].lanes[0].density_passing_k_mm2 == pytest.approx(32)
    assert unknown.density_k_mm2 is None
    assert unknown.reads[0].lanes[0].density_k_mm2 is None


def test_it_goes_through_json(spiked):
    root, _, control, _ = spiked
    summary, _, _ = write_interop(root, None, control)
    assert Summary.model_validate_json(summary.model_dump_json()) == summary
    json.dumps(summary.model_dump(mode="json"), allow_nan=False)


def multiqc(folder):
    """What MultiQC read, by the report's own data."""
    options = ["--module", "interop", "--strict", "--no-ansi", "--no-version-check", "-o", "report"]
    command = [sys.executable, "-m", "multiqc", *options, "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "report/multiqc_report.html").is_file()
    data = json.loads((folder / "report/multiqc_data/multiqc_data.json").read_text())
    return data["report_saved_raw_data"]["interop_runsummary"]


@pytest.mark.parametrize("moment", ["before the filter", "half", "finished"])
def test_multiqc_shows_it(spiked, tmp_path, moment):
    root, info, control, _ = spiked
    summary, _, _ = write_interop(root, moments(info)[moment], control)
    (tmp_path / f"{summary.run}.csv").write_text(summary_csv(summary))
    shown = multiqc(tmp_path)[summary.run]
    assert list(shown["summary"]) == ["Read 1", "Read 2 (I)", "Read 3", "Non-indexed", "Total"]
    for level, figures in zip(
        shown["summary"].values(), (*summary.reads, summary.template, summary.total), strict=True
    ):
        assert level["Yield"] == pytest.approx(figures.yield_bases / 1e9, abs=5e-7)
        assert level["Projected Yield"] == pytest.approx(figures.projected_bases / 1e9, abs=5e-7)
        rounded(level["%>=Q30"], figures.percent_q30, 0.005)
        rounded(level["Aligned"], figures.percent_aligned, 0.005)
        rounded(level["Error Rate"], figures.percent_error, 0.005)
        rounded(level["Intensity C1"], figures.first_cycle_intensity, 0.5)
    lanes = [lane for read in summary.reads for lane in read.lanes]
    assert len(shown["details"]) == len(lanes) == 6
    for row, lane in zip(shown["details"].values(), lanes, strict=True):
        assert row["Tiles"] == lane.tiles
        assert row["Reads PF"] == pytest.approx(lane.passing / 1e6, abs=5e-7)
        rounded(row["Density"], lane.density_k_mm2, 0.05)
        rounded(row["Cluster PF"], lane.percent_passing, 0.005)
        rounded(float(row["Phased"]), lane.percent_phasing, 0.0005)
        rounded(float(row["Prephased"]), lane.percent_prephasing, 0.0005)
        assert row["Cycles Error"] == lane.error_cycles
        rounded(row["Error"], lane.percent_error, 0.005)


def rounded(shown, figure, half):
    """MultiQC has null for what is not a number."""
    if figure is None:
        assert shown is None or np.isnan(shown)
    else:
        assert shown == pytest.approx(figure, abs=half * 1.001)
