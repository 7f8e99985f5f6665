"""Where cycles are fitted: on a GPU that gives what the CPU gives, else on the CPU."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray
from seqd_client.errors import first_line

from calib.jointfit.arrays import Array, library_of
from calib.jointfit.fitcycle import FittedCycle, fit_cycle
from calib.jointfit.gaussianspots import Spots
from calib.jointfit.scene import Scene
from engines.errors import EngineError, EngineLostError

TRIAL_PX, TRIAL_DENSITY_K_MM2 = 96, 284.0

AGREEMENT = 1e-3
"""Light may differ by this much of the typical cluster's, as the solver leaves off at about this much."""


@dataclass(frozen=True)
class Place:
    """Where cycles are fitted, and why there."""

    name: str
    """``cpu`` or ``gpu``."""
    reason: str
    put: Callable[[NDArray[np.float32]], Array]
    """Images to where they are fitted."""

    def fit(self, images: NDArray[np.float32], scene: Scene, drift_px: NDArray[np.float32]) -> FittedCycle:
        """:func:`calib.jointfit.fitcycle.fit_cycle` there.

        Raises
        ------
        EngineError : the GPU fails at this cycle.
        EngineLostError : it fails at everything.
        """
        if self.name == "cpu":
            return fit_cycle(images, scene, drift_px)
        try:
            return fit_cycle(self.put(images), scene, drift_px)
        except Exception as error:  # whatever the GPU's library raises belongs to this cycle
            kind = EngineError if self._alive() else EngineLostError
            raise kind(f"joint fit on the GPU: {type(error).__name__}: {first_line(error)}") from error

    def _alive(self) -> bool:
        """Whether one number still comes back: after a fault on a GPU nothing does in this process."""
        try:
            there = self.put(np.zeros(1, np.float32))
            library_of(there).to_host(there)
        except Exception:
            return False
        return True


def choose_place() -> Place:
    """The GPU where CuPy has one and fits a crowded tile on it as the CPU does."""
    try:
        cupy = import_module("cupy")
    except ModuleNotFoundError:
        return _cpu("CuPy is not installed")
    except Exception as error:  # half installed, it raises what it likes
        return _cpu(f"CuPy cannot be loaded: {first_line(error)}")
    try:
        if not cupy.cuda.is_available():
            return _cpu("CuPy finds no GPU")
        place = Place("gpu", "CuPy fits a trial tile as the CPU does", cupy.asarray)
        images, scene = crowded_tile(TRIAL_PX, TRIAL_DENSITY_K_MM2)
        first, second = (place.fit(images, scene, STILL).light for _ in range(2))
        off = np.abs(first - fit_cycle(images, scene, STILL).light).max()
    except Exception as error:  # CuPy raises what it likes where its driver or compiler is missing
        return _cpu(f"CuPy fails: {first_line(error)}")
    if first.tobytes() != second.tobytes():
        return _cpu("CuPy fits a trial tile in two ways, so that a restart would change bytes")
    share = float(off / np.median(scene.brightness))
    # Not a number is no agreement.
    if not share <= AGREEMENT:
        return _cpu(
            f"CuPy's fit of a trial tile is off by {share:.2g} of a cluster's light, at most {AGREEMENT:g} is allowed"
        )
    return place


def _cpu(reason: str) -> Place:
    return Place("cpu", reason, np.asarray)


PIXEL_UM = 0.375
NOISE = 0.05
"""Standard deviation of a pixel, as a share of a typical cluster's peak."""

CROSSTALK = np.array([[1.0, 0.35, 0.01, 0.02], [0.3, 1.0, 0.02, 0.02], [0.01, 0.02, 1.0, 0.25], [0.01, 0.01, 0.1, 1.0]])
STILL = np.zeros(2, np.float32)
"""Drift of its cycle, pixels."""


def crowded_tile(size: int, density_k_mm2: float) -> tuple[NDArray[np.float32], Scene]:
    """(4, H, W) images of one cycle of clusters at known places, and what is known of them.

    Drawn by the fit's own spots, which takes seconds where the simulator takes many minutes; what
    the fit costs hangs on how many clusters share how much light, and on nothing else.
    """
    rng = np.random.default_rng(1)
    number = round(density_k_mm2 * 1e3 * (size * PIXEL_UM * 1e-3) ** 2)
    positions = rng.uniform(-0.5, size - 0.5, (number, 2))
    scene = Scene(
        positions=positions[np.lexsort((positions[:, 1], positions[:, 0]))],
        brightness=rng.lognormal(0, 0.35, number),
        channel_shift_px=rng.uniform(-0.3, 0.3, (4, 2)),
        sigma_px=np.array([1.09, 1.14, 1.19, 1.24]),
        noise=np.full(4, NOISE),
        crosstalk=CROSSTALK,
    )
    light = CROSSTALK @ (np.eye(4)[:, rng.integers(0, 4, number)] * scene.brightness)
    spots = Spots(scene.positions + scene.channel_shift_px[:, None], scene.sigma_px, (size, size))
    return spots.draw(light) + rng.normal(0.2, NOISE, (4, size, size)).astype(np.float32), scene
