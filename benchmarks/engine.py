"""The embedded engine beside its bare compiled model and PyTorch, in one run.

``make bench`` prints the table. Figures of a shared machine move by tens of per cent: read the ratios.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from engines.backends.openvino import OpenVinoEngine
from engines.backends.quiet import openvino
from engines.bundle import load_bundle
from engines.contract import Request, Slot
from engines.export import load_weights
from engines.network import Network

SHAPE = (256, 256)
ROUNDS = 5
TILES = 3
"""Tiles of a round, so that the engine can overlap them."""


def main() -> None:
    """Measure and print."""
    bundle = load_bundle()
    engine = OpenVinoEngine(bundle, shape=SHAPE)
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 2000, (4, *SHAPE)).astype(np.uint16)
    positions = np.broadcast_to(rng.uniform(0, SHAPE[0], (1000, 2)), (4, 1000, 2)).astype(np.float32)
    request = Request(np.full(4, 100, np.float32), np.full(4, 1e-3, np.float32), positions=positions)
    images = ((pixels - 100.0) * 1e-3).astype(np.float32)[None]
    network = Network(bundle.model.architecture).eval()
    network.load_state_dict(load_weights(bundle.folder))
    wide = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tensor = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
    core = openvino.Core()
    model = core.read_model(bundle.network)
    bare = openvino.Model([model.output("probabilities").node.input_value(0)], model.get_parameters())
    bare.reshape([1, 4, *SHAPE])
    compiled = core.compile_model(bare, "CPU", {"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()

    def through_engine() -> None:
        slots: list[Slot] = []
        for _ in range(TILES):
            if len(slots) == engine.info.slots:
                engine.collect(slots.pop(0), 60)
            slot = engine.lease(60)
            slot.pixels[...] = pixels
            engine.submit(slot, request)
            slots.append(slot)
        for slot in slots:
            engine.collect(slot, 60)

    def bare_model() -> None:
        for _ in range(TILES):
            compiled.infer(images)

    def pytorch() -> None:
        with torch.inference_mode():
            for _ in range(TILES):
                features = wide.blocks(torch.relu(wide.stem(tensor)))
                wide.call(torch.relu(wide.call_hidden(features)))

    ways: dict[str, Callable[[], None]] = {
        f"seqd engine, {engine.info.backend} {engine.info.precision}": through_engine,
        "bare OpenVINO model": bare_model,
        "PyTorch channels_last fp32": pytorch,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append((time.perf_counter() - started) / TILES)
    engine.close()
    _show(seconds, engine.info.device)


def _show(seconds: dict[str, list[float]], device: str) -> None:
    table = Table("engine", "s a tile-cycle", "speed against the first", title=f"{SHAPE[0]}×{SHAPE[1]} px on {device}")
    first = next(iter(seconds))
    for name, times in seconds.items():
        ratios = [mine / other for mine, other in zip(seconds[first], times, strict=True)]
        table.add_row(name, f"{statistics.median(times):.3f}", f"{statistics.median(ratios):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
