"""The network on Hopper GPUs (H100, H200) through kernels of our own, in FP16, double-buffered.

The kernels give the network's answers in emulation; no GPU has run them yet. ``auto`` therefore does not choose them.
"""

from functools import partial

from engines.buffered import BufferedRunner, DeviceBuffers, open_buffered
from engines.bundle import Bundle, file_hash, read_weights
from engines.contract import EngineInfo
from engines.devices import open_cuda
from engines.devices.driver import Driver
from engines.errors import EngineError
from engines.hopper.packing import fits
from engines.hopper.program import KERNELS, HopperProgram
from engines.options import EngineOptions
from engines.slots import SlottedEngine
from engines.strips import plan_strips

NAME = "hopper"

COMPUTE_CAPABILITY = (9, 0)
"""The only one that has these matrix instructions; machine code for it runs on no other."""

STRIP_PX = 4096 * 4096
"""Pixels of a strip; its activations take about 560 bytes a pixel, twice that with super-resolved images."""


def open_engine(bundle: Bundle, *, shape: tuple[int, int], options: EngineOptions) -> SlottedEngine[DeviceBuffers]:
    """Open the engine for tiles of one shape (H, W) on the first GPU.

    Raises
    ------
    EngineError : no driver or GPU, one that is no Hopper, or a network or precision that the kernels do not compute.
    """
    if options.gpu is False:
        raise EngineError(f"engine {NAME}: it runs on a GPU only")
    runner = partial(open_runner, bundle=bundle, shape=shape, options=options)
    return open_buffered(NAME, open_cuda, runner, slots=options.slots)


def open_runner(driver: Driver, bundle: Bundle, *, shape: tuple[int, int], options: EngineOptions) -> BufferedRunner:
    """The runner behind the engine, in the thread that opened the driver.

    Raises
    ------
    EngineError : as :func:`open_engine`.
    """
    architecture, gpu = bundle.model.architecture, driver.info
    if gpu.compute_capability != COMPUTE_CAPABILITY:
        found, needed = (".".join(map(str, version)) for version in (gpu.compute_capability, COMPUTE_CAPABILITY))
        raise EngineError(f"engine {NAME}: {gpu.name} has compute capability {found}, the kernels run on {needed} only")
    if not fits(architecture):
        raise EngineError(
            f"engine {NAME}: model {bundle.model.name} has other widths than the kernels compute: {architecture}"
        )
    if options.precision not in ("auto", "f16"):
        raise EngineError(f"engine {NAME}: it does not compute in {options.precision}; it does in f16")
    height, width = shape
    most_px = options.strip_px or STRIP_PX
    strips = plan_strips(height=height, width=width, halo=architecture.halo, most_px=most_px)
    info = EngineInfo(
        backend=NAME,
        device=gpu.name,
        gpu=True,
        software=f"kernels {file_hash(KERNELS)[:12]}",
        precision="f16",
        model=bundle.model.name,
        model_hash=bundle.hash,
        slots=options.slots,
        strips=len(strips),
    )
    program = HopperProgram(driver, architecture, read_weights(bundle.folder), shape=shape, strips=strips)
    return BufferedRunner(driver, program, info, shape=shape)
