"""The TensorRT engine, with a double of TensorRT and kernels compiled for the processor."""

import shutil
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch

from engines.backends.tensorrt import open_engine, open_runner
from engines.bundles.bundle import load_bundle
from engines.bundles.torchbundle import load_weights
from engines.contract import EngineOptions, Request
from engines.devices.host import HostDriver
from engines.devices.probe import probe
from engines.errors import EngineError
from engines.network.centres import read_centres
from engines.network.torchnetwork import Network
from engines.slots import SlottedEngine
from engines.tensorrt.cache import BuiltPlan, Inspected, PlanCache
from engines.tensorrt.plans import Plans
from tests.doubles.kernels import HostKernels
from tests.doubles.tensorrt import Full, Lean

SHAPE = (60, 32)
IN_STRIPS = {"strip_px": 32 * 24}
OFFSET = np.array([90, 100, 110, 120], np.float32)
GAIN = np.array([0.01, 0.012, 0.008, 0.011], np.float32)
TIMEOUT_S = 60


def has_driver():
    try:
        return bool(probe().devices)
    except EngineError:
        return False


pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the kernels' double needs g++")


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "plans"


@pytest.fixture
def open_double(tiny_bundle, library, folder):
    """Opens an engine on the tiny bundle and closes it after the test."""
    with ExitStack() as opened:

        def open_one(trt=None, *, shape=SHAPE, **options):
            def runner():
                bundle, known = load_bundle(tiny_bundle), EngineOptions(**options)
                driver = HostKernels(library)
                return open_runner(driver, bundle, trt or Full(), shape=shape, options=known, folder=folder)

            engine = SlottedEngine("tensorrt", runner, slots=2)
            opened.callback(engine.close)
            return engine

        yield open_one


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(1).integers(80, 320, (4, *SHAPE), np.uint16)


@pytest.fixture(scope="module")
def positions():
    return np.random.default_rng(2).uniform(-4, 64, (4, 40, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(tiny_bundle, pixels):
    """Probabilities and super-resolved images of the network in PyTorch, from images rounded to FP16."""
    network = Network(load_bundle(tiny_bundle).model.architecture)
    network.load_state_dict(load_weights(tiny_bundle))
    images = ((pixels - OFFSET[:, None, None]) * GAIN[:, None, None]).astype(np.float16).astype(np.float32)
    with torch.no_grad():
        logits, superresolved = network(torch.from_numpy(images)[None])
    return torch.softmax(logits, dim=1)[0].numpy(), superresolved[0].numpy()


def submitted(engine, pixels, **wanted):
    slot = engine.lease(TIMEOUT_S)
    slot.pixels[...] = pixels
    engine.submit(slot, Request(OFFSET, GAIN, **wanted))
    return slot


def answered(engine, pixels, **wanted):
    return engine.collect(submitted(engine, pixels, **wanted), TIMEOUT_S)


@pytest.mark.parametrize("options", [{}, IN_STRIPS])
def test_engine_agrees_with_the_network_in_pytorch(open_double, pixels, positions, expected, options):
    engine = open_double(**options)
    assert (engine.info.strips > 1) == bool(options)
    found = answered(engine, pixels, positions=positions, probabilities=True, superresolved=True)
    np.testing.assert_allclose(found.probabilities, expected[0], atol=1e-4)
    np.testing.assert_allclose(found.superresolved, expected[1], atol=1e-4)
    np.testing.assert_allclose(found.centres, read_centres(expected[0], positions), atol=2e-4)


def test_only_what_was_asked_for_is_answered_and_built(open_double, pixels, positions):
    trt = Full()
    engine = open_double(trt)
    found = answered(engine, pixels, positions=positions)
    assert (found.probabilities, found.superresolved) == (None, None)
    assert trt.built == 1
    assert answered(engine, pixels).centres is None
    assert answered(engine, pixels, positions=positions[:, :0]).centres.shape == (0, 4)
    assert answered(engine, pixels, superresolved=True).superresolved.shape == (4, 120, 64)
    assert trt.built == 2


def test_more_clusters_than_there_was_room_for_are_read(open_double, pixels, expected):
    positions = np.random.default_rng(3).uniform(-4, 64, (4, 3000, 2)).astype(np.float32)
    found = answered(open_double(), pixels, positions=positions)
    np.testing.assert_allclose(found.centres, read_centres(expected[0], positions), atol=2e-4)


def test_tiles_in_flight_keep_their_own_answers(open_double, pixels, expected):
    engine = open_double()
    slots = [submitted(engine, pixels, probabilities=True), submitted(engine, pixels[:, ::-1], probabilities=True)]
    first, second = (engine.collect(slot, TIMEOUT_S).probabilities for slot in slots)
    np.testing.assert_allclose(first, expected[0], atol=1e-4)
    assert np.abs(second - first).max() > 0.01


def test_engine_says_what_is_in_use(open_double, tiny_bundle):
    info = open_double(slots=2).info
    assert (info.backend, info.precision, info.model, info.slots, info.strips) == ("tensorrt", "f16", "tiny", 2, 1)
    assert info.model_hash == load_bundle(tiny_bundle).hash


def test_lean_runtime_runs_what_the_full_library_built(open_double, pixels, expected):
    with pytest.raises(EngineError, match="no plan for calls of 60×32 px"):
        open_double(Lean())
    open_double(Full()).close()
    engine = open_double(Lean())
    np.testing.assert_allclose(answered(engine, pixels, probabilities=True).probabilities, expected[0], atol=1e-4)
    with pytest.raises(EngineError, match="engine tensorrt: no plan for calls and super-resolved images"):
        answered(engine, pixels, superresolved=True)
    assert answered(engine, pixels, probabilities=True).probabilities is not None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("execute_async_v3", "running the plan failed: an illegal memory access"),
        ("set_tensor_address", "setting an address failed: an illegal memory access"),
    ],
)
def test_tile_that_fails_says_why_and_the_next_is_computed(open_double, pixels, expected, call, message):
    trt = Full(says="an illegal memory access\nof a kernel")
    engine = open_double(trt)
    trt.refuse.add(call)
    with pytest.raises(EngineError, match=f"^engine tensorrt: TensorRT: {message}$"):
        answered(engine, pixels)
    trt.refuse.clear()
    np.testing.assert_allclose(answered(engine, pixels, probabilities=True).probabilities, expected[0], atol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("Runtime", "making a runtime failed: out of memory"),
        ("create_execution_context", "making an execution context failed: out of memory"),
        ("build_serialized_network", "building a plan failed: out of memory"),
    ],
)
def test_engine_that_cannot_be_opened_says_why(open_double, call, message):
    with pytest.raises(EngineError, match=f"^TensorRT: {message}$"):
        open_double(Full(refuse=[call], says="out of memory"))


def stored(folder, bundle, content, **other):
    """A plan with the right record, whatever is in it."""
    plans = Plans(Full(), HostDriver().info, load_bundle(bundle), shape=SHAPE, options=EngineOptions(), folder=folder)
    cache = PlanCache(folder)
    with cache.build_lock():
        cache.store(replace(plans.key(superresolved=False), **other), BuiltPlan(content, b"", Inspected(1, 1), 1))


@pytest.mark.parametrize("content", [b"", b"ftrt", np.random.default_rng(1).bytes(5000)])
def test_plan_that_tensorrt_does_not_load_is_refused(open_double, tiny_bundle, folder, content):
    stored(folder, tiny_bundle, content)
    with pytest.raises(EngineError, match=r"^TensorRT: loading a plan failed: Error Code 1: Serialization"):
        open_double()


def test_plan_of_another_shape_is_refused(open_double, tiny_bundle, folder):
    open_double(shape=(24, 32)).close()
    (path,) = folder.glob("*.plan")
    stored(folder, tiny_bundle, path.read_bytes())
    with pytest.raises(EngineError, match=r"is not a plan for calls of 60×32 px .*: it has images \(1, 4, 24, 32\)"):
        open_double()


@pytest.mark.skipif(has_driver(), reason="there is a GPU")
def test_machine_without_a_driver_is_told_before_tensorrt_is_touched(tiny_bundle):
    with pytest.raises(EngineError, match=r"^no NVIDIA driver: libcuda\.so\.1 not found$"):
        open_engine(load_bundle(tiny_bundle), shape=SHAPE, options=EngineOptions())


def test_closed_engine_leaves_nothing_on_the_device(open_double, pixels):
    engine = open_double()
    answered(engine, pixels, superresolved=True)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.lease(1)
