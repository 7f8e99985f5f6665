import re
from contextlib import closing
from threading import Thread

import numpy as np
import pytest
from matplotlib import rcParams
from seqd_client.runinfo import TileId
from seqd_client.status import CycleStatus

from daemon.outputs.figures.spikein import SpikeInErrors, SpikeInReference
from daemon.outputs.report.bytile import flow_cell_map
from daemon.outputs.report.runreport import report_files
from daemon.record.committed import open_run
from daemon.record.ledger import Ledger
from daemon.record.ledgerreader import Start
from tests.support.reportpage import assert_drawn, images, line, metrics_of, page, report
from tests.support.writtenrun import NOON, run_info, write_run


def fixed_calls(clusters):
    """Calls by tile and cycle that are all different, and known here."""

    def calls(tile, cycle):
        rng = np.random.default_rng((tile.lane, tile.tile, cycle))
        good = rng.random(clusters) < 0.95 - 0.02 * cycle
        made = (np.where(good, 37, 12).astype(np.uint8) << 2) | rng.choice(4, clusters, p=[0.4, 0.3, 0.2, 0.1])
        made = made.astype(np.uint8)
        made[rng.random(clusters) < 0.01 * cycle] = 0
        return made

    return calls


@pytest.fixture
def half_way(tmp_path):
    """A run of two reads at cycle 18 of 24, its content and the folder."""
    info = run_info("12T2B10T", tiles=(1101, 1102, 2101))
    root = tmp_path / "run"
    write_run(root, info, 1000, calls=fixed_calls(1000), cycles=18)
    return root


def passing_calls(root):
    """(tiles, cycles, n) calls of the clusters that pass; each tile as many as the fewest."""
    with open_run(root) as run:
        return [
            np.stack([run.calls(tile, cycle)[run.passing(tile)] for cycle in range(1, run.committed[tile] + 1)])
            for tile in run.info.tiles
        ]


def test_key_figures_are_those_of_the_calls(half_way):
    shown = report(half_way).terms
    calls = np.concatenate(passing_calls(half_way), axis=1)
    # Illumina's yield leaves out the last cycle of each read that is committed: 12 and 14.
    counted = np.delete(calls, [11, 13], axis=0)
    assert shown["Clusters"] == ["3\u202f000"]
    assert shown["Passing the filter"] == [
        f"{100 * calls.shape[1] / 3000:.1f} %",
        f"{calls.shape[1]:,} clusters".replace(",", "\u202f"),
    ]
    assert shown["Yield"][0] == f"{counted.size / 1000:#.4g} kb"
    assert shown["≥ Q30"] == [f"{100 * np.mean(counted >> 2 >= 30):.1f} %"]
    assert shown["Density"] == [f"{1000 / (2048 * 0.35e-3) ** 2 / 1000:.1f}", "K/mm²"]
    assert shown["Tile-cycles called"] == ["54", "of 72; 0 missing, 0 failed"]
    assert "Error rate" not in shown


def test_reads_have_their_figures(half_way):
    shown = report(half_way)
    calls = np.concatenate(passing_calls(half_way), axis=1)
    for name, cycles in (("R1", range(11)), ("I1", range(12, 13)), ("R2", range(14, 18))):
        (row,) = shown.rows(name)
        assert row[1] == "1"
        assert row[8] == f"{100 * np.mean(calls[list(cycles)] >> 2 >= 30):.1f}"
    assert float(shown.rows("R1")[0][9]) > 0
    assert shown.rows("I1")[0][9] == "–"


def test_quality_and_bases_are_drawn_where_they_are(half_way):
    shown = report(half_way)
    calls = np.concatenate(passing_calls(half_way), axis=1)
    quality = shown.figure("Quality by cycle")
    assert_drawn(line(quality, "var(--accent)", 0), np.mean(calls >> 2 >= 30, axis=1))
    assert_drawn(line(quality, "var(--accent)", 1), np.mean(calls >> 2, axis=1))
    medians = np.percentile(calls >> 2, 50, axis=1, method="inverted_cdf")
    assert set(medians.tolist()) == {12, 37}
    assert_drawn(line(quality, "var(--second)"), medians)
    composition = shown.figure("Base composition")
    for base, colour in enumerate(("#2a9d5c", "#2f7fd6", "#d99a00", "#d64550")):
        assert_drawn(
            line(composition, colour), np.sum((calls & 3 == base) & (calls > 0), axis=1) / np.sum(calls > 0, axis=1)
        )
    assert_drawn(line(composition, "var(--muted)", 2), np.mean(calls == 0, axis=1))


def test_scores_are_a_heat_map(half_way):
    (heat,) = images(report(half_way).figure("Share of calls by score"))
    calls = np.concatenate(passing_calls(half_way), axis=1)
    assert heat.shape[:2] == (38, 24)
    there = np.zeros((38, 24), bool)
    for score in (0, 12, 37):
        there[score, :18] = (calls >> 2 == score).any(axis=1)
    np.testing.assert_array_equal(heat[:, :, 3] > 0, there)


def test_signal_is_drawn_where_it_is(half_way):
    shown = report(half_way)
    cycles = np.arange(1, 19)
    assert_drawn(line(shown.figure("Intensity of each channel"), "#2a9d5c"), 900 - 2 * cycles)
    phasing = shown.figure("Light of the neighbouring bases")
    assert_drawn(line(phasing, "var(--accent)", 0), 0.2 * cycles[:12])
    assert_drawn(line(phasing, "var(--second)", 2), 0.1 * cycles[14:])
    drift = shown.figure("Drift")
    for number in range(4):  # three tiles and their median, in y and then in x
        assert_drawn(line(drift, "var(--accent)", number), 0.1 * cycles)
        assert_drawn(line(drift, "var(--accent)", 4 + number), -0.05 * cycles)


def test_a_cycle_between_lost_ones_is_a_dot(tmp_path):
    write_run(tmp_path, run_info("9T"), 20, lost=lambda tile, cycle: (CycleStatus.FAILED, "") if cycle % 2 else None)
    intensity = report(tmp_path).figure("Intensity of each channel")
    assert len(re.findall(r'<use [^>]*style="[^"]*fill: #2a9d5c', intensity)) == 4
    assert "nothing yet" not in intensity


def test_the_same_cycles_make_the_same_bytes(half_way, tmp_path):
    before = dict(rcParams)
    report(half_way, tmp_path / "one")
    report(half_way, tmp_path / "other")
    assert dict(rcParams) == before
    rcParams["xtick.major.size"] = 9
    try:
        threads = [Thread(target=report, args=(half_way, tmp_path / f"thread{number}")) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
        assert rcParams["xtick.major.size"] == 9
    finally:
        rcParams.update(before)
    written = {path.parent.name: path.read_bytes() for path in tmp_path.glob("*/report.html")}
    assert set(written) == {"one", "other", "thread0", "thread1"}
    assert len(set(written.values())) == 1


def test_a_report_follows_its_run(tmp_path):
    info = run_info("10T", tiles=(1101, 1102))
    write_run(tmp_path, info, 50, cycles=0)
    words = report(tmp_path).words
    assert "waiting for the first cycle" in words
    assert words.count("nothing yet") >= 8
    for cycles, state in ((7, "running: cycle 7 of 10"), (10, "finished")):
        for path in [*tmp_path.glob("run.db*"), *tmp_path.glob("tiles/*")]:
            path.unlink()
        write_run(tmp_path, info, 50, cycles=cycles)
        assert state in report(tmp_path).words


def test_what_was_not_called_is_listed_and_drawn(tmp_path):
    info = run_info("30T", tiles=tuple(range(1101, 1105)))
    reason = 'no frames <b>came</b> & "more"'

    def lost(tile, cycle):
        if tile.tile == 1102 and cycle <= 28:
            return CycleStatus.MISSING, reason
        if tile.tile == 1104 and cycle == 3:
            return CycleStatus.FAILED, "engine: out of memory"
        return (CycleStatus.MISSING, "late") if cycle == 30 else None

    write_run(tmp_path, info, 60, lost=lost)
    shown = report(tmp_path)
    assert shown.terms["Tile-cycles called"] == ["87", "of 120; 32 missing, 1 failed"]
    assert ["1_1102", "1", "missing", reason] in shown.cells
    assert ["1_1104", "3", "failed", "engine: out of memory"] in shown.cells
    assert len([row for row in shown.cells if row[2:3] in (["missing"], ["failed"])]) == 33
    assert "<b>" not in shown.text
    (picture,) = images(shown.figure("Called, missing and failed"))
    colours = {tuple(picture[0, 0]): "called", tuple(picture[1, 0]): "missing", tuple(picture[3, 2]): "failed"}
    drawn = [[colours[tuple(pixel)] for pixel in row] for row in picture]
    status = [[(lost(tile, cycle) or (CycleStatus.CALLED,))[0].value for cycle in range(1, 31)] for tile in info.tiles]
    assert drawn == status


def test_many_lost_tile_cycles_are_counted_where_they_are_not_listed(tmp_path):
    write_run(tmp_path, run_info("40T", tiles=(1, 2, 3)), 20, lost=lambda tile, cycle: (CycleStatus.MISSING, "dark"))
    shown = report(tmp_path)
    listed = [row for row in shown.cells if row[2:3] == ["missing"]]
    assert len(listed) == 50
    assert listed[0][:2] == ["1_1", "1"]
    assert listed[4][:2] == ["1_2", "2"]
    assert "and 70 more" in shown.words


@pytest.mark.parametrize(
    ("reads", "tiles", "clusters"),
    [("4T", (1101,), 30), ("1T", (1101,), 5), ("4T", (1101, 1102), 0), ("4T", (7,), 1)],
    ids=["small", "one cycle", "no clusters", "one cluster"],
)
def test_little_is_drawn_too(tmp_path, reads, tiles, clusters):
    write_run(tmp_path, run_info(reads, tiles=tiles), clusters)
    shown = report(tmp_path)
    assert "finished" in shown.words
    assert shown.terms["Clusters"][0] == str(clusters * len(tiles))
    assert shown.elements["svg"] == 11


def test_a_tile_without_clusters_is_beside_others(tmp_path):
    info = run_info("6T", tiles=(1101, 1102), pixel_um=None)
    write_run(tmp_path, info, lambda tile: 0 if tile.tile == 1101 else 80, failing=0)
    shown = report(tmp_path)
    assert shown.terms["Clusters"] == ["80"]
    assert "Density" not in shown.terms


def test_tiles_lie_as_on_the_flow_cell():
    info = run_info("4T", tiles=(1101, 1102, 1201, 1202, 2101, 2102, 2201, 2202), lanes=2)
    where = flow_cell_map(info)
    # Lane 1: top, two swaths, a gap, bottom, two swaths; a gap; lane 2 the same.
    at = dict(zip(info.tiles, zip(where.rows.tolist(), where.columns.tolist(), strict=True), strict=True))
    assert at[TileId(lane=1, tile=1101)] == (0, 0)
    assert at[TileId(lane=1, tile=1202)] == (1, 1)
    assert at[TileId(lane=1, tile=2102)] == (3, 1)
    assert at[TileId(lane=2, tile=1101)] == (6, 0)
    assert where.labels[3] == "L1 bottom 1"
    assert where.shape == (11, 2)


def test_sections_lie_side_by_side_and_plain_numbers_in_rows():
    sections = flow_cell_map(run_info("4T", tiles=(11101, 11102, 11201, 11202)))
    assert sections.columns.tolist() == [0, 1, 2, 3]
    plain = flow_cell_map(run_info("4T", tiles=tuple(range(100, 200)), lanes=2))
    assert len(set(zip(plain.rows.tolist(), plain.columns.tolist(), strict=True))) == 200
    assert plain.shape == (7, 48)


def test_maps_show_each_tile_in_its_place(tmp_path):
    info = run_info("5T", tiles=(1101, 1102, 1103, 2101, 2102))
    write_run(tmp_path, info, lambda tile: 100 * (tile.tile % 100) + (tile.tile // 1000), cycles=5, failing=0)
    drawn = images(report(tmp_path).figure("Maps of the flow cell"))
    density = drawn[3]
    assert density.shape[:2] == (2, 3)
    assert density[1, 2, 3] == 0, "there is no tile 2103"
    # Viridis grows lighter in green.
    green = np.sort([density[at][1] for at in ((0, 0), (1, 0), (0, 1), (1, 1), (0, 2))])
    assert [density[at][1] for at in ((0, 0), (1, 0), (0, 1), (1, 1), (0, 2))] == green.tolist()


def test_the_error_rate_of_a_control_is_shown(tmp_path):
    rng = np.random.default_rng(3)
    control = rng.integers(0, 4, 3000)
    fasta = tmp_path / "control.fasta"
    fasta.write_text(">control\n" + "".join("ACGT"[base] for base in control) + "\n")
    starts, slips = rng.integers(0, 2900, 400), rng.random((40, 400)) < np.linspace(0, 0.04, 40)[:, None]

    def calls(tile, cycle):
        bases = (control[starts + cycle - 1] + slips[cycle - 1]) % 4
        return ((37 << 2) | bases).astype(np.uint8)

    root = tmp_path / "run"
    write_run(root, run_info("40T", tiles=(1101,)), 400, calls=calls, failing=0)
    with metrics_of(root) as metrics:
        errors = SpikeInErrors(metrics, SpikeInReference(fasta))
        (file,) = report_files(metrics, errors, tmp_path)
        shown = page(b"".join(file.content()))
        assert_drawn(line(shown.figure("Error rate"), "var(--accent)"), errors.percent_wrong[0])
    rate, aligned = shown.terms["Error rate"]
    assert float(rate.removesuffix(" %")) == pytest.approx(100 * slips[:39].mean(), rel=0.15)
    assert aligned.endswith("% of the control")
    assert float(aligned.split()[0]) > 90


def test_provenance_names_what_made_the_calls(half_way):
    with open_run(half_way) as run:
        model = run.facts["model"]
    shown = report(half_way)
    assert ["Model", model, ""] in shown.cells
    (engine,) = shown.rows("Engine")
    assert "backend openvino" in engine[1]
    assert "precision bf16" in engine[1]
    assert shown.rows("Started") == [["Started", "seqd 0.1.0, configuration " + 64 * "c", "2026-03-01 12:00:00 UTC"]]


def test_a_start_that_committed_nothing_changes_nothing(half_way):
    before = report(half_way).text
    with closing(Ledger(half_way / "run.db")) as ledger:
        ledger.start(Start(seqd="9.9.9", configuration=64 * "d", began_ns=2**62))
        ledger.use_engine({"backend": "torch"}, reason="the other was lost", since_ns=2**62)
    assert report(half_way).text == before
    with closing(Ledger(half_way / "run.db")) as ledger:
        ledger.use_engine({"backend": "hopper"}, reason="that one was lost too", since_ns=NOON + 1)
    (_, engine) = report(half_way).rows("Engine")
    assert engine[1:] == ["backend hopper; took over: that one was lost too", "since 2026-03-01 12:00:00 UTC"]


def test_large_runs_stay_small(tmp_path):
    tiles = tuple(side * 1000 + swath * 100 + tile for side in (1, 2) for swath in range(1, 7) for tile in range(1, 18))
    write_run(
        tmp_path,
        run_info("60T", tiles=tiles),
        3,
        lost=lambda tile, cycle: (CycleStatus.MISSING, "one") if (tile.tile, cycle) == (tiles[50], 33) else None,
    )
    shown = report(tmp_path)
    assert len(shown.text) < 1_000_000
    (picture,) = images(shown.figure("Called, missing and failed"))
    assert picture.shape[:2] == (200, 60), "of 204 tiles, some share a row"
    assert len({tuple(pixel) for pixel in picture[:, 32]}) == 2, "and the one that is missing still shows"
