"""The engine contract: lease a slot, fill it, submit it, collect the answer.

::

    slot = engine.lease(timeout_s=30)      # waits for a free slot
    slot.pixels[...] = frames              # (4, H, W) uint16, straight from the camera
    engine.submit(slot, Request(...))      # returns at once
    ...                                    # fill the next slot while this one computes
    answer = engine.collect(slot, timeout_s=30)   # waits, and frees the slot

A slot belongs to the caller from ``lease`` to ``submit`` and to the engine from ``submit`` to
``collect``. Several threads may share an engine.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Request:
    """What to compute from a tile image."""

    offset: NDArray[np.float32]
    """(4,) counts of each channel that are background."""
    gain: NDArray[np.float32]
    """(4,) normalised units per count; the network sees ``(pixels - offset) * gain``."""
    positions: NDArray[np.float32] | None = None
    """(4, n, 2) y and x where each channel's image shows each cluster, pixels."""
    probabilities: bool = False
    """Whether the probability map is wanted."""
    superresolved: bool = False
    """Whether the super-resolved images are wanted."""


@dataclass(frozen=True)
class Answer:
    """The results that a request asked for; the fields of all other results are None."""

    centres: NDArray[np.float32] | None
    """(n, 4) evidence that each position is a centre of each base, 0-1; see :mod:`engines.network.centres`."""
    probabilities: NDArray[np.float32] | None
    """(5, H, W) background, A, C, G, T; sums to 1 over the classes."""
    superresolved: NDArray[np.float32] | None
    """(4, 2H, 2W) normalised units."""


@dataclass(frozen=True)
class EngineInfo:
    """The device, software and model that an engine uses."""

    backend: str
    device: str
    gpu: bool
    software: str
    """Library and version that compute; another version may give answers that differ in the last bits."""
    precision: str
    """Precision the network computes in."""
    model: str
    model_hash: str
    slots: int
    strips: int
    """Strips a tile is cut into."""


class Slot(Protocol):
    """A place for one tile image."""

    @property
    def pixels(self) -> NDArray[np.uint16]:
        """(4, H, W) to fill before :meth:`Engine.submit`."""


class Engine(Protocol):
    """A network on a device, for tiles of one shape."""

    @property
    def info(self) -> EngineInfo:
        """The device, software and model that the engine uses."""

    @property
    def busy_s(self) -> float:
        """Seconds in which the engine had a tile to compute, since it was opened."""

    def lease(self, timeout_s: float) -> Slot:
        """A free slot.

        Raises :class:`EngineError` when none came free in time, :class:`EngineLostError` when the device is gone.
        """

    def submit(self, slot: Slot, request: Request) -> None:
        """Start computing a leased slot; raises :class:`EngineLostError` when the device is gone."""

    def collect(self, slot: Slot, timeout_s: float) -> Answer:
        """Wait for a submitted slot and free it.

        Raises :class:`EngineError` when the computation failed or took too long; the engine can
        then be used for the next tile. Raises :class:`EngineLostError` when the device is gone; the
        engine can then only be closed.
        """

    def close(self) -> None:
        """Release the device; a later call of any other method raises :class:`EngineError`."""


@dataclass(frozen=True)
class EngineOptions:
    """Settings that every backend understands."""

    precision: str = "auto"
    """``auto`` (the best the device computes natively), ``f32``, ``bf16``, ``f16``, or ``int8`` with the bundle's
    quantised network."""
    threads: int = 0
    """Processor threads; 0 lets the backend decide."""
    slots: int = 2
    """Tiles in the engine at once: one computing, the others being filled or read."""
    strip_px: int = 0
    """Pixels of a strip that a larger tile is cut into; 0 lets the backend decide."""
    gpu: bool | None = None
    """True: the engine must run on a GPU. False: it must not. None: the backend decides."""
