"""Engines on a GPU beside PyTorch eager and the device's own ceilings, in one run.

``make bench-gpu`` prints the tables and writes figures and timeline. Nothing but ratios and shares of a ceiling
holds on another device.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, cast

import matplotlib

matplotlib.use("Agg")
import numpy as np
import torch
import typer
from matplotlib import pyplot
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from seqd_client.errors import SeqdError

from benchmarks.devicefit import gpu_library, measure_fit
from benchmarks.tracing import STREAMS, Overlap, Span, TracedDriver, overlap
from calib.jointfit.fitdevice import NO_DRIFT, crowded_tile
from engines.backends import EngineOptions, tensorrt
from engines.backends import torch as pytorch
from engines.buffered import BufferedRunner, open_buffered
from engines.bundles.bundle import Bundle, load_bundle
from engines.bundles.torchbundle import load_network
from engines.contract import Request, Slot
from engines.devices import open_cuda
from engines.devices.driver import Driver
from engines.errors import EngineError, EngineLostError
from engines.network.architecture import flops
from engines.tensorrt.api import load_tensorrt
from engines.tensorrt.cache import default_folder

SIZES = (256, 512, 1024, 2048, 4096)
LARGE = 2048
"""Edge of the tiles of the timeline and of the joint fit."""

DENSITY_K_MM2, PIXEL_UM = 284, 0.375
TILES, WARM = 20, 4
TIMEOUT_S = 300.0
PACKAGES = ("torch", "numpy", "tensorrt-cu13", "tensorrt-lean-cu13-bindings", "pycuda", "cuda-bindings", "cupy-cuda13x")

OpenRunner = Callable[[Driver, Bundle, tuple[int, int], EngineOptions], BufferedRunner]

BACKENDS: dict[str, OpenRunner] = {
    "tensorrt": lambda driver, bundle, shape, options: tensorrt.open_runner(
        driver, bundle, load_tensorrt(), shape=shape, options=options, folder=default_folder()
    ),
    "torch": lambda driver, bundle, shape, options: pytorch.open_runner(driver, bundle, shape=shape, options=options),
}


def main(
    figures: Annotated[Path, typer.Argument()] = Path("docs/benchmarks/gpu.json"),
    timeline: Path = Path("docs/benchmarks/gpu.png"),
) -> None:
    """Measure, print and write."""
    try:
        _main(figures, timeline)
    except SeqdError as error:
        typer.echo(f"bench-gpu: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


def _main(figures: Path, timeline: Path) -> None:
    with closing(open_cuda()) as driver:
        device = driver.info
    bundle, console = load_bundle(), Console()
    operations = flops(bundle.model.architecture, superresolved=False)
    ceilings = _ceilings()
    console.print(f"{device.name}, driver {device.driver}:", ", ".join(f"{k} {v:.3g}" for k, v in ceilings.items()))
    speeds: dict[str, dict[int, Any]] = {"PyTorch eager f16 channels_last": _eager(bundle)}
    overlaps: dict[str, Overlap] = {}
    for name, open_runner in BACKENDS.items():
        try:
            speeds[f"seqd, {name}"] = {size: _speed(bundle, name, open_runner, size) for size in SIZES}
            overlaps[name], spans = _overlap(bundle, name, open_runner)
        except (EngineError, EngineLostError) as error:
            console.print(f"{name}: {error}")
        else:
            _draw(timeline.with_stem(f"{timeline.stem}-{name}"), f"{name}, {LARGE}² px on {device.name}", spans)
    fit = _fit()
    _show(console, speeds, overlaps, fit, operations, ceilings)
    facts = {
        "device": asdict(device),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "bundle": bundle.hash,
        "flop_a_pixel": operations,
        "ceilings": ceilings,
        "milliseconds": speeds,
        "overlap": {
            name: asdict(one) | {"hidden": one.hidden, "of_the_sum": one.of_the_sum} for name, one in overlaps.items()
        },
        "fit_milliseconds": fit,
    }
    figures.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def _ceilings() -> dict[str, float]:
    """What the device does at most, measured."""
    halves = torch.randn(8192, 8192, device="cuda", dtype=torch.half)
    words = torch.randn(2**29, device="cuda")
    copied, pinned = torch.empty_like(words), torch.empty(2**26, pin_memory=True)
    return {
        "TFLOP/s of an f16 product": 2 * 8192**3 / _milliseconds(lambda: halves @ halves) / 1e9,
        "TB/s read and written": 2 * 4 * 2**29 / _milliseconds(lambda: copied.copy_(words)) / 1e9,
        "GB/s up": 4 * 2**26 / _milliseconds(lambda: words[: 2**26].copy_(pinned, non_blocking=True)) / 1e6,
        "GB/s down": 4 * 2**26 / _milliseconds(lambda: pinned.copy_(words[: 2**26], non_blocking=True)) / 1e6,
    }


def _milliseconds(work: Callable[[], object]) -> float:
    """Median by the device's clock."""
    for _ in range(WARM):
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


def _eager(bundle: Bundle) -> dict[int, dict[str, float]]:
    network = load_network(bundle).half().cuda().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    measured = {}
    for size in SIZES:
        images = torch.randn(1, 4, size, size, device="cuda", dtype=torch.half)
        images = images.contiguous(memory_format=torch.channels_last)

        def calls(images: torch.Tensor = images) -> None:
            features = network.blocks(torch.relu(network.stem(images)))
            torch.softmax(network.call(torch.relu(network.call_hidden(features))).float(), dim=1)

        with torch.inference_mode():
            measured[size] = {"compute": _milliseconds(calls)}
        torch.cuda.empty_cache()
    return measured


def _tile(size: int) -> tuple[NDArray[np.uint16], Request]:
    """Noise, and as many clusters as a crowded tile has: the time hangs on neither."""
    rng = np.random.default_rng(1)
    clusters = round(DENSITY_K_MM2 * 1e3 * (size * PIXEL_UM * 1e-3) ** 2)
    positions = np.broadcast_to(rng.uniform(0, size, (clusters, 2)), (4, clusters, 2)).astype(np.float32)
    request = Request(np.full(4, 100, np.float32), np.full(4, 1e-3, np.float32), positions=positions)
    return rng.integers(80, 2000, (4, size, size), np.uint16), request


class _Traced:
    """An engine and the driver that notes what it does."""

    def __init__(self, bundle: Bundle, name: str, open_runner: OpenRunner, size: int) -> None:
        def traced() -> Driver:
            self.driver = TracedDriver(open_cuda())
            return cast(Driver, self.driver)

        def runner(driver: Driver) -> BufferedRunner:
            return open_runner(driver, bundle, (size, size), EngineOptions(gpu=True, precision="f16"))

        self.engine = open_buffered(name, traced, runner, slots=2)
        self.pixels, self.request = _tile(size)

    def __enter__(self) -> "_Traced":
        self.run(WARM, in_flight=1)
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def run(self, tiles: int, *, in_flight: int) -> float:
        """Seconds of the host's clock for so many tiles."""
        started, slots = time.perf_counter(), list[Slot]()
        for _ in range(tiles):
            if len(slots) == in_flight:
                self.engine.collect(slots.pop(0), TIMEOUT_S)
            slot = self.engine.lease(TIMEOUT_S)
            slot.pixels[...] = self.pixels
            self.engine.submit(slot, self.request)
            slots.append(slot)
        for slot in slots:
            self.engine.collect(slot, TIMEOUT_S)
        return time.perf_counter() - started

    def spans(self, tiles: int, *, in_flight: int) -> list[Span]:
        """When so many tiles were copied and computed."""
        self.driver.forget()
        self.run(tiles, in_flight=in_flight)
        self.driver.attach()
        try:
            return self.driver.spans()
        finally:
            self.driver.detach()


def _speed(bundle: Bundle, name: str, open_runner: OpenRunner, size: int) -> dict[str, float]:
    """Milliseconds of a tile: on the compute stream, and altogether with two in flight."""
    with _Traced(bundle, name, open_runner, size) as traced:
        spans = [span for span in traced.spans(TILES, in_flight=1) if span.stream == "compute"]
        together = 1e3 * traced.run(TILES, in_flight=2) / TILES
    return {"compute": statistics.median(span.stop_ms - span.start_ms for span in spans), "pipelined": together}


def _overlap(bundle: Bundle, name: str, open_runner: OpenRunner) -> tuple[Overlap, list[Span]]:
    with _Traced(bundle, name, open_runner, LARGE) as traced:
        alone = traced.spans(TILES, in_flight=1)
        together = traced.spans(TILES, in_flight=2)
    return overlap(alone, together), together


def _fit() -> float | None:
    """Milliseconds of a cycle's joint fit on the GPU; None without CuPy."""
    library = gpu_library()
    if library is None:
        return None
    images, scene = crowded_tile(LARGE, DENSITY_K_MM2)
    return 1e3 * measure_fit(library.xp.asarray(images), scene, NO_DRIFT)


def _show(
    console: Console,
    speeds: dict[str, dict[int, Any]],
    overlaps: dict[str, Overlap],
    fit: float | None,
    operations: int,
    ceilings: dict[str, float],
) -> None:
    eager, ceiling = next(iter(speeds.values())), ceilings["TFLOP/s of an f16 product"]
    table = Table("", "px", "ms", "TFLOP/s", "% of the ceiling", "× eager", "tile-cycles/s, copies and all")
    for name, by_size in speeds.items():
        for size, one in by_size.items():
            rate = operations * size**2 / one["compute"] / 1e9
            table.add_row(
                name,
                f"{size}²",
                f"{one['compute']:.2f}",
                f"{rate:.0f}",
                f"{100 * rate / ceiling:.0f}",
                f"{eager[size]['compute'] / one['compute']:.2f}",
                f"{1e3 / one['pipelined']:.1f}" if "pipelined" in one else "",
            )
    console.print(table)
    for name, one in overlaps.items():
        parts = " + ".join(f"{one.parts_ms[stream]:.2f} ms {stream}" for stream in STREAMS)
        console.print(
            f"{name}, {LARGE}² px: {parts} a tile; {one.tiles} tiles pipelined take {one.of_the_sum:.2f} of the sum of "
            f"their parts, {one.hidden:.0%} of the copies' time is hidden"
        )
        if fit:
            console.print(
                f"joint fit of {LARGE}² px: {fit:.1f} ms, {fit / one.parts_ms['compute']:.2f} of the network's"
            )


def _draw(path: Path, title: str, spans: list[Span]) -> None:
    """Timeline of the first tiles."""
    figure, axes = pyplot.subplots(figsize=(10, 2.5))
    for row, stream in enumerate(STREAMS):
        for span in spans:
            if span.stream == stream and span.tile < 8:
                bar = [(span.start_ms, span.stop_ms - span.start_ms)]
                axes.broken_barh(bar, (row - 0.4, 0.8), color=f"C{span.tile}", edgecolor="black", linewidth=0.5)
    axes.set(yticks=range(3), yticklabels=STREAMS, xlabel="ms", title=title)
    axes.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:
        return None


if __name__ == "__main__":
    typer.run(main)
