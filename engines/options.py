"""How an engine is opened."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineOptions:
    """Settings that every backend understands."""

    precision: str = "auto"
    """``auto`` (the best the device computes natively), ``f32``, ``bf16``, ``f16``, or ``int8`` with the bundle's
    quantised network."""
    threads: int = 0
    """Processor threads; 0 leaves it to the device."""
    slots: int = 2
    """Tiles in the engine at once: one computing, the others being filled or read."""
    strip_px: int = 0
    """Pixels of a strip that a larger tile is cut into; 0 leaves it to the backend."""
    gpu: bool | None = None
    """Whether it must run on a GPU, or must not; None leaves it to the backend."""
