"""Launching the network's kernels, strip by strip."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.architecture import Architecture
from engines.buffered import DeviceTile
from engines.devices.driver import Address, Driver, Handle
from engines.hopper.packing import Convolution, Weights, pack
from engines.kernels.around import AroundNetwork
from engines.strips import Strip

KERNELS = Path(__file__).parent.parent / "kernels" / "hopper.cubin"

BORDER_Y, BORDER_X, RIGHT_BORDER_X = 6, 8, 72
PIXEL_BYTES = 16
"""Of a plane: eight channels of two bytes."""

WIDE_COLUMNS, WIDE_LEAD, WIDE_THREADS = 64, 2, 288
"""Columns that a block of a convolution walks down, rows' worth of time before its first row, and its threads."""

TAIL_COLUMNS, TAIL_LEAD, TAIL_THREADS = 56, 12, 416

ROWS_HELD = 5
"""Of a convolution's input, in shared memory."""

ROW_BYTES = (WIDE_COLUMNS + 2) * PIXEL_BYTES
"""Of eight channels of a row in shared memory."""

TAIL_SHARED = 9 * 512 * 15 + 52 * 2 * ROW_BYTES + 8 * 33
"""Weights of five layers, rows of their inputs and barriers; bytes."""

_Into = tuple[int | np.generic, ...]
"""Where a convolution puts its sums: a kernel's last arguments."""

_NAMES = ("normalise", "stem", "wide_first", "wide", "tail", "hidden", "call", "upsample", "reconstruct")


@dataclass(frozen=True)
class _Planes:
    """Activations in device memory, eight channels a plane, with borders of zeros."""

    address: Address
    rows: np.int32
    columns: np.int32


@dataclass(frozen=True)
class _Constants:
    """A convolution's weights and biases in device memory."""

    weights: Address
    bias: Address
    shared: int
    """Shared memory that a launch needs, bytes."""


class HopperProgram:
    """A :class:`engines.buffered.Program` of kernels of our own. No GPU has run them yet, an emulated one has.

    Parameters
    ----------
    weights : of an architecture that :func:`engines.hopper.packing.fits`.
    shape : (H, W) of the tiles.
    strips : of equal height; one strip's activations are in device memory at a time.
    """

    def __init__(
        self,
        driver: Driver,
        architecture: Architecture,
        weights: Weights,
        *,
        shape: tuple[int, int],
        strips: list[Strip],
    ) -> None:
        self._driver, self._shape, self._strips = driver, shape, strips
        self._kernels = driver.kernels(KERNELS.read_bytes(), _NAMES)
        self._around = AroundNetwork(driver, shape=shape)
        self._copies = driver.stream()
        self._height, self._width = strips[0].stop - strips[0].start, shape[1]
        packed = pack(architecture, weights)
        self._stem = self._constants(packed.stem, planes=1)
        self._blocks = [(self._constants(block.wide), self._uploaded(block.tail)) for block in packed.blocks]
        self._hidden, self._call = self._constants(packed.hidden), self._constants(packed.call)
        self._upsample = [self._constants(phase) for phase in packed.upsample]
        self._reconstruct = self._constants(packed.reconstruct)
        self._pixels, self._sums = self._planes(1), self._planes(10)
        self._features = (self._planes(12), self._planes(12))
        self._fine: _Planes | None = None

    def enqueue(self, tile: DeviceTile, stream: Handle) -> None:
        for strip in self._strips:
            self._call_bases(tile, strip, stream)
            if tile.superresolved:
                self._superresolve(tile, strip, stream)
        self._around.read_out(tile, stream)

    def close(self) -> None:
        """The driver frees everything."""

    def _call_bases(self, tile: DeviceTile, strip: Strip, stream: Handle) -> None:
        height, width = np.int32(self._height), np.int32(self._width)
        self._driver.launch(
            self._kernels["normalise"],
            grid=(-(-self._width // 256), self._height, 1),
            block=256,
            arguments=(
                tile.header,
                tile.pixels,
                np.int32(self._shape[0]),
                width,
                np.int32(strip.start),
                self._pixels.address,
                self._pixels.rows,
                self._pixels.columns,
            ),
            stream=stream,
        )
        inputs, outputs = self._features
        into: _Into = (inputs.address, 0, np.int32(8), width)
        self._convolve("stem", self._pixels, self._stem, into, (0, self._height), stream)
        for index, (wide, tail) in enumerate(self._blocks):
            into = (outputs.address, self._sums.address, np.int32(2), width)
            self._convolve("wide" if index else "wide_first", inputs, wide, into, (0, self._height), stream)
            rows, grid = self._spread(self._height, -(-self._width // TAIL_COLUMNS), TAIL_LEAD)
            self._driver.launch(
                self._kernels["tail"],
                grid=grid,
                block=TAIL_THREADS,
                arguments=(
                    outputs.address,
                    self._sums.address,
                    outputs.rows,
                    outputs.columns,
                    tail,
                    height,
                    width,
                    np.int32(rows),
                ),
                stream=stream,
                shared=TAIL_SHARED,
            )
            inputs, outputs = outputs, inputs
        self._last = inputs
        into = (self._sums.address, 0, np.int32(8), width)
        self._convolve("hidden", inputs, self._hidden, into, (0, self._height), stream)
        plane = np.int64(self._shape[0] * self._shape[1])
        kept = (strip.first - strip.start, strip.last - strip.start)
        shift = np.int32(strip.start)
        self._convolve("call", self._sums, self._call, (tile.probabilities, plane, width, shift), kept, stream)

    def _superresolve(self, tile: DeviceTile, strip: Strip, stream: Handle) -> None:
        if self._fine is None:
            self._fine = self._planes(8, scale=2)
        fine, width = self._fine, np.int32(self._width)
        for phase, constants in enumerate(self._upsample):
            finer = (fine.address, fine.rows, fine.columns, width, np.int32(phase // 2), np.int32(phase % 2))
            self._convolve("upsample", self._last, constants, finer, (0, self._height), stream)
        plane = np.int64(4 * self._shape[0] * self._shape[1])
        into = (tile.superresolved, plane, np.int32(2 * self._width), np.int32(2 * strip.start))
        kept = (2 * (strip.first - strip.start), 2 * (strip.last - strip.start))
        self._convolve("reconstruct", fine, self._reconstruct, into, kept, stream)

    def _convolve(
        self,
        name: str,
        inputs: _Planes,
        constants: _Constants,
        into: _Into,
        kept: tuple[int, int],
        stream: Handle,
    ) -> None:
        """Launch a convolution for rows ``kept`` of a strip."""
        first, last = kept
        scale = 2 if inputs is self._fine else 1
        rows, grid = self._spread(last - first, -(-scale * self._width // WIDE_COLUMNS), WIDE_LEAD)
        self._driver.launch(
            self._kernels[name],
            grid=grid,
            block=WIDE_THREADS,
            arguments=(
                inputs.address,
                inputs.rows,
                inputs.columns,
                constants.weights,
                constants.bias,
                np.int32(first),
                np.int32(last),
                np.int32(rows),
                *into,
            ),
            stream=stream,
            shared=constants.shared,
        )

    def _spread(self, height: int, strips: int, lead: int) -> tuple[int, tuple[int, int, int]]:
        """Rows of a block, and the grid: whichever ends first with a block on every multiprocessor."""
        fewest, best = None, 1
        for segments in range(1, max(2, height // 16)):
            rounds = -(-strips * segments // self._driver.info.multiprocessors)
            cost = rounds * (-(-height // segments) + lead)
            if fewest is None or cost < fewest:
                fewest, best = cost, segments
        rows = -(-height // best)
        return rows, (strips, -(-height // rows), 1)

    def _constants(self, convolution: Convolution, planes: int | None = None) -> _Constants:
        """``planes`` of input, where they are fewer than the weights are filled up to."""
        _, steps, cores, sums, _ = convolution.weights.shape
        ring = ROWS_HELD * (planes or steps * cores) * ROW_BYTES
        return _Constants(
            weights=self._uploaded(convolution.weights),
            bias=self._uploaded(convolution.bias),
            shared=convolution.weights.nbytes + ring + 16 * ROWS_HELD + 16 + 4 * sums,
        )

    def _uploaded(self, array: NDArray[np.generic]) -> Address:
        """A copy in device memory."""
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        host, address, done = self._driver.pinned(flat.size), self._driver.allocate(flat.size), self._driver.event()
        host[:] = flat
        self._driver.upload(address, host, self._copies)
        self._driver.record(done, self._copies)
        self._driver.synchronize(done)
        self._driver.unpin(host)
        return address

    def _planes(self, number: int, scale: int = 1) -> _Planes:
        rows = scale * self._height + 2 * BORDER_Y
        columns = -(-(scale * self._width + BORDER_X + RIGHT_BORDER_X) // 8) * 8
        size = number * rows * columns * PIXEL_BYTES
        address, done = self._driver.allocate(size), self._driver.event()
        self._driver.clear(address, size, self._copies)
        self._driver.record(done, self._copies)
        self._driver.synchronize(done)
        return _Planes(address, np.int32(rows), np.int32(columns))
