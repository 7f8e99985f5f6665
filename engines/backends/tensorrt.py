"""The engine for NVIDIA GPUs through TensorRT, in FP16, double-buffered."""

from pathlib import Path

from engines.buffered import BufferedRunner, open_buffered
from engines.bundles.bundle import Bundle
from engines.contract import Engine, EngineInfo, EngineOptions
from engines.devices import open_cuda
from engines.devices.driver import Driver
from engines.tensorrt.api import TensorRT, load_tensorrt
from engines.tensorrt.cache import KeptPlan, default_folder
from engines.tensorrt.plans import Plans
from engines.tensorrt.program import PlanProgram

NAME = "tensorrt"


def open_engine(bundle: Bundle, *, shape: tuple[int, int], options: EngineOptions) -> Engine:
    """Open the engine for tiles of one shape (H, W); builds the plan where there is none, which takes minutes.

    Raises
    ------
    EngineError : there is no driver, GPU or TensorRT; a plan is missing and cannot be built; or the plan's file is not
        trusted, see :mod:`engines.tensorrt.cache`.
    """

    def runner(driver: Driver) -> BufferedRunner:
        # TensorRT is loaded after the driver: without a driver its runtime would end the process.
        return open_runner(driver, bundle, load_tensorrt(), shape=shape, options=options, folder=default_folder())

    return open_buffered(NAME, open_cuda, runner, slots=options.slots)


def open_runner(
    driver: Driver,
    bundle: Bundle,
    trt: TensorRT,
    *,
    shape: tuple[int, int],
    options: EngineOptions,
    folder: Path,
) -> BufferedRunner:
    """Make the engine's runner; call this in the thread that opened the driver.

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
        gpu=True,
        software=f"TensorRT {trt.__version__}, plan {plan(False).record.sha256[:12]}",
        precision="f16",
        model=bundle.model.name,
        model_hash=bundle.hash,
        slots=options.slots,
        strips=len(plans.strips),
    )
    return BufferedRunner(driver, program, info, shape=shape)
