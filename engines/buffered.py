"""Double buffering on a device: copies to it, computation, and copies to the host run at the same time.

Every slot has its own pinned input, device input, device output and pinned output. Tiles in flight share only
the program's scratch memory, and one compute stream runs the tiles one after the other::

    upload    ──[ tile 1 in ]──[ tile 2 in ]───────────────────────
                      │ uploaded       │
    compute   ────────▼──[ tile 1 ]────▼──[ tile 2 ]───────────────
                               │ computed        │
    download  ─────────────────▼──[ tile 1 out ]─▼──[ tile 2 out ]─
                                          │ downloaded: the host waits for this event of the slot
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engines.contract import Answer, EngineInfo, Request
from engines.devices.driver import Address, Driver, Handle
from engines.errors import EngineError, EngineLostError
from engines.slots import SlottedEngine

HEADER = np.dtype([("offset", np.float32, 4), ("gain", np.float32, 4), ("clusters", np.int32), ("spare", np.int32, 7)])
"""The part of a request that a program reads on the device; 64 bytes."""

FIRST_CAPACITY = 1024
"""Clusters that a new slot has room for; the room doubles when a tile has more."""

POSITION_BYTES = 4 * 2 * 4
"""Bytes of one cluster's y and x in four channels."""

CENTRE_BYTES = 4 * 4
"""Bytes of one cluster's evidence for four bases."""


@dataclass(frozen=True)
class DeviceTile:
    """Where one slot's data lie on the device."""

    header: Address
    """One :data:`HEADER`."""
    pixels: Address
    """(4, H, W) uint16."""
    positions: Address
    """(4, n, 2) float32, n being the header's number of clusters."""
    centres: Address
    """(n, 4) float32."""
    capacity: int
    """Largest number of clusters that the memory has room for."""
    probabilities: Address
    """(5, H, W) float32."""
    superresolved: Address
    """(4, 2H, 2W) float32; 0 where it is not wanted."""


class Program(Protocol):
    """The commands that compute a tile on a device: normalisation, network and read-out."""

    def enqueue(self, tile: DeviceTile, stream: Handle) -> None:
        """Put normalisation, network and read-out of a tile on a stream."""

    def close(self) -> None:
        """Free what the program has on the device."""


@dataclass(eq=False)
class DeviceBuffers:
    """One slot: pinned memory, device memory, and the events that its tile has passed."""

    pixels: NDArray[np.uint16]
    """(4, H, W) a view of ``host["pixels"]``."""
    host: dict[str, NDArray[np.uint8]]
    """Pinned memory by the field of :class:`DeviceTile` that it is copied to or from."""
    device: DeviceTile
    uploaded: Handle
    computed: Handle
    downloaded: Handle
    graphs: dict[DeviceTile, Handle | None] = field(default_factory=dict)
    """Captured computation by the memory that it reads and writes; None where the device cannot capture it."""


class BufferedRunner:
    """A :class:`engines.slots.Runner` on any :class:`Driver`.

    Parameters
    ----------
    shape : (H, W) of the tiles.
    """

    def __init__(self, driver: Driver, program: Program, info: EngineInfo, *, shape: tuple[int, int]) -> None:
        self.info = info
        self._driver, self._program, self._shape = driver, program, shape
        self._upload, self._compute, self._download = driver.stream(), driver.stream(), driver.stream()

    def buffers(self) -> DeviceBuffers:
        driver, size = self._driver, self._shape[0] * self._shape[1]
        sizes = {
            "header": HEADER.itemsize,
            "pixels": 4 * 2 * size,
            "positions": FIRST_CAPACITY * POSITION_BYTES,
            "centres": FIRST_CAPACITY * CENTRE_BYTES,
        }
        host = {name: driver.pinned(bytes_) for name, bytes_ in sizes.items()}
        device = {name: driver.allocate(bytes_) for name, bytes_ in sizes.items()}
        return DeviceBuffers(
            pixels=host["pixels"].view(np.uint16).reshape(4, *self._shape),
            host=host,
            device=DeviceTile(
                **device, capacity=FIRST_CAPACITY, probabilities=driver.allocate(5 * 4 * size), superresolved=0
            ),
            uploaded=driver.event(),
            computed=driver.event(),
            downloaded=driver.event(),
        )

    def start(self, buffers: DeviceBuffers, request: Request) -> None:
        driver, host = self._driver, buffers.host
        clusters = 0 if request.positions is None else request.positions.shape[1]
        self._make_room(buffers, clusters, request)
        tile = buffers.device
        if not request.superresolved:
            tile = replace(tile, superresolved=0)
        header = host["header"].view(HEADER)
        header["offset"], header["gain"], header["clusters"] = request.offset, request.gain, clusters
        if request.positions is not None:
            host["positions"][: clusters * POSITION_BYTES].view(np.float32)[:] = request.positions.ravel()
        try:
            driver.upload(tile.header, host["header"], self._upload)
            driver.upload(tile.positions, host["positions"][: clusters * POSITION_BYTES], self._upload)
            driver.upload(tile.pixels, host["pixels"], self._upload)
            driver.record(buffers.uploaded, self._upload)
            driver.wait_for(buffers.uploaded, self._compute)
            self._run(buffers, tile)
            driver.record(buffers.computed, self._compute)
            driver.wait_for(buffers.computed, self._download)
            driver.download(host["centres"][: clusters * CENTRE_BYTES], tile.centres, self._download)
            if request.probabilities:
                driver.download(host["probabilities"], tile.probabilities, self._download)
            if request.superresolved:
                driver.download(host["superresolved"], tile.superresolved, self._download)
        except BaseException:
            # Work that was put on the streams earlier still uses the slot.
            for event, stream in ((buffers.uploaded, self._upload), (buffers.computed, self._compute)):
                driver.record(event, stream)
                driver.wait_for(event, self._download)
            raise
        finally:
            driver.record(buffers.downloaded, self._download)

    def wait(self, buffers: DeviceBuffers) -> None:
        self._driver.attach()
        try:
            self._driver.synchronize(buffers.downloaded)
        except EngineError as error:
            # After an error on the device itself every later call in this context fails.
            raise EngineLostError(str(error)) from error
        finally:
            self._driver.detach()

    def answer(self, buffers: DeviceBuffers, request: Request) -> Answer:
        height, width = self._shape
        clusters = 0 if request.positions is None else request.positions.shape[1]
        centres = buffers.host["centres"][: clusters * CENTRE_BYTES].view(np.float32).reshape(-1, 4)

        def array(name: str, *shape: int) -> NDArray[np.float32]:
            return buffers.host[name].view(np.float32).reshape(shape).copy()

        return Answer(
            centres=None if request.positions is None else centres.copy(),
            probabilities=array("probabilities", 5, height, width) if request.probabilities else None,
            superresolved=array("superresolved", 4, 2 * height, 2 * width) if request.superresolved else None,
        )

    def close(self) -> None:
        try:
            self._program.close()
        finally:
            self._driver.close()

    def _run(self, buffers: DeviceBuffers, tile: DeviceTile) -> None:
        """Compute, with a captured graph where the device can capture one; the first tile uses the graph too, so that
        the golden tile checks it.
        """
        driver, stream = self._driver, self._compute
        if tile not in buffers.graphs:
            # The first computation loads and chooses kernels, which a capture cannot do.
            self._program.enqueue(tile, stream)
            buffers.graphs[tile] = driver.capture(stream, lambda: self._program.enqueue(tile, stream))
            if buffers.graphs[tile] is None:
                return
            # The outputs still hold the answer of the first computation. They are cleared, because a faulty graph that
            # does not compute a part would otherwise return that answer.
            for address, bytes_ in self._outputs(tile):
                driver.clear(address, bytes_, stream)
        graph = buffers.graphs[tile]
        if graph is None:
            self._program.enqueue(tile, stream)
        else:
            driver.replay(graph, stream)

    def _outputs(self, tile: DeviceTile) -> list[tuple[Address, int]]:
        """Where a tile's answer lies on the device, and its bytes."""
        size = self._shape[0] * self._shape[1]
        outputs = [(tile.centres, tile.capacity * CENTRE_BYTES), (tile.probabilities, 5 * 4 * size)]
        return outputs + ([(tile.superresolved, 4 * 4 * 4 * size)] if tile.superresolved else [])

    def _make_room(self, buffers: DeviceBuffers, clusters: int, request: Request) -> None:
        """Enlarge the buffers that are too small for a request; the slot must not be in flight."""
        driver, host = self._driver, buffers.host
        size = self._shape[0] * self._shape[1]
        if request.probabilities and "probabilities" not in host:
            host["probabilities"] = driver.pinned(5 * 4 * size)
        if request.superresolved and "superresolved" not in host:
            if not buffers.device.superresolved:
                buffers.device = replace(buffers.device, superresolved=driver.allocate(4 * 4 * 4 * size))
            host["superresolved"] = driver.pinned(4 * 4 * 4 * size)
        if clusters <= buffers.device.capacity:
            return
        capacity = max(clusters, 2 * buffers.device.capacity)
        for name, bytes_ in (("positions", POSITION_BYTES), ("centres", CENTRE_BYTES)):
            # The old memory is freed after the new is allocated, so a device without room fails only this tile.
            address, memory = driver.allocate(capacity * bytes_), driver.pinned(capacity * bytes_)
            driver.free(getattr(buffers.device, name))
            driver.unpin(host[name])
            buffers.device, host[name] = replace(buffers.device, **{name: address}), memory
        buffers.device = replace(buffers.device, capacity=capacity)
        buffers.graphs.clear()


def open_buffered(
    name: str, open_driver: Callable[[], Driver], open_runner: Callable[[Driver], BufferedRunner], *, slots: int
) -> SlottedEngine[DeviceBuffers]:
    """Open an engine on its own driver; the driver is closed again where the runner cannot be opened.

    Raises
    ------
    EngineError : from the driver or the runner.
    """

    def open_with_driver() -> BufferedRunner:
        driver = open_driver()
        try:
            return open_runner(driver)
        except BaseException as error:
            _release_frames(error)
            driver.close()
            raise

    return SlottedEngine(name, open_with_driver, slots=slots)


def _release_frames(error: BaseException | None) -> None:
    """Release the objects that the error's frames hold, so that they free device memory before the device is closed."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
