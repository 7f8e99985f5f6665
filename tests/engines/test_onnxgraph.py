import re
import shutil

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

import engines.bundles.onnxgraph
from calib.offline.commands import app
from engines.bundles.bundle import DEFAULT_BUNDLE, NETWORK, load_bundle
from engines.bundles.golden import load_golden
from engines.bundles.onnxgraph import BOUND, GraphError, answer, check_graph, write_graph
from engines.bundles.torchbundle import load_network
from engines.network.centres import OUTSIDE_PX, read_centres
from engines.network.deployed import Output, OutputNetwork, centres_at
from engines.openvinolibrary import openvino

MAP, FINE, CENTRES = Output.PROBABILITIES, Output.SUPERRESOLVED, Output.CENTRES
ALL = frozenset(Output)
SHAPES = [(24, 32), (17, 31), (1, 1), (41, 8)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small lose more by waiting for a second thread than they gain by it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network(tiny_bundle):
    return load_network(load_bundle(tiny_bundle))


@pytest.fixture(scope="module")
def graph(network, tmp_path_factory):
    """Path of the graph of the tiny network, written once for each precision and outputs."""
    written, folder = {}, tmp_path_factory.mktemp("graphs")

    def of(precision, *outputs):
        key = precision, frozenset(outputs)
        if key not in written:
            written[key] = folder / f"{len(written)}.onnx"
            write_graph(written[key], network, precision=precision, outputs=frozenset(outputs))
        return written[key]

    return of


def run(path, images, positions=None):
    """Outputs of a graph by name, computed in FP32 by a runtime that is not PyTorch."""
    inputs = {"images": images} | ({} if positions is None else {"positions": positions})
    compiled = openvino.Core().compile_model(
        str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    found = compiled(inputs)
    there = {name for output in compiled.outputs for name in output.names}
    return {output: found[output.value] for output in Output if output in there}


def normalised(shape, precision="f32", seed=1):
    images = np.random.default_rng(seed).normal(0.3, 0.5, (1, 4, *shape))
    return images.astype(np.float16 if precision == "f16" else np.float32)


def scattered(shape, number, seed=2):
    """Positions over an image and up to 9 px around it."""
    return np.random.default_rng(seed).uniform(-9, np.array(shape) + 9.0, (4, number, 2)).astype(np.float32)


def on_the_border(shape):
    """Positions on, just inside and just outside every border and corner, and far away."""
    height, width = shape
    rows = [-1e9, -OUTSIDE_PX - 0.5, -OUTSIDE_PX, -2.5, -2, -1, -0.5, 0, 0.25, height / 2]
    rows += [height - 1.25, height - 1, height - 0.5, height, height + 1, height - 1 + OUTSIDE_PX, height + 7, 1e9]
    columns = [-1e9, -3, -1.75, 0, width / 2, width - 1, width - 0.25, width + 1.5, width + 2, 1e9]
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.broadcast_to(grid, (4, *grid.shape)).astype(np.float32)


@pytest.mark.parametrize("precision", ["f16", "f32"])
@pytest.mark.parametrize("outputs", [(MAP,), (MAP, FINE), (CENTRES,), tuple(Output)], ids="-".join)
def test_graph_answers_as_the_network_in_pytorch(graph, network, precision, outputs):
    for shape in SHAPES:
        images, positions = normalised(shape, precision), scattered(shape, 20)
        expected = answer(network, torch.from_numpy(images).float(), positions, frozenset(outputs))
        found = run(graph(precision, *outputs), images, positions if CENTRES in outputs else None)
        assert tuple(found) == outputs
        for output, values in expected.items():
            assert found[output].dtype == np.float32
            np.testing.assert_allclose(found[output], values, atol=BOUND, err_msg=f"{output} at {shape}")


@pytest.mark.parametrize("shape", SHAPES)
def test_centres_of_a_graph_are_those_read_from_its_map(graph, shape):
    for positions in (scattered(shape, 300), on_the_border(shape), scattered(shape, 1), scattered(shape, 0)):
        found = run(graph("f16", *ALL), normalised(shape, "f16"), positions)
        assert found[CENTRES].shape == (positions.shape[1], 4)
        np.testing.assert_allclose(found[CENTRES], read_centres(found[MAP][0], positions), atol=1e-6)


def test_centres_in_pytorch_are_those_read_in_numpy():
    for shape in SHAPES:
        probabilities = np.random.default_rng(3).random((1, 5, *shape), np.float32)
        for positions in (scattered(shape, 500), on_the_border(shape), np.zeros((4, 0, 2), np.float32)):
            found = centres_at(torch.from_numpy(probabilities), torch.from_numpy(positions)).numpy()
            np.testing.assert_allclose(found, read_centres(probabilities[0], positions), atol=1e-6)


def test_graph_computes_in_its_precision(graph):
    types = {"f16": onnx.TensorProto.FLOAT16, "f32": onnx.TensorProto.FLOAT}
    for precision, kind in types.items():
        model = onnx.load(graph(precision, *ALL))
        # Convolutions read the images as they come: no cast before them that a GPU would pay for.
        kernels = {node.input[1] for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")}
        weights = {weight.name: weight.data_type for weight in model.graph.initializer}
        assert {weights[name] for name in kernels} == {kind}
        images, positions = model.graph.input
        assert (images.type.tensor_type.elem_type, positions.type.tensor_type.elem_type) == (kind, types["f32"])
        assert {output.type.tensor_type.elem_type for output in model.graph.output} == {types["f32"]}


def test_graph_holds_standard_operators_and_nothing_that_is_not_asked_for(graph):
    everything, calls = (onnx.load(graph("f16", *outputs)) for outputs in (ALL, {CENTRES}))
    onnx.checker.check_model(everything, full_check=True)
    assert {node.domain for node in everything.graph.node} == {""}
    assert not everything.functions
    assert everything.opset_import[0].version >= 18
    assert [output.name for output in everything.graph.output] == [MAP, FINE, CENTRES]
    assert "ConvTranspose" in {node.op_type for node in everything.graph.node}
    assert "ConvTranspose" not in {node.op_type for node in calls.graph.node}
    assert not [weight.name for weight in calls.graph.initializer if "upsample" in weight.name]


def test_writing_a_graph_leaves_the_network_as_it_was(graph, network):
    graph("f16", MAP)
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}


def test_graph_of_another_network_is_refused(graph, network, tiny_bundle):
    tile = load_golden(load_bundle(tiny_bundle)).tile
    path = graph("f16", CENTRES)
    assert check_graph(path, network, tile, precision="f16", outputs=frozenset({CENTRES})) < BOUND
    other = load_network(load_bundle(tiny_bundle))
    for weight in (1.001, float("nan")):
        with torch.no_grad():
            other.call.weight *= weight
        with pytest.raises(GraphError, match=r"graph .*onnx: centres differ by up to .* from PyTorch, at most 1e-05"):
            check_graph(path, other, tile, precision="f16", outputs=frozenset({CENTRES}))


def export(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.mark.parametrize(
    ("options", "inputs", "outputs"),
    [
        ([], ["images", "positions"], [CENTRES]),
        (["--map", "--superresolved", "--precision", "f32"], ["images"], [MAP, FINE]),
    ],
)
def test_command_writes_a_graph_and_says_how_good_it_is(tiny_bundle, tmp_path, options, inputs, outputs):
    path = tmp_path / "network.onnx"
    done = export(tiny_bundle, path, *options)
    assert done.exit_code == 0, done.output
    assert re.search(
        rf": f\d\d, {' and '.join(outputs)}; in FP32 it differs from PyTorch by at most \S+, 1e-05 is allowed",
        done.output,
    )
    model = onnx.load(path)
    assert [value.name for value in model.graph.input] == inputs
    assert [value.name for value in model.graph.output] == outputs
    assert [found.name for found in tmp_path.iterdir()] == ["network.onnx"]


def test_command_leaves_nothing_behind_where_it_fails(tiny_bundle, tmp_path, monkeypatch):
    done = export(tiny_bundle, tmp_path / "none" / "network.onnx")
    assert isinstance(done.exception, GraphError)
    assert str(done.exception) == f"graph {tmp_path}/none/network.onnx: No such file or directory"
    # No graph is as good as this.
    monkeypatch.setattr(engines.bundles.onnxgraph, "BOUND", -1.0)
    path = tmp_path / "network.onnx"
    path.write_bytes(b"the one before")
    assert isinstance(export(tiny_bundle, path).exception, GraphError)
    assert path.read_bytes() == b"the one before"
    assert [found.name for found in tmp_path.iterdir()] == ["network.onnx"]


def test_graph_of_the_default_bundle_is_its_network(tmp_path):
    bundle = load_bundle(DEFAULT_BUNDLE)
    shutil.copy(bundle.network, tmp_path / NETWORK)
    tile = load_golden(bundle).tile
    assert check_graph(tmp_path / NETWORK, load_network(bundle), tile, precision="f16", outputs=ALL) < BOUND / 4


def test_network_is_deployed_with_outputs_in_one_order(network):
    images, positions = torch.from_numpy(normalised((12, 16))), torch.zeros(4, 3, 2)
    shapes = {MAP: (1, 5, 12, 16), FINE: (1, 4, 24, 32), CENTRES: (3, 4)}
    for outputs in ({CENTRES, MAP}, {FINE}, ALL):
        found = OutputNetwork(network, frozenset(outputs))(images, positions)
        assert [tuple(values.shape) for values in found] == [shapes[output] for output in Output if output in outputs]
