"""The golden tile: an image whose answer is known, for a comparison with the answer of an engine.

A bundle's ``golden.npz`` holds a small crowded tile and the network's answer in PyTorch, in FP32.
An engine takes tiles of one shape only, so copies of the golden tile are laid side by side until they fill that
shape. Close to the edge of a copy the network sees the next copy and gives another answer. Positions closer to
such an edge than the network's halo are therefore not compared.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.bundles.bundle import Bundle
from engines.contract import Engine, Request
from engines.errors import EngineError, WrongAnswerError
from engines.network.centres import TAPS

TIMEOUT_S = 300.0
"""Limit of the one tile that is computed; the first tile may wait until kernels are compiled."""

CLEAR_LEAD = 0.3
"""A cluster is clear if the evidence for its strongest base exceeds that for the second by at least this much."""


@dataclass(frozen=True)
class GoldenTile:
    """A tile image and the positions of its clusters."""

    pixels: NDArray[np.uint16]
    """(4, H, W)."""
    offset: NDArray[np.float32]
    """(4,) counts of each channel that are background."""
    gain: NDArray[np.float32]
    """(4,) normalised units a count."""
    positions: NDArray[np.float32]
    """(4, n, 2) y and x of every cluster in each channel's image. They are whole multiples of 1/256 px, so
    that adding whole pixels causes no rounding. Some lie on the border of the image or outside it."""

    @property
    def images(self) -> NDArray[np.float32]:
        """(1, 4, H, W) normalised units."""
        return ((self.pixels - self.offset[:, None, None]) * self.gain[:, None, None])[None]


@dataclass(frozen=True)
class Golden:
    """A golden tile and the network's answer, in FP32 arithmetic."""

    tile: GoldenTile
    centres: NDArray[np.float32]
    """(n, 4) evidence at the positions, as :func:`engines.network.centres.read_centres` reads it."""
    probabilities: NDArray[np.float16]
    """(5, H, W), for users of a graph without positions."""


@dataclass(frozen=True)
class Bound:
    """How far an engine may be from the golden answer."""

    difference: float
    """Largest accepted root of the mean squared difference of the evidence."""
    agreement: float
    """Smallest accepted share of the clear clusters whose strongest base is the same."""


BOUNDS = {
    "f32": Bound(difference=2e-4, agreement=1.0),
    "f16": Bound(difference=1e-3, agreement=1.0),
    "bf16": Bound(difference=5e-3, agreement=1.0),
    "int8": Bound(difference=2e-2, agreement=0.99),
}
"""Bounds by precision. Most are about four times the difference that was measured for the default bundle: 8e-8 in FP32,
5e-5 in FP32 with images in FP16, 9e-5 in FP16, 1.1e-3 in BF16, 3.5e-3 and 4.7e-3 in two kinds of INT8. All clear bases
agreed. The bound of FP32 is for images in FP16 too; that of FP16 is eleven times the difference, because engines that
also add in FP16 are less exact."""


@dataclass(frozen=True)
class GoldenResult:
    """Result of comparing an engine's answer with the golden answer."""

    positions: int
    """Positions compared."""
    clear: int
    """Clear clusters among them; 0 where the engine's tiles are hardly larger than the network's halo; the check then
    proves nothing."""
    difference: float
    """Root of the mean squared difference of the evidence."""
    agreement: float
    """Share of the clear clusters whose strongest base is the same."""


def write_golden(path: Path, golden: Golden) -> None:
    """Write ``golden.npz``."""
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            pixels=golden.tile.pixels,
            offset=golden.tile.offset,
            gain=golden.tile.gain,
            positions=golden.tile.positions,
            centres=golden.centres,
            probabilities=golden.probabilities,
        )


def load_golden(bundle: Bundle) -> Golden:
    """The golden tile of a verified bundle."""
    with np.load(bundle.golden) as arrays:
        tile = GoldenTile(arrays["pixels"], arrays["offset"], arrays["gain"], arrays["positions"])
        return Golden(tile, arrays["centres"], arrays["probabilities"])


def check_golden(engine: Engine, bundle: Bundle) -> GoldenResult:
    """Compute one tile with an engine and compare its answer with the bundle's golden one.

    Parameters
    ----------
    engine : an open engine with a free slot.

    Raises
    ------
    WrongAnswerError : the answer is farther from the golden one than the bound of the engine's precision.
    EngineError : the engine failed, or its precision has no bound.
    """
    golden, info = load_golden(bundle), engine.info
    name = f"engine {info.backend} on {info.device} in {info.precision}"
    if info.precision not in BOUNDS:
        raise EngineError(f"{name}: the golden tile can be checked only for {', '.join(BOUNDS)}")
    bound = BOUNDS[info.precision]
    slot = engine.lease(TIMEOUT_S)
    shape = slot.pixels.shape[1], slot.pixels.shape[2]
    positions, expected = _known(golden, shape, bundle.model.architecture.halo)
    rows, columns = (np.arange(size) % edge for size, edge in zip(shape, golden.tile.pixels.shape[1:], strict=True))
    slot.pixels[...] = golden.tile.pixels[:, rows[:, None], columns]
    engine.submit(slot, Request(golden.tile.offset, golden.tile.gain, positions=positions))
    found = engine.collect(slot, TIMEOUT_S).centres
    assert found is not None
    result = _compared(found, expected)
    # A comparison with NaN is false, so an answer that is not a number is refused too.
    if not result.difference <= bound.difference:
        raise WrongAnswerError(
            f"{name}: evidence on the golden tile of model {info.model} is off by {result.difference:.2g} "
            f"(root mean square of {result.positions} positions), at most {bound.difference:g} is allowed"
        )
    if not result.agreement >= bound.agreement:
        raise WrongAnswerError(
            f"{name}: brightest base on the golden tile of model {info.model} agrees at {result.agreement:.2%} "
            f"of {result.clear} clear clusters, at least {bound.agreement:.0%} is needed"
        )
    return result


def _known(golden: Golden, shape: tuple[int, int], halo: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Positions in a tile of copies at which the golden answer is valid, (4, m, 2), and the answer there, (m, 4)."""
    edges = golden.tile.pixels.shape[1:]
    reach = halo + max(TAPS)
    positions, expected = [], []
    for corner in product(*(range(0, size, edge) for size, edge in zip(shape, edges, strict=True))):
        known = np.ones(len(golden.centres), bool)
        for axis in (0, 1):
            along = golden.tile.positions[..., axis]
            # If an edge of a copy is also an edge of the engine's tile, the network's answer near it is the golden one.
            if corner[axis] > 0:
                known &= (along >= reach).all(axis=0)
            if corner[axis] + edges[axis] != shape[axis]:
                stop = min(edges[axis], shape[axis] - corner[axis])
                known &= (along < stop - reach).all(axis=0)
        positions.append(golden.tile.positions[:, known] + np.array(corner, np.float32))
        expected.append(golden.centres[known])
    return np.concatenate(positions, axis=1), np.concatenate(expected)


def _compared(found: NDArray[np.float32], expected: NDArray[np.float32]) -> GoldenResult:
    if not len(expected):
        return GoldenResult(positions=0, clear=0, difference=0.0, agreement=1.0)
    ordered = np.sort(expected, axis=1)
    clear = ordered[:, 3] - ordered[:, 2] > CLEAR_LEAD
    same = np.argmax(found[clear], axis=1) == np.argmax(expected[clear], axis=1)
    return GoldenResult(
        positions=len(expected),
        clear=int(clear.sum()),
        difference=float(np.sqrt(np.mean((found - expected) ** 2))),
        agreement=float(same.mean()) if clear.any() else 1.0,
    )
