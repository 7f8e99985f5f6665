"""The embedded engine: OpenVINO on any CPU, double-buffered through asynchronous requests."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from engines.bundles.bundle import Bundle
from engines.contract import Answer, EngineInfo, EngineOptions, Request
from engines.errors import EngineError
from engines.network.centres import read_centres
from engines.openvinolibrary import openvino
from engines.slots import SlottedEngine
from engines.strips import Strip, plan_strips

PRECISIONS = {"f32": "FP32", "bf16": "BF16", "f16": "FP16", "int8": "INT8"}
"""Precision by the name that OpenVINO's list of native capabilities has for it."""

INT8_REST_PRECISION = "f32"
"""Precision of the layers between INT8 convolutions. BF16 is not faster there, and less exact."""

REQUESTS = 2
"""Strips on the processor at once: one is computed on all cores while the other waits or is copied out."""

STRIP_PX = 768 * 768
"""Pixels of a strip. The memory depends on this number; the time per pixel hardly depends on it."""

NAME = "openvino"


def open_engine(bundle: Bundle, *, shape: tuple[int, int], options: EngineOptions) -> "SlottedEngine[TileBuffers]":
    """Open the engine on the processor, for tiles of one shape (height, width).

    Raises
    ------
    EngineError : the processor does not compute in the wanted precision.
    BundleError : INT8 is wanted, and the bundle has no INT8 network.
    """
    if options.gpu:
        raise EngineError(f"engine {NAME}: it cannot run on a GPU, which gpu = true asks for; it runs on the processor")
    return SlottedEngine(NAME, lambda: OpenVinoRunner(bundle, shape=shape, options=options), slots=options.slots)


@dataclass(eq=False)
class TileBuffers:
    """Pixels and maps of one tile, and its strips on the processor."""

    pixels: NDArray[np.uint16]
    probabilities: NDArray[np.float32]
    superresolved: NDArray[np.float32] | None = None
    strips: "list[_StartedStrip]" = field(default_factory=list)


class OpenVinoRunner:
    """A :class:`engines.slots.Runner` on the processor.

    Strips are normalised into the inputs of a few inference requests per graph, so that the next strip is
    ready when one ends. Centres are read in the thread that collects, while the network computes the next tile.
    """

    def __init__(self, bundle: Bundle, *, shape: tuple[int, int], options: EngineOptions) -> None:
        height, width = shape
        halo = bundle.model.architecture.halo
        self._strips = plan_strips(height=height, width=width, halo=halo, most_px=options.strip_px or STRIP_PX)
        self._shape = shape
        self._core = openvino.Core()
        precision = self._precision(options.precision)
        self._network = bundle.quantised if precision == "int8" else bundle.network
        self._config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": INT8_REST_PRECISION if precision == "int8" else precision,
        }
        if options.threads:
            self._config["INFERENCE_NUM_THREADS"] = str(options.threads)
        calls = self._compile(["probabilities"])
        self._requests = {False: _requests(calls)}
        self.info = EngineInfo(
            backend=NAME,
            device=str(self._core.get_property("CPU", "FULL_DEVICE_NAME")).strip(),
            gpu=False,
            software=f"OpenVINO {openvino.get_version()}",
            precision=precision
            if precision == "int8"
            else str(calls.get_property("INFERENCE_PRECISION_HINT").to_string()),
            model=bundle.model.name,
            model_hash=bundle.hash,
            slots=options.slots,
            strips=len(self._strips),
        )

    def buffers(self) -> TileBuffers:
        return TileBuffers(np.zeros((4, *self._shape), np.uint16), np.zeros((5, *self._shape), np.float32))

    def start(self, buffers: TileBuffers, request: Request) -> None:
        buffers.strips.clear()
        if request.superresolved and buffers.superresolved is None:
            height, width = self._shape
            buffers.superresolved = np.zeros((4, 2 * height, 2 * width), np.float32)
        if request.superresolved not in self._requests:
            self._requests[request.superresolved] = _requests(self._compile(["probabilities", "superresolved"]))
        for strip in self._strips:
            free = next(self._requests[request.superresolved])
            buffers.strips.append(free.start(buffers, request, strip))

    def wait(self, buffers: TileBuffers) -> None:
        errors = [strip.finish() for strip in buffers.strips]
        if failed := next(filter(None, errors), None):
            raise failed

    def answer(self, buffers: TileBuffers, request: Request) -> Answer:
        centres = None
        if request.positions is not None:
            centres = read_centres(buffers.probabilities, request.positions)
        superresolved = None
        if request.superresolved:
            assert buffers.superresolved is not None
            superresolved = buffers.superresolved.copy()
        return Answer(centres, buffers.probabilities.copy() if request.probabilities else None, superresolved)

    def close(self) -> None:
        self._requests.clear()

    def _precision(self, wanted: str) -> str:
        native = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        available = [name for name, capability in PRECISIONS.items() if capability in native]
        if wanted == "auto":
            return "f16" if "f16" in available else "bf16" if "bf16" in available else "f32"
        if wanted not in available:
            raise EngineError(
                f"engine {NAME}: this processor does not compute in {wanted}; it does in {', '.join(available)}"
            )
        return wanted

    def _compile(self, outputs: Sequence[str]) -> openvino.CompiledModel:
        model = self._core.read_model(self._network)
        wanted = [model.output(name).node.input_value(0) for name in outputs]
        part = openvino.Model(wanted, [model.input("images").node], "seqd")
        strip = self._strips[0]
        part.reshape([1, 4, strip.input_stop - strip.input_start, self._shape[1]])
        # The processor normalises in FP32, so the graph must take FP32 images instead of FP16.
        conversion = openvino.preprocess.PrePostProcessor(part)
        conversion.input().tensor().set_element_type(openvino.Type.f32)
        return self._core.compile_model(conversion.build(), "CPU", self._config)


@dataclass(eq=False)
class _StartedStrip:
    """A strip on the processor. Its result is copied out when its tile is collected, or earlier, when its inference
    request is needed for another strip.
    """

    request: openvino.InferRequest
    tile: TileBuffers
    strip: Strip
    superresolved: bool
    lock: threading.Lock = field(default_factory=threading.Lock)
    finished: bool = False
    error: Exception | None = None

    def finish(self) -> Exception | None:
        """Wait and copy the result to the tile, once; returns the error of the strip, if any."""
        with self.lock:
            if not self.finished:
                self.finished = True
                try:
                    self.request.wait()
                    self._copy_out()
                except Exception as error:  # The runtime may raise any type; only this tile fails.
                    self.error = error
            return self.error

    def _copy_out(self) -> None:
        first, last = self.strip.output_start - self.strip.input_start, self.strip.output_stop - self.strip.input_start
        probabilities = self.request.get_output_tensor(0).data[0, :, first:last]
        self.tile.probabilities[:, self.strip.output_start : self.strip.output_stop] = probabilities
        if self.superresolved:
            assert self.tile.superresolved is not None
            fine = self.request.get_output_tensor(1).data[0, :, 2 * first : 2 * last]
            self.tile.superresolved[:, 2 * self.strip.output_start : 2 * self.strip.output_stop] = fine


class _InferenceRequest:
    """An inference request of a graph, its input memory, and the strip that it computes."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._images = np.zeros(tuple(compiled.input(0).shape), np.float32)
        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(openvino.Tensor(self._images, shared_memory=True))
        self._started: _StartedStrip | None = None

    def start(self, tile: TileBuffers, request: Request, strip: Strip) -> _StartedStrip:
        """Normalise a strip and start it, after the request's previous strip is finished."""
        if self._started is not None:
            self._started.finish()
        pixels = tile.pixels[:, strip.input_start : strip.input_stop]
        np.subtract(pixels, request.offset[:, None, None], out=self._images[0])
        self._images[0] *= request.gain[:, None, None]
        self._request.start_async()
        self._started = _StartedStrip(self._request, tile, strip, request.superresolved)
        return self._started


def _requests(compiled: openvino.CompiledModel) -> Iterator[_InferenceRequest]:
    return cycle([_InferenceRequest(compiled) for _ in range(REQUESTS)])
