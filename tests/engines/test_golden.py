import re
import shutil
from contextlib import closing

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from calib.offline.training.goldenimage import golden_tile
from engines.backends import EngineOptions, open_engine
from engines.bundles import golden
from engines.bundles.bundle import DEFAULT_BUNDLE, NETWORK, file_hash, load_bundle, write_model
from engines.bundles.golden import BOUNDS, Bound, check_golden, load_golden
from engines.bundles.onnxgraph import answer
from engines.bundles.torchbundle import load_network
from engines.contract import Request
from engines.errors import EngineError
from engines.network.deployed import Output

OWN = (128, 160)
"""Shape of the golden tile itself."""


def checked(bundle, shape=OWN, precision="f32", **options):
    options = EngineOptions(precision=precision, threads=1, **options)
    with closing(open_engine(bundle, shape=shape, options=options)) as engine:
        return check_golden(engine, bundle)


def has_bf16():
    with closing(open_engine(load_bundle(), shape=(16, 16), options=EngineOptions(threads=1))) as engine:
        return engine.info.precision == "bf16"


@pytest.fixture
def altered(tmp_path):
    """Makes a whole bundle with the right hashes whose graph has other weights in one layer."""

    def make(source, layer, change):
        folder = shutil.copytree(source, tmp_path / "altered")
        graph = onnx.load(folder / NETWORK)
        (weight,) = (weight for weight in graph.graph.initializer if weight.name.endswith(layer))
        changed = change(numpy_helper.to_array(weight).astype(np.float32)).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
        onnx.save(graph, folder / NETWORK)
        model = load_bundle(source).model
        hashes = model.hashes.model_copy(update={"network": file_hash(folder / NETWORK)})
        write_model(folder, model.model_copy(update={"hashes": hashes}))
        return load_bundle(folder)

    return make


def noisy(weights):
    return weights + np.random.default_rng(0).normal(0, 0.3 * weights.std(), weights.shape)


def test_tile_is_the_same_again_and_crowded_with_positions_everywhere():
    first, again = golden_tile(), golden_tile()
    for name in ("pixels", "offset", "gain", "positions"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.pixels.shape, first.pixels.dtype) == ((4, *OWN), np.uint16)
    positions = first.positions
    assert positions.dtype == np.float32
    np.testing.assert_array_equal(positions * 256, np.rint(positions * 256))
    last = np.array(OWN) - 1
    inside = ((positions >= 0) & (positions <= last)).all(axis=(0, 2))
    assert inside.sum() > 700
    assert (~inside).sum() > 100
    for corner in ((0, 0), (0, last[1]), (last[0], 0), last):
        assert (positions == corner).all(axis=(0, 2)).any()


def test_default_bundle_holds_the_answer_of_its_network():
    bundle = load_bundle()
    stored = load_golden(bundle)
    known = answer(load_network(bundle), torch.from_numpy(stored.tile.images), stored.tile.positions, frozenset(Output))
    np.testing.assert_allclose(stored.centres, known[Output.CENTRES], atol=1e-5)
    np.testing.assert_allclose(stored.probabilities, known[Output.PROBABILITIES][0], atol=1e-3)
    assert stored.probabilities.dtype == np.float16
    ordered = np.sort(stored.centres, axis=1)
    assert (ordered[:, 3] - ordered[:, 2] > golden.CLEAR_LEAD).sum() > 500
    assert bundle.golden.stat().st_size < 300_000


def test_map_of_the_engine_is_the_one_stored():
    bundle = load_bundle()
    stored = load_golden(bundle)
    with closing(open_engine(bundle, shape=OWN, options=EngineOptions(precision="f32", threads=1))) as engine:
        slot = engine.lease(60)
        slot.pixels[...] = stored.tile.pixels
        engine.submit(slot, Request(stored.tile.offset, stored.tile.gain, probabilities=True))
        found = engine.collect(slot, 60).probabilities
    np.testing.assert_allclose(found, stored.probabilities, atol=1e-3)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_default_bundle_passes_on_this_machine(precision):
    if precision == "bf16" and not has_bf16():
        pytest.skip("this processor does not compute in bf16")
    result = checked(load_bundle(), precision=precision)
    assert (result.positions, result.agreement) == (load_golden(load_bundle()).centres.shape[0], 1)
    assert result.clear > 500
    # The bounds leave room for other devices.
    assert result.difference < BOUNDS[precision].difference / 3


@pytest.mark.parametrize(
    ("shape", "options"),
    [((64, 80), {}), ((64, 400), {}), ((200, 170), {}), ((330, 90), {"strip_px": 90 * 170}), ((43, 128), {})],
)
def test_tiles_of_any_shape_are_compared_where_they_know_the_answer(shape, options):
    result = checked(load_bundle(), shape, **options)
    assert result.positions > 0
    # Were anything compared that lies within reach of an edge, it would differ by more than rounding.
    assert result.difference < 1e-6


@pytest.mark.parametrize("shape", [(24, 32), (5, 7), (128, 160), (300, 333)])
def test_reach_is_that_of_the_bundles_own_network(tiny_bundle, shape):
    result = checked(load_bundle(tiny_bundle), shape, strip_px=160 * 64)
    assert result.difference < 1e-6
    if shape == (300, 333):
        # Of nearly five tiles' area only a few pixels beside every seam are left out.
        assert result.positions > 3000


def test_tile_within_the_halo_says_nothing_and_is_not_refused(altered):
    result = checked(altered(DEFAULT_BUNDLE, "stem.weight", noisy), (32, 32))
    assert (result.clear, result.agreement) == (0, 1)


@pytest.mark.parametrize("layer", ["stem.weight", "blocks.3.pushes.2.weight", "call_hidden.weight"])
@pytest.mark.parametrize("shape", [OWN, (200, 90)])
def test_engine_with_other_weights_in_one_layer_is_refused(altered, layer, shape):
    with pytest.raises(
        EngineError,
        match=r"^engine openvino on .+ in f32: evidence on the golden tile of model default is off by 0\.\d+ "
        r"\(root mean square of \d+ positions\), at most 0\.0002 is allowed$",
    ):
        checked(altered(DEFAULT_BUNDLE, layer, noisy), shape)


def test_engine_that_answers_no_numbers_is_refused(tiny_bundle, altered):
    with pytest.raises(EngineError, match=r"is off by nan "):
        checked(altered(tiny_bundle, "call.weight", lambda weights: weights * np.nan))


def test_engine_that_calls_other_bases_is_refused(altered, monkeypatch):
    monkeypatch.setitem(golden.BOUNDS, "f32", Bound(difference=1.0, agreement=1.0))
    # Outputs of A and C are swapped.
    bundle = altered(DEFAULT_BUNDLE, "call.weight", lambda weights: weights[[0, 2, 1, 3, 4]])
    with pytest.raises(EngineError) as caught:
        checked(bundle)
    share = re.search(r"agrees at ([\d.]+)% of \d+ clear clusters, at least 100% is needed$", str(caught.value))
    assert 30 < float(share[1]) < 70


def test_precision_without_a_bound_is_refused(open_tiny, tiny_bundle, monkeypatch):
    monkeypatch.delitem(golden.BOUNDS, "f32")
    with pytest.raises(EngineError, match=r"in f32: the golden tile can be checked only for f16, bf16, int8$"):
        check_golden(open_tiny((24, 32)), load_bundle(tiny_bundle))


def test_engine_is_free_again_after_the_check(open_tiny, tiny_bundle):
    engine = open_tiny((24, 32), slots=1)
    assert check_golden(engine, load_bundle(tiny_bundle)) == check_golden(engine, load_bundle(tiny_bundle))
