"""The module launches the kernels that prepare a network's input and process its output.

They normalise the images, join strips and read centres.
"""

import numpy as np

from engines.buffered import DeviceTile
from engines.devices.driver import Address, Driver, Handle
from engines.kernels import ptx
from engines.strips import Strip

THREADS = 256


class KernelLauncher:
    """The kernels of ``normalise.cu``, ``strips.cu`` and ``readout.cu`` for tiles of one shape (H, W)."""

    def __init__(self, driver: Driver, *, shape: tuple[int, int]) -> None:
        self._driver, self._shape = driver, shape
        (self._normalise,) = driver.kernels(ptx("normalise"), ["normalise"]).values()
        (self._keep_rows,) = driver.kernels(ptx("strips"), ["keep_rows"]).values()
        (self._read_out,) = driver.kernels(ptx("readout"), ["read_out"]).values()

    def normalise(self, tile: DeviceTile, strip: Strip, images: Address, stream: Handle) -> None:
        """Normalise a strip of a tile's pixels into ``images``, (1, 4, rows, W) float16."""
        height, width = self._shape
        rows = strip.input_stop - strip.input_start
        self._driver.launch(
            self._normalise,
            grid=(-(-rows * width // THREADS), 4, 1),
            block=THREADS,
            arguments=(
                tile.header,
                tile.pixels,
                images,
                np.int32(height),
                np.int32(width),
                np.int32(strip.input_start),
                np.int32(rows),
            ),
            stream=stream,
        )

    def copy_kept_rows(
        self, source: Address, target: Address, strip: Strip, stream: Handle, *, planes: int, scale: int = 1
    ) -> None:
        """Copy the kept rows of a strip's map, (planes, rows, W) float32, into the tile's map, (planes, H, W).

        Parameters
        ----------
        scale : pixels of both maps per pixel of the tile along an axis; 2 for super-resolved images.
        """
        height, width = self._shape
        kept = scale * (strip.output_stop - strip.output_start)
        self._driver.launch(
            self._keep_rows,
            grid=(-(-kept * scale * width // THREADS), planes, 1),
            block=THREADS,
            arguments=(
                source,
                target,
                np.int32(scale * (strip.input_stop - strip.input_start)),
                np.int32(scale * height),
                np.int32(scale * width),
                np.int32(scale * (strip.output_start - strip.input_start)),
                np.int32(scale * strip.output_start),
                np.int32(kept),
            ),
            stream=stream,
        )

    def read_out(self, tile: DeviceTile, stream: Handle) -> None:
        """Read a tile's probabilities at its positions, as :func:`engines.network.centres.read_centres` does."""
        height, width = self._shape
        self._driver.launch(
            self._read_out,
            grid=(-(-4 * tile.capacity // THREADS), 1, 1),
            block=THREADS,
            arguments=(
                tile.header,
                tile.probabilities,
                tile.positions,
                tile.centres,
                np.int32(height),
                np.int32(width),
            ),
            stream=stream,
        )
