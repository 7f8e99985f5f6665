"""The joint fit of a cycle on a CPU and on a GPU, from small to large and from sparse to crowded tiles.

``python -m benchmarks.devicefit`` prints the table; it needs NumPy, SciPy and rich, and for the GPU's columns CuPy.
"""

import statistics
import time
from importlib import import_module

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from calib.jointfit.arrays import Array, Library, library_of
from calib.jointfit.fitcycle import FittedCycle, fit_cycle
from calib.jointfit.fitdevice import NO_DRIFT, crowded_tile
from calib.jointfit.scene import Scene

SIZES_PX = (512, 1024, 2048)
DENSITIES_K_MM2 = (57, 284, 850)
ROUNDS = 5


def main() -> None:
    """Measure and print."""
    gpu = gpu_library()
    table = Table(
        "px", "K/mm²", "clusters", title="joint fit of a cycle: median seconds, largest difference in typical peaks"
    )
    for column in ("CPU", "GPU", "CPU / GPU", "CPU − GPU", "same bits"):
        table.add_column(column, justify="right")
    for size in SIZES_PX:
        for density in DENSITIES_K_MM2:
            images, scene = crowded_tile(size, density)
            cpu = measure_fit(images, scene, NO_DRIFT)
            row = [f"{size}", f"{density}", f"{len(scene.positions)}", f"{cpu:.3f}"]
            table.add_row(*row, *(["–"] * 4 if gpu is None else _beside(gpu, images, scene, cpu)))
    Console().print(table)


def measure_fit(images: Array, scene: Scene, drift_px: NDArray[np.float32]) -> float:
    """Median seconds of a cycle's fit where the images are, after one that compiles kernels and finds neighbours.

    The fit's result comes back to the host, so that its end is the end of what the device does.
    """
    fit_cycle(images, scene, drift_px)
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        fit_cycle(images, scene, drift_px)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def gpu_library() -> Library | None:
    """CuPy's, where it is installed and finds a GPU."""
    try:
        cupy = import_module("cupy")
    except ImportError:
        return None
    return library_of(cupy.zeros(0)) if cupy.cuda.is_available() else None


def _beside(gpu: Library, images: NDArray[np.float32], scene: Scene, cpu: float) -> list[str]:
    there = gpu.xp.asarray(images)
    seconds = measure_fit(there, scene, NO_DRIFT)
    here, first, second = (fit_cycle(where, scene, NO_DRIFT) for where in (images, there, there))
    far = np.abs(first.light - here.light).max() / np.median(scene.brightness)
    return [f"{seconds:.4f}", f"{cpu / seconds:.1f}", f"{far:.1e}", "yes" if _bits(first) == _bits(second) else "no"]


def _bits(fitted: FittedCycle) -> list[bytes]:
    return [one.tobytes() for one in (fitted.light, fitted.left_over, fitted.visible)]


if __name__ == "__main__":
    main()
