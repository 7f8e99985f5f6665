"""Where cycles are fitted: on a GPU that gives what the CPU gives, else on the CPU."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from calib.jointfit.arrays import Array, library_of
from calib.jointfit.cycle import FittedCycle, fit_cycle
from calib.jointfit.scene import Scene
from calib.jointfit.trial import STILL, crowded_tile
from engines.errors import EngineError, EngineLostError, first_line

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
        """:func:`calib.jointfit.cycle.fit_cycle` there.

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
