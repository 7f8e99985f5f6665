"""The slots and threads that engines share, where a runner misbehaves."""

import threading
import weakref
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest

from engines import slots
from engines.contract import Answer, EngineInfo, Request
from engines.errors import BundleError, EngineError, EngineLostError
from engines.slots import SlottedEngine

REQUEST = Request(np.zeros(4, np.float32), np.ones(4, np.float32))
TIMEOUT_S = 20


class Nothing:
    """A runner that computes nothing; a test says what it does otherwise."""

    info = EngineInfo("nothing", "none", False, "none", "f32", "none", "", 2, 1)

    def __init__(self, **otherwise):
        self.closed = threading.Event()
        vars(self).update(otherwise)

    def buffers(self):
        return SimpleNamespace(pixels=np.zeros((4, 3, 5), np.uint16))

    def start(self, buffers, request): ...

    def wait(self, buffers): ...

    def answer(self, buffers, request):
        return Answer(None, None, None)

    def close(self):
        self.closed.set()


def fails(error):
    def failing(*arguments):
        raise error

    return failing


def opened(open_runner):
    return SlottedEngine("nothing", open_runner, slots=2)


def answered(engine):
    slot = engine.lease(TIMEOUT_S)
    engine.submit(slot, REQUEST)
    return engine.collect(slot, TIMEOUT_S)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("\nthe driver is too old\nread the manual"), "^engine nothing: the driver is too old$"),
        (OSError(2, "No such file", "kernels"), r"^engine nothing: \[Errno 2\] No such file: 'kernels'$"),
        (MemoryError(), "^engine nothing: MemoryError$"),
        (EngineError("no GPU 3: there are 2"), "^no GPU 3: there are 2$"),
    ],
)
def test_whatever_a_runner_raises_while_it_opens_is_one_line(error, message):
    with pytest.raises(EngineError, match=message):
        opened(fails(error))


def test_bundle_that_cannot_be_used_is_no_fault_of_the_engine():
    with pytest.raises(BundleError):
        opened(fails(BundleError("bundle x: cannot read weights.npz")))


def test_device_that_refuses_slots_and_does_not_close_either_is_told_at_once():
    runner = Nothing(buffers=fails(MemoryError("no room")), close=fails(EngineError("GPU: lost")))
    with pytest.raises(EngineError, match=r"^engine nothing: no room$"):
        opened(lambda: runner)


def test_device_that_opens_too_late_is_released(monkeypatch):
    monkeypatch.setattr(slots, "OPEN_TIMEOUT_S", 0.01)
    given_up, runner = threading.Event(), Nothing()

    def late():
        given_up.wait(TIMEOUT_S)
        return runner

    with pytest.raises(EngineError, match=r"^engine nothing: not open after 0\.01 s$"):
        opened(late)
    threads = [thread for thread in threading.enumerate() if thread.name == "engine"]
    given_up.set()
    assert runner.closed.wait(TIMEOUT_S)
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


def test_answer_that_cannot_be_given_fails_its_tile_only():
    runner = Nothing(answer=fails(MemoryError("no room for the map")))
    with closing(opened(lambda: runner)) as engine:
        for _ in range(3):
            with pytest.raises(EngineError, match=r"^engine nothing: no room for the map$"):
                answered(engine)
        del runner.answer
        assert answered(engine) == Answer(None, None, None)


def test_closed_engine_keeps_no_tiles_in_memory():
    engine = opened(Nothing)
    slot = engine.lease(TIMEOUT_S)
    kept = weakref.ref(slot)
    engine.submit(slot, REQUEST)
    engine.collect(slot, TIMEOUT_S)
    del slot
    engine.close()
    assert engine.busy_s >= 0
    assert kept() is None


def test_tile_that_is_late_gives_its_slot_back_when_it_is_done():
    done = threading.Event()
    with closing(opened(lambda: Nothing(wait=lambda buffers: done.wait(TIMEOUT_S)))) as engine:
        for _ in range(2):
            slot = engine.lease(TIMEOUT_S)
            engine.submit(slot, REQUEST)
            with pytest.raises(EngineError, match=r"^engine nothing: a tile took longer than 0\.01 s$"):
                engine.collect(slot, 0.01)
        with pytest.raises(EngineLostError, match="none of 2 slots came free"):
            engine.lease(0.01)
        done.set()
        for _ in range(4):
            answered(engine)


def test_slots_that_the_caller_holds_are_no_sign_of_a_lost_device():
    with closing(opened(Nothing)) as engine:
        held = [engine.lease(TIMEOUT_S) for _ in range(2)]
        with pytest.raises(EngineError, match="none of 2 slots came free") as caught:
            engine.lease(0.01)
        assert not isinstance(caught.value, EngineLostError)
        assert len(held) == 2


def test_engine_whose_device_is_gone_can_only_be_closed():
    runner = Nothing()
    with closing(opened(lambda: runner)) as engine:
        answered(engine)
        slot = engine.lease(TIMEOUT_S)
        runner.wait = fails(EngineLostError("GPU: cuEventSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS"))
        with pytest.raises(EngineLostError, match=r"^engine nothing: GPU: .*ILLEGAL_ADDRESS$"):
            answered(engine)
        del runner.wait
        with pytest.raises(EngineLostError, match="ILLEGAL_ADDRESS"):
            engine.submit(slot, REQUEST)
        with pytest.raises(EngineLostError, match="ILLEGAL_ADDRESS"):
            engine.lease(0)
    assert runner.closed.is_set()
    with pytest.raises(EngineError, match="closed"):
        engine.lease(0)
