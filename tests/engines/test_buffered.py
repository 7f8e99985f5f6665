from collections import deque
from contextlib import closing

import numpy as np
import pytest

from engines.buffered import HEADER, BufferedRunner, DeviceTile
from engines.contract import EngineInfo, Request
from engines.errors import EngineError, EngineLostError
from engines.slots import SlottedEngine
from tests.doubles.adversarial_driver import AdversarialDriver

SHAPE = (3, 5)
SEEDS = range(40)
TILES = 9
TIMEOUT_S = 20


class Sums:
    """A program in two kernels with scratch memory between them, whose answers tell of every input."""

    def __init__(self, driver):
        self._driver = driver
        self._scratch = driver.allocate(4 * 4 * SHAPE[0] * SHAPE[1])

    def enqueue(self, tile, stream):
        for kernel in (self._normalise, self._answer):
            self._driver.launch(kernel, grid=(1, 1, 1), block=1, arguments=[tile], stream=stream)

    def close(self):
        self._driver.free(self._scratch)

    def _array(self, address, dtype, *shape):
        memory = self._driver.memory_at(address).view(dtype)
        return memory[: np.prod(shape, dtype=int)].reshape(shape)

    def _normalise(self, tile: DeviceTile):
        header = self._array(tile.header, HEADER, 1)[0]
        pixels = self._array(tile.pixels, np.uint16, 4, *SHAPE)
        self._array(self._scratch, np.float32, 4, *SHAPE)[:] = normalised(pixels, header["offset"], header["gain"])

    def _answer(self, tile: DeviceTile):
        images = self._array(self._scratch, np.float32, 4, *SHAPE)
        n = int(self._array(tile.header, HEADER, 1)[0]["clusters"])
        if n <= tile.capacity:
            positions = self._array(tile.positions, np.float32, 4, n, 2)
            self._array(tile.centres, np.float32, n, 4)[:] = positions.sum(axis=2).T + images.sum(axis=(1, 2))
        probabilities = self._array(tile.probabilities, np.float32, 5, *SHAPE)
        probabilities[:4], probabilities[4] = images, images.sum(axis=0)
        if tile.superresolved:
            shape = (4, 2 * SHAPE[0], 2 * SHAPE[1])
            self._array(tile.superresolved, np.float32, *shape)[:] = finer(images)


def normalised(pixels, offset, gain):
    return ((pixels - offset[:, None, None]) * gain[:, None, None]).astype(np.float32)


def finer(images):
    return images.repeat(2, axis=1).repeat(2, axis=2)


def opened(driver, runner=BufferedRunner, *, slots=2):
    info = EngineInfo("sums", driver.info.name, False, "none", "f32", "sums", "", slots, 1)
    return SlottedEngine("sums", lambda: runner(driver, Sums(driver), info, shape=SHAPE), slots=slots)


def tiles(seed):
    """Tiles that differ in all there is, now and then with more clusters than there is room for at first."""
    rng = np.random.default_rng(seed)
    for _ in range(TILES):
        n = int(rng.choice([0, 1, 7, 1500, 4000], p=[0.1, 0.3, 0.4, 0.1, 0.1]))
        yield (
            rng.integers(0, 65536, (4, *SHAPE), np.uint16),
            Request(
                rng.uniform(0, 200, 4).astype(np.float32),
                rng.uniform(0.001, 0.1, 4).astype(np.float32),
                positions=None if rng.random() < 0.1 else rng.uniform(0, 5, (4, n, 2)).astype(np.float32),
                probabilities=bool(rng.random() < 0.5),
                superresolved=bool(rng.random() < 0.3),
            ),
        )


def check(answer, pixels, request):
    images = normalised(pixels, request.offset, request.gain)
    if request.positions is not None:
        expected = request.positions.sum(axis=2).T + images.sum(axis=(1, 2))
        np.testing.assert_array_equal(answer.centres, expected)
    if request.probabilities:
        np.testing.assert_array_equal(answer.probabilities[:4], images)
    if request.superresolved:
        np.testing.assert_array_equal(answer.superresolved, finer(images))


def run(driver, runner, seed, *, slots=2):
    """All tiles through an engine, as many in flight as there are slots; every answer is checked."""
    with closing(opened(driver, runner, slots=slots)) as engine:
        flying = deque()
        for pixels, request in tiles(seed):
            if len(flying) == slots:
                slot, *tile = flying.popleft()
                check(engine.collect(slot, TIMEOUT_S), *tile)
            slot = engine.lease(TIMEOUT_S)
            slot.pixels[...] = pixels
            engine.submit(slot, request)
            flying.append((slot, pixels, request))
        for slot, *tile in flying:
            check(engine.collect(slot, TIMEOUT_S), *tile)


def run_all(runner, *, slots=2):
    for seed in SEEDS:
        run(AdversarialDriver(seed), runner, seed, slots=slots)


@pytest.mark.parametrize("slots", [2, 3])
def test_every_order_that_the_device_may_choose_gives_every_tile_its_own_answer(slots):
    run_all(BufferedRunner, slots=slots)


class ComputesTooEarly(BufferedRunner):
    def __init__(self, driver, *arguments, **keywords):
        super().__init__(driver, *arguments, **keywords)
        heard = driver.wait_for
        driver.wait_for = lambda event, stream: stream is self._compute or heard(event, stream)


class DownloadsTooEarly(BufferedRunner):
    def __init__(self, driver, *arguments, **keywords):
        super().__init__(driver, *arguments, **keywords)
        heard = driver.wait_for
        driver.wait_for = lambda event, stream: stream is self._download or heard(event, stream)


class AnswersTooEarly(BufferedRunner):
    def wait(self, buffers):
        self._driver.synchronize(buffers.computed)


class SharesDeviceMemory(BufferedRunner):
    shared = None

    def buffers(self):
        buffers = super().buffers()
        self.shared = self.shared or buffers.device
        buffers.device = self.shared
        return buffers


class SharesPinnedMemory(BufferedRunner):
    shared = None

    def buffers(self):
        buffers = super().buffers()
        if self.shared is None:
            self.shared = buffers.host["header"]
        buffers.host["header"] = self.shared
        return buffers


class ComputesOnTheStreamOfEachSlot(BufferedRunner):
    """Scratch memory is the program's: tiles must not compute beside each other."""

    def start(self, buffers, request):
        self._compute = self._driver.stream()
        super().start(buffers, request)


@pytest.mark.parametrize(
    "defective",
    [
        ComputesTooEarly,
        DownloadsTooEarly,
        AnswersTooEarly,
        SharesDeviceMemory,
        SharesPinnedMemory,
        ComputesOnTheStreamOfEachSlot,
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # poison is no number
def test_a_runner_that_takes_a_chance_is_caught(defective):
    with pytest.raises((AssertionError, EngineError)):
        run_all(defective)


@pytest.mark.parametrize("wanted", [{"positions": np.ones((4, 5, 2), np.float32)}, {"probabilities": True}])
def test_first_answer_is_what_the_graph_computes(wanted):
    """A graph that computes nothing is seen at once, as the golden tile is computed once."""
    driver = AdversarialDriver(0)
    driver.capture = lambda stream, work: []
    request = Request(np.ones(4, np.float32), np.ones(4, np.float32), **wanted)
    with closing(opened(driver)) as engine:
        slot = engine.lease(TIMEOUT_S)
        slot.pixels[...] = 7
        engine.submit(slot, request)
        answer = engine.collect(slot, TIMEOUT_S)
    assert not (answer.centres if answer.probabilities is None else answer.probabilities).any()


def test_device_without_a_graph_computes_each_tile_once():
    driver, launched = AdversarialDriver(0), []
    driver.capture = lambda stream, work: None
    driver.launch, launch = lambda *given, **known: (launched.append(1), launch(*given, **known)), driver.launch
    with closing(opened(driver)) as engine:
        for pixels, request in tiles(0):
            slot = engine.lease(TIMEOUT_S)
            slot.pixels[...] = pixels
            engine.submit(slot, request)
            check(engine.collect(slot, TIMEOUT_S), pixels, request)
    assert len(launched) == 2 * TILES


def test_device_without_room_fails_that_tile_only():
    driver = AdversarialDriver(0)
    few, many = (
        Request(np.ones(4, np.float32), np.ones(4, np.float32), positions=np.ones((4, n, 2), np.float32))
        for n in (5, 5000)
    )
    pixels = np.full((4, *SHAPE), 7, np.uint16)

    def answered(engine, request):
        slot = engine.lease(TIMEOUT_S)
        slot.pixels[...] = pixels
        engine.submit(slot, request)
        return engine.collect(slot, TIMEOUT_S)

    with closing(opened(driver, slots=1)) as engine:
        driver.room, room = 5000 * 32 + 100, driver.room
        for _ in range(3):
            with pytest.raises(EngineError, match="out of memory"):
                answered(engine, many)
            check(answered(engine, few), pixels, few)
        driver.room += room
        check(answered(engine, many), pixels, many)


def test_device_that_fails_while_it_computes_is_lost():
    driver = AdversarialDriver(0)
    with closing(opened(driver)) as engine:
        pixels, request = next(tiles(0))

        def broken(event):
            raise EngineError("GPU: cuEventSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS")

        driver.synchronize, whole = broken, driver.synchronize
        slot = engine.lease(TIMEOUT_S)
        slot.pixels[...] = pixels
        engine.submit(slot, request)
        with pytest.raises(
            EngineLostError, match=r"^engine sums: GPU: cuEventSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS$"
        ):
            engine.collect(slot, TIMEOUT_S)
        driver.synchronize = whole
