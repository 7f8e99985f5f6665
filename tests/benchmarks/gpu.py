"""Engines on a GPU compared with eager PyTorch in FP16 and with the limits of the device, in one run.

``make bench-gpu`` prints the table and writes the figures. If you compare two devices, compare ratios, not times.
``seqd qualify`` measures the speed of whole engines, with copies.
"""

import json
import statistics
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from seqd_client.errors import SeqdError

from daemon.qualification.qualificationrecord import this_machine
from engines.backends import EngineOptions, tensorrt
from engines.backends import torch as pytorch
from engines.buffered import BufferedRunner, open_buffered
from engines.bundles.bundle import Bundle, load_bundle
from engines.bundles.torchbundle import load_network
from engines.contract import Request, Slot
from engines.devices import open_cuda
from engines.devices.driver import Driver
from engines.devices.probe import probe
from engines.errors import EngineError, EngineLostError
from engines.network.architecture import flops
from engines.tensorrt.api import load_tensorrt
from engines.tensorrt.cache import default_folder
from tests.benchmarks.tracing import STREAMS, Overlap, Span, TracedDriver, overlap

SIZES_PX = (256, 512, 1024, 2048, 4096)
CLUSTERS_PER_PX = 0.04
"""Clusters of a crowded tile."""

TILES, WARM_UP = 20, 4
TIMEOUT_S = 300.0

OpenRunner = Callable[[Driver, Bundle, tuple[int, int], EngineOptions], BufferedRunner]

RUNNERS: dict[str, OpenRunner] = {
    "tensorrt": lambda driver, bundle, shape, options: tensorrt.open_runner(
        driver, bundle, load_tensorrt(), shape=shape, options=options, folder=default_folder()
    ),
    "torch": lambda driver, bundle, shape, options: pytorch.open_runner(driver, bundle, shape=shape, options=options),
}
F16_PRODUCT = "TFLOP/s of an f16 product"


def main(figures: Annotated[Path, typer.Argument()] = Path("docs/benchmarks/gpu.json")) -> None:
    """Measure, print and write."""
    try:
        _measure(figures)
    except SeqdError as error:
        typer.echo(f"bench-gpu: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


def _measure(figures: Path) -> None:
    machine = probe()
    bundle, console = load_bundle(), Console()
    limits = _device_limits()
    console.print(f"{machine.device(0).name}, driver {machine.driver}:", limits)
    eager = _eager_ms(bundle)
    measured: dict[str, dict[int, Overlap]] = {}
    for name, open_runner in RUNNERS.items():
        try:
            measured[name] = {size: _overlap(bundle, name, open_runner, size) for size in SIZES_PX}
        except (EngineError, EngineLostError) as error:
            console.print(f"{name}: {error}")
    operations = flops(bundle.model.architecture, superresolved=False)
    console.print(_table(measured, eager, operations / limits[F16_PRODUCT] / 1e9))
    facts = {
        "machine": this_machine(bundle.hash, machine).model_dump(),
        "flop_a_pixel": operations,
        "limits": limits,
        "eager_ms": eager,
        "engines": {name: {size: asdict(one) for size, one in sizes.items()} for name, sizes in measured.items()},
    }
    figures.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def _device_limits() -> dict[str, float]:
    """Measured limits of the device: arithmetic, memory, and both directions of the bus."""
    halves = torch.randn(8192, 8192, device="cuda", dtype=torch.half)
    words = torch.randn(2**29, device="cuda")
    copied, pinned = torch.empty_like(words), torch.empty(2**26, pin_memory=True)
    return {
        F16_PRODUCT: 2 * 8192**3 / _milliseconds(lambda: halves @ halves) / 1e9,
        "TB/s read and written": 2 * 4 * 2**29 / _milliseconds(lambda: copied.copy_(words)) / 1e9,
        "GB/s to the device": 4 * 2**26 / _milliseconds(lambda: words[: 2**26].copy_(pinned, non_blocking=True)) / 1e6,
        "GB/s to the host": 4 * 2**26 / _milliseconds(lambda: pinned.copy_(words[: 2**26], non_blocking=True)) / 1e6,
    }


def _milliseconds(work: Callable[[], object]) -> float:
    """Median duration by the device's clock."""
    for _ in range(WARM_UP):
        work()
    times = []
    for _ in range(TILES):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        work()
        stop.record()
        stop.synchronize()
        times.append(float(start.elapsed_time(stop)))
    return statistics.median(times)


def _eager_ms(bundle: Bundle) -> dict[int, float]:
    """Milliseconds of the network in eager PyTorch, FP16, channels last, by tile edge."""
    network = load_network(bundle).half().cuda().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    measured = {}
    for size in SIZES_PX:
        images = torch.randn(1, 4, size, size, device="cuda", dtype=torch.half)
        images = images.contiguous(memory_format=torch.channels_last)

        def calls(images: torch.Tensor = images) -> None:
            features = network.blocks(torch.relu(network.stem(images)))
            torch.softmax(network.call(torch.relu(network.call_hidden(features))).float(), dim=1)

        with torch.inference_mode():
            measured[size] = _milliseconds(calls)
        torch.cuda.empty_cache()
    return measured


def _overlap(bundle: Bundle, name: str, open_runner: OpenRunner, size: int) -> Overlap:
    """Times of an engine's copies and computation, one tile at a time and two in flight."""
    drivers: list[TracedDriver] = []

    def open_traced() -> Driver:
        drivers.append(TracedDriver(open_cuda()))
        return cast(Driver, drivers[0])

    def runner(driver: Driver) -> BufferedRunner:
        return open_runner(driver, bundle, (size, size), EngineOptions(gpu=True, precision="f16"))

    rng = np.random.default_rng(1)
    # The content of the images and the positions of the clusters do not change the time.
    pixels = rng.integers(80, 2000, (4, size, size), np.uint16)
    positions = rng.uniform(0, size, (4, round(CLUSTERS_PER_PX * size**2), 2)).astype(np.float32)
    request = Request(np.full(4, 100, np.float32), np.full(4, 1e-3, np.float32), positions=positions)

    with closing(open_buffered(name, open_traced, runner, slots=2)) as engine:

        def spans(tiles: int, in_flight: int) -> list[Span]:
            drivers[0].reset()
            slots = list[Slot]()
            for _ in range(tiles):
                if len(slots) == in_flight:
                    engine.collect(slots.pop(0), TIMEOUT_S)
                slot = engine.lease(TIMEOUT_S)
                slot.pixels[...] = pixels
                engine.submit(slot, request)
                slots.append(slot)
            for slot in slots:
                engine.collect(slot, TIMEOUT_S)
            drivers[0].attach()
            try:
                return drivers[0].spans()
            finally:
                drivers[0].detach()

        spans(WARM_UP, 1)
        return overlap(spans(TILES, 1), spans(TILES, 2))


def _table(measured: dict[str, dict[int, Overlap]], eager: dict[int, float], shortest_ms_per_px: float) -> Table:
    """The figures of all engines.

    ``shortest_ms_per_px`` is the time that the network would need if the device computed at its highest speed.
    """
    table = Table("engine", "px", *(f"{stream}, ms" for stream in STREAMS))
    for column in ("eager / compute", "% of the limit", "% of copies hidden"):
        table.add_column(column, justify="right")
    for name, sizes in measured.items():
        for size, one in sizes.items():
            compute = one.parts_ms["compute"]
            table.add_row(
                name,
                f"{size}²",
                *(f"{one.parts_ms[stream]:.2f}" for stream in STREAMS),
                f"{eager[size] / compute:.2f}",
                f"{100 * shortest_ms_per_px * size**2 / compute:.0f}",
                f"{100 * one.hidden_copies:.0f}",
            )
    return table


if __name__ == "__main__":
    typer.run(main)
