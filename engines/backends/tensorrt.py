"""The engine for NVIDIA GPUs through TensorRT, in FP16, double-buffered."""

import traceback
from functools import partial
from pathlib import Path

from engines.buffered import BufferedRunner
from engines.bundle import Bundle
from engines.contract import Engine, EngineInfo
from engines.devices import open_cuda
from engines.devices.driver import Driver
from engines.options import EngineOptions
from engines.slots import SlottedEngine
from engines.tensorrt.api import TensorRT, load_tensorrt
from engines.tensorrt.cache import KeptPlan, default_folder
from engines.tensorrt.plans import Plans
from engines.tensorrt.program import PlanProgram

NAME = "tensorrt"


def open_engine(bundle: Bundle, *, shape: tuple[int, int], options: EngineOptions) -> Engine:
    """Open the engine for tiles of one shape (H, W); builds the plan where there is none, which takes minutes.

    Raises
    ------
    EngineError : no driver, GPU or TensorRT; no plan and nothing to build it with; or the plan is not trusted.
    """
    return SlottedEngine(NAME, partial(_opened, bundle, shape, options), slots=options.slots)


def _opened(bundle: Bundle, shape: tuple[int, int], options: EngineOptions) -> BufferedRunner:
    driver = open_cuda()  # before TensorRT, whose runtime ends the process where there is no driver
    try:
        return open_runner(load_tensorrt(), driver, bundle, shape=shape, options=options, folder=default_folder())
    except BaseException as error:
        _forget(error)
        driver.close()
        raise


def open_runner(
    trt: TensorRT,
    driver: Driver,
    bundle: Bundle,
    *,
    shape: tuple[int, int],
    options: EngineOptions,
    folder: Path,
) -> BufferedRunner:
    """The runner behind the engine, in the thread that opened the driver.

    Raises
    ------
    EngineError : as :func:`open_engine`.
    """
    plans = Plans(trt, driver.info, bundle, shape=shape, options=options, folder=folder)

    def plan(superresolved: bool) -> KeptPlan:
        return plans.plan(superresolved=superresolved)

    program = PlanProgram(trt, driver, plan, shape=shape, strips=plans.strips)
    info = EngineInfo(
        backend=NAME,
        device=driver.info.name,
        precision="f16",
        model=bundle.model.name,
        model_hash=bundle.hash,
        slots=options.slots,
        strips=len(plans.strips),
    )
    return BufferedRunner(driver, program, info, shape=shape)


def _forget(error: BaseException | None) -> None:
    """Let what was made before an error go while the device is still there, not when the error goes."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
