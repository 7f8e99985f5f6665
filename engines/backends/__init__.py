"""The devices an engine can run on, and the choice between them."""

from dataclasses import dataclass

from engines.backends.openvino import OpenVinoEngine
from engines.bundle import Bundle
from engines.contract import Engine


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is opened."""

    precision: str = "auto"
    """``auto`` (the best the device computes natively), ``f32``, ``bf16`` or ``f16``."""
    threads: int = 0
    """Processor threads; 0 leaves it to the device."""
    slots: int = 2
    """Tiles in the engine at once: one computing, the others being filled or read."""
    strip_px: int = 768 * 768
    """Pixels of a strip that a larger tile is cut into."""


def open_engine(bundle: Bundle, *, shape: tuple[int, int], options: EngineOptions) -> Engine:
    """Open the embedded engine for tiles of one shape (height, width)."""
    return OpenVinoEngine(
        bundle,
        shape=shape,
        precision=options.precision,
        threads=options.threads,
        slots=options.slots,
        strip_px=options.strip_px,
    )
