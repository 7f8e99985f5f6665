"""The embedded engine: OpenVINO on any CPU, double-buffered through asynchronous requests."""

import queue
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engines.backends.quiet import openvino
from engines.bundle import Bundle
from engines.contract import Answer, EngineInfo, Request, Slot
from engines.errors import EngineError
from engines.readout import read_centres
from engines.strips import Strip, plan_strips

PRECISIONS = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
"""Precision by OpenVINO's name for it in the list of native capabilities."""

_NAME = "openvino"
_IDLE_POLL_S = 0.5


@dataclass(eq=False)
class _Slot:
    """Pixels in, maps out, and where the work on them stands."""

    pixels: NDArray[np.uint16]
    probabilities: NDArray[np.float32]
    superresolved: NDArray[np.float32] | None = None
    request: Request | None = None
    done: threading.Event = field(default_factory=threading.Event)
    error: str | None = None


class OpenVinoEngine:
    """An :class:`engines.contract.Engine` on the processor.

    A feeding thread normalises the strips of submitted slots into the inputs of two inference
    requests per graph, so that the next strip is ready when one ends. Reading out positions runs
    in the thread that collects, beside the network's work on the next tile.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        shape: tuple[int, int],
        precision: str = "auto",
        threads: int = 0,
        slots: int = 2,
        strip_px: int = 768 * 768,
    ) -> None:
        height, width = shape
        self._strips = plan_strips(height=height, width=width, halo=bundle.model.architecture.halo, most_px=strip_px)
        self._shape = shape
        self._core = openvino.Core()
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self._precision(precision)}
        if threads:
            config["INFERENCE_NUM_THREADS"] = str(threads)
        self._config = config
        self._bundle = bundle
        calls = self._compile(["probabilities"])
        self._graphs = {False: _Requests(calls)}
        self.info = EngineInfo(
            backend=_NAME,
            device=str(self._core.get_property("CPU", "FULL_DEVICE_NAME")).strip(),
            precision=str(calls.get_property("INFERENCE_PRECISION_HINT").to_string()),
            model=bundle.model.name,
            model_hash=bundle.hash,
            slots=slots,
            strips=len(self._strips),
        )
        self._free: queue.Queue[_Slot] = queue.Queue()
        for _ in range(slots):
            self._free.put(_Slot(np.zeros((4, *shape), np.uint16), np.zeros((5, *shape), np.float32)))
        self._submitted: queue.Queue[_Slot | None] = queue.Queue()
        self._closed = False
        self._feeder = threading.Thread(target=self._feed, name="engine", daemon=True)
        self._feeder.start()

    def lease(self, timeout_s: float) -> Slot:
        self._check_open()
        try:
            return self._free.get(timeout=timeout_s)
        except queue.Empty:
            raise EngineError(f"engine {_NAME}: none of {self.info.slots} slots came free in {timeout_s:g} s") from None

    def submit(self, slot: Slot, request: Request) -> None:
        self._check_open()
        assert isinstance(slot, _Slot)
        slot.request, slot.error = request, None
        slot.done.clear()
        if request.superresolved and slot.superresolved is None:
            height, width = self._shape
            slot.superresolved = np.zeros((4, 2 * height, 2 * width), np.float32)
        self._submitted.put(slot)

    def collect(self, slot: Slot, timeout_s: float) -> Answer:
        self._check_open()
        assert isinstance(slot, _Slot)
        assert slot.request is not None
        if not slot.done.wait(timeout_s):
            self._replace(slot)
            raise EngineError(f"engine {_NAME}: a tile took longer than {timeout_s:g} s")
        try:
            if slot.error is not None:
                raise EngineError(f"engine {_NAME}: {slot.error}")
            return self._answer(slot, slot.request)
        finally:
            self._free.put(slot)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._submitted.put(None)
        self._feeder.join(timeout=60)
        for requests in self._graphs.values():
            requests.finish()

    def _precision(self, wanted: str) -> str:
        native = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        available = [name for name, capability in PRECISIONS.items() if capability in native]
        if wanted == "auto":
            return "f16" if "f16" in available else "bf16" if "bf16" in available else "f32"
        if wanted not in available:
            raise EngineError(
                f"engine {_NAME}: this processor does not compute in {wanted}; it does in {', '.join(available)}"
            )
        return wanted

    def _compile(self, outputs: Sequence[str]) -> openvino.CompiledModel:
        model = self._core.read_model(self._bundle.network)
        wanted = [model.output(name).node.input_value(0) for name in outputs]
        part = openvino.Model(wanted, [model.input("images").node], "seqd")
        strip = self._strips[0]
        part.reshape([1, 4, strip.stop - strip.start, self._shape[1]])
        # The graph takes FP16; the processor normalises in FP32.
        conversion = openvino.preprocess.PrePostProcessor(part)
        conversion.input().tensor().set_element_type(openvino.Type.f32)
        return self._core.compile_model(conversion.build(), "CPU", self._config)

    def _feed(self) -> None:
        while (slot := self._submitted.get()) is not None:
            try:
                self._run(slot)
            except Exception as error:  # whatever the runtime raises belongs to this tile
                for requests in self._graphs.values():
                    requests.finish()  # strips that were started still write to the slot
                slot.error = _first_line(error)
                slot.done.set()

    def _run(self, slot: _Slot) -> None:
        assert slot.request is not None
        superresolve = slot.request.superresolved
        if superresolve not in self._graphs:
            self._graphs[superresolve] = _Requests(self._compile(["probabilities", "superresolved"]))
        requests = self._graphs[superresolve]
        work = _Work(slot, remaining=len(self._strips))
        for strip in self._strips:
            requests.start(work, strip)

    def _answer(self, slot: _Slot, request: Request) -> Answer:
        centres = None
        if request.positions is not None:
            centres = read_centres(slot.probabilities, request.positions)
        return Answer(
            centres=centres,
            probabilities=slot.probabilities.copy() if request.probabilities else None,
            superresolved=slot.superresolved.copy()
            if request.superresolved and slot.superresolved is not None
            else None,
        )

    def _replace(self, slot: _Slot) -> None:
        """Put a fresh slot in the place of one the device may still write to."""
        self._free.put(_Slot(np.zeros_like(slot.pixels), np.zeros_like(slot.probabilities)))

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"engine {_NAME}: it is closed")


@dataclass(eq=False)
class _Work:
    """The strips of one slot that are still computing."""

    slot: _Slot
    remaining: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    def finish(self, error: str | None = None) -> None:
        with self.lock:
            self.remaining -= 1
            self.slot.error = self.slot.error or error
            if self.remaining == 0:
                self.slot.done.set()


class _Requests:
    """Two inference requests of one compiled graph, taken in turn."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._queue = openvino.AsyncInferQueue(compiled, 2)
        self._queue.set_callback(self._finished)
        self._inputs = [np.zeros(tuple(compiled.input(0).shape), np.float32) for _ in range(len(self._queue))]

    def start(self, work: _Work, strip: Strip) -> None:
        """Normalise a strip into the next free request and start it; waits for one to be free."""
        request, index = work.slot.request, self._queue.get_idle_request_id()
        assert request is not None
        pixels = work.slot.pixels[:, strip.start : strip.stop]
        inputs = self._inputs[index]
        np.subtract(pixels, request.offset[:, None, None], out=inputs[0])
        inputs[0] *= request.gain[:, None, None]
        self._queue.start_async(openvino.Tensor(inputs, shared_memory=True), (work, strip))

    def finish(self) -> None:
        """Wait for what is computing: the runtime crashes when requests go while they run."""
        with suppress(RuntimeError):  # their tiles have been told
            self._queue.wait_all()

    @staticmethod
    def _finished(request: openvino.InferRequest, userdata: tuple[_Work, Strip]) -> None:
        work, strip = userdata
        try:
            first, last = strip.first - strip.start, strip.last - strip.start
            slot = work.slot
            slot.probabilities[:, strip.first : strip.last] = request.get_output_tensor(0).data[0, :, first:last]
            if slot.request is not None and slot.request.superresolved:
                assert slot.superresolved is not None
                fine = request.get_output_tensor(1).data[0, :, 2 * first : 2 * last]
                slot.superresolved[:, 2 * strip.first : 2 * strip.last] = fine
        except Exception as error:  # a callback must not raise into the runtime
            work.finish(_first_line(error))
        else:
            work.finish()


def _first_line(error: Exception) -> str:
    """What an error says, or its name where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)
