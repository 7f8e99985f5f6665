"""InterOp files, read by Illumina's library and by R's savR, and by hand."""

import shutil
import struct
import subprocess
from datetime import UTC, datetime

import numpy as np
import pytest
from seqd_client.status import CycleStatus

from daemon.config import SinksConfig
from daemon.outputs.figures.runmetrics import RunMetrics
from daemon.outputs.figures.spikein import SpikeInErrors, SpikeInReference
from daemon.outputs.interop.binarylayout import ERROR, EXTRACTION, INTENSITY, QUALITY, TILE
from daemon.outputs.interop.interopfolder import fits, interop_files
from daemon.outputs.sinks.folderexport import sink_files
from daemon.record.committed import open_run
from tests.support.interopfiles import read_metrics, read_summary, write_interop
from tests.support.spikein import SpikeIn, fasta, random_genome
from tests.support.writtenrun import NOON, run_info, write_run

LAYOUTS = (QUALITY, TILE, EXTRACTION, INTENSITY, ERROR)


def content(root):
    return {path.name: path.read_bytes() for path in sorted((root / "InterOp").iterdir())}


def records(root, layout):
    """After the header, which is checked."""
    data = (root / "InterOp" / layout.name).read_bytes()
    header = bytes((layout.version, layout.record.itemsize)) + layout.header_end
    assert data.startswith(header)
    return np.frombuffer(data[len(header) :], layout.record)


@pytest.fixture(scope="module", params=["four digits", "five digits"])
def spiked(request, tmp_path_factory):
    """Two lanes, both surfaces, several swaths, dual index, a control; tiles of other numbers of clusters."""
    tiles = (1101, 1204, 2102) if request.param == "four digits" else (11101, 12204, 21302)
    info = run_info("30T6B6B28T", tiles=tiles, lanes=2)
    root = tmp_path_factory.mktemp("run")
    genome = random_genome()
    truth = SpikeIn(info, 3000, genome)
    write_run(
        root,
        info,
        lambda tile: 3000 - 500 * tiles.index(tile.tile),
        calls=lambda tile, cycle: truth(tile, cycle)[: 3000 - 500 * tiles.index(tile.tile)],
    )
    path = root / "control.fa"
    path.write_text(fasta(genome))
    return root, info, SpikeInReference(path)


@pytest.fixture
def fresh(spiked):
    """The same without InterOp files."""
    root, _, _ = spiked
    shutil.rmtree(root / "InterOp", ignore_errors=True)
    return spiked


def halfway(info):
    return {tile: 40 - 3 * at for at, tile in enumerate(info.tiles)}


@pytest.mark.parametrize("moment", ["running", "finished"])
def test_illuminas_library_writes_the_same(fresh, tmp_path, moment):
    """What its writer makes of what it read, record for record."""
    root, info, control = fresh
    write_interop(root, halfway(info) if moment == "running" else None, control)
    (tmp_path / "InterOp").mkdir()
    read_metrics(root).write_metrics(str(tmp_path))
    for layout in (QUALITY, EXTRACTION, INTENSITY, ERROR):
        written = (tmp_path / "InterOp" / layout.name).read_bytes()
        assert written == (root / "InterOp" / layout.name).read_bytes(), layout.name
    order = ["lane", "tile", "code"]
    ours, theirs = (np.sort(records(one, TILE), order=order) for one in (root, tmp_path))
    # Its writer puts per cent where its reader, and the format, have shares of 1.
    slips = (ours["code"] >= 200) & (ours["code"] < 300)
    assert slips.any()
    np.testing.assert_array_equal(ours[order], theirs[order])
    np.testing.assert_array_equal(ours["value"][~slips], theirs["value"][~slips])
    np.testing.assert_allclose(100 * ours["value"][slips], theirs["value"][slips], rtol=1e-6)


def test_the_same_cycles_make_the_same_bytes(fresh):
    """However often the files were made before, and from where the daemon went on."""
    root, info, control = fresh
    with open_run(root) as run:
        run.refresh(dict.fromkeys(info.tiles, 3))
        metrics = RunMetrics(run)
        errors = SpikeInErrors(metrics, control)
        for committed in (dict.fromkeys(info.tiles, 20), halfway(info), None):
            run.refresh(committed)
            metrics.update()
            errors.update()
            for file in interop_files(metrics, errors, root):
                file.write()
            followed = content(root)
            shutil.rmtree(root / "InterOp")
            write_interop(root, committed, control)
            assert content(root) == followed
    assert set(followed) == {layout.name for layout in LAYOUTS}


def test_records_go_by_cycle_and_then_by_tile(fresh):
    root, info, control = fresh
    write_interop(root, halfway(info), control)
    for layout in (QUALITY, EXTRACTION, INTENSITY, ERROR):
        found = records(root, layout)
        keys = [(int(one["cycle"]), int(one["lane"]), int(one["tile"])) for one in found]
        assert keys == sorted(keys), layout.name
        assert len(set(keys)) == len(keys) > 100
    last = {(one["lane"], one["tile"]): one["cycle"] for one in records(root, QUALITY)}
    assert last == {(tile.lane, tile.tile): cycle for tile, cycle in halfway(info).items()}


def test_what_is_in_a_record(tmp_path):
    """Field for field, by hand."""
    info = run_info("30T", tiles=(1101,), height=1000, width=500, pixel_um=0.5)
    scores = np.array([0, 2, 2, 30, 37, 63, 12, 12], np.uint8)
    bases = np.array([0, 0, 1, 1, 2, 3, 3, 3], np.uint8)

    def lost(tile, cycle):
        return (CycleStatus.FAILED, "not registered") if cycle == 9 else None

    calls = np.where(scores == 0, 0, (scores << 2) | bases).astype(np.uint8)
    write_run(tmp_path, info, 8, calls=lambda tile, cycle: calls, failing=0.0, lost=lost)
    write_interop(tmp_path)
    raw = content(tmp_path)
    assert sorted(raw) == [
        EXTRACTION.name.replace("Extraction", "CorrectedInt"),
        EXTRACTION.name,
        QUALITY.name,
        TILE.name,
    ]

    size = struct.calcsize("<3H50I")
    assert size == 206
    assert raw[QUALITY.name][:3] == bytes((5, 206, 0)), "there are five scores"
    quality = struct.unpack_from("<3H50I", raw[QUALITY.name], 3 + 4 * size)
    assert quality[:3] == (1, 1101, 5)
    counts = dict(enumerate(quality[3:], 1))
    assert {score: count for score, count in counts.items() if count} == {2: 3, 12: 2, 30: 1, 37: 1, 50: 1}
    failed = struct.unpack_from("<3H50I", raw[QUALITY.name], 3 + 8 * size)
    assert failed[2] == 9
    assert failed[4] == sum(failed[3:]) == 8, "no-calls have Q2"

    extraction = list(struct.iter_unpack("<3H4f4HQ", raw[EXTRACTION.name][2:]))
    assert [one[2] for one in extraction] == [cycle for cycle in range(1, 31) if cycle != 9]
    lane, tile, cycle, *focus, p90_a, p90_c, p90_g, p90_t, time = extraction[0]
    assert (lane, tile, cycle) == (1, 1101, 1)
    assert focus == pytest.approx([2.8, 2.9, 3.0, 3.1])
    other = (7 + 1101) % 11
    assert (p90_a, p90_c, p90_g, p90_t) == tuple(round(900.4 + 10 * other - 2 + channel) for channel in range(4))
    assert time >> 62 == 1, "UTC"
    moment = (time & (1 << 62) - 1) / 1e7 + datetime(1, 1, 1, tzinfo=UTC).timestamp()
    assert moment == pytest.approx(NOON / 1e9 + 60 + 1.101, abs=1e-3)

    intensity = struct.unpack_from("<3HH4H4H5If", raw[INTENSITY.name], 2)
    assert intensity[:3] == (1, 1101, 1)
    assert intensity[3] == 345
    assert intensity[4:8] == (300, 330, 360, 390)
    assert intensity[8:12] == (799, 819, 839, 859)
    assert intensity[12:17] == (1, 1, 2, 1, 3), "no-calls, A, C, G, T"
    assert np.isnan(intensity[17])
    assert len(raw[INTENSITY.name]) == 2 + 29 * 48

    area = 0.5 * 0.25
    figures = {code: value for _, _, code, value in struct.iter_unpack("<3Hf", raw[TILE.name][2:])}
    assert figures.keys() == {100, 101, 102, 103, 200, 201}
    assert [figures[code] for code in (100, 101, 102, 103)] == pytest.approx([8 / area, 8 / area, 8, 8])


def test_codes_count_reads_as_run_info_lists_them(fresh):
    """Codes of the fourth read are those of the second read of the template here."""
    root, info, control = fresh
    _, metrics, errors = write_interop(root, None, control)
    found = records(root, TILE)
    assert set(found["code"]) == {100, 101, 102, 103, 200, 201, 206, 207, 300, 303}
    for index, tile in enumerate(info.tiles):
        own = found[(found["lane"] == tile.lane) & (found["tile"] == tile.tile)]
        values = dict(zip(own["code"].tolist(), own["value"].tolist(), strict=True))
        slips = metrics.phasing(tile, info.reads[3])
        assert (values[206], values[207]) == pytest.approx((slips.behind, slips.ahead), rel=1e-6)
        assert values[303] == pytest.approx(errors.percent_aligned[index, 3], rel=1e-6)


def test_a_tile_shows_once_its_filter_is_known(fresh):
    root, info, control = fresh
    late = info.tiles[0]
    write_interop(root, {tile: 24 if tile == late else 29 for tile in info.tiles}, control)
    for layout in (QUALITY, TILE, INTENSITY, ERROR):
        shown = {(one["lane"], one["tile"]) for one in records(root, layout)}
        assert shown == {(tile.lane, tile.tile) for tile in info.tiles} - {(late.lane, late.tile)}, layout.name
    assert len(records(root, EXTRACTION)) == 24 + 29 * 5


def test_there_is_no_file_without_a_record(fresh):
    root, info, control = fresh
    write_interop(root, {}, control)
    assert not (root / "InterOp").exists()
    write_interop(root, dict.fromkeys(info.tiles, 24), control)
    assert list(content(root)) == [EXTRACTION.name]


def test_density_is_left_out_where_it_is_not_known(tmp_path):
    write_run(tmp_path, run_info("30T", pixel_um=None), 50)
    write_interop(tmp_path)
    assert set(records(tmp_path, TILE)["code"]) == {102, 103, 200, 201}


def test_the_highest_tile_number_fits(tmp_path):
    write_run(tmp_path, run_info("30T", tiles=(65_535,)), 50)
    write_interop(tmp_path)
    assert set(records(tmp_path, QUALITY)["tile"]) == {65_535}
    assert fits(run_info("30T", tiles=(65_535,)))


def test_a_run_whose_tile_numbers_do_not_fit_has_no_interop_files(tmp_path):
    write_run(tmp_path, run_info("30T", tiles=(1101, 65_536)), 50)
    with open_run(tmp_path) as run:
        assert not fits(run.info)
        made = [file.path.name for file in sink_files(run, tmp_path, SinksConfig(interop=True, report=False))]
    assert "RunParameters.xml" in made
    assert not any(name.endswith("MetricsOut.bin") for name in made)


SAVR = """
suppressPackageStartupMessages(library(savR))
options(digits = 10)
r <- savR(commandArgs(TRUE)[1])
say <- function(name, ...) cat(name, ..., "\\n")
say("cycles", cycles(r))
say("lanes", flowcellLayout(r)@lanecount)
for (lane in 1:flowcellLayout(r)@lanecount) {
  say(paste0("clusters_", lane), clusters(r, lane))
  say(paste0("passing_", lane), pfClusters(r, lane))
  say(paste0("q30_", lane), clusterQualityGtN(r, lane, 1:29, 30L))
}
tiles <- tileMetrics(r)
for (code in c(100, 101, 200, 201, 300)) say(paste0("code_", code), mean(tiles$value[tiles$code == code]))
quality <- qualityMetrics(r)
say("calls", sum(quality[, paste0("Q", 1:50)]))
extraction <- extractionMetrics(r)
say("intensity", colMeans(extraction[, c("int_A", "int_C", "int_G", "int_T")]))
say("focus", colMeans(extraction[, c("FWHM_A", "FWHM_C", "FWHM_G", "FWHM_T")]))
corrected <- correctedIntensities(r)
say("bases", colSums(corrected[, c("num_none", "num_A", "num_C", "num_G", "num_T")]))
errors <- errorMetrics(r)
say("errors", mean(errors$errorrate), sum(errors$nPerfect))
"""


def savr(root):
    """What savR reads, numbers by name."""
    if shutil.which("Rscript") is None:
        pytest.fail("there is no Rscript; install r-bioc-savr")
    done = subprocess.run(["Rscript", "-e", SAVR, str(root)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "arning" not in done.stderr, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return {name: [float(value) for value in values] for name, *values in lines}


@pytest.mark.parametrize("moment", ["running", "finished"])
def test_savr_reads_the_same(fresh, moment):
    root, info, control = fresh
    summary, metrics, errors = write_interop(root, halfway(info) if moment == "running" else None, control)
    seen = savr(root)
    assert seen["cycles"] == [info.cycles]
    assert seen["lanes"] == [2]
    for lane in summary.reads[0].lanes:
        assert seen[f"clusters_{lane.lane}"] == [lane.clusters]
        assert seen[f"passing_{lane.lane}"] == [lane.passing]
        assert 100 * seen[f"q30_{lane.lane}"][0] == pytest.approx(lane.percent_q30)
    lanes = summary.reads[0].lanes
    assert seen["code_100"][0] / 1000 == pytest.approx(summary.density_k_mm2)
    for code, figure in ((200, "percent_phasing"), (201, "percent_prephasing")):
        assert 100 * seen[f"code_{code}"][0] == pytest.approx(np.mean([getattr(lane, figure) for lane in lanes]))
    assert seen["code_300"][0] == pytest.approx(summary.reads[0].percent_aligned)
    assert seen["calls"] == [metrics.quality.sum()]
    np.testing.assert_allclose(seen["intensity"], np.nanmean(metrics.intensity, axis=(0, 1), dtype=float), atol=0.5)
    np.testing.assert_allclose(seen["focus"], np.nanmean(metrics.focus_px, axis=(0, 1), dtype=float), rtol=1e-6)
    assert seen["bases"] == np.roll(metrics.bases.sum(axis=(0, 1)), 1).tolist()
    rates = errors.percent_wrong
    np.testing.assert_allclose(
        seen["errors"], [np.nanmean(rates), errors.reads_by_errors[errors.compared > 0, 0].sum()], rtol=1e-6
    )


@pytest.mark.parametrize(("scores", "version"), [(7, 5), (8, 4)])
def test_few_scores_are_not_taken_for_bins(tmp_path, scores, version):
    """Illumina's library takes up to seven for bins where the file cannot say that they are none."""
    info = run_info("30T", tiles=(1101,))
    calls = (np.arange(28, 28 + scores, dtype=np.uint8) << 2) | np.uint8(1)
    write_run(tmp_path, info, scores, calls=lambda tile, cycle: calls, failing=0.0)
    write_interop(tmp_path)
    assert content(tmp_path)[QUALITY.name][0] == version
    total = read_summary(tmp_path).total_summary()
    assert total.yield_g() * 1e9 == pytest.approx(29 * scores)
    assert total.percent_gt_q30() == pytest.approx(100 * (scores - 2) / scores)
