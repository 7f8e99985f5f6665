"""What every engine must do, asked of every engine there is here."""

import gc
import os
import threading
from collections import deque
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from engines.backends import BACKENDS, EngineOptions, open_backend
from engines.bundles.bundle import load_bundle
from engines.bundles.golden import load_golden
from engines.contract import Request
from engines.devices.probe import probe
from engines.errors import EngineError
from engines.network.centres import read_centres
from engines.tensorrt.api import load_tensorrt

SHAPE = (61, 83)
TIMEOUT_S = 60
ON_PROCESSOR = {"openvino": ("f32", "auto", "int8"), "torch": ("f32", "auto")}
"""Precisions to ask for; all other backends need a GPU."""

FARTHEST = {"f32": 1e-4, "f16": 1e-2, "bf16": 6e-2, "int8": 0.3}
"""Greatest difference from PyTorch in FP32 by precision, of probabilities and of normalised units."""


@dataclass(frozen=True)
class Case:
    name: str
    precision: str
    gpu: bool

    def open(self, shape, bundle=None, **options):
        options = EngineOptions(precision=self.precision, threads=1, gpu=self.gpu, **options)
        return open_backend(self.name, bundle or load_bundle(), shape=shape, options=options)

    def __str__(self):
        return f"{self.name} {'gpu' if self.gpu else 'cpu'} {self.precision}"


CASES = [
    *(Case(name, precision, gpu=False) for name, all_ in ON_PROCESSOR.items() for precision in all_),
    *(Case(name, "auto", gpu=True) for name in BACKENDS if name != "openvino"),
]


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request):
    """An engine that can be opened here; where its device and software are, not opening it is a failure."""
    case = request.param
    if case.name in ("openvino", "torch") and find_spec(case.name) is None:
        pytest.skip(f"{case.name} is not installed")
    if case.gpu:
        try:
            probe()
            if case.name == "tensorrt":
                load_tensorrt()
        except EngineError as error:
            pytest.skip(str(error))
    return case


@pytest.fixture(scope="module")
def engine(case):
    with closing(case.open(SHAPE, slots=3)) as engine:
        yield engine


@pytest.fixture
def opened(case):
    with ExitStack() as stack:

        def open_one(shape, **options):
            engine = case.open(shape, **options)
            stack.callback(engine.close)
            return engine

        yield open_one


@cache
def golden():
    return load_golden(load_bundle()).tile


def image(shape=SHAPE, seed=0):
    """A crowded tile of any shape; every seed gives another."""
    pixels = np.roll(golden().pixels, (17 * seed, 29 * seed), axis=(1, 2))
    rows, columns = (np.arange(size) % edge for size, edge in zip(shape, pixels.shape[1:], strict=True))
    return pixels[:, rows[:, None], columns]


def request(**wanted):
    return Request(golden().offset, golden().gain, **wanted)


def everything(n=20, shape=SHAPE):
    return request(positions=scattered(n, shape), probabilities=True, superresolved=True)


def scattered(n, shape=SHAPE):
    """Positions in the image, on its border and around it."""
    size = np.array(shape, np.float32)
    return np.random.default_rng(n).uniform(-4, size + 3, (4, n, 2)).astype(np.float32)


@cache
def reference(shape):
    """Probabilities and super-resolved images of the first image, from PyTorch in FP32."""
    torch = pytest.importorskip("torch")
    from engines.bundles.torchbundle import load_weights
    from engines.network.torchnetwork import Network

    bundle = load_bundle()
    network = Network(bundle.model.architecture)
    network.load_state_dict(load_weights(bundle.folder))
    normalised = (image(shape) - golden().offset[:, None, None]) * golden().gain[:, None, None]
    with torch.inference_mode():
        logits, superresolved = network(torch.from_numpy(normalised)[None])
        return torch.softmax(logits, dim=1)[0].numpy(), superresolved[0].numpy()


def submitted(engine, pixels, wanted):
    slot = engine.lease(TIMEOUT_S)
    slot.pixels[...] = pixels
    engine.submit(slot, wanted)
    return slot


def answered(engine, pixels, wanted):
    return engine.collect(submitted(engine, pixels, wanted), TIMEOUT_S)


def assert_same(found, expected):
    for name in ("centres", "probabilities", "superresolved"):
        if getattr(expected, name) is None:
            assert getattr(found, name) is None
        else:
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("shape", [SHAPE, (1, 9), (90, 64)])
def test_answers_are_the_networks(case, shape):
    with closing(case.open(shape)) as engine:
        answer, bound = answered(engine, image(shape), everything(20, shape)), FARTHEST[engine.info.precision]
    probabilities, superresolved = reference(shape)
    np.testing.assert_allclose(answer.probabilities, probabilities, atol=bound)
    np.testing.assert_allclose(answer.superresolved, superresolved, atol=bound)
    np.testing.assert_allclose(answer.probabilities.sum(axis=0), 1, atol=1e-3)
    np.testing.assert_allclose(answer.centres, read_centres(probabilities, scattered(20, shape)), atol=bound)


def test_strips_give_the_same_numbers_as_the_whole_tile(opened):
    shape = (400, 16)
    whole, strips = opened(shape), opened(shape, strip_px=16 * 160)
    assert (whole.info.strips, strips.info.strips) == (1, 4)
    wanted = everything(200, shape)
    expected, found = answered(whole, image(shape), wanted), answered(strips, image(shape), wanted)
    bound = FARTHEST[whole.info.precision] / 4
    for name in ("centres", "probabilities", "superresolved"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=bound, err_msg=name)


def test_only_what_was_asked_for_is_answered(engine):
    for wanted in (
        {"positions": scattered(3)},
        {"superresolved": True},
        {"probabilities": True},
        {"positions": scattered(3), "probabilities": True, "superresolved": True},
        {},
    ):
        answer = answered(engine, image(), request(**wanted))
        assert (answer.centres is not None) == ("positions" in wanted)
        assert (answer.probabilities is not None) == ("probabilities" in wanted)
        assert (answer.superresolved is not None) == ("superresolved" in wanted)


@pytest.mark.parametrize("clusters", [0, 1, 50, 3000])
def test_positions_are_read_from_the_map(engine, clusters):
    positions = scattered(clusters)
    answer = answered(engine, image(), request(positions=positions, probabilities=True))
    assert answer.centres.shape == (clusters, 4)
    np.testing.assert_allclose(answer.centres, read_centres(answer.probabilities, positions), atol=2e-6)


def test_positions_on_the_border_and_far_away_are_read_like_all_others(engine):
    height, width = SHAPE
    rows = [-1e9, -5, -3.5, -1, -0.5, 0, 0.5, height - 1, height - 0.5, height, height + 2.5, 1e9]
    columns = [-1e9, -4, -2.5, 0, 1, width - 1, width - 0.25, width + 1.75, 1e9]
    positions = np.broadcast_to(np.array([(y, x) for y in rows for x in columns], np.float32), (4, 108, 2)).copy()
    answer = answered(engine, image(), request(positions=positions, probabilities=True))
    np.testing.assert_allclose(answer.centres, read_centres(answer.probabilities, positions), atol=2e-6)


@pytest.mark.parametrize("counts", [0, 65535])
def test_black_and_saturated_images_give_numbers(engine, counts):
    answer = answered(engine, np.full((4, *SHAPE), counts, np.uint16), everything())
    assert np.isfinite(answer.centres).all()
    assert np.isfinite(answer.probabilities).all()
    assert np.isfinite(answer.superresolved).all()


def test_the_same_tile_gives_the_same_bits_again(engine):
    first, *again = (answered(engine, image(), everything()) for _ in range(4))
    for answer in again:
        assert_same(answer, first)


def test_answer_stays_when_its_slot_is_used_again(opened):
    engine = opened(SHAPE, slots=1)
    answer = answered(engine, image(), everything())
    kept = replace(answer, **{name: array.copy() for name, array in vars(answer).items()})
    answered(engine, image(seed=1), everything())
    assert_same(answer, kept)


def test_tiles_in_flight_do_not_see_what_is_written_to_other_slots(engine):
    wanted, tiles = everything(), [image(seed=seed) for seed in range(8)]
    expected = [answered(engine, pixels, wanted) for pixels in tiles]
    assert np.abs(expected[0].probabilities - expected[1].probabilities).max() > 0.1
    flying = deque()
    for number, pixels in enumerate(tiles):
        if len(flying) == engine.info.slots - 1:
            known, slot = flying.popleft()
            assert_same(engine.collect(slot, TIMEOUT_S), expected[known])
            slot.pixels[...] = 65535
        slot = engine.lease(TIMEOUT_S)
        slot.pixels[...] = 65535
        slot.pixels[...] = pixels
        engine.submit(slot, wanted)
        flying.append((number, slot))
    for known, slot in flying:
        assert_same(engine.collect(slot, TIMEOUT_S), expected[known])


@pytest.mark.parametrize("slots", [2, 3])
def test_threads_that_share_an_engine_get_their_own_answers(opened, slots):
    engine, tiles, wanted = opened(SHAPE, slots=slots), [image(seed=seed) for seed in range(4)], everything()
    expected = [answered(engine, pixels, wanted) for pixels in tiles]
    errors = []

    def work(first):
        try:
            for number in range(first, first + 6):
                slot = engine.lease(TIMEOUT_S)
                slot.pixels[...] = 65535
                slot.pixels[...] = tiles[number % 4]
                engine.submit(slot, wanted)
                assert_same(engine.collect(slot, TIMEOUT_S), expected[number % 4])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"offset": np.zeros(3, np.float32)}, r"offset of a request has shape \(3,\), \(4,\) is needed"),
        ({"gain": np.ones((2, 4), np.float32)}, r"gain of a request has shape \(2, 4\)"),
        ({"positions": np.zeros((3, 5, 2), np.float32)}, r"positions of a request have shape \(3, 5, 2\), \(4, n, 2\)"),
        ({"positions": np.zeros((4, 5, 3), np.float32)}, r"positions of a request have shape \(4, 5, 3\)"),
        ({"positions": np.zeros((4, 2), np.float32)}, r"positions of a request have shape \(4, 2\)"),
    ],
)
def test_bad_request_fails_alone(engine, bad, message):
    good = everything()
    expected = answered(engine, image(), good)
    before, failing, after = (submitted(engine, image(), wanted) for wanted in (good, replace(good, **bad), good))
    assert_same(engine.collect(before, TIMEOUT_S), expected)
    with pytest.raises(EngineError, match=f"^engine {engine.info.backend}: {message}"):
        engine.collect(failing, TIMEOUT_S)
    assert_same(engine.collect(after, TIMEOUT_S), expected)
    for _ in range(engine.info.slots):
        assert_same(answered(engine, image(), good), expected)


def test_numbers_that_are_none_are_the_callers(engine):
    expected = answered(engine, image(), everything())
    answered(engine, image(), replace(everything(), gain=np.full(4, np.nan, np.float32)))
    assert_same(answered(engine, image(), everything()), expected)


def test_tile_that_takes_too_long_fails_and_the_next_one_is_computed(opened):
    engine = opened(SHAPE, slots=1)
    expected = answered(engine, image(), everything())
    # More clusters than there was room for, on a device that may be done all the same.
    late = submitted(engine, image(), everything(3000))
    with suppress(EngineError):
        engine.collect(late, 0)
    assert_same(answered(engine, image(), everything()), expected)


def test_lease_times_out_when_all_slots_are_out(opened):
    engine = opened((24, 32), slots=2)
    first, _ = engine.lease(1), engine.lease(1)
    with pytest.raises(EngineError, match=r"none of 2 slots came free in 0\.05 s"):
        engine.lease(0.05)
    engine.submit(first, request())
    engine.collect(first, TIMEOUT_S)
    assert engine.lease(1) is first


def test_closed_engine_refuses_everything_and_leaves_no_thread(opened):
    before = set(threading.enumerate())
    engine = opened((24, 32))
    slot = submitted(engine, image((24, 32)), request())
    engine.close()
    engine.close()
    assert not set(threading.enumerate()) - before
    slot.pixels[...] = 0
    for use in (lambda: engine.lease(1), lambda: engine.submit(slot, request()), lambda: engine.collect(slot, 1)):
        with pytest.raises(EngineError, match="closed"):
            use()


def test_info_says_what_is_in_use(case, engine):
    bundle, info = load_bundle(), engine.info
    assert (info.backend, info.model, info.model_hash) == (case.name, bundle.model.name, bundle.hash)
    assert info.precision == case.precision or (case.precision == "auto" and info.precision in FARTHEST)
    assert (info.slots, info.strips) == (3, 1)
    assert info.device


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.gpu or case.precision == "f32"], ids=str, indirect=True
)
def test_ten_thousand_tiles_leave_nothing_behind(case, request_bundle):
    shape, positions = (8, 8), scattered(3, (8, 8))
    pixels, wanted = image(shape), request(positions=positions)
    with closing(case.open(shape, request_bundle)) as engine:
        flying = deque()
        for number in range(10_000):
            if len(flying) == engine.info.slots:
                engine.collect(flying.popleft(), TIMEOUT_S)
            flying.append(submitted(engine, pixels, wanted))
            if number == 1000:
                memory, threads = used()
        for slot in flying:
            engine.collect(slot, TIMEOUT_S)
        grown, more_threads = np.subtract(used(), (memory, threads))
    assert grown < 8e6
    assert more_threads <= 0


@pytest.fixture
def request_bundle(case, request):
    """A network that a processor computes ten thousand times in seconds; on a GPU the default one is as small."""
    return None if case.gpu else load_bundle(request.getfixturevalue("tiny_bundle"))


def used():
    """Resident bytes and threads of this process, those of libraries too."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path("/proc/self/task").iterdir()))
