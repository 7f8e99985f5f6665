"""The device that fits cycles: a GPU whose results are those of the CPU, else the CPU."""

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
from engines.errors import EngineError, EngineLostError, WrongAnswerError

TRIAL_PX, TRIAL_DENSITY_K_MM2 = 96, 284.0

MAX_DIFFERENCE = 1e-3
"""Largest accepted difference between GPU and CPU, as a share of a typical cluster's light; the solver stops at a
residual of about this size."""


@dataclass(frozen=True)
class FitDevice:
    """The device that fits cycles, and the reason for it."""

    name: str
    """``cpu`` or ``gpu``."""
    reason: str
    to_device: Callable[[NDArray[np.float32]], Array]
    """Copies images to the device's memory."""

    def fit(self, images: NDArray[np.float32], scene: Scene, drift_px: NDArray[np.float32]) -> FittedCycle:
        """Run :func:`calib.jointfit.fitcycle.fit_cycle` on the device.

        Raises
        ------
        EngineError : the GPU fails to fit this cycle.
        EngineLostError : the GPU no longer answers at all.
        """
        if self.name == "cpu":
            return fit_cycle(images, scene, drift_px)
        try:
            return fit_cycle(self.to_device(images), scene, drift_px)
        except Exception as error:  # The GPU's library may raise any type; only this cycle fails.
            kind = EngineError if self._answers() else EngineLostError
            raise kind(f"joint fit on the GPU: {type(error).__name__}: {first_line(error)}") from error

    def _answers(self) -> bool:
        """Whether one number can be copied to the device and back. After a fault on a GPU no call of this process
        succeeds.
        """
        try:
            number = self.to_device(np.zeros(1, np.float32))
            library_of(number).to_host(number)
        except Exception:
            return False
        return True


def cpu_device(reason: str) -> FitDevice:
    """NumPy on the CPU."""
    return FitDevice("cpu", reason, np.asarray)


def choose_fit_device(*, refusal: str = "") -> FitDevice:
    """Choose the GPU if CuPy finds one and the GPU's fit of a crowded tile agrees with the CPU's; otherwise the CPU.

    Parameters
    ----------
    refusal : why the GPU must not be used; then CuPy is not imported. Empty where it may be used.
    """
    if refusal:
        return cpu_device(refusal)
    try:
        return open_gpu()
    except EngineError as error:
        return cpu_device(str(error))


def open_gpu() -> FitDevice:
    """CuPy's GPU, after a trial tile.

    Raises
    ------
    WrongAnswerError : the light that it fits is not the CPU's, or differs between two fits.
    EngineError : CuPy is not installed, cannot be loaded, has no GPU, or fails.
    """
    try:
        cupy = import_module("cupy")
    except ModuleNotFoundError:
        raise EngineError("CuPy is not installed") from None
    except Exception as error:  # A damaged installation may raise any type.
        raise EngineError(f"CuPy cannot be loaded: {first_line(error)}") from error
    try:
        if not cupy.cuda.is_available():
            raise EngineError("CuPy finds no GPU")
        device = FitDevice("gpu", "CuPy fits a trial tile as the CPU does", cupy.asarray)
        check_trial(device)
    except EngineError:
        raise
    except Exception as error:  # CuPy may raise any type where its driver or compiler is missing.
        raise EngineError(f"CuPy fails: {first_line(error)}") from error
    return device


def check_trial(device: FitDevice, shape: tuple[int, int] = (TRIAL_PX, TRIAL_PX)) -> None:
    """Fit a crowded tile of a shape (H, W) twice and compare the light with the CPU's.

    Raises
    ------
    WrongAnswerError : the light is not the CPU's, or differs between two fits.
    EngineError, EngineLostError : the device fails.
    """
    images, scene = crowded_tile(max(shape), TRIAL_DENSITY_K_MM2)
    images = np.ascontiguousarray(images[:, : shape[0], : shape[1]])
    first, second = (device.fit(images, scene, NO_DRIFT).light for _ in range(2))
    difference = np.abs(first - fit_cycle(images, scene, NO_DRIFT).light).max()
    if first.tobytes() != second.tobytes():
        raise WrongAnswerError(
            "two fits of the same trial tile differ, so a restart would change the bytes of later calls"
        )
    share = float(difference / np.median(scene.brightness))
    # A comparison with NaN is false, so light that is not a number is refused too.
    if not share <= MAX_DIFFERENCE:
        raise WrongAnswerError(
            f"the fit of a trial tile is off by {share:.2g} of a cluster's light, at most {MAX_DIFFERENCE:g} is allowed"
        )


PIXEL_UM = 0.375
NOISE = 0.05
"""Standard deviation of a pixel, as a share of a typical cluster's peak."""

CROSSTALK = np.array([[1.0, 0.35, 0.01, 0.02], [0.3, 1.0, 0.02, 0.02], [0.01, 0.02, 1.0, 0.25], [0.01, 0.01, 0.1, 1.0]])
NO_DRIFT = np.zeros(2, np.float32)
"""Drift of the trial tile's cycle, pixels."""


def crowded_tile(size: int, density_k_mm2: float) -> tuple[NDArray[np.float32], Scene]:
    """(4, H, W) images of one cycle of clusters at known positions, and their scene.

    The function draws the images with the spots of the fit. This takes seconds; the simulator would take minutes.
    The time of a fit depends only on the number of clusters and on how many of them share light.
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
