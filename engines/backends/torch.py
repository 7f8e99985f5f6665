"""PyTorch as an engine: on a GPU in FP16 where there is one, else on the processor."""

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from seqd_client.errors import first_line
from torch import Tensor

from engines.buffered import HEADER, BufferedRunner, DeviceBuffers, DeviceTile, open_buffered
from engines.bundles.bundle import Bundle
from engines.bundles.torchbundle import load_network
from engines.contract import EngineInfo, EngineOptions
from engines.devices import open_cuda
from engines.devices.driver import Address, Driver, Handle
from engines.devices.host import HostDriver
from engines.errors import EngineError
from engines.network.centres import OUTSIDE_PX
from engines.network.deployed import InferenceNetwork, centres_at
from engines.slots import SlottedEngine
from engines.strips import plan_strips

NAME = "torch"
_DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

STRIP_PX = {"cpu": 768 * 768, "cuda": 2048 * 2048}
"""Pixels of a strip by device."""

_NATIVE_BF16 = {"avx512_bf16", "bf16"}
"""Linux lists one of these flags for a processor with native BF16: the first on x86, the second on ARM."""

_CLUSTERS_OFFSET = dict(HEADER.fields or {})["clusters"][1]
"""Offset of the field ``clusters`` in a :data:`engines.buffered.HEADER`, bytes."""


def open_engine(bundle: Bundle, *, shape: tuple[int, int], options: EngineOptions) -> SlottedEngine[DeviceBuffers]:
    """PyTorch for tiles of one shape (height, width), on the first GPU where PyTorch has one.

    Raises
    ------
    EngineError : the device cannot be used, or does not compute in the wanted precision.
    """
    gpu = torch.cuda.is_available() if options.gpu is None else options.gpu
    if gpu and not torch.cuda.is_available():
        raise EngineError(f"engine {NAME}: PyTorch {torch.__version__} has no GPU here")
    runner = partial(open_runner, bundle=bundle, shape=shape, options=options)
    return open_buffered(NAME, open_cuda if gpu else HostDriver, runner, slots=options.slots)


def open_runner(driver: Driver, bundle: Bundle, *, shape: tuple[int, int], options: EngineOptions) -> BufferedRunner:
    """Make the engine's runner; call this in the thread that opened the driver.

    Raises
    ------
    EngineError : the device does not compute in the wanted precision.
    """
    device = torch.device("cpu") if driver.info.compute_capability == (0, 0) else torch.device("cuda", 0)
    precision = _precision(options.precision, device)
    if options.threads and device.type == "cpu":
        torch.set_num_threads(options.threads)
    strip_px = options.strip_px or STRIP_PX[device.type]
    program = TorchProgram(bundle, shape=shape, dtype=_DTYPES[precision], device=device, strip_px=strip_px)
    info = EngineInfo(
        backend=NAME,
        device=driver.info.name,
        gpu=device.type == "cuda",
        software=_software(device),
        precision=precision,
        model=bundle.model.name,
        model_hash=bundle.hash,
        slots=options.slots,
        strips=program.strips,
    )
    return BufferedRunner(driver, program, info, shape=shape)


def _software(device: torch.device) -> str:
    version = f"PyTorch {torch.__version__}"
    if device.type == "cuda":
        version += f", cuDNN {torch.backends.cudnn.version()}"  # type: ignore[no-untyped-call]
    return version


def _precision(wanted: str, device: torch.device) -> str:
    if device.type == "cuda":
        available, best = ["f32", "bf16", "f16"], "f16"
    else:
        native = _NATIVE_BF16 & set(Path("/proc/cpuinfo").read_text("utf-8").split())
        available, best = ["f32", "bf16"], "bf16" if native else "f32"
    if wanted == "auto":
        return best
    if wanted not in available:
        raise EngineError(
            f"engine {NAME}: {device.type} does not compute in {wanted}; it does in {', '.join(available)}"
        )
    return wanted


class TorchProgram:
    """A :class:`engines.buffered.Program` of PyTorch's operators, on memory that a driver allocated.

    Parameters
    ----------
    shape : (H, W) of the tiles.
    dtype : type that the network computes in.
    strip_px : pixels of a strip that a larger tile is cut into.
    """

    def __init__(
        self, bundle: Bundle, *, shape: tuple[int, int], dtype: torch.dtype, device: torch.device, strip_px: int
    ) -> None:
        height, width = shape
        architecture = bundle.model.architecture
        self._shape, self._dtype, self._device = shape, dtype, device
        self._strips = plan_strips(height=height, width=width, halo=architecture.halo, most_px=strip_px)
        self._network = InferenceNetwork(load_network(bundle), dtype=dtype, device=device)
        # Captured graphs use the memory that PyTorch allocated during the capture, so this pool keeps it.
        self._pool = torch.cuda.MemPool() if device.type == "cuda" else None

    @property
    def strips(self) -> int:
        """How many strips a tile is cut into."""
        return len(self._strips)

    @torch.inference_mode()
    def enqueue(self, tile: DeviceTile, stream: Handle) -> None:
        try:
            with self._using(stream):
                probabilities = self._compute(tile)
                self._read_out(tile, probabilities)
        except RuntimeError as error:
            # A device that refuses a capture raises RuntimeError too; the caller then computes without a graph.
            raise EngineError(first_line(error)) from None

    def close(self) -> None:
        self._pool = None

    def _using(self, stream: Handle) -> AbstractContextManager[Any]:
        stack = ExitStack()
        if self._pool is not None:
            theirs = torch.cuda.ExternalStream(int(stream), self._device)  # type: ignore[no-untyped-call]
            stack.enter_context(torch.cuda.stream(theirs))
            stack.enter_context(torch.cuda.use_mem_pool(self._pool, self._device))
            # The same tile must give the same bits, and FP32 must not be computed as TF32.
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
        return stack

    def _compute(self, tile: DeviceTile) -> Tensor:
        """Normalise and run the network, strip by strip; returns the tile's probabilities."""
        height, width = self._shape
        offset, gain = self._memory(tile.header, (2, 4, 1, 1), np.float32)
        pixels = self._memory(tile.pixels, (4, height, width), np.uint16)
        probabilities = self._memory(tile.probabilities, (5, height, width), np.float32)
        for strip in self._strips:
            images = (pixels[:, strip.input_start : strip.input_stop].float() - offset) * gain
            images = images.to(self._dtype)[None].contiguous(memory_format=torch.channels_last)
            logits, fine = self._network(images, superresolve=bool(tile.superresolved))
            first, last = strip.output_start - strip.input_start, strip.output_stop - strip.input_start
            probabilities[:, strip.output_start : strip.output_stop] = torch.softmax(
                logits[0, :, first:last].float(), dim=0
            )
            if fine is not None:
                superresolved = self._memory(tile.superresolved, (4, 2 * height, 2 * width), np.float32)
                superresolved[:, 2 * strip.output_start : 2 * strip.output_stop] = fine[0, :, 2 * first : 2 * last]
        return probabilities

    def _read_out(self, tile: DeviceTile, probabilities: Tensor) -> None:
        clusters = self._memory(tile.header + _CLUSTERS_OFFSET, (1,), np.int32)
        # Only the GPU knows the number of clusters, so it reads as many positions as memory has room for.
        room = tile.capacity if self._pool else int(clusters)
        packed = self._memory(tile.positions, (4 * tile.capacity, 2), np.float32)
        order = torch.arange(room, device=self._device)
        channels = torch.arange(4, device=self._device)[:, None]
        places = (channels * clusters + order).clamp_(max=len(packed) - 1)
        # The content of the memory after the last cluster is undefined, so it is replaced by 0.
        positions = torch.where((order < clusters)[:, None], packed[places], 0).nan_to_num_(nan=-2 * OUTSIDE_PX)
        self._memory(tile.centres, (room, 4), np.float32)[:] = centres_at(probabilities[None], positions)

    def _memory(self, address: Address, shape: tuple[int, ...], dtype: type[np.generic]) -> Tensor:
        """The driver's memory as a tensor."""
        view = _View(address, shape, np.dtype(dtype).str)
        return torch.as_tensor(view, device=self._device) if self._pool else torch.from_numpy(np.asarray(view))


@dataclass(frozen=True)
class _View:
    """Memory at an address, in the form that NumPy and PyTorch accept from other libraries."""

    address: Address
    shape: tuple[int, ...]
    typestr: str

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"data": (self.address, False), "shape": self.shape, "typestr": self.typestr, "version": 3}

    __cuda_array_interface__ = __array_interface__
