"""Running plans: a :class:`engines.buffered.Program`."""

from collections.abc import Callable
from functools import partial
from math import prod

from engines.buffered import DeviceTile
from engines.devices.driver import Address, Driver, Handle
from engines.errors import EngineError
from engines.kernels.launcher import KernelLauncher
from engines.strips import Strip
from engines.tensorrt.api import LoadedPlan, TensorRT
from engines.tensorrt.cache import KeptPlan

HALF_BYTES, FLOAT_BYTES = 2, 4


class PlanProgram:
    """Computes a tile strip by strip: normalises the images, runs the plan and reads the evidence from its output.

    Parameters
    ----------
    plan : returns the plan without (False) or with (True) super-resolved images; the second is loaded when a request
        first needs it.
    shape : (H, W) of the tiles.
    """

    def __init__(
        self,
        trt: TensorRT,
        driver: Driver,
        plan: Callable[[bool], KeptPlan],
        *,
        shape: tuple[int, int],
        strips: list[Strip],
    ) -> None:
        self._trt, self._driver, self._plan, self._strips = trt, driver, plan, strips
        self._kernels = KernelLauncher(driver, shape=shape)
        self._networks = {False: self._loaded(False)}

    def enqueue(self, tile: DeviceTile, stream: Handle) -> None:
        superresolved = tile.superresolved != 0
        if superresolved not in self._networks:
            self._networks[superresolved] = self._loaded(superresolved)
        network = self._networks[superresolved]
        whole = {"probabilities": tile.probabilities} | ({"superresolved": tile.superresolved} if superresolved else {})
        for strip in self._strips:
            self._kernels.normalise(tile, strip, network.images, stream)
            if len(self._strips) == 1:
                network.run(whole, stream)
                continue
            network.run(network.scratch, stream)
            self._kernels.copy_kept_rows(network.scratch["probabilities"], tile.probabilities, strip, stream, planes=5)
            if superresolved:
                source = network.scratch["superresolved"]
                self._kernels.copy_kept_rows(source, tile.superresolved, strip, stream, planes=4, scale=2)
        self._kernels.read_out(tile, stream)

    def close(self) -> None:
        """Drop all references, so that contexts and engines are freed while the device is still open."""
        self._networks.clear()

    def _loaded(self, superresolved: bool) -> "_Network":
        return _Network(self._trt, self._driver, self._plan(superresolved), whole=len(self._strips) == 1)


class _Network:
    """A loaded plan, and device memory for the inputs and outputs of a strip.

    Parameters
    ----------
    whole : whether the strip is the whole tile; then the outputs are written directly to the tile's memory.
    """

    def __init__(self, trt: TensorRT, driver: Driver, plan: KeptPlan, *, whole: bool) -> None:
        self._loaded = LoadedPlan(trt, plan.content)
        self._check(trt, plan)
        key, log = plan.record.key, self._loaded.log
        # TensorRT allocates the context's scratch memory here.
        self._context = log.result("making an execution context", self._loaded.engine.create_execution_context)
        self.images = driver.allocate(HALF_BYTES * prod(key.images))
        outputs = {} if whole else key.outputs
        self.scratch = {name: driver.allocate(FLOAT_BYTES * prod(shape)) for name, shape in outputs.items()}

    def run(self, outputs: dict[str, Address], stream: Handle) -> None:
        for name, address in ({"images": self.images} | outputs).items():
            self._loaded.log.check("setting an address", partial(self._context.set_tensor_address, name, address))
        self._loaded.log.check("running the plan", lambda: self._context.execute_async_v3(int(stream)))

    def _check(self, trt: TensorRT, plan: KeptPlan) -> None:
        """Compare the plan's inputs and outputs with its record."""
        engine, key = self._loaded.engine, plan.record.key
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        found = {name: (tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name)) for name in names}
        expected = {"images": (key.images, trt.DataType.HALF)}
        expected |= {name: (shape, trt.DataType.FLOAT) for name, shape in key.outputs.items()}
        if found != expected:
            raise EngineError(f"{plan.path} is not a plan for {key}: it has {_described(found)}")


def _described(tensors: dict[str, tuple[tuple[int, ...], object]]) -> str:
    return ", ".join(f"{name} {shape} {kind}" for name, (shape, kind) in sorted(tensors.items())) or "no tensors"
