"""``seqd calib quantise``: the network in INT8, kept in the bundle where it reads no worse."""

import math
import shutil
import subprocess
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from seqd_client.runinfo import TileId
from typer.testing import CliRunner

from calib.normalisation import estimate_normalisation
from calib.offline.cli import UsageError
from calib.offline.commands import app
from calib.offline.evaluation.oncodebook import compare_with_codebook
from calib.offline.quantisation import bound, int8graph
from calib.offline.quantisation.bound import Compared, QuantisationError, RunMeasures, against_codebook, check_bounds
from calib.offline.quantisation.int8graph import PATCH_PX, PATCHES, calibration_patches
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from calib.runfolder.images import image_path, read_frames, read_run_info
from engines.backends import EngineOptions, open_engine
from engines.bundles.bundle import (
    INT8_GRAPH,
    INT8_WEIGHTS,
    MODEL,
    BundleError,
    Readout,
    load_bundle,
    store_quality,
    store_quantised,
)
from engines.bundles.golden import check_golden, load_golden
from engines.contract import Request

needs_nncf = pytest.mark.skipif(find_spec("nncf") is None, reason="nncf, of the extra `quantise`, is not installed")


def simulated(root, *, size=64, cycles=4, tiles=1, density=400.0):
    write_simulated_run(
        root,
        Conditions(density_k_mm2=density),
        run=root.name,
        tiles=tiles,
        cycles=cycles,
        shape=(size, size),
        seed=3,
        progress=lambda done: None,
    )
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return simulated(tmp_path_factory.mktemp("runs") / "KNOWN")


@pytest.fixture(scope="module")
def told_by_codebook(run, tmp_path_factory):
    """The same images without their truth, and a codebook that holds the first half of it."""
    folder = tmp_path_factory.mktemp("untold")
    untold = Path(shutil.copytree(run, folder / "UNTOLD"))
    rows = (untold / "Truth" / "s_1_1101.csv").read_text().splitlines()[1:]
    shutil.rmtree(untold / "Truth")
    codes = [row.split(",")[2] for row in rows[: len(rows) // 2]]
    (folder / "codebook.csv").write_text("\n".join(["code", *codes]) + "\n")
    return untold, folder / "codebook.csv"


@pytest.fixture
def bundle(tiny_bundle, tmp_path, monkeypatch):
    """A copy of the tiny bundle, to be quantised with few patches."""
    monkeypatch.setattr(int8graph, "PATCHES", 4)
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def quantise(bundle, *arguments):
    return CliRunner().invoke(app, ["quantise", str(bundle), *map(str, arguments)])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def compared(*, run="RUN", readout=Readout.FUSED, right=990.0, errors=0.01):
    return [Compared(run, readout, RunMeasures(1010, 1000, 2000, 0.01), RunMeasures(1005, right, 2000, errors))]


def test_what_costs_no_more_than_the_bounds_is_kept():
    check_bounds(compared(right=990, errors=0.011 - 1e-9))
    check_bounds(compared(right=1100, errors=0.0))
    check_bounds([*compared(), *compared(readout=Readout.FIT, right=0)])


def test_what_costs_more_is_refused_in_a_line_that_names_run_figure_and_bound():
    with pytest.raises(QuantisationError, match=r"run RUN: 0\.55% fewer clusters are read right, at most 0\.5%"):
        check_bounds(compared(right=989))
    with pytest.raises(QuantisationError, match=r"errors per base rise by 0\.12%, at most 0\.1% is allowed"):
        check_bounds(compared(right=1000, errors=0.0112))
    with pytest.raises(QuantisationError, match="run B"):
        check_bounds([*compared(), *compared(run="B", right=0)])


def test_what_was_not_measured_is_refused():
    nothing = RunMeasures(0, 0, 0, math.nan)
    with pytest.raises(QuantisationError, match="fewer clusters are read right"):
        check_bounds([Compared("RUN", Readout.FUSED, nothing, nothing)])
    with pytest.raises(QuantisationError, match="errors per base rise"):
        check_bounds(compared(errors=math.nan))


def test_reads_on_a_codebook_are_right_and_mismatches_are_errors():
    codes, reads = (np.array([list(text.encode()) for text in texts], np.uint8) for texts in (CODES, READS))
    standing = against_codebook(compare_with_codebook(codes, reads))
    assert (standing.reads, standing.right, standing.total) == (4, 2, 4)
    assert standing.errors == (1 + 2) / 16


CODES = ("ACGT", "TTTT", "CCAA")
READS = ("ACGT", "TTTT", "TTTG", "CCNN")


def test_patches_are_normalised_as_tiles_are_when_they_are_called(run):
    info = read_run_info(run)
    found = calibration_patches({run: info})
    images = np.stack([read_frames(run, info.tiles[0], cycle, shape=(64, 64)) for cycle in range(1, 5)])
    known = [estimate_normalisation(images).apply(pixels) for pixels in images]
    assert len(found) == PATCHES
    assert {patch.shape for patch in found} == {(1, 4, 64, 64)}
    assert all(any(np.array_equal(patch[0], one) for one in known) for patch in found)


def test_patches_are_of_every_tile_alike_and_always_the_same(tmp_path):
    roots = [simulated(tmp_path / name, size=PATCH_PX + 8, cycles=1, tiles=2, density=20.0) for name in "AB"]
    runs = {root: read_run_info(root) for root in roots}
    found = calibration_patches(runs)
    assert len(found) == PATCHES
    assert {patch.shape for patch in found} == {(1, 4, PATCH_PX, PATCH_PX)}
    assert len({patch.tobytes() for patch in found}) > PATCHES / 2
    for first, again in zip(found, calibration_patches(runs), strict=True):
        np.testing.assert_array_equal(first, again)


@needs_nncf
def test_quantised_network_is_stored_and_used_when_asked_for(bundle, run, told_by_codebook, monkeypatch):
    # A network of random weights and this few clusters would show chance.
    monkeypatch.setattr(bound, "FEWER_RIGHT", 0.1)
    monkeypatch.setattr(bound, "MORE_ERRORS", 0.1)
    untold, codebook = told_by_codebook
    before = contents(bundle)
    done = quantise(bundle, run, untold, "--codebook", codebook)
    assert done.exit_code == 0, done.output
    assert all(done.output.count(word) >= 2 for word in ("KNOWN", *Readout))
    after = contents(bundle)
    assert {name: after[name] for name in before if name != MODEL} == {
        name: content for name, content in before.items() if name != MODEL
    }
    assert set(after) - set(before) == {INT8_GRAPH, INT8_WEIGHTS}
    assert str(bundle.parent).encode() not in after[INT8_GRAPH]
    loaded = load_bundle(bundle)
    store_quality(loaded, loaded.model.quality)
    tile, differences = load_golden(loaded).tile, []
    for shape in (tile.pixels.shape[1:], (300, 40), (1, 9)):
        options = EngineOptions(precision="int8", threads=1, strip_px=40 * 128)
        with closing(open_engine(load_bundle(bundle), shape=shape, options=options)) as engine:
            assert engine.info.precision == "int8"
            differences.append(check_golden(engine, loaded).difference)
            slot = engine.lease(1)
            slot.pixels[...] = 1000
            engine.submit(slot, Request(tile.offset, tile.gain, probabilities=True, superresolved=True))
            answer = engine.collect(slot, 60)
            assert answer.superresolved.shape == (4, 2 * shape[0], 2 * shape[1])
            np.testing.assert_allclose(answer.probabilities.sum(axis=0), 1, atol=1e-3)
    assert differences[0] > 1e-6
    for name in (INT8_GRAPH, INT8_WEIGHTS):
        (bundle / name).write_bytes(after[name][:-1])
        with pytest.raises(BundleError, match=f"{name} has SHA-256"):
            load_bundle(bundle)
        (bundle / name).unlink()
        with pytest.raises(BundleError, match=f"cannot read {name}: No such file"):
            load_bundle(bundle)
        (bundle / name).write_bytes(after[name])


WATCH = """
import sys
asked = []
sys.addaudithook(lambda event, arguments: asked.append(event) if event.startswith("socket.") else None)
import calib.offline.quantisation.int8graph
assert "openvino_telemetry.main" not in sys.modules
print(asked)
"""


@needs_nncf
def test_nothing_looks_for_the_network_at_import():
    done = subprocess.run([sys.executable, "-c", WATCH], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@needs_nncf
def test_network_that_reads_worse_is_not_stored(bundle, run, monkeypatch):
    before = contents(bundle)
    monkeypatch.setattr(bound, "FEWER_RIGHT", -1.0)
    done = quantise(bundle, run)
    assert isinstance(done.exception, QuantisationError)
    assert "the bundle stays as it is" in str(done.exception)
    assert "KNOWN" in done.output
    assert contents(bundle) == before


@needs_nncf
def test_runs_of_which_nothing_is_known_need_a_codebook(bundle, told_by_codebook):
    untold, _ = told_by_codebook
    done = quantise(bundle, untold)
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == f"run KNOWN: neither truth nor labels in {untold}; --codebook is needed"


def test_without_nncf_the_line_says_what_to_install(bundle, run, monkeypatch):
    for module in ("compare", "int8graph"):
        monkeypatch.delitem(sys.modules, f"calib.offline.quantisation.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "nncf", None)
    done = quantise(bundle, run)
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == "quantising needs nncf: pip install 'seqd[quantise]'"


def test_bundle_without_int8_names_the_command(tiny_bundle):
    with pytest.raises(BundleError, match=r"^bundle \S+: no network in INT8; `seqd calib quantise` makes one$"):
        open_engine(load_bundle(tiny_bundle), shape=(24, 32), options=EngineOptions(precision="int8"))


def test_files_that_were_left_half_written_are_not_the_bundles(bundle, tmp_path):
    graph, weights = tmp_path / "a.xml", tmp_path / "b.bin"
    graph.write_text("graph")
    with pytest.raises(FileNotFoundError):
        store_quantised(load_bundle(bundle), graph, weights)
    assert load_bundle(bundle).model.hashes.int8_graph is None
    weights.write_text("weights")
    store_quantised(load_bundle(bundle), graph, weights)
    assert load_bundle(bundle).quantised.read_text() == "graph"


def test_one_hash_without_the_other_is_refused(bundle):
    text = (bundle / MODEL).read_text().replace("[hashes]", f'[hashes]\nint8_graph = "{"0" * 64}"')
    (bundle / MODEL).write_text(text)
    with pytest.raises(BundleError, match="one of int8_graph and int8_weights is missing"):
        load_bundle(bundle)


@needs_nncf
def test_missing_image_leaves_the_bundle_as_it_was(bundle, run, tmp_path):
    before = contents(bundle)
    damaged = Path(shutil.copytree(run, tmp_path / "damaged"))
    image_path(damaged, TileId(lane=1, tile=1101), 2, "A").unlink()
    assert "No such file" in str(quantise(bundle, damaged).exception)
    assert contents(bundle) == before
