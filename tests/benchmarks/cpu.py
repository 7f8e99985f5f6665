"""Engines on the processor, compared with the bare runtimes that they use and with other runtimes, in one run.

``make bench`` prints the table and writes the figures. Every round runs every subject once, in a random order. Seconds
vary by tens of per cent on a shared machine; compare the ratios, which are medians over the rounds.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import onnxruntime
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from calib.normalisation import estimate_normalisation
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedtile import simulate_tile
from engines.backends import EngineOptions, open_backend
from engines.bundles.bundle import Bundle, load_bundle
from engines.bundles.onnxgraph import write_graph
from engines.bundles.torchbundle import load_weights
from engines.contract import Engine, Request, Slot
from engines.network.architecture import flops
from engines.network.centres import read_centres
from engines.network.deployed import Output
from engines.network.torchnetwork import Network
from engines.openvinolibrary import openvino

SIZES = (256, 512)
DENSITY_K_MM2 = 284
ENGINES = (("openvino", "auto"), ("openvino", "f32"), ("openvino", "int8"), ("torch", "auto"), ("torch", "f32"))
"""Backend and precision."""

TILES = 3
"""Tiles of a round; with several tiles an engine can work on two at the same time."""
TIMEOUT_S = 120.0

Calls = Callable[[], NDArray[np.float32]]
"""A function that computes :data:`TILES` tiles and returns the evidence of the last one, (n, 4)."""


@dataclass
class Subject:
    """An engine or a runtime that computes tiles."""

    name: str
    run: Calls
    seconds: list[float] = field(default_factory=list)
    """Seconds of a tile, one for each round."""
    bases: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    """Brightest base of every cluster."""


def main(
    figures: Annotated[Path, typer.Argument()] = Path("docs/benchmarks/cpu.json"),
    rounds: int = 7,
    threads: int = 0,
) -> None:
    """Measure, print and write."""
    bundle = load_bundle()
    measured = {}
    for size in SIZES:
        with ExitStack() as opened:
            subjects = opened.enter_context(_subjects(bundle, size, threads))
            _measure(subjects, rounds)
        per_tile = flops(bundle.model.architecture, superresolved=False) * size**2
        Console().print(_table(subjects, size, per_tile))
        measured[f"{size}"] = {
            subject.name: {"seconds": subject.seconds, "agreement": _agreement(subject, subjects)}
            for subject in subjects
        }
    packages = ("openvino", "torch", "onnxruntime", "numpy")
    facts = {
        "device": openvino.Core().get_property("CPU", "FULL_DEVICE_NAME").strip(),
        "threads": threads or torch.get_num_threads(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "bundle": bundle.hash,
        "gflop_a_pixel": flops(bundle.model.architecture, superresolved=False) / 1e9,
        "sizes": measured,
    }
    figures.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


@contextmanager
def _subjects(bundle: Bundle, size: int, threads: int) -> Iterator[list[Subject]]:
    tile = simulate_tile(Conditions(density_k_mm2=DENSITY_K_MM2), shape=(size, size), cycles=3, seed=1)
    normalisation = estimate_normalisation(np.stack([tile.images(cycle) for cycle in (1, 2, 3)]))
    pixels = tile.images(2)
    positions = np.stack([tile.channel_positions(2, channel) for channel in range(4)]).astype(np.float32)
    request = Request(normalisation.offset, normalisation.gain, positions=positions)
    images = normalisation.apply(pixels)[None]

    def calls_with(infer: Callable[[], NDArray[np.float32]]) -> Calls:
        def run() -> NDArray[np.float32]:
            for _ in range(TILES):
                probabilities = infer()
            return read_centres(probabilities[0], positions)

        return run

    with ExitStack() as opened:
        subjects = []
        for backend, precision in ENGINES:
            options = EngineOptions(precision=precision, threads=threads, gpu=False)
            engine = open_backend(backend, bundle, shape=(size, size), options=options)
            opened.callback(engine.close)
            subjects.append(Subject(f"seqd, {backend} {engine.info.precision}", _engine_calls(engine, pixels, request)))
        for precision in ("auto", "f32"):
            subjects.append(
                Subject(f"bare OpenVINO model, {precision}", calls_with(_openvino(bundle, images, precision, threads)))
            )
        subjects.append(
            Subject(
                "PyTorch channels_last f32, the network in its form for training", calls_with(_pytorch(bundle, images))
            )
        )
        for form, fast_blocks in (("in its form for training", False), ("in the form of the bundle", True)):
            session = _onnxruntime(bundle, images, threads, fast_blocks=fast_blocks)
            subjects.append(Subject(f"ONNX Runtime f32, the network {form}", calls_with(session)))
        yield subjects


def _engine_calls(engine: Engine, pixels: NDArray[np.uint16], request: Request) -> Calls:
    def run() -> NDArray[np.float32]:
        slots: list[Slot] = []
        for _ in range(TILES):
            if len(slots) == engine.info.slots:
                engine.collect(slots.pop(0), TIMEOUT_S)
            slot = engine.lease(TIMEOUT_S)
            slot.pixels[...] = pixels
            engine.submit(slot, request)
            slots.append(slot)
        *_, last = (engine.collect(slot, TIMEOUT_S).centres for slot in slots)
        assert last is not None
        return last

    return run


def _openvino(
    bundle: Bundle, images: NDArray[np.float32], precision: str, threads: int
) -> Callable[[], NDArray[np.float32]]:
    core = openvino.Core()
    model = core.read_model(bundle.network)
    part = openvino.Model([model.output("probabilities").node.input_value(0)], [model.input("images").node])
    part.reshape([*images.shape])
    config = {"PERFORMANCE_HINT": "LATENCY"}
    if precision != "auto":
        config["INFERENCE_PRECISION_HINT"] = precision
    if threads:
        config["INFERENCE_NUM_THREADS"] = str(threads)
    request, halves = core.compile_model(part, "CPU", config).create_infer_request(), images.astype(np.float16)

    def infer() -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = request.infer(halves)[0]
        return probabilities

    return infer


def _pytorch(bundle: Bundle, images: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]]:
    network = _network(bundle).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tensor = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def infer() -> NDArray[np.float32]:
        features = network.blocks(torch.relu(network.stem(tensor)))
        logits = network.call(torch.relu(network.call_hidden(features)))
        probabilities: NDArray[np.float32] = torch.softmax(logits, dim=1).numpy()
        return probabilities

    return infer


def _onnxruntime(
    bundle: Bundle, images: NDArray[np.float32], threads: int, *, fast_blocks: bool
) -> Callable[[], NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with TemporaryDirectory(prefix="seqd-") as scratch:
        path = Path(scratch) / "network.onnx"
        write_graph(
            path, _network(bundle), precision="f32", outputs=frozenset({Output.PROBABILITIES}), fast_blocks=fast_blocks
        )
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def infer() -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = session.run(None, {"images": images})[0]
        return probabilities

    return infer


def _network(bundle: Bundle) -> Network:
    network = Network(bundle.model.architecture).eval()
    network.load_state_dict(load_weights(bundle.folder))
    return network


def _measure(subjects: list[Subject], rounds: int) -> None:
    for subject in subjects:
        subject.bases = np.argmax(subject.run(), axis=1)
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for index in order.permutation(len(subjects)):
            started = time.perf_counter()
            subjects[index].run()
            subjects[index].seconds.append((time.perf_counter() - started) / TILES)


def _table(subjects: list[Subject], size: int, flops_a_tile: int) -> Table:
    table = Table(
        "subject",
        title=f"{size}×{size} px, {len(subjects[0].bases)} clusters; the first two compared with each subject",
    )
    for column in ("s a tile", "GFLOP/s", *(subject.name for subject in subjects[:2]), "same base as PyTorch, %"):
        table.add_column(column, justify="right")
    for subject in subjects:
        seconds = statistics.median(subject.seconds)
        table.add_row(
            subject.name,
            f"{seconds:.3f}",
            f"{flops_a_tile / seconds / 1e9:.0f}",
            *(f"{_ratio(subject, first):.2f}" for first in subjects[:2]),
            f"{100 * _agreement(subject, subjects):.2f}",
        )
    return table


def _ratio(subject: Subject, first: Subject) -> float:
    return statistics.median(theirs / mine for theirs, mine in zip(subject.seconds, first.seconds, strict=True))


def _agreement(subject: Subject, subjects: list[Subject]) -> float:
    """Share of clusters whose brightest base is the same as in PyTorch in FP32."""
    (reference,) = (other for other in subjects if other.name.startswith("PyTorch"))
    return float(np.mean(subject.bases == reference.bases))


if __name__ == "__main__":
    typer.run(main)
